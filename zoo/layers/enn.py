"""Blocks of an equivariant network: stencil, products at the site, residual."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from latticezoo.symmetry.lattices import Lattice
from latticezoo.zoo.layers.graph import tiles
from latticezoo.zoo.layers.irrep_linear import IrrepLinear, row_table
from latticezoo.zoo.layers.irreps import Features
from latticezoo.zoo.layers.products import SquareProduct


def rescale(values: Tensor) -> Tensor:
    """Divide by √(1 + mean square of all components at a site), which no symmetry changes.

    Small values pass unchanged, large ones are bounded, so that products stay of order one however
    deep the network; smooth everywhere.

    Args:
        values: ``[parities, C, S]``, sites last.
    """
    size = values.square().mean((0, 1))
    return values * torch.rsqrt(1.0 + size)


class Block(nn.Module):
    r"""One round of an equivariant network.

    .. math::
        u_i = \rho\Bigl(\sum_{j} W_{j-i}\, x_j\Bigr), \qquad
        x_i' = x_i + L\, u_i + \sum_r W_r\, (u_i \otimes u_i)_r

    with W an equivariant stencil, ρ :func:`rescale`, and r over all Clebsch–Gordan products.

    Args:
        features: Type of x for every parity.
        products: Type of u for every parity.
        shells: Number of shells of the stencil.
        parities: Number of parities.
        gain: Size of the initial change of x.
        kept: Parities that are computed; all by default.
    """

    def __init__(
        self,
        features: Features,
        products: Features,
        shells: int,
        parities: int,
        gain: float,
        kept: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.stencil = IrrepLinear(features.layout, products.layout, shells, parities)
        self.product = SquareProduct(products, features, parities, gain, kept)

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Map ``[parities, batch, sites, C]`` to ``[kept parities, batch, sites, C]``."""
        update = self.product(rescale(self.stencil.across(values, lattice)))
        own = self._own(values)
        return own + update.view(own.shape)

    def _own(self, values: Tensor) -> Tensor:
        kept = self.product.kept
        if len(kept) == len(values):
            return values
        return values[kept[0] : kept[-1] + 1] if len(kept) == 1 else values[list(kept)]

    def infer(self, values: Tensor, table: Tensor) -> Tensor:
        """The same without gradients, tile by tile, each tile staying in the cache.

        Args:
            values: ``[parities, S, C]``, S stacked sites.
            table: Rows of the stencil's neighbours, ``[S, K]``.
        """
        own = self._own(values)
        result = torch.empty_like(own)
        filters, stencil = self.product.filters(), self.stencil.filter().transpose(1, 2)
        for tile in tiles(len(table)):
            rows = values.index_select(1, table[tile].reshape(-1))
            columns = rows.view(len(values), -1, stencil.shape[2])
            update = self.product(rescale(torch.bmm(stencil, columns.transpose(1, 2))), filters)
            torch.add(own[:, tile], update, out=result[:, tile])
        return result


class Blocks(nn.Module):
    """Several blocks one after the other.

    Args:
        features: Type of the features for every parity.
        products: Type of what is multiplied, with equally many copies of every irrep in it.
        blocks: Number of blocks.
        shells: Number of shells of their stencils.
        parities: Number of parities.
        kept: Parities that are wanted in the end.

    Shapes:
        - input ``[parities, batch, sites, C]``
        - output ``[kept parities, batch, sites, C]``
    """

    def __init__(
        self,
        features: Features,
        products: Features,
        blocks: int,
        shells: int,
        parities: int,
        kept: Sequence[int],
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(features, products, shells, parities, 0.5, kept if number == blocks - 1 else None)
            for number in range(blocks)
        )

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return sum(block.stencil.radius for block in self.blocks)  # type: ignore[union-attr, misc]

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Apply the blocks; shapes as above. Without gradients it takes a faster way."""
        if torch.is_grad_enabled() or torch.is_autocast_enabled(values.device.type):
            for block in self.blocks:
                values = block(values, lattice)
            return values
        rows = values.flatten(1, 2)
        for block in self.blocks:
            assert isinstance(block, Block)
            table = row_table(lattice, block.stencil.shells, values.shape[1], values.device)
            rows = block.infer(rows, table)
        return rows.view(-1, *values.shape[1:])
