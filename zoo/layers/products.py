"""Clebsch–Gordan products of features with themselves, mixed into features again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from latticezoo.symmetry.neighbourhoods import ExactBuffers
from latticezoo.zoo.layers.irreps import Features, Route, selection_sectors, square_routes


class _Cell(NamedTuple):
    """What leads to the components of one parity and selection sector.

    Attributes:
        parity: The parity.
        own: First and last input component of the sector, for the linear part.
        pairs: First and last pair of components.
    """

    parity: int
    own: slice
    pairs: slice


class SquareProduct(ExactBuffers):
    r"""A learned linear and quadratic map at every site.

    .. math::
        y = \sum_c L_c\, u_c + \sum_{r} W_r\, (u \otimes u)_r

    with r over all Clebsch–Gordan products of the components of one copy with each other, all
    parities included, and one matrix from copies to copies of the result for every r. Copies are
    multiplied with themselves only; the linear maps before and after mix them.

    Every pair of components reaches one parity and selection sector alone
    (:mod:`~latticezoo.zoo.layers.irreps`), so pairs are computed once, sorted by where they lead,
    and each group of them is one dense matrix product.

    Args:
        features: Type of the input, with equally many copies of every irrep in it.
        out: Type of the output.
        parities: Number of parities.
        gain: Size of the initial weights: independent inputs of unit variance give outputs of this
            standard deviation.
        kept: Parities that are computed, rising; all by default.

    Shapes:
        - input ``[parities, C_in, S]``, the sites last
        - output ``[kept parities, S, C_out]``
    """

    def __init__(
        self,
        features: Features,
        out: Features,
        parities: int,
        gain: float = 1.0,
        kept: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.kept = tuple(range(parities) if kept is None else kept)
        assert len(features.layout.stacks) == 1, "products need equal numbers of copies"
        self.features, self.out, self.parities = features, out, parities
        self.copies, self.width = features.layout.stacks[0].copies, len(features.components)
        routes = tuple(
            route
            for route in square_routes(features, parities, list(out.copies))
            if route.parity in self.kept
        )
        pairs = self._set_up_cells(routes)
        self.register_buffer("_first", torch.tensor([p[0] for p in pairs]), persistent=False)
        self.register_buffer("_second", torch.tensor([p[1] for p in pairs]), persistent=False)

        self.linear, self.square = nn.ParameterDict(), nn.ParameterDict()
        self._names: list[list[str]] = []  # irreps of each stack of the output
        for s, stack in enumerate(out.layout.stacks):
            names = [name for name in out.copies if out.copies[name] == stack.copies]
            self._names.append(names)
            own = [name for name in names if name in features.copies]
            if own:
                size = gain / math.sqrt(2 * self.copies)
                shape = len(self.kept), len(own), self.copies * stack.copies
                self.linear[str(s)] = _normal(*shape) * size
            for parity in self.kept:
                chosen = [r for r in routes if r.irrep in names and r.parity == parity]
                if chosen:
                    counts = {name: sum(r.irrep == name for r in chosen) for name in names}
                    sizes = [gain / math.sqrt(2 * counts[r.irrep] * self.copies) for r in chosen]
                    weight = _normal(len(chosen), self.copies * stack.copies)
                    self.square[f"{parity}_{s}"] = weight * torch.tensor(sizes)[:, None]
        for parameters in (self.linear, self.square):
            for key in parameters:
                parameters[key] = nn.Parameter(parameters[key].data)
        self._set_up_bases(routes, pairs)

    # ---- what is known beforehand --------------------------------------------------------------

    def _set_up_cells(self, routes: tuple[Route, ...]) -> list[tuple[int, int]]:
        """Sort the pairs by where they lead."""
        sectors = selection_sectors(self.features.group)
        sector_of = {c: number for number, members in enumerate(sectors) for c in members}
        reached: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for route in routes:
            for first, second, component, _ in route.terms:
                sector = sector_of[route.irrep, component]
                reached.setdefault((route.parity, sector), set()).add((first, second))
        self._cells: list[_Cell] = []
        self._sectors = [
            s for s, m in enumerate(sectors) if any(c in self.out.components for c in m)
        ]
        pairs: list[tuple[int, int]] = []
        for parity in self.kept:
            for sector in self._sectors:
                own = [
                    place
                    for place, component in enumerate(self.features.components)
                    if sector_of[component] == sector
                ]
                found = sorted(reached.get((parity, sector), ()))
                self._cells.append(
                    _Cell(
                        parity,
                        slice(own[0], own[-1] + 1) if own else slice(0, 0),
                        slice(len(pairs), len(pairs) + len(found)),
                    )
                )
                pairs += found
        return pairs

    def _set_up_bases(self, routes: tuple[Route, ...], pairs: list[tuple[int, int]]) -> None:
        """Coefficients from the weights to the small dense filters of each cell and stack."""
        sectors = selection_sectors(self.features.group)
        components = self.features.components
        for number, cell in enumerate(self._cells):
            sector = sectors[self._sectors[number % len(self._sectors)]]
            rows = {pair: row for row, pair in enumerate(pairs[cell.pairs])}
            for s, names in enumerate(self._names):
                outs = [c for c in sector if c[0] in names]
                kept = [name for name in names if name in self.features.copies]
                own = np.zeros((cell.own.stop - cell.own.start, len(outs), len(kept)))
                for k, part in enumerate(components[cell.own]):
                    if part in outs:
                        own[k, outs.index(part), kept.index(part[0])] = 1
                chosen = [r for r in routes if r.irrep in names and r.parity == cell.parity]
                square = np.zeros((len(rows), len(outs), len(chosen)))
                for r, route in enumerate(chosen):
                    for first, second, component, coefficient in route.terms:
                        if (route.irrep, component) in outs:
                            target = outs.index((route.irrep, component))
                            square[rows[first, second], target, r] += coefficient
                self.register_constant(f"_own_{number}_{s}", own)
                self.register_constant(f"_square_{number}_{s}", square)

    # ---- application ---------------------------------------------------------------------------

    def filters(self) -> list[tuple[Tensor | None, Tensor | None]]:
        """Linear and quadratic filter of every cell, ``[components · copies, C_cell]``."""
        result = []
        for number, cell in enumerate(self._cells):
            own, square = [], []
            for s in range(len(self._names)):
                if str(s) in self.linear:
                    weight = self.linear[str(s)][self.kept.index(cell.parity)]
                    own.append(self._dense(f"_own_{number}_{s}", weight))
                key = f"{cell.parity}_{s}"
                if key in self.square:
                    square.append(self._dense(f"_square_{number}_{s}", self.square[key]))
            result.append((_joined(own), _joined(square)))
        return result

    def _dense(self, name: str, weight: Tensor) -> Tensor:
        basis = getattr(self, name)
        found = (basis @ weight).unflatten(-1, (self.copies, -1))  # [rows, outs, copies, n]
        return found.transpose(1, 2).reshape(basis.shape[0] * self.copies, -1)

    def forward(
        self, values: Tensor, filters: list[tuple[Tensor | None, Tensor | None]] | None = None
    ) -> Tensor:
        """Apply the map; shapes as above. ``filters`` may be computed before, for many pieces."""
        sites = values.shape[-1]
        rows = values.reshape(self.parities * self.width, -1)
        first, second = self.get_buffer("_first"), self.get_buffer("_second")
        products = rows.index_select(0, first) * rows.index_select(0, second)
        lines = values.reshape(self.parities, self.width, self.copies * sites)
        parts: dict[int, list[Tensor]] = {parity: [] for parity in self.kept}
        for cell, (own, square) in zip(self._cells, filters or self.filters(), strict=True):
            total: Tensor | None = None
            if own is not None and own.numel():
                total = lines[cell.parity, cell.own].reshape(-1, sites).t() @ own
            if square is not None and square.numel():
                found = products[cell.pairs].view(-1, sites).t()
                total = found @ square if total is None else torch.addmm(total, found, square)
            if total is None:
                raise AssertionError("a sector of the output is reached by no product")
            parts[cell.parity].append(total)
        return torch.stack([torch.cat(part, dim=1) for part in parts.values()])


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.get_default_dtype())


def _joined(parts: list[Tensor]) -> Tensor | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
