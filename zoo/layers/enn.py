"""Blocks of an equivariant network: stencil, products at the site, residual."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latticezoo.symmetry.lattices import Lattice
from latticezoo.zoo.layers.irrep_linear import IrrepLinear
from latticezoo.zoo.layers.irreps import Features
from latticezoo.zoo.layers.neighbourhood_product import is_uniform
from latticezoo.zoo.layers.products import FunctionProduct

#: Size of the first change that a block makes to its input.
_GAIN = 0.5


class Block(nn.Module):
    r"""One round of an equivariant network.

    .. math::
        u_i = \sum_{j} W_{j-i}\, x_j, \qquad x_i' = x_i + P(u_i)

    with W an equivariant stencil from irreps to functions on the group, and P the products at the
    site, back to irreps (:class:`~latticezoo.zoo.layers.products.FunctionProduct`).

    Args:
        features: Type of x for every parity.
        copies: Number of functions on the group for every parity.
        shells: Number of shells of the stencil.
        parities: Number of parities.
        gain: Size of the initial change of x.
        kept: Parities that are computed; all by default.

    Shapes, for every parity:
        - input ``[batch, sites, C]``, or ``[1, 1, C]`` for the same values everywhere
        - output ``[batch, sites, C]``
    """

    def __init__(
        self,
        features: Features,
        copies: int,
        shells: int,
        parities: int,
        gain: float,
        kept: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.product = FunctionProduct(copies, features, parities, gain, kept)
        self.stencil = IrrepLinear(features.layout, self.product.layout, shells, parities)

    def forward(self, values: Sequence[Tensor], lattice: Lattice) -> list[Tensor]:
        """Values of all parities to values of those kept."""
        update = self.product(self.stencil(values, lattice))
        return [values[p] + u for p, u in zip(self.product.kept, update, strict=True)]

    def infer(self, values: Sequence[Tensor], lattice: Lattice) -> list[Tensor]:
        """The same without gradients; values, ``[batch, sites, C]`` each, are overwritten."""
        result = [values[p] for p in self.product.kept]
        stencil = self.stencil
        stencil.product.sweep(
            values,
            result,
            lattice,
            stencil.filter,
            stencil.parameter_list,
            None,
            self.product.add,
        )
        return result


class Blocks(nn.Module):
    """Several blocks one after the other.

    Args:
        features: Type of the features for every parity.
        copies: Number of functions on the group in each block, for every parity.
        blocks: Number of blocks.
        shells: Number of shells of their stencils.
        parities: Number of parities.
        kept: Parities that are wanted in the end.

    Shapes, for every parity:
        - input ``[batch, sites, C]``, or ``[1, 1, C]`` for the same values everywhere
        - output ``[batch, sites, C]``
    """

    def __init__(
        self,
        features: Features,
        copies: int,
        blocks: int,
        shells: int,
        parities: int,
        kept: Sequence[int],
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(
                features,
                copies,
                shells,
                parities,
                _GAIN,
                kept if number == blocks - 1 else None,
            )
            for number in range(blocks)
        )

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return sum(block.stencil.radius for block in self.blocks)  # type: ignore[union-attr, misc]

    def forward(self, values: Sequence[Tensor], lattice: Lattice) -> list[Tensor]:
        """Apply the blocks; shapes as above. Without gradients the values are overwritten."""
        batch, sites = max(len(value) for value in values), lattice.n_sites
        plain = torch.is_grad_enabled() or torch.is_autocast_enabled(values[0].device.type)
        if not plain:
            values = [v.repeat(batch, sites, 1) if is_uniform(v, lattice) else v for v in values]
        for block in self.blocks:
            assert isinstance(block, Block)
            values = block(values, lattice) if plain else block.infer(values, lattice)
        return [v.expand(batch, sites, -1) if is_uniform(v, lattice) else v for v in values]
