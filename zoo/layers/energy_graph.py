"""Message passing towards local energies (GNN force-field paper, section V)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from latticezoo.symmetry.lattices import Lattice
from latticezoo.zoo.layers.activations import activation, gain
from latticezoo.zoo.layers.graph import neighbour_sum

NORMALIZATIONS = ("layer", "none")


class Message(nn.Module):
    r"""What a site makes of itself and of its neighbours (Eq. 19).

    .. math::
        m_i = W_\mathrm{self}\,\phi(h_i; \theta_\mathrm{self})
            + \sum_{j \in NN(i)} W_\mathrm{nn}\,\phi(h_j; \theta_\mathrm{nn})

    with φ one fully connected layer and its nonlinearity, and the sum divided by the number of
    neighbours when ``aggregation="mean"`` (as in the authors' code).

    Args:
        in_channels: Channels that go in.
        hidden: Channels of φ.
        out_channels: Channels that come out.
        neighbours: Nearest neighbours of a site.
        nonlinearity: Name of the activation.
        aggregation: ``"mean"`` or ``"sum"``.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        neighbours: int,
        nonlinearity: str,
        aggregation: str,
    ) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity
        self.share = 1 / neighbours if aggregation == "mean" else 1.0
        self.hidden = hidden
        # Both φ read the same values, so one matrix holds them.
        self.inner = fan_in_linear(in_channels, 2 * hidden, gain(nonlinearity))
        self.outer_self = fan_in_linear(hidden, out_channels, math.sqrt(0.5), bias=False)
        spread = math.sqrt(0.5 / (1 if aggregation == "mean" else neighbours))
        self.outer_neighbours = fan_in_linear(hidden, out_channels, spread, bias=False)

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Messages ``[batch, sites, out_channels]``."""
        own, others = activation(self.nonlinearity)(self.inner(values)).split(self.hidden, dim=-1)
        total = self.outer_self(own)
        narrow = self.outer_neighbours.out_features < self.hidden
        if narrow:
            return total + self.share * neighbour_sum(self.outer_neighbours(others), lattice)
        return total + self.outer_neighbours(self.share * neighbour_sum(others, lattice))


class EnergyBlock(nn.Module):
    r"""One round of messages with a residual (Eqs. 19–21).

    .. math::
        u_i = \sigma(W_u [h_i, m_i] + b_u), \qquad
        h_i' = W_\mathrm{res} h_i + \mathrm{LayerNorm}(u_i)

    It has 4 c c' + 3 c'² + 5 c' parameters for c channels in and c' out.

    Args:
        in_channels: c.
        out_channels: c'.
        neighbours: Nearest neighbours of a site.
        nonlinearity: Name of σ, and of the one inside the messages.
        aggregation: ``"mean"`` or ``"sum"`` over the neighbours.
        normalization: ``"layer"`` for the LayerNorm, ``"none"`` to leave it out.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        neighbours: int,
        nonlinearity: str,
        aggregation: str,
        normalization: str,
    ) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity
        self.message = Message(
            in_channels, out_channels, out_channels, neighbours, nonlinearity, aggregation
        )
        self.update = fan_in_linear(in_channels + out_channels, out_channels, gain(nonlinearity))
        self.residual = fan_in_linear(in_channels, out_channels, 1.0, bias=False)
        if in_channels == out_channels:
            nn.init.eye_(self.residual.weight)
        layer = normalization == "layer"
        self.norm = nn.LayerNorm(out_channels) if layer else nn.Identity()

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Map ``[batch, sites, c]`` to ``[batch, sites, c']``."""
        joined = torch.cat([values, self.message(values, lattice)], dim=-1)
        update = activation(self.nonlinearity)(self.update(joined))
        return self.residual(values) + self.norm(update)


class LocalEnergies(nn.Module):
    r"""Blocks of messages and a readout without nonlinearity (Eq. 22).

    .. math::
        \epsilon_i = w_\mathrm{res} \cdot h_i + W_\mathrm{self}\,\phi(h_i)
            + \sum_{j \in NN(i)} W_\mathrm{nn}\,\phi(h_j)

    Args:
        in_channels: Channels that go in.
        widths: Channels after each block.
        neighbours: Nearest neighbours of a site.
        nonlinearity: Name of the activation.
        aggregation: ``"mean"`` or ``"sum"`` over the neighbours.
        normalization: ``"layer"`` or ``"none"``.
    """

    def __init__(
        self,
        in_channels: int,
        widths: list[int],
        neighbours: int,
        nonlinearity: str,
        aggregation: str,
        normalization: str,
    ) -> None:
        super().__init__()
        sizes = [in_channels, *widths]
        self.blocks = nn.ModuleList(
            EnergyBlock(into, out, neighbours, nonlinearity, aggregation, normalization)
            for into, out in pairwise(sizes)
        )
        last = sizes[-1]
        self.readout = Message(last, last, 1, neighbours, nonlinearity, aggregation)
        self.residual = fan_in_linear(last, 1, 1.0, bias=False)

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Local energies ``[batch, sites]``."""
        for block in self.blocks:
            values = block(values, lattice)
        return (self.residual(values) + self.readout(values, lattice)).squeeze(-1)


def fan_in_linear(into: int, out: int, factor: float, bias: bool = True) -> nn.Linear:
    """Linear layer with fan-in weights that change the size of values by ``factor``."""
    layer = nn.Linear(into, out, bias=bias)
    nn.init.normal_(layer.weight, std=factor / math.sqrt(into))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
