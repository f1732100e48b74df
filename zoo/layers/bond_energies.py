r"""Messages on directed bonds towards local energies, for site fields of any type.

A scalar message between sites forgets the direction that it came along, and with it everything
that a field with components needs: which neighbour is "along x" for Q^x of type B1. So features
live on directed bonds here, x_{ik} being what site i knows along its bond k, and they are plain
numbers that an operation of the lattice carries from bond to bond. Everything follows from the
site group G and the nearest-neighbour offsets o_k:

* The field enters in the frame of the bond. With g_k an element that carries the bond 0 onto
  bond k, and S the elements that leave bond 0 where it is,

  .. math:: x_{ik} = \frac{1}{|S|} \sum_{s \in S}
            \sigma\big(W\,[M(g_k s)^{-1} Q_i,\; M(g_k s)^{-1} Q_{j(i,k)}] + b\big) .

  For h in G, h g_k s is g_{hk} s' with s' in S, so hQ has at bond hk of site hi what Q has at bond
  k of site i. (B1 on the square lattice: M = −1 on bonds along y, S acts trivially.)
* Between the bonds of a site, one matrix for each class of pairs (k, k') that G carries into each
  other: the same bond, its neighbours, the opposite one. These are all linear maps that commute
  with G.
* Over a bond: what site j makes of its bonds goes to i along the bond that j and i share.

Pointwise nonlinearities commute with all of it, so no Clebsch–Gordan coefficients are needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.geometry import neighbour_targets
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.neighbourhoods import (
    ExactBuffers,
    family_lattice,
    gather,
    in_frames,
    neighbour_tables,
)
from latticezoo.zoo.layers.activations import activation, gain
from latticezoo.zoo.layers.energy_graph import fan_in_linear


class Bonds(NamedTuple):
    """The nearest-neighbour bonds of a site, and how its group carries them into each other.

    Attributes:
        elements: Elements g_k s of the site group that carry bond 0 onto bond k, ``[z, |S|]``.
        classes: Class of every pair of bonds, ``[z, z]``; class 0 holds a bond with itself.
        reverse: For bond k of a site its number among the bonds of the neighbour, ``[z]``.
    """

    elements: np.ndarray
    classes: np.ndarray
    reverse: np.ndarray


@lru_cache
def bonds(family: str) -> Bonds:
    """The bonds of a lattice family."""
    lattice = family_lattice(family)
    group, shell = lattice.site_group, lattice.shells(count=1)[1]
    offsets = shell.vectors
    turned = np.einsum("gij,kj->gki", group.matrices, offsets)
    images = _nearest(turned, offsets)  # [order, z]
    elements = np.stack([np.flatnonzero(images[:, 0] == k) for k in range(len(offsets))])

    classes = np.full((len(offsets),) * 2, -1)
    for first in range(len(offsets)):
        for second in range(len(offsets)):
            if classes[first, second] < 0:
                classes[images[:, first], images[:, second]] = classes.max() + 1

    frames = lattice.point_group.matrices[list(lattice.frames)]
    targets, _ = neighbour_targets(family, shell)
    back = np.einsum("skji,sjl,kl->ski", frames[targets], frames, -offsets)
    reverse = _nearest(back, offsets)
    assert (reverse == reverse[0]).all(), f"bonds of {family} differ between its sites"
    return Bonds(elements, classes, reverse[0])


def _nearest(points: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    return np.abs(points[..., None, :] - offsets).max(-1).argmin(-1)


@lru_cache(maxsize=16)
def partners(lattice: Lattice, device: torch.device) -> tuple[Tensor, Tensor]:
    """The same bond seen from its other end, for the directed bonds of all sites, row-major.

    Returns:
        An involution ``[sites · z, 1]``, twice: table and inverse, as
        :func:`~latticezoo.symmetry.neighbourhoods.gather` takes them.
    """
    with torch.inference_mode(False):
        neighbours = lattice.neighbours(1)
        reverse = torch.from_numpy(bonds(lattice.family).reverse)
        table = (neighbours * len(reverse) + reverse).reshape(-1, 1).to(device)
        return table, table


class BondEmbedding(ExactBuffers):
    """From site fields to features on directed bonds.

    Args:
        family: Lattice family.
        fields: Site fields of any point type.
        width: Channels that come out.
        nonlinearity: Name of the activation.

    Shapes:
        - input ``[batch, sites, M]``, the fields side by side
        - output ``[batch, sites, z, width]``
    """

    _turns: Tensor

    def __init__(self, family: str, fields: Sequence[Field], width: int, nonlinearity: str) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity
        lattice = family_lattice(family)
        self.shells = lattice.shells(count=1)[1:]
        spec = "+".join(field.point for field in fields)
        representation = lattice.site_group.representation(spec)
        self._blocks, self.channels = representation.blocks, representation.dim
        # Real orthogonal matrices: the inverse is the transpose. [z, |S|, M, M]
        turns = np.swapaxes(representation.matrices[bonds(family).elements], -1, -2)
        # Elements of S under which the field is the same would only repeat each other.
        kept = np.unique(np.round(turns[0], 9), axis=0, return_index=True)[1]
        self.register_constant("_turns", turns[:, np.sort(kept)])
        self.linear = fan_in_linear(2 * self.channels, width, gain(nonlinearity))

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Features of fields; shapes as above."""
        values = in_frames(values, lattice, self._blocks)
        tables = neighbour_tables(lattice, self.shells, values.device)
        around = gather(values, tables).unflatten(-1, (-1, self.channels))
        near = self._turned(around, "bnkq")
        own = self._turned(values, "bnq")
        found = self.linear(torch.cat([own, near], dim=-1))
        return activation(self.nonlinearity)(found).mean(-2)

    def _turned(self, values: Tensor, axes: str) -> Tensor:
        """Values in the frame of every bond, ``[batch, sites, z, |S|, M]``."""
        return torch.einsum(f"kspq,{axes}->bnksp", self._turns, values)


class BondMixing(nn.Module):
    """All linear maps between the bonds of a site that commute with its group.

    Args:
        family: Lattice family.
        in_channels: Channels on every bond that go in.
        out_channels: Channels that come out.
        factor: Change of the size of values.
        aggregation: ``"mean"`` or ``"sum"`` over the bonds of a class.
    """

    _classes: Tensor

    def __init__(
        self, family: str, in_channels: int, out_channels: int, factor: float, aggregation: str
    ) -> None:
        super().__init__()
        classes = torch.from_numpy(bonds(family).classes)
        count, z = int(classes.max()) + 1, len(classes)
        # Bonds of a class that one bond sees: the same number for every bond.
        sizes = torch.bincount(classes[0], minlength=count).to(torch.get_default_dtype())
        self.register_buffer("_classes", classes, persistent=False)
        mean = aggregation == "mean"
        self._mean_sizes = sizes.tolist() if mean else [1.0] * count
        self.weight = nn.Parameter(torch.empty(count, out_channels, in_channels))
        terms = in_channels * (count if mean else z)
        nn.init.normal_(self.weight, std=factor / math.sqrt(terms))

    def forward(self, values: Tensor) -> Tensor:
        """Map ``[batch, sites, z, c]`` to ``[batch, sites, z, c']``."""
        sizes = self.weight.new_tensor(self._mean_sizes)
        matrices = (self.weight / sizes[:, None, None])[self._classes]  # [z, z, c', c]
        z = len(self._classes)
        dense = matrices.permute(1, 3, 0, 2).reshape(values.shape[-1] * z, -1)
        return (values.flatten(-2) @ dense).unflatten(-1, (z, -1))


class BondBlock(nn.Module):
    r"""One round of messages over the bonds, with a residual.

    .. math::
        u_{ik} = \sigma\Big(b + \sum_{k'} A_{c(k,k')} x_{ik'}
                 + \sum_{k'} B_{c(\bar k,k')} x_{j(i,k)\,k'}\Big), \qquad
        x_{ik}' = W_\mathrm{res} x_{ik} + \mathrm{Norm}(W u_{ik})

    with c the class of a pair of bonds and :math:`\bar k` the bond k seen from its other end.

    Args:
        family: Lattice family.
        in_channels: Channels on every bond that go in.
        out_channels: Channels that come out.
        nonlinearity: Name of σ.
        aggregation: ``"mean"`` or ``"sum"`` over the bonds of a class.
        normalization: ``"layer"`` for a LayerNorm over the channels of a bond, or ``"none"``.
    """

    def __init__(
        self,
        family: str,
        in_channels: int,
        out_channels: int,
        nonlinearity: str,
        aggregation: str,
        normalization: str,
    ) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity
        # Own and neighbour's part read the same values, so one map gives both.
        factor = math.sqrt(0.5) * gain(nonlinearity)
        self.mixing = BondMixing(family, in_channels, 2 * out_channels, factor, aggregation)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.outer = fan_in_linear(out_channels, out_channels, 1.0, bias=False)
        self.residual = fan_in_linear(in_channels, out_channels, 1.0, bias=False)
        if in_channels == out_channels:
            nn.init.eye_(self.residual.weight)
        layer = normalization == "layer"
        self.norm = nn.LayerNorm(out_channels) if layer else nn.Identity()

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Map ``[batch, sites, z, c]`` to ``[batch, sites, z, c']``."""
        own, sent = self.mixing(values).chunk(2, dim=-1)
        received = gather(sent.flatten(1, 2), partners(lattice, values.device)).view(own.shape)
        update = activation(self.nonlinearity)(own + received + self.bias)
        return self.residual(values) + self.norm(self.outer(update))


class BondEnergies(nn.Module):
    r"""Local energies of site fields of any type by messages on directed bonds.

    .. math:: \epsilon_i = \sum_k w \cdot \sigma(R\, x_{ik} + r)

    after the blocks, with the mean over the bonds for ``aggregation="mean"``.

    Args:
        family: Lattice family.
        fields: The fields that go in.
        widths: Channels on every bond after each block.
        nonlinearity: Name of the activation.
        aggregation: ``"mean"`` or ``"sum"`` over bonds.
        normalization: ``"layer"`` or ``"none"``.
    """

    def __init__(
        self,
        family: str,
        fields: Sequence[Field],
        widths: list[int],
        nonlinearity: str,
        aggregation: str,
        normalization: str,
    ) -> None:
        super().__init__()
        self.nonlinearity, self.mean = nonlinearity, aggregation == "mean"
        self.embedding = BondEmbedding(family, fields, widths[0], nonlinearity)
        self.blocks = nn.ModuleList(
            BondBlock(family, into, out, nonlinearity, aggregation, normalization)
            for into, out in pairwise([widths[0], *widths])
        )
        last = widths[-1]
        self.inner = fan_in_linear(last, last, gain(nonlinearity))
        self.outer = fan_in_linear(last, 1, 1.0, bias=False)

    def forward(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Local energies ``[batch, sites]`` of fields side by side, ``[batch, sites, M]``."""
        found = self.embedding(values, lattice)
        for block in self.blocks:
            found = block(found, lattice)
        energies = self.outer(activation(self.nonlinearity)(self.inner(found))).squeeze(-1)
        return energies.mean(-1) if self.mean else energies.sum(-1)
