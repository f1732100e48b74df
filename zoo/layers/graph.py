"""Graph convolution over nearest neighbours, and the neighbour sum it rests on.

The sum over neighbours is its own adjoint (if j is a neighbour of i, then i is one of j), so the
backward pass is the forward kernel again and no index is ever scattered to. In float32 on a CPU
the kernel is torch's embedding bag, which reads each neighbour's row once and writes each sum
once: half the time of four rolls on the square lattice, a quarter of gather-and-scatter. Other
types and devices use :meth:`Lattice.neighbour_sum`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latticezoo.symmetry.errors import unknown
from latticezoo.symmetry.lattices import Lattice

AGGREGATIONS = ("mean", "sum")

#: Rows that are taken through a layer at once in inference, so that they stay in the cache.
TILE = 4096


class BagTable(NamedTuple):
    """Neighbours of stacked configurations, in the form that :func:`bag_sum` takes.

    Attributes:
        rows: Rows of the neighbours of row 0, of row 1, …, ``[copies · sites · size]``, int32.
        starts: Where each row's neighbours begin, ``[copies · sites]``, int32.
        size: Number of neighbours of a site.
    """

    rows: Tensor
    starts: Tensor
    size: int


@lru_cache(maxsize=8)
def bag_table(lattice: Lattice, copies: int) -> BagTable:
    """Nearest neighbours when ``copies`` configurations of a lattice are stacked."""
    table = lattice.neighbours(1)
    first = torch.arange(copies)[:, None, None] * lattice.n_sites
    rows = (table + first).reshape(-1).int()
    size = table.shape[1]
    return BagTable(rows, torch.arange(0, len(rows), size, dtype=torch.int32), size)


def bag_sum(values: Tensor, table: BagTable, tile: slice | None = None) -> Tensor:
    """Sums over neighbours, ``result[i] = Σ_j values[j]``, float32 on the CPU.

    Args:
        values: Stacked configurations ``[M, C]``.
        table: Their neighbours.
        tile: The rows to compute; all by default.

    Returns:
        ``[m, C]``.
    """
    rows, starts, size = table
    if tile is not None:
        rows = rows[tile.start * size : tile.stop * size]
        starts = starts[: tile.stop - tile.start]
    # Detached: for a tensor that requires gradients torch takes a slower kernel.
    return torch.embedding_bag(values.detach(), rows, starts)[0]


def bags_serve(values: Tensor) -> bool:
    """Whether :func:`bag_sum` has a fast kernel for such values."""
    return values.device.type == "cpu" and values.dtype == torch.float32


class _NeighbourSum(torch.autograd.Function):
    @staticmethod
    def forward(values: Tensor, lattice: Lattice) -> Tensor:
        if not bags_serve(values):
            return lattice.neighbour_sum(values)
        rows = values.reshape(-1, values.shape[-1])
        return bag_sum(rows, bag_table(lattice, len(values))).view(values.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.lattice = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _NeighbourSum.apply(grad.contiguous(), ctx.lattice), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _NeighbourSum.apply(tangent, ctx.lattice)


def neighbour_sum(values: Tensor, lattice: Lattice) -> Tensor:
    """Sum over the nearest neighbours of every site, differentiable any number of times.

    Args:
        values: ``[batch, sites, C]``.
        lattice: Any torus.

    Returns:
        ``[batch, sites, C]``.
    """
    return _NeighbourSum.apply(values, lattice)


class NeighbourLinear(nn.Module):
    r"""Graph convolution with one matrix for the site and one for all its neighbours.

    .. math::
        m_i = W_\mathrm{self} h_i + W_\mathrm{nn} \sum_{j \in NN(i)} h_j + b

    with the sum divided by the number of neighbours when ``aggregation="mean"`` (GNN force-field
    paper, Eqs. 15 and 17; the authors' code takes the mean).

    Args:
        in_channels: Channels that go in.
        out_channels: Channels that come out.
        aggregation: ``"mean"`` or ``"sum"``.
        gain: Size of the initial weights in units of 1/√fan-in. With the plain sum the fan-in
            counts the site and its neighbours (five inputs a channel on the square lattice), so
            that values keep their size from layer to layer; with the mean it counts two.
        neighbours: Number of nearest neighbours of a site.

    Shapes:
        - input ``[batch, sites, in_channels]``
        - output ``[batch, sites, out_channels]``
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        aggregation: str = "mean",
        gain: float = 1.0,
        neighbours: int = 4,
    ) -> None:
        super().__init__()
        if aggregation not in AGGREGATIONS:
            raise unknown("aggregation", aggregation, AGGREGATIONS)
        self.aggregation, self.neighbours = aggregation, neighbours
        self.weight_self = nn.Parameter(torch.empty(out_channels, in_channels))
        self.weight_neighbours = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        fan_in = in_channels * (2 if aggregation == "mean" else 1 + neighbours)
        for weight in (self.weight_self, self.weight_neighbours):
            nn.init.normal_(weight, std=gain / math.sqrt(fan_in))

    @property
    def in_channels(self) -> int:
        """Channels that go in."""
        return self.weight_self.shape[1]

    @property
    def out_channels(self) -> int:
        """Channels that come out."""
        return self.weight_self.shape[0]

    @property
    def narrows(self) -> bool:
        """Whether fewer channels come out than go in; the sum is then taken on that side."""
        return self.out_channels < self.in_channels

    def extra_repr(self) -> str:
        """Sizes and aggregation."""
        return f"{self.in_channels}, {self.out_channels}, aggregation={self.aggregation!r}"

    def _neighbour_matrix(self) -> Tensor:
        if self.aggregation == "mean":
            return self.weight_neighbours / self.neighbours
        return self.weight_neighbours

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Apply the layer; shapes as above."""
        matrix = self._neighbour_matrix()
        own = F.linear(values, self.weight_self, self.bias)
        if self.narrows:
            return own + neighbour_sum(F.linear(values, matrix), lattice)
        # One matrix product added in place onto the other: no third array is read or written.
        around = neighbour_sum(values, lattice)
        total = torch.addmm(own.flatten(0, -2), around.flatten(0, -2), matrix.t())
        return total.view(own.shape)

    def infer(self, rows: Tensor, table: BagTable) -> Callable[[slice, Tensor | None], Tensor]:
        """Prepare to apply the layer without gradients to a few rows at a time.

        A caller that goes on with each tile before it starts the next keeps it in the cache.

        Args:
            rows: Stacked configurations ``[M, in_channels]``, float32 on the CPU.
            table: Neighbours as given by :func:`bag_table`.

        Returns:
            A function of a slice of rows, and of where to write its output (new memory if None),
            which gives ``[m, out_channels]``, the numbers of :meth:`forward` up to rounding.
        """
        own, matrix = self.weight_self.t(), self._neighbour_matrix().t()
        sources = rows @ matrix if self.narrows else rows

        def apply(tile: slice, out: Tensor | None = None) -> Tensor:
            around = bag_sum(sources, table, tile)
            part = torch.addmm(self.bias, rows[tile], own, out=out)
            return part.add_(around) if self.narrows else part.addmm_(around, matrix)

        return apply


def tiles(count: int) -> list[slice]:
    """Slices of at most :data:`TILE` rows that cover all."""
    return [slice(start, min(start + TILE, count)) for start in range(0, count, TILE)]
