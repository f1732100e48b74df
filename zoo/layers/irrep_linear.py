"""Equivariant linear maps over a neighbourhood between features of all parities at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import ExactBuffers, family_lattice
from latticezoo.symmetry.stencils import stencil_basis
from latticezoo.zoo.layers.irreps import Layout, Stack, function_values
from latticezoo.zoo.layers.neighbourhood_product import NeighbourhoodProduct


class IrrepLinear(ExactBuffers):
    """Equivariant linear map over a neighbourhood, one for each parity.

    It is the map of :class:`~latticezoo.symmetry.stencils.EquivariantLinear` in the layout of
    :mod:`~latticezoo.zoo.layers.irreps`: with equal numbers of copies of every irrep the whole
    filter comes from the weights by one matrix product. In evaluation mode it is made once.

    :class:`~latticezoo.zoo.layers.neighbourhood_product.NeighbourhoodProduct` applies it.

    Args:
        into: Layout of the input, of every parity.
        out: Layout of the output.
        shells: The neighbourhood; a number stands for the site and that many shells around it.
        parities: Number of parities.
        gain: Size of the initial weights: independent inputs of unit variance give outputs of this
            standard deviation.

    Raises:
        InputError: When no equivariant map leads from the input to the output.

    Shapes, for every parity:
        - input ``[batch, sites, C_in]``, or ``[1, 1, C_in]`` for the same values everywhere
        - output ``[batch, sites, C_out]``, or ``[1, 1, C_out]``
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
        self.product = NeighbourhoodProduct(into.family, shells, into.channels, out.channels)
        self.weights = nn.ParameterDict()
        self._shapes: dict[str, tuple[int, ...]] = {}
        bases = {}
        for i, source in enumerate(into.stacks):
            for o, target in enumerate(out.stacks):
                basis = stencil_basis(lattice, self.product.shells, source.spec, target.spec)
                if len(basis):
                    bases[i, o] = basis
        if not bases:
            raise InputError(
                f"no equivariant linear map leads from {_spec(into)!r} to {_spec(out)!r} over "
                f"{len(self.product.shells)} shells of the {into.family} lattice."
            )
        deviations = _deviations(bases, into, out)
        for (i, o), basis in bases.items():
            source, target = into.stacks[i], out.stacks[o]
            key = _key(i, o)
            turned = np.einsum(
                "mkop,ao,bp->akbm",
                basis,
                _components(into.family, target),
                _components(into.family, source),
                optimize=True,
            )
            # Rows run over output component, offset, input component.
            self._shapes[key] = turned.shape[:3]
            self.register_constant(f"_basis_{key}", turned.reshape(-1, len(basis)))
            size = gain * torch.from_numpy(deviations[i, o])[:, None]
            weight = torch.randn(parities, len(basis), source.copies * target.copies) * size
            self.weights[key] = nn.Parameter(weight.to(torch.get_default_dtype()))

    def extra_repr(self) -> str:
        """Types, offsets and parities."""
        return (
            f"{self.into.family}, {_spec(self.into)} -> {_spec(self.out)}, parities={self.parities}"
        )

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return self.product.radius

    @property
    def parameter_list(self) -> list[Tensor]:
        """The weights."""
        return list(self.weights.values())

    def filter(self) -> Tensor:
        """The dense filter, ``[parities, C_out, offsets, C_in]``."""
        rows = []
        for o, target in enumerate(self.out.stacks):
            row = [self._block(i, o, source, target) for i, source in enumerate(self.into.stacks)]
            rows.append(row[0] if len(row) == 1 else torch.cat(row, dim=3))
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def _block(self, i: int, o: int, source: Stack, target: Stack) -> Tensor:
        shape = self.parities, target.channels, self.product.width, source.channels
        key = _key(i, o)
        if key not in self.weights:
            return self.parameter_list[0].new_zeros(shape)
        found = getattr(self, f"_basis_{key}") @ self.weights[key]
        split = found.view(self.parities, *self._shapes[key], target.copies, source.copies)
        return split.permute(0, 1, 4, 2, 3, 5).reshape(shape)

    def matrices(self) -> list[Tensor]:
        """The dense filter of each parity, ``[offsets · C_in, C_out]``."""
        return self.product.matrices(self.filter, self.parameter_list)

    def forward(self, values: Sequence[Tensor], lattice: Lattice) -> list[Tensor]:
        """Apply the map; shapes as above."""
        return self.product(values, self.filter, self.parameter_list, lattice)


def _components(family: str, stack: Stack) -> np.ndarray:
    """Matrix from the components of a stack's representation to those of its layout."""
    if stack.functions:
        return function_values(family_lattice(family).site_group)
    return np.eye(stack.dim)


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
        size, member = np.array(dims), np.eye(len(dims))[block_of]
        fan_in, shares = np.zeros(len(dims)), {}
        for i, source in enumerate(into.stacks):
            if (i, o) in bases:
                # Every element of the basis ends in one block, or in equal ones.
                shares[i] = np.square(bases[i, o]).sum((1, 3)) @ member
                fan_in += source.copies * shares[i].sum(0)
        weight = np.divide(size, fan_in, out=np.zeros(len(dims)), where=fan_in > 0)
        for i, share in shares.items():
            result[i, o] = np.sqrt(share @ weight)
    return result


def _spec(layout: Layout) -> str:
    return "+".join(
        stack.spec if stack.copies == 1 else f"{stack.copies}x({stack.spec})"
        for stack in layout.stacks
    )


def _key(i: int, o: int) -> str:
    return f"{i}_to_{o}"
