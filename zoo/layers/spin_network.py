r"""Features that turn with the spins: functions on the site group with values in irreps of SO(3).

Without spin–orbit coupling the lattice and the spins turn independently, so a feature is a function
f(g) on the site group whose values are irreps l = 0, 1, 2 of the rotations of all spins. A linear
map over a neighbourhood acts on the places and leaves the 2l + 1 components alone
(:class:`~latticezoo.zoo.layers.group_convolution.GroupConvolution`), products of two features at
the same site and group element couple them by Clebsch–Gordan coefficients, and numbers (l = 0)
gate the rest. Two-element symmetries such as time reversal are parities: spins are odd, S·S' and
S × S' even, S·(S' × S'') odd.

Values are ``[batch, 2l + 1, sites, functions · order]`` for every l and every parity.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.neighbourhoods import ExactBuffers, family_lattice
from latticezoo.symmetry.rotations import parse_irreps
from latticezoo.symmetry.stencils import EquivariantLinear
from latticezoo.zoo.layers.group_convolution import (
    GroupActivation,
    GroupConvolution,
    Lift,
    Projection,
)
from latticezoo.zoo.layers.irrep_fields import FieldGroup
from latticezoo.zoo.layers.irreps import parity_of
from latticezoo.zoo.layers.pair_exchange import pair_energy

#: Features of every l, and for each of them of every parity.
Features = list[list[Tensor]]

#: Initial size of what a block changes.
_CHANGE = 0.3
#: Irreps of SO(3) that features may hold.
LARGEST_L = 2


def degree(field: Field) -> int | None:
    """l of a field of one irrep of SO(3), 0 without internal type; None for several irreps."""
    if field.internal is None:
        return 0
    terms = parse_irreps(str(field.internal))
    return terms[0][1] if len(terms) == 1 and terms[0][0] == 1 else None


def folded(values: Tensor, ell: int) -> Tensor:
    """Components of SO(3) into the batch: ``[B, N, P (2l + 1)]`` to ``[B (2l + 1), N, P]``."""
    return values.unflatten(-1, (-1, 2 * ell + 1)).movedim(-1, 1).flatten(0, 1)


def unfolded(values: Tensor, ell: int) -> Tensor:
    """The inverse of :func:`folded`."""
    return values.unflatten(0, (-1, 2 * ell + 1)).movedim(1, -1).flatten(-2)


class Product(ExactBuffers):
    """Clebsch–Gordan product of two irreps at every site and group element, channel by channel.

    Normalized so that independent factors of unit variance give a product of unit variance.

    Args:
        first: l of the first factor, at least 1.
        second: l of the second factor, at least 1.
        result: l of the product.
    """

    def __init__(self, first: int, second: int, result: int) -> None:
        super().__init__()
        self.path = first, second, result
        if max(self.path) > 1:
            from e3nn.o3 import wigner_3j

            table = wigner_3j(first, second, result, dtype=torch.float64)
            self.register_constant("_table", (table * math.sqrt(2 * result + 1)).numpy())

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Product of ``[B, 2l + 1, N, C]`` and the same of the other l."""
        if self.path == (1, 1, 0):
            return (left * right).sum(1, keepdim=True) / math.sqrt(3)
        if self.path == (1, 1, 1):
            return crossed(left, right) * math.sqrt(0.5)
        return torch.einsum("ijk,binc,bjnc->bknc", self._table, left, right)


def crossed(left: Tensor, right: Tensor) -> Tensor:
    """Cross product of ``[B, 3, N, C]``; along this axis torch's own takes six times as long."""
    (x, y, z), (u, v, w) = left.unbind(1), right.unbind(1)
    return torch.stack((y * w - z * v, z * u - x * w, x * v - y * u), 1)


def bounded(values: Tensor) -> Tensor:
    r"""Irreps v ``[B, 2l + 1, N, C]`` of bounded length: :math:`v / \sqrt{1 + v^2 / (2l + 1)}`.

    Products of products would otherwise grow like powers of two of the number of blocks, and with
    them rounding: after a few steps of training it reached 4e-5 of the output in float32.
    """
    return values * torch.rsqrt(1 + values.square().mean(1, keepdim=True))


class SpinBlock(nn.Module):
    r"""Add to features what products of neighbouring features give.

    With u and w two linear maps over the neighbourhood of the features l ≥ 1, each of them
    :func:`bounded`:

    .. math::
        d = \{ u_l \cdot w_l \}, \qquad
        (\Delta s, g, h) = C\, \phi(s, d), \qquad
        \Delta v_l = g\, u_l + \sum h\, (u_{l_1} \otimes w_{l_2})_l

    Args:
        family: Lattice family.
        functions: Functions on the site group for every l and parity.
        shells: Shells around a site that the maps see.
        parities: Number of parities.
        largest: Largest l.
        nonlinearity: Name of φ.
    """

    def __init__(
        self,
        family: str,
        functions: int,
        shells: int,
        parities: int,
        largest: int,
        nonlinearity: str,
    ) -> None:
        super().__init__()
        degrees = range(1, largest + 1)
        # Linear maps divide by the number of parities, for the nonlinearity that comes before them.
        self.mixes = nn.ModuleList(
            GroupConvolution(family, functions, 2 * functions, shells, parities, float(parities))
            for _ in degrees
        )
        self.invariants = nn.ModuleList(Product(ell, ell, 0) for ell in degrees)
        paths = [
            (first, second, result)
            for first, second, result in itertools.product(degrees, repeat=3)
            if abs(first - second) <= result <= first + second
        ]
        self.products = nn.ModuleList(Product(*path) for path in paths)
        count = 1 + len(degrees)
        gates = len(degrees) + len(paths)
        order = family_lattice(family).site_group.order
        self.activation = GroupActivation(count * functions, order, parities, nonlinearity)
        self.update = GroupConvolution(
            family, count * functions, (1 + gates) * functions, shells, parities, _CHANGE
        )

    def forward(self, features: Features, lattice: Lattice) -> Features:
        """Features of the same type."""
        scalars, vectors = features[0], features[1:]
        left, right = [], []
        for mix, values in zip(self.mixes, vectors, strict=True):
            pairs = [_mapped(part, found) for part, found in _linear(mix, values, lattice)]
            halves = [pair.chunk(2, dim=-1) for pair in pairs]
            left.append([bounded(u) for u, _ in halves])
            right.append([bounded(w) for _, w in halves])
        dots = [
            _coupled(product, u, w)
            for product, u, w in zip(self.invariants, left, right, strict=True)
        ]
        joined = [torch.cat(parts, dim=-1).squeeze(1) for parts in zip(scalars, *dots, strict=True)]
        found = self.update(self.activation(joined), lattice)
        width = scalars[0].shape[-1]
        changes = [part[:, None].split(width, dim=-1) for part in found]  # [parity][what]
        result = [[s + change[0] for s, change in zip(scalars, changes, strict=True)]]
        number = 1
        for values, u in zip(vectors, left, strict=True):
            gate = [change[number] for change in changes]
            result.append([v + g for v, g in zip(values, _scaled(gate, u), strict=True)])
            number += 1
        for product in self.products:
            assert isinstance(product, Product)
            first, second, ell = product.path
            gate = [change[number] for change in changes]
            made = _coupled(product, left[first - 1], right[second - 1])
            result[ell] = [v + g for v, g in zip(result[ell], _scaled(gate, made), strict=True)]
            number += 1
        return result


def _linear(mix: nn.Module, values: Sequence[Tensor], lattice: Lattice) -> list[tuple]:
    """A group convolution of every component by itself, next to the values that went in."""
    found = mix([value.flatten(0, 1) for value in values], lattice)
    return list(zip(values, found, strict=True))


def _mapped(like: Tensor, found: Tensor) -> Tensor:
    return found.unflatten(0, like.shape[:2])


def _coupled(product: nn.Module, left: Sequence[Tensor], right: Sequence[Tensor]) -> list[Tensor]:
    """Products of all parities, each added to the parity that it has."""
    return _by_parity(lambda p, q: product(left[p], right[q]), len(left))


def _scaled(gate: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
    """Numbers of all parities times values of all parities."""
    return _by_parity(lambda p, q: gate[p] * values[q], len(values))


def _by_parity(make, parities: int) -> list[Tensor]:
    found: list[Tensor | None] = [None] * parities
    for p, q in itertools.product(range(parities), repeat=2):
        made, old = make(p, q), found[p ^ q]
        found[p ^ q] = made if old is None else old + made
    return [part for part in found if part is not None]


class SpinNetwork(nn.Module):
    r"""Site fields to site fields, exact under SO(3), the lattice and the two-element symmetries.

    A lift of the fields, which also multiplies pairs of lifted spins, so that no kind of feature
    starts at zero, :class:`SpinBlock` s, a projection; and beside them the pair exchange
    :math:`H_i = \sum_j J(r_{ij}) S_j` over ``range_shells``, or its energy where numbers come out
    (:mod:`~latticezoo.zoo.layers.pair_exchange`).

    Args:
        inputs: Real site fields, each scalar or of one irrep of SO(3).
        outputs: Such fields.
        family: Lattice family.
        flips: Names of the two-element symmetries.
        functions: Functions on the site group for every l and parity.
        blocks: Number of blocks.
        embedding_shells: Shells around a site that the lift sees.
        shells: Shells that the maps of a block see.
        readout_shells: Shells that the projection sees.
        range_shells: Shells of the pair exchange, 0 for none.
        largest: Largest l of the features.
        nonlinearity: Name of the nonlinearity.
    """

    def __init__(
        self,
        inputs: tuple[Field, ...],
        outputs: tuple[Field, ...],
        family: str,
        flips: Sequence[str],
        *,
        functions: int,
        blocks: int,
        embedding_shells: int,
        shells: int,
        readout_shells: int,
        range_shells: int,
        largest: int,
        nonlinearity: str,
    ) -> None:
        super().__init__()
        self.parities, self.largest = 2 ** len(flips), largest
        self.order = family_lattice(family).site_group.order
        self.functions, self.family = functions, family
        self._inputs, self._outputs = inputs, outputs
        self._degrees = {field: degree(field) or 0 for field in (*inputs, *outputs)}
        self._parity = {field: parity_of(field, flips) for field in (*inputs, *outputs)}
        self.frames = nn.ModuleDict({f.name: FieldGroup(family, [f]) for f in (*inputs, *outputs)})
        self.lifts = nn.ModuleDict(
            {f.name: Lift(family, f.point, 1, 2 * functions, embedding_shells) for f in inputs}
        )
        self.products = nn.ModuleDict(
            {
                f"{ell}{result}": Product(ell, ell, result)
                for ell in {self._degrees[field] for field in inputs} - {0}
                for result in range(largest + 1)
            }
        )
        self.blocks = nn.ModuleList(
            SpinBlock(family, functions, shells, self.parities, largest, nonlinearity)
            for _ in range(blocks)
        )
        self.activation = (
            GroupActivation(functions, self.order, self.parities, nonlinearity)
            if any(self._degrees[field] == 0 for field in outputs)
            else None
        )
        self.projections = nn.ModuleDict(
            {
                f.name: Projection(family, f.point, functions, readout_shells, self.parities)
                for f in outputs
            }
        )
        self.pairs = nn.ModuleDict()
        for out, into in itertools.product(outputs, inputs):
            like = self._kind(out) == self._kind(into)
            if range_shells and (like or self._holds_energy(out, into)):
                self.pairs[f"{into.name}_{out.name}"] = EquivariantLinear(
                    family, into.point, out.point if like else into.point, range_shells, bias=False
                )

    def _kind(self, field: Field) -> tuple[int, int]:
        return self._degrees[field], self._parity[field]

    def _holds_energy(self, out: Field, into: Field) -> bool:
        """Whether an output is a number that pairs of vectors can give."""
        trivial = family_lattice(self.family).site_group.trivial
        return self._degrees[into] > 0 and self._kind(out) == (0, 0) and out.point == trivial

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        lifts, projections, blocks, pairs = (
            cast(Any, list(modules))
            for modules in (
                self.lifts.values(),
                self.projections.values(),
                self.blocks,
                self.pairs.values(),
            )
        )
        lift = max(m.product.radius for m in lifts)
        project = max(m.product.radius for m in projections)
        # Both maps of a block lie behind each other.
        inside = sum(b.mixes[0].product.radius + b.update.product.radius for b in blocks)
        linear = max((shell.radius for m in pairs for shell in m.shells), default=0)
        return float(max(lift + inside + project, linear))

    def forward(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Outputs by name, ``[batch, sites, C]``."""
        frames: Any = self.frames
        folds = {
            field.name: frames[field.name].join(
                {field.name: folded(fields[field.name], self._degrees[field])}, lattice
            )
            for field in self._inputs
        }
        features = self._lifted(folds, lattice)
        for block in self.blocks:
            features = block(features, lattice)
        if self.activation is not None:
            last = self.activation([part.squeeze(1) for part in features[0]])
            features[0] = [
                (a + self.parities * s.squeeze(1))[:, None]
                for a, s in zip(last, features[0], strict=True)
            ]
        result = {}
        for field in self._outputs:
            ell, parity = self._kind(field)
            values = features[ell][parity]
            found = self.projections[field.name](values.flatten(0, 1), lattice)
            for into in self._inputs:
                pair = f"{into.name}_{field.name}"
                if pair not in self.pairs:
                    continue
                layer: Any = self.pairs[pair]
                vectors = folds[into.name]
                if self._kind(field) == self._kind(into):
                    found = found + layer(vectors, lattice)
                else:
                    found = found + pair_energy(layer, vectors, self._degrees[into], lattice)
            split = frames[field.name].split(found, lattice)[field.name]
            result[field.name] = unfolded(split, ell)
        return result

    def _lifted(self, folds: Mapping[str, Tensor], lattice: Lattice) -> Features:
        reference = folds[self._inputs[0].name]
        batch = len(reference) // (2 * self._degrees[self._inputs[0]] + 1)
        width = self.functions * self.order
        features: Features = [
            [reference.new_zeros(batch, 2 * ell + 1, lattice.n_sites, width)] * self.parities
            for ell in range(self.largest + 1)
        ]
        for field in self._inputs:
            ell, parity = self._kind(field)
            lifted = self.lifts[field.name](folds[field.name], lattice)
            first, second = lifted.unflatten(0, (batch, 2 * ell + 1)).chunk(2, dim=-1)
            features[ell][parity] = features[ell][parity] + first
            for result in range(self.largest + 1) if ell else ():
                # A product of two of the same parity is even.
                features[result][0] = features[result][0] + self.products[f"{ell}{result}"](
                    first, second
                )
        return features
