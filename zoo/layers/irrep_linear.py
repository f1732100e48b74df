"""Equivariant linear maps over a neighbourhood between features of all parities at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import (
    ExactBuffers,
    check_size,
    family_lattice,
    gather,
    neighbour_tables,
    resolve_shells,
)
from latticezoo.symmetry.stencils import stencil_basis
from latticezoo.zoo.layers.irreps import Layout, Stack


class IrrepLinear(ExactBuffers):
    """Equivariant linear map over a neighbourhood, one for each parity.

    It is the map of :class:`~latticezoo.symmetry.stencils.EquivariantLinear` in the layout of
    :mod:`~latticezoo.zoo.layers.irreps`: with equal numbers of copies of every irrep the whole
    filter comes from the weights by one matrix product, and the result from the gathered
    neighbours by another, in either order of the axes.

    Args:
        into: Layout of the input, of every parity.
        out: Layout of the output.
        shells: The neighbourhood; a number stands for the site and that many shells around it.
        parities: Number of parities.
        gain: Size of the initial weights: independent inputs of unit variance give outputs of this
            standard deviation.

    Raises:
        InputError: When no equivariant map leads from the input to the output.

    Shapes:
        - input ``[parities, batch, sites, C_in]``
        - output ``[parities, batch, sites, C_out]``
    """

    def __init__(
        self,
        into: Layout,
        out: Layout,
        shells: Sequence[Shell] | int,
        parities: int = 1,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.into, self.out, self.parities, self.gain = into, out, parities, gain
        lattice = family_lattice(into.family)
        self.shells = resolve_shells(lattice, shells)
        self._width = sum(shell.size for shell in self.shells)
        self.weights = nn.ParameterDict()
        self._shapes: dict[str, tuple[int, ...]] = {}
        bases = {}
        for i, source in enumerate(into.stacks):
            for o, target in enumerate(out.stacks):
                basis = stencil_basis(lattice, self.shells, source.spec, target.spec)
                if len(basis):
                    bases[i, o] = basis
        if not bases:
            raise InputError(
                f"no equivariant linear map leads from {_spec(into)!r} to {_spec(out)!r} over "
                f"{len(self.shells)} shells of the {into.family} lattice."
            )
        deviations = _deviations(bases, into, out)
        for (i, o), basis in bases.items():
            source, target = into.stacks[i], out.stacks[o]
            key = _key(i, o)
            ordered = basis[:, :, list(target.order)][..., list(source.order)]
            # Rows run over offset, input component, output component.
            rows = ordered.transpose(1, 3, 2, 0)
            self._shapes[key] = rows.shape[:3]
            self.register_constant(f"_basis_{key}", rows.reshape(-1, len(basis)))
            size = gain * torch.from_numpy(deviations[i, o])[:, None]
            weight = torch.randn(parities, len(basis), source.copies * target.copies) * size
            self.weights[key] = nn.Parameter(weight.to(torch.get_default_dtype()))
        for name, layout in (("in", into), ("out", out)):
            order = None if layout.permutation is None else torch.tensor(layout.permutation)
            self.register_buffer(f"_{name}_order", order, persistent=False)

    def extra_repr(self) -> str:
        """Types, offsets and parities."""
        return (
            f"{self.into.family}, {_spec(self.into)} -> {_spec(self.out)}, "
            f"offsets={self._width}, parities={self.parities}"
        )

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return max(shell.radius for shell in self.shells)

    def filter(self) -> Tensor:
        """The dense filter, ``[parities, offsets · C_in, C_out]``."""
        rows = []
        for i, source in enumerate(self.into.stacks):
            row = [self._block(i, o, source, target) for o, target in enumerate(self.out.stacks)]
            rows.append(row[0] if len(row) == 1 else torch.cat(row, dim=3))
        found = rows[0] if len(rows) == 1 else torch.cat(rows, dim=2)
        if isinstance(self._in_order, Tensor):
            found = found.index_select(2, self._in_order)
        if isinstance(self._out_order, Tensor):
            found = found.index_select(3, self._out_order)
        return found.flatten(1, 2)

    def _block(self, i: int, o: int, source: Stack, target: Stack) -> Tensor:
        shape = self.parities, self._width, source.channels, target.channels
        key = _key(i, o)
        if key not in self.weights:
            return next(iter(self.weights.values())).new_zeros(shape)
        found = getattr(self, f"_basis_{key}") @ self.weights[key]
        split = found.view(self.parities, *self._shapes[key], source.copies, target.copies)
        return split.transpose(3, 4).reshape(shape)

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Apply the map; shapes as above."""
        found = torch.bmm(self.columns(values, lattice), self.filter())
        return found.view(*values.shape[:3], -1)

    def across(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Apply the map, with the sites last: ``[parities, C_out, batch · sites]``.

        What follows pointwise then runs along contiguous memory; the matrix product gives either
        order at the same price.
        """
        columns = self.columns(values, lattice)
        return torch.bmm(self.filter().transpose(1, 2), columns.transpose(1, 2))

    def columns(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Neighbours of every site, ``[parities, batch · sites, offsets · C_in]``."""
        check_size(lattice, self.shells, f"an equivariant layer over {len(self.shells)} shells")
        if self._width > 1:
            tables = neighbour_tables(lattice, self.shells, values.device)
            return gather(values.flatten(0, 1), tables).view(self.parities, -1, self._rows)
        return values.reshape(self.parities, -1, self._rows)

    @property
    def _rows(self) -> int:
        return self._width * self.into.channels


@lru_cache(maxsize=8)
def row_table(
    lattice: Lattice, shells: tuple[Shell, ...], copies: int, device: torch.device
) -> Tensor:
    """Rows of a neighbourhood when ``copies`` configurations are stacked, ``[copies · sites, K]``.

    int64, for :func:`torch.index_select`.
    """
    table = neighbour_tables(lattice, shells, device)[0]
    first = torch.arange(copies, device=device)[:, None, None] * lattice.n_sites
    return (table + first).flatten(0, 1)


def _deviations(
    bases: dict[tuple[int, int], np.ndarray], into: Layout, out: Layout
) -> dict[tuple[int, int], np.ndarray]:
    """Standard deviation of the weight of every basis element: √(dim / fan-in) of its block."""
    group = family_lattice(into.family).site_group
    result = {}
    for o, target in enumerate(out.stacks):
        blocks = group.representation(target.spec).blocks
        dims = [dim for number, _, dim in blocks for _ in range(number)]
        block_of = np.repeat(np.arange(len(dims)), dims)
        fan_in = np.zeros(len(dims))
        owners = {}
        for i, source in enumerate(into.stacks):
            if (i, o) in bases:
                # Every element of the basis ends in one copy of one irrep.
                owner = block_of[np.square(bases[i, o]).sum((1, 3)).argmax(1)]
                owners[i] = owner
                np.add.at(fan_in, owner, source.copies)
        for i, owner in owners.items():
            result[i, o] = np.sqrt(np.array(dims)[owner] / fan_in[owner])
    return result


def _spec(layout: Layout) -> str:
    return "+".join(
        stack.spec if stack.copies == 1 else f"{stack.copies}x({stack.spec})"
        for stack in layout.stacks
    )


def _key(i: int, o: int) -> str:
    return f"{i}_to_{o}"
