"""Apply dense filters over a neighbourhood, by the library's convolution where there is one."""

from __future__ import annotations

import math
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
    neighbour_tables,
    resolve_shells,
)


class NeighbourhoodProduct(nn.Module):
    """Sums over a neighbourhood with dense filters, one for each group of channels.

    On lattices with one site a cell it is a circular convolution, which the library does several
    times faster than a gather and a matrix product (by Winograd's method for 3 × 3 filters); on
    others neighbours are gathered. In evaluation mode the filter is expanded once.

    Args:
        family: Lattice family.
        shells: Number of shells around the site.
        groups: Number of groups of channels that are not mixed.

    Attributes:
        width: Number K of offsets.

    Shapes:
        - values ``[batch, groups · C_in, sites]``
        - filter ``[groups, C_out, C_in, K]``
        - output ``[batch, groups · C_out, sites]``
    """

    def __init__(self, family: str, shells: int, groups: int = 1) -> None:
        super().__init__()
        lattice = family_lattice(family)
        self.family, self.groups = family, groups
        self.shells: tuple[Shell, ...] = resolve_shells(lattice, shells)
        self.width = sum(shell.size for shell in self.shells)
        self.cells = _cells(lattice, self.shells)
        self._cache = FilterCache()

    def extra_repr(self) -> str:
        """Lattice, offsets and groups."""
        return f"{self.family}, offsets={self.width}, groups={self.groups}"

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return max(shell.radius for shell in self.shells)

    def train(self, mode: bool = True) -> NeighbourhoodProduct:
        """Set training or evaluation mode; forgets the expanded filter."""
        self._cache.clear()
        return super().train(mode)

    def forward(
        self,
        values: Tensor,
        make_filter: Callable[[], Tensor],
        weights: Sequence[Tensor],
        lattice: Lattice,
    ) -> Tensor:
        """Apply a filter.

        Args:
            values: As above.
            make_filter: Expands the filter.
            weights: What it is made from.
            lattice: The torus.
        """
        check_size(lattice, self.shells, f"a layer over {len(self.shells)} shells")
        if self.width == 1:
            make = make_filter
            matrix = self._cache.get("rows", weights, self.training, make)[..., 0]
            return self._multiply(matrix, values)
        if self.cells is not None:
            kernel = self._cache.get(
                "kernel", weights, self.training, lambda: self._kernel(make_filter())
            )
            return self._convolve(values, kernel, lattice)
        matrix = self._cache.get("rows", weights, self.training, lambda: make_filter().flatten(2))
        table = neighbour_tables(lattice, self.shells, values.device)[0]
        columns = values.index_select(2, table.reshape(-1)).unflatten(2, table.shape)
        return self._multiply(matrix, columns.transpose(2, 3).flatten(1, 2))

    def _multiply(self, matrix: Tensor, values: Tensor) -> Tensor:
        """``[groups, C_out, C_in]`` times ``[batch, groups · C_in, sites]``."""
        return (matrix @ values.unflatten(1, (self.groups, -1))).flatten(1, 2)

    @property
    def _reach(self) -> list[int]:
        assert self.cells is not None
        return [int(reach) for reach in np.abs(self.cells).max(0)]

    def _kernel(self, filters: Tensor) -> Tensor:
        """The filter on the smallest box that holds the neighbourhood."""
        assert self.cells is not None
        reach = self._reach
        box = [2 * r + 1 for r in reach]
        place = torch.from_numpy(np.ravel_multi_index(tuple((self.cells + reach).T), box))
        flat = filters.flatten(0, 1)
        if self.width == math.prod(box) and bool((place == torch.arange(self.width)).all()):
            return flat.unflatten(2, box)
        empty = flat.new_zeros(*flat.shape[:2], math.prod(box))
        return empty.index_copy(2, place.to(flat.device), flat).unflatten(2, box)

    def _convolve(self, values: Tensor, kernel: Tensor, lattice: Lattice) -> Tensor:
        torus = values.unflatten(2, lattice.shape)
        for axis, reach in enumerate(self._reach, start=2):
            size = torus.shape[axis]
            before, after = torus.narrow(axis, size - reach, reach), torus.narrow(axis, 0, reach)
            torus = torch.cat([before, torus, after], dim=axis)
        convolution = F.conv1d if lattice.dim == 1 else F.conv2d
        return convolution(torus, kernel, groups=self.groups).flatten(2)


@lru_cache
def _cells(lattice: Lattice, shells: tuple[Shell, ...]) -> np.ndarray | None:
    """Offsets in whole cells ``[K, dim]``, where that is a convolution the library has."""
    if lattice.sublattices > 1 or lattice.dim > 2:
        return None
    return np.array([shift for shell in shells for shift in lattice.shifts(shell)])
