"""Apply dense filters over a neighbourhood, by a convolution where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latticezoo.symmetry.filter_cache import FilterCache
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import (
    check_size,
    family_lattice,
    gather,
    gathered_sum,
    neighbour_tables,
    resolve_shells,
)
from latticezoo.zoo.layers import graph
from latticezoo.zoo.layers.circular import (
    bands,
    circular_convolution,
    correlate,
    shifted_columns,
    shifted_sum,
    wrapped,
)

#: A convolution over the box of the offsets pays when they fill this share of it …
_FILLING = 0.6
#: … and this many channels come out.
_CHANNELS = 16

#: Sites that a convolution takes at once without gradients: more would leave the cache, with fewer
#: the calls cost more than the work.
SITES = 8192

#: Makes the dense filter of a layer from its weights.
MakeFilter = Callable[[], Tensor]


class NeighbourhoodProduct(nn.Module):
    """Sums over a neighbourhood with a dense filter, one for each parity.

    Where a cell has one site and the offsets fill their box it is a circular convolution
    (:mod:`~latticezoo.zoo.layers.circular`). Elsewhere neighbours are gathered, before one matrix
    product or, where that leaves fewer channels, after it. In evaluation mode the filter is
    expanded once.

    Args:
        family: Lattice family.
        shells: The neighbourhood; a number stands for the site and that many shells around it.
        into: Number of channels that go in.
        out: Number of channels that come out.

    Attributes:
        width: Number K of offsets.

    Shapes, for every parity:
        - values ``[batch, sites, into]``, or ``[1, 1, into]`` for the same values everywhere
        - filter ``[parities, out, K, into]``
        - output ``[batch, sites, out]``, or ``[1, 1, out]``
    """

    def __init__(self, family: str, shells: Sequence[Shell] | int, into: int, out: int) -> None:
        super().__init__()
        lattice = family_lattice(family)
        self.family, self.into, self.out = family, into, out
        self.shells: tuple[Shell, ...] = resolve_shells(lattice, shells)
        self.width = sum(shell.size for shell in self.shells)
        self._box = _box(lattice, self.shells)
        places = None if self._box is None else torch.from_numpy(self._box.places)
        self.register_buffer("_places", places, persistent=False)
        self._cache = FilterCache()

    def extra_repr(self) -> str:
        """Lattice, offsets and channels."""
        return f"{self.family}, offsets={self.width}, {self.into} -> {self.out}"

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return max(shell.radius for shell in self.shells)

    def train(self, mode: bool = True) -> NeighbourhoodProduct:
        """Set training or evaluation mode; forgets the expanded filter."""
        self._cache.clear()
        return super().train(mode)

    # ---- forms of the filter -------------------------------------------------------------------

    def matrices(self, make: MakeFilter, weights: Sequence[Tensor]) -> list[Tensor]:
        """The filter as matrices ``[K · into, out]``, one for each parity."""
        found = self._cache.get(
            "matrices", weights, self.training, lambda: make().flatten(2).transpose(1, 2)
        )
        return list(found.unbind())

    def kernels(self, make: MakeFilter, weights: Sequence[Tensor]) -> list[Tensor]:
        """The filter as convolution kernels ``[out, into, k1, k2]``, one for each parity."""
        found = self._cache.get("kernels", weights, self.training, lambda: self._kernels(make()))
        return list(found.unbind())

    def _kernels(self, filters: Tensor) -> Tensor:
        assert self._box is not None
        places = self.get_buffer("_places")
        if self.width == self._box.size:
            found = filters.index_select(2, places)
        else:
            shape = *filters.shape[:2], self._box.size, self.into
            found = filters.new_zeros(shape).index_copy(2, places, filters)
        # The channels that go in stay last in memory: the library then copies nothing.
        return found.unflatten(2, self._box.shape).permute(0, 1, 4, 2, 3)

    def convolves(self, lattice: Lattice) -> bool:
        """Whether it is a convolution on this lattice."""
        if self._box is None or self.out < _CHANNELS:
            return False
        return self._box.fits(lattice) and 1 < self.width >= _FILLING * self._box.size

    # ---- application ---------------------------------------------------------------------------

    def forward(
        self,
        values: Sequence[Tensor],
        make: MakeFilter,
        weights: Sequence[Tensor],
        lattice: Lattice,
    ) -> list[Tensor]:
        """Apply a filter.

        Args:
            values: As above.
            make: Expands the filter.
            weights: What it is made from.
            lattice: The torus.
        """
        self.check(lattice)
        if self.convolves(lattice) and not all(is_uniform(v, lattice) for v in values):
            kernels, matrices = self.kernels(make, weights), None
            torus = grid(lattice)
            return [
                value @ kernel.sum((2, 3)).t()
                if is_uniform(value, lattice)
                else circular_convolution(value.unflatten(1, torus), kernel).flatten(1, 2)
                for value, kernel in zip(values, kernels, strict=True)
            ]
        matrices = self.matrices(make, weights)
        return [self._multiply(v, m, lattice) for v, m in zip(values, matrices, strict=True)]

    def check(self, lattice: Lattice) -> None:
        """Refuse a torus that is too small."""
        check_size(lattice, self.shells, f"an equivariant layer over {len(self.shells)} shells")

    def _multiply(self, value: Tensor, matrix: Tensor, lattice: Lattice) -> Tensor:
        if self.width == 1:
            return value @ matrix
        per_offset = matrix.unflatten(0, (self.width, -1))
        if is_uniform(value, lattice):
            return value @ per_offset.sum(0)
        narrows = self.out < self.into
        if narrows:
            # Few columns, such as nine, take the library four times as long as sixteen.
            columns = per_offset.transpose(0, 1).flatten(1)
            count = columns.shape[1]
            value = (value @ F.pad(columns, (0, -count % 16)))[..., :count]
        box = self._box
        if box is not None and box.fits(lattice) and not torch.is_grad_enabled():
            move = shifted_sum if narrows else shifted_columns
            moved = move(value.unflatten(1, grid(lattice)), box.shifts).flatten(1, 2)
        else:
            tables = neighbour_tables(lattice, self.shells, value.device)
            moved = gathered_sum(value, tables) if narrows else gather(value, tables)
        return moved if narrows else moved @ matrix

    def sweep(
        self,
        values: Sequence[Tensor],
        targets: Sequence[Tensor],
        lattice: Lattice,
        make: MakeFilter,
        weights: Sequence[Tensor],
        before: Step | None,
        after: Update,
    ) -> None:
        """Go through all sites in small parts that stay in the cache, without gradients.

        Args:
            values: ``[batch, sites, C]`` of every parity.
            targets: What ``after`` changes, ``[batch, sites, …]``, contiguous. It may be the
                values themselves: a part is changed when its neighbours need it no more.
            lattice: The torus.
            make: Expands the filter.
            weights: What it is made from.
            before: Map at every site that comes before the filter; it may overwrite its input.
            after: Takes the filtered values of some sites, ``[S, out]`` for every parity, and the
                parts of the targets at these sites, ``[S, …]``.
        """
        self.check(lattice)
        if not self.convolves(lattice):
            self._sweep_rows(values, targets, lattice, self.matrices(make, weights), before, after)
            return
        kernels, box = self.kernels(make, weights), self._box
        assert box is not None
        sides = grid(lattice)
        sources = [value.unflatten(1, sides) for value in values]
        places = [target.unflatten(1, sides) for target in targets]
        at_once = SITES // lattice.n_sites
        for start in range(0, len(sources[0]), max(at_once, 1)):
            if at_once:
                some = slice(start, start + at_once)
                parts = [wrapped(source[some], box.reach) for source in sources]
                if before is not None:
                    parts = before(parts)
                found = [correlate(p, kernel) for p, kernel in zip(parts, kernels, strict=True)]
                after([_rows(part) for part in found], [_view(p[some]) for p in places])
                continue
            height = max(SITES // sides[1], 1)
            for rows, parts in bands([source[start] for source in sources], box.reach, height):
                if before is not None:
                    parts = before(parts)
                found = [correlate(p, kernel) for p, kernel in zip(parts, kernels, strict=True)]
                after([_rows(part) for part in found], [_view(p[start, rows]) for p in places])

    def _sweep_rows(
        self,
        values: Sequence[Tensor],
        targets: Sequence[Tensor],
        lattice: Lattice,
        matrices: Sequence[Tensor],
        before: Step | None,
        after: Update,
    ) -> None:
        count = len(values[0]) * lattice.n_sites
        # Any site may be a neighbour of the last one: what is read must not be what is changed.
        sources = [_rows(value).clone() for value in values]
        if before is not None:
            pieces = [before([s[tile] for s in sources]) for tile in graph.tiles(count)]
            sources = [torch.cat(parts) for parts in zip(*pieces, strict=True)]
        table = neighbour_tables(lattice, self.shells, values[0].device)[0]
        for number in range(len(values[0])):
            first = number * lattice.n_sites
            for tile in graph.tiles(lattice.n_sites):
                chosen = (table[tile] + first).reshape(-1)
                size = len(table[tile])
                found = [
                    source.index_select(0, chosen).view(size, -1) @ matrix
                    for source, matrix in zip(sources, matrices, strict=True)
                ]
                after(found, [target[number, tile] for target in targets])


#: A map of the values of all parities at some sites.
Step = Callable[[list[Tensor]], list[Tensor]]

#: Takes filtered values, and the parts of the targets they belong to.
Update = Callable[[list[Tensor], list[Tensor]], None]


def neighbour_columns(values: Tensor, lattice: Lattice, shells: tuple[Shell, ...]) -> Tensor:
    """Neighbours of every site, ``[batch · sites, K · C]``, of values ``[batch, sites, C]``."""
    check_size(lattice, shells, f"an equivariant layer over {len(shells)} shells")
    box = _box(lattice, shells)
    if box is not None and box.fits(lattice) and not torch.is_grad_enabled():
        moved = shifted_columns(values.unflatten(1, grid(lattice)), box.shifts)
        return moved.flatten(0, 2)
    return gather(values, neighbour_tables(lattice, shells, values.device)).flatten(0, 1)


def is_uniform(value: Tensor, lattice: Lattice) -> bool:
    """Whether values are given once for all sites."""
    return value.shape[1] == 1 < lattice.n_sites


def grid(lattice: Lattice) -> tuple[int, int]:
    """Sides of a lattice with one site a cell, in two dimensions or one; a chain is a column."""
    return (lattice.shape[0], lattice.shape[1]) if lattice.dim == 2 else (lattice.n_sites, 1)


def _rows(values: Tensor) -> Tensor:
    """One row for each site."""
    return values.reshape(-1, values.shape[-1])


def _view(values: Tensor) -> Tensor:
    """The same as a view, to be written to."""
    return values.view(-1, values.shape[-1])


class _Box:
    """The smallest box about the site that holds all offsets.

    Attributes:
        shifts: The offsets, in cells.
        reach: Offsets run from minus to plus this, in cells.
        places: Numbers of the offsets inside the box, row-major; where the offsets are all of the
            box, the inverse permutation.
    """

    def __init__(self, shifts: np.ndarray) -> None:
        reach = np.abs(shifts).max(0)
        self.shifts = tuple((int(first), int(second)) for first, second in shifts)
        self.reach = int(reach[0]), int(reach[1])
        self.shape = 2 * self.reach[0] + 1, 2 * self.reach[1] + 1
        self.size = self.shape[0] * self.shape[1]
        places = np.ravel_multi_index(tuple((shifts + reach).T), self.shape)
        self.places = np.argsort(places) if len(places) == self.size else places

    def fits(self, lattice: Lattice) -> bool:
        """Whether the torus can be continued so far by slices of itself."""
        return all(r < n for r, n in zip(self.reach, grid(lattice), strict=True))


@lru_cache
def _box(lattice: Lattice, shells: tuple[Shell, ...]) -> _Box | None:
    if lattice.sublattices > 1 or lattice.dim > 2:
        return None
    shifts = np.array([shift for shell in shells for shift in lattice.shifts(shell)])
    return _Box(shifts if lattice.dim == 2 else np.pad(shifts, ((0, 0), (0, 1))))
