r"""Messages between spins through the scalar products on bonds.

Nodes carry numbers, bonds the scalar products :math:`b_{ij} = S_i \cdot S_j`, so that nothing
changes when all spins turn or are turned over; one set of weights for each shell of neighbours
makes it commute with the whole space group of any lattice. What comes out is an exchange that
depends on the surroundings, one number :math:`A_{ij}` a bond: fields :math:`\sum_j A_{ij} S_j`,
or the energy :math:`-\frac12 \sum_{ij} A_{ij}\, S_i \cdot S_j`.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import family_lattice, gather, neighbour_tables
from latticezoo.zoo.layers.activations import activation, gain
from latticezoo.zoo.layers.energy_graph import fan_in_linear

#: Numbers on a bond inside the map that gives its exchange.
HIDDEN = 16
#: Initial size of what the surroundings change of the exchange.
_CHANGE = 0.3


class BondLayer(nn.Module):
    r"""Numbers on bonds from those of both ends and the scalar product of the spins.

    .. math::
        u_{ij} = \sigma(P h_i + Q h_j + r_s b_{ij} + c_s)

    with s the shell of the bond.

    Args:
        in_channels: Channels of a node; 0 where there are none yet.
        width: Channels of a bond.
        sizes: Number of bonds of a site in each shell.
        nonlinearity: Name of σ.
    """

    _shell: Tensor

    def __init__(self, in_channels: int, width: int, sizes: list[int], nonlinearity: str) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity
        shells = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        self.register_buffer("_shell", shells, persistent=False)
        size = gain(nonlinearity) / math.sqrt(3 if in_channels else 1)
        self.slope = nn.Parameter(size * torch.randn(len(sizes), width))
        # Spread over the range of b, so that the first bonds tell values of b apart.
        self.bias = nn.Parameter(size * torch.randn(len(sizes), width))
        self.ends = fan_in_linear(in_channels, 2 * width, size, bias=False) if in_channels else None

    def forward(self, nodes: Tensor | None, bonds: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """Bonds ``[batch, sites, K, width]``.

        Args:
            nodes: ``[batch, sites, c]``.
            bonds: Scalar products ``[batch, sites, K]``.
            tables: Of the K neighbours.
        """
        found = bonds[..., None] * self.slope[self._shell] + self.bias[self._shell]
        if self.ends is not None:
            assert nodes is not None
            own, other = self.ends(nodes).chunk(2, dim=-1)
            around = gather(other, tables).unflatten(-1, (-1, other.shape[-1]))
            found = found + own[:, :, None] + around
        return activation(self.nonlinearity)(found)


class SpinMessages(nn.Module):
    r"""One round of messages: :math:`h_i' = R h_i + \mathrm{Norm}(W \langle u_{ij} \rangle_j)`.

    Args:
        in_channels: Channels that go in, 0 for the first round.
        width: Channels that come out.
        sizes: Number of bonds of a site in each shell.
        nonlinearity: Name of the activation.
        aggregation: ``"mean"`` or ``"sum"`` over the bonds.
        residual: Whether R h is added; where the numbers of channels are equal R starts as 1.
        normalization: ``"layer"`` for a LayerNorm, or ``"none"``.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        sizes: list[int],
        nonlinearity: str,
        aggregation: str,
        residual: bool,
        normalization: str,
    ) -> None:
        super().__init__()
        self.mean = aggregation == "mean"
        self.bonds = BondLayer(in_channels, width, sizes, nonlinearity)
        factor = 1.0 if self.mean else 1 / math.sqrt(sum(sizes))
        self.outer = fan_in_linear(width, width, factor, bias=False)
        self.residual = None
        if residual and in_channels:
            self.residual = fan_in_linear(in_channels, width, 1.0, bias=False)
            if in_channels == width:
                nn.init.eye_(self.residual.weight)
        self.norm = nn.LayerNorm(width) if normalization == "layer" else nn.Identity()

    def forward(self, nodes: Tensor | None, bonds: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
        """Nodes ``[batch, sites, width]``."""
        found = self.bonds(nodes, bonds, tables)
        found = self.norm(self.outer(found.mean(2) if self.mean else found.sum(2)))
        return found if self.residual is None else self.residual(nodes) + found


class SpinGraph(nn.Module):
    r"""Exchange that depends on the surroundings, by rounds of messages between spins.

    .. math::
        A_{ij} = J_s + w_s \cdot u_{ij}

    for the bonds of ``range_shells``, with u the :class:`BondLayer` of the last nodes. With w = 0
    it is the pair exchange of a classical magnet.

    Args:
        family: Lattice family.
        widths: Channels of a node after each round.
        shells: Shells of neighbours that send messages.
        range_shells: Shells of neighbours whose exchange is given.
        nonlinearity: Name of the activation.
        aggregation: ``"mean"`` or ``"sum"`` over the bonds.
        residual: Whether rounds after the first add to their input.
        normalization: ``"layer"`` or ``"none"``.

    Raises:
        InputError: For less than one shell.
    """

    def __init__(
        self,
        family: str,
        widths: list[int],
        shells: int,
        range_shells: int,
        nonlinearity: str,
        aggregation: str,
        residual: bool = True,
        normalization: str = "none",
    ) -> None:
        super().__init__()
        for name, count in (("shells", shells), ("range_shells", range_shells)):
            if count < 1:
                raise InputError(f"{name} must be 1 or more, not {count}.")
        every = family_lattice(family).shells(count=max(shells, range_shells))[1:]
        self.near, self.far = every[:shells], every[:range_shells]
        near = [shell.size for shell in self.near]
        far = [shell.size for shell in self.far]
        given = (nonlinearity, aggregation, residual, normalization)
        self.rounds = nn.ModuleList(
            SpinMessages(into, out, near, *given) for into, out in pairwise([0, *widths])
        )
        self.readout = BondLayer(widths[-1], HIDDEN, far, nonlinearity)
        self.exchange = nn.Parameter(torch.randn(len(far)) / math.sqrt(sum(far)))
        self.change = nn.Parameter(
            _CHANGE * torch.randn(len(far), HIDDEN) / math.sqrt(HIDDEN * sum(far))
        )

    @property
    def shells(self) -> tuple[Shell, ...]:
        """All shells that are looked at."""
        return max(self.near, self.far, key=len)

    @property
    def radius(self) -> float:
        """Distance from a site beyond which nothing changes the exchange of its bonds."""
        return len(self.rounds) * self.near[-1].radius + self.far[-1].radius

    def forward(self, spins: Tensor, lattice: Lattice) -> tuple[Tensor, Tensor]:
        """Exchange and spins of the neighbours.

        Args:
            spins: ``[batch, sites, 3]``, components of unit variance.
            lattice: Any torus of the family that holds the shells.

        Returns:
            A ``[batch, sites, K]`` and S ``[batch, sites, K, 3]``.
        """
        near = neighbour_tables(lattice, self.near, spins.device)
        far = neighbour_tables(lattice, self.far, spins.device)
        tables = near if len(self.near) >= len(self.far) else far
        around = gather(spins, tables).unflatten(-1, (-1, 3))
        # Scalar products of independent directions have unit variance then.
        bonds = (around * spins[:, :, None]).sum(-1) / math.sqrt(3)
        nodes: Tensor | None = None
        for layer in self.rounds:
            nodes = layer(nodes, bonds[..., : near[0].shape[1]], near)
        count = far[0].shape[1]
        found = self.readout(nodes, bonds[..., :count], far)
        shell = self.readout._shell
        exchange = self.exchange[shell] + (found * self.change[shell]).sum(-1)
        return exchange, around[:, :, :count]

    def fields(self, spins: Tensor, lattice: Lattice) -> Tensor:
        r"""Fields :math:`\sum_j A_{ij} S_j`, ``[batch, sites, 3]``."""
        exchange, around = self(spins, lattice)
        return (exchange[..., None] * around).sum(2)

    def energies(self, spins: Tensor, lattice: Lattice) -> Tensor:
        r"""Energies :math:`-\frac12 \sum_j A_{ij} S_i \cdot S_j`, ``[batch, sites]``."""
        return -0.5 * (self.fields(spins, lattice) * spins).sum(-1)
