"""The layers of the published equivariant fully connected network (E-FNN).

Y. Fan and G.-W. Chern, "Equivariant Neural Networks for Force-Field Models of Lattice Systems",
arXiv:2601.04104, and their public code: the irreps of a neighbourhood, then layers that append the
products of all pairs of copies, mix copies irrep by irrep, and squash.

Values are one tensor ``[copies, dim, S]`` for each irrep, the sites last. The published network is
for D4; this one works for any point group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.groups import FiniteGroup

#: Copies of each irrep.
Copies = Mapping[str, int]

NONLINEARITIES = ("sign_sigmoid", "smooth")
_TOLERANCE = 1e-9


class Expansion(NamedTuple):
    """One kind of product.

    Attributes:
        first: Irrep of the first factor.
        second: Irrep of the second factor.
        target: Irrep of the product.
        terms: ``(k, i, j, coefficient)``: component k of the product from components i and j. The
            largest coefficient is 1.
        diagonal: Whether a copy may be multiplied with itself; None for two different irreps.
    """

    first: str
    second: str
    target: str
    terms: tuple[tuple[int, int, int, float], ...]
    diagonal: bool | None


def expansions(group: FiniteGroup, copies: Copies, squares: bool) -> tuple[Expansion, ...]:
    """All products of pairs of copies, by irreps.

    Args:
        group: The site group.
        copies: What there is to multiply.
        squares: Whether copies are multiplied with themselves, where that does not vanish; the
            published network leaves it out.
    """
    names = [name for name in group.irreps if copies.get(name)]
    found = []
    for number, a in enumerate(names):
        for b in names[number:]:
            for c in group.irreps:
                for copy in group.clebsch_gordan(a, b, c):
                    copy = copy / np.abs(copy).max()
                    terms = tuple(
                        (k, i, j, float(copy[k, i, j]))
                        for k, i, j in np.argwhere(np.abs(copy) > _TOLERANCE).tolist()
                    )
                    diagonal = None
                    if a == b:
                        even = float(np.abs(copy + copy.transpose(0, 2, 1)).max()) > _TOLERANCE
                        diagonal = squares and even
                    found.append(Expansion(a, b, c, terms, diagonal))
    return tuple(found)


def pair_count(expansion: Expansion, copies: Copies) -> int:
    """Number of pairs of copies that a product is taken of."""
    n = copies[expansion.first]
    if expansion.diagonal is None:
        return n * copies[expansion.second]
    return n * (n + 1) // 2 if expansion.diagonal else n * (n - 1) // 2


class ExpandedLayer(nn.Module):
    """Append products, mix the copies of each irrep, squash.

    Args:
        group: The site group.
        into: Copies that go in.
        out: Copies that come out; irreps that no product reaches are left out.
        nonlinearity: ``"sign_sigmoid"`` for the published one, which jumps at zero,
            v → v/|v| · sigmoid(|v| + b); ``"smooth"`` for silu(v + b) on the trivial irrep and
            v · sigmoid(|v|² + b) / √(1 + |v|²) on the others; None on the last layer, where b is
            added to the trivial irrep.
        squares: Whether copies are multiplied with themselves.
        constant: Whether the last layer adds a constant to the trivial irrep.

    Attributes:
        widths: Numbers per irrep after the products are appended.
    """

    def __init__(
        self,
        group: FiniteGroup,
        into: Copies,
        out: Copies,
        nonlinearity: str | None,
        squares: bool = False,
        constant: bool = True,
    ) -> None:
        super().__init__()
        if nonlinearity is not None and nonlinearity not in NONLINEARITIES:
            raise unknown("nonlinearity", nonlinearity, NONLINEARITIES)
        self.trivial, self.nonlinearity = group.trivial, nonlinearity
        self.into = {name: n for name, n in into.items() if n}
        self.out = {name: n for name, n in out.items() if n}
        self.expansions = [e for e in expansions(group, self.into, squares) if e.target in self.out]
        self.widths = {
            name: self.into.get(name, 0)
            + sum(pair_count(e, self.into) for e in self.expansions if e.target == name)
            for name in self.out
        }
        missing = [name for name, width in self.widths.items() if not width]
        if missing and nonlinearity is None:
            raise InputError(
                f"no product of {', '.join(self.into)} has a part of type {missing[0]} in "
                f"{group.name}."
            )
        for name in missing:
            del self.out[name], self.widths[name]
        self.expansions = [e for e in self.expansions if e.target in self.out]
        self._by_first = [self._order(expansion) for expansion in self.expansions]
        self.weights, self.biases = nn.ParameterDict(), nn.ParameterDict()
        for name, width in self.widths.items():
            # Xavier's rule, as in the authors' code. The smooth form, linear for small values,
            # needs its inputs of order one.
            bound = math.sqrt(6 / (width + self.out[name]))
            if nonlinearity == "smooth":
                bound = 2 * math.sqrt(3 / width)
            weight = torch.empty(self.out[name], width).uniform_(-bound, bound)
            self.weights[name] = nn.Parameter(weight)
            if nonlinearity is not None or (name == group.trivial and constant):
                bias = torch.empty(self.out[name]).uniform_(-1, 1) / math.sqrt(width)
                self.biases[name + "_bias"] = nn.Parameter(bias)
        for name, n in self.into.items():
            for offset in (0, 1):
                pairs = torch.triu_indices(n, n, offset)
                self.register_buffer(f"_pairs_{name}_{offset}", pairs, persistent=False)

    def _order(self, expansion: Expansion) -> bool | None:
        """Whether the weights meet the first factor first; None where pairs are fewer numbers."""
        dims = [1 + max(term[place] for term in expansion.terms) for place in range(3)]
        pairs = pair_count(expansion, self.into) * dims[0]
        out = self.out[expansion.target]
        first = out * self.into[expansion.second] * dims[1]
        second = out * self.into[expansion.first] * dims[2]
        if min(first, second) >= pairs:
            return None
        return first <= second

    def filters(self) -> list[Tensor | None]:
        """What the map of each irrep is made of, computed once for many pieces of the lattice."""
        found = []
        starts = {name: self.into.get(name, 0) for name in self.out}
        listed = {
            name: [self.weights[name][:, :start]] for name, start in starts.items() if start
        } | {name: [] for name, start in starts.items() if not start}
        contracted = []
        for expansion, by_first in zip(self.expansions, self._by_first, strict=True):
            name, count = expansion.target, pair_count(expansion, self.into)
            weight = self.weights[name][:, starts[name] : starts[name] + count]
            starts[name] += count
            if by_first is None:
                listed[name].append(weight)
            else:
                contracted.append(self._square(expansion, weight, by_first))
        for name in self.out:
            parts = listed[name]
            found.append(torch.cat(parts, dim=1) if parts else None)
        return [*found, *contracted]

    def _square(self, expansion: Expansion, weight: Tensor, by_first: bool) -> Tensor:
        """Weights of all pairs as ``[out · n, m]``, m the copies of the factor contracted first."""
        n, m = self.into[expansion.first], self.into[expansion.second]
        if expansion.diagonal is not None:
            pairs = self.get_buffer(f"_pairs_{expansion.first}_{int(not expansion.diagonal)}")
            weight = weight.new_zeros(len(weight), n * n).index_copy(
                1, pairs[0] * n + pairs[1], weight
            )
        split = weight.unflatten(1, (n, m))
        return (split.transpose(1, 2) if by_first else split).flatten(0, 1)

    def forward(
        self, values: Mapping[str, Tensor], filters: Sequence[Tensor | None] | None = None
    ) -> dict[str, Tensor]:
        """Apply the layer to tensors ``[copies, dim, S]``.

        Args:
            values: Copies of each irrep.
            filters: As :meth:`filters` gives them, for many pieces; made here when None.
        """
        if filters is None:
            filters = self.filters()
        expanded: dict[str, list[Tensor]] = {name: [] for name in self.out}
        for name, value in values.items():
            if name in expanded:
                expanded[name].append(value)
        contracted = iter(filters[len(self.out) :])
        totals: dict[str, list[Tensor]] = {name: [] for name in self.out}
        for expansion, by_first in zip(self.expansions, self._by_first, strict=True):
            if by_first is None:
                expanded[expansion.target].append(self._product(expansion, values))
                continue
            matrix = next(contracted)
            assert matrix is not None
            totals[expansion.target].append(self._contracted(expansion, values, matrix, by_first))
        result = {}
        for (name, parts), weight in zip(expanded.items(), filters, strict=False):
            if weight is not None:
                joined = parts[0] if len(parts) == 1 else torch.cat(parts)
                mixed = (weight @ joined.flatten(1)).view(-1, *joined.shape[1:])
                totals[name].append(mixed)
            total = totals[name][0]
            for part in totals[name][1:]:
                total = total + part
            result[name] = self._squash(name, total)
        return result

    def _contracted(
        self, expansion: Expansion, values: Mapping[str, Tensor], matrix: Tensor, by_first: bool
    ) -> Tensor:
        """Products already mixed: the weights meet one factor before the other.

        Where a few copies come out of many pairs, this makes numbers for every copy of one factor
        in place of every pair.
        """
        names = expansion.first, expansion.second
        near, far = (values[name] for name in (names if by_first else names[::-1]))
        sites = near.shape[-1]
        halves = (matrix @ near.flatten(1)).view(-1, len(far), near.shape[1], sites).unbind(2)
        others = far.unbind(1)
        dim = 1 + max(k for k, _, _, _ in expansion.terms)
        components: list[Tensor | None] = [None] * dim
        for k, i, j, coefficient in expansion.terms:
            one, other = (i, j) if by_first else (j, i)
            term = (halves[one] * others[other]).sum(1)
            if coefficient != 1:
                term = coefficient * term
            total = components[k]
            components[k] = term if total is None else total + term
        return torch.stack([c for c in components if c is not None], dim=1)

    def _product(self, expansion: Expansion, values: Mapping[str, Tensor]) -> Tensor:
        first, second = values[expansion.first], values[expansion.second]
        if expansion.diagonal is None:
            first, second = first[:, None], second[None]
        else:
            pairs = self.get_buffer(f"_pairs_{expansion.first}_{int(not expansion.diagonal)}")
            first, second = first.index_select(0, pairs[0]), second.index_select(0, pairs[1])
        firsts, seconds = first.unbind(-2), second.unbind(-2)
        dim = 1 + max(k for k, _, _, _ in expansion.terms)
        components: list[Tensor | None] = [None] * dim
        for k, i, j, coefficient in expansion.terms:
            term = firsts[i] * seconds[j]
            if coefficient != 1:
                term = coefficient * term
            total = components[k]
            components[k] = term if total is None else total + term
        found = torch.stack([c for c in components if c is not None], dim=-2)
        return found.flatten(0, -3)

    def _squash(self, name: str, values: Tensor) -> Tensor:
        if name + "_bias" not in self.biases:
            return values
        bias = self.biases[name + "_bias"][:, None, None]
        if self.nonlinearity is None:
            return values + bias
        if self.nonlinearity == "smooth":
            if name == self.trivial:
                return F.silu(values + bias)
            square = values.square().sum(1, keepdim=True)
            return values * torch.sigmoid(square + bias) * torch.rsqrt(1 + square)
        if values.shape[1] == 1:
            return torch.sign(values) * torch.sigmoid(values.abs() + bias)
        square = values.square().sum(1, keepdim=True)
        positive = square > 0  # no direction at zero: the result is set to zero there
        length = torch.where(positive, square, 1.0).sqrt()
        return torch.where(positive, values / length, 0.0) * torch.sigmoid(length + bias)
