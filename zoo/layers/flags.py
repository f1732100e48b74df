"""Gauge-covariant features on the flags of the square lattice.

A flag is a site, a link from it and a side of that link: eight at every site, which the point group
D4 permutes as it multiplies its own elements. A layer that treats every flag alike, in the frame
(e1 along the link, e2 to the side), therefore has D4 exactly, while it still tells all directions
apart: it can multiply just those plaquettes that a given loop is made of.

Matrices are stored by components. Z2: one real number. U(1): real and imaginary part. SU(2): the
quaternion (w, x, y, z) of w − i(xσ¹ + yσ² + zσ³); real combinations, products and adjoints of group
elements stay in this real span. The first component is an invariant number. The others, together
the *charged* part, change their sign under the adjoint; for U(1) they are odd under charge
conjugation, for SU(2) they turn with the local transformation of the site.

=========  ========================  =============================================
part       shape                     group
=========  ========================  =============================================
numbers    ``[B, N, 1, 8, C]``       all
charged    ``[B, N, 1, 8, C]``       U(1), odd under charge conjugation
charged    ``[B, N, 3, 8, C]``       SU(2), adjoint vectors
=========  ========================  =============================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latticezoo.symmetry.lattices import Lattice

#: Steps along +x, −x, +y, −y.
STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))
#: Of every flag the directions e1 and e2, by number; pairs share e1.
FLAGS = ((0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (3, 0), (3, 1))
#: The flag on the other side of the link, and the one with e1 and e2 exchanged.
MIRRORED = tuple(FLAGS.index((a, b ^ 1)) for a, b in FLAGS)
EXCHANGED = tuple(FLAGS.index((b, a)) for a, b in FLAGS)


class Matrices(NamedTuple):
    """Real combinations of group elements, by their parts; see the module's table."""

    numbers: Tensor
    charged: Tensor | None

    @property
    def adjoint(self) -> Matrices:
        """H†."""
        return Matrices(self.numbers, None if self.charged is None else -self.charged)

    def map(self, change: Callable[[Tensor], Tensor]) -> Matrices:
        """Both parts after the same linear change."""
        return Matrices(
            change(self.numbers), None if self.charged is None else change(self.charged)
        )

    def flags(self, index: Tensor) -> Matrices:
        """The features of other flags of the same site."""
        return self.map(lambda part: part[..., index, :])


def multiply(a: Matrices, b: Matrices) -> Matrices:
    """The product a b, channel by channel."""
    if a.charged is None or b.charged is None:
        return Matrices(a.numbers * b.numbers, None)
    one, two = a.charged, b.charged
    charged = a.numbers * two + b.numbers * one
    if one.shape[2] == 1:
        return Matrices(a.numbers * b.numbers - one * two, charged)
    inner = (one * two).sum(2, keepdim=True)
    return Matrices(a.numbers * b.numbers - inner, charged + _cross(one, two))


def _cross(one: Tensor, two: Tensor) -> Tensor:
    """Vector products along axis 2: two to three times as fast as ``torch.linalg.cross``."""
    (x, y, z), (u, v, w) = one.unbind(2), two.unbind(2)
    return torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], 2)


@dataclass(frozen=True)
class Surroundings:
    """Links around every site, in the form in which features are carried along them.

    Attributes:
        lattice: The torus.
        leaf: The plaquette of every flag, e1 first, ``C = 1``.
        arriving: SU(2): rotations that carry vectors from a site against +x, −x, +y, −y,
            ``[B, N, 4·3, 3]``.
        leaving: SU(2): rotations that bring vectors from the ends of the links along x and y,
            ``[B, N, 2, 3, 3]``.
    """

    lattice: Lattice
    leaf: Matrices
    arriving: Tensor | None
    leaving: Tensor | None

    @classmethod
    def of(cls, links: Tensor, lattice: Lattice, group: str) -> Surroundings:
        """From links of a group, laid out as :mod:`latticezoo.symmetry.gauge` says."""
        forward = components(links, group)  # [B, N, 2, d]
        ahead = _targets(lattice)
        sides = []
        for step in range(4):
            if step % 2 == 0:
                sides.append(forward[:, :, step // 2])
            else:
                there = forward[:, ahead[:, step], step // 2]
                sides.append(torch.cat([there[..., :1], -there[..., 1:]], -1))
        every = torch.stack(sides, 2)  # [B, N, 4, d]
        leaf = _leaves(every, lattice)
        if group != "SU2":
            return cls(lattice, leaf, None, None)
        rotations = _rotation(every)  # [B, N, 4, 3, 3], from the neighbour to the site
        arriving = torch.stack([rotations[:, ahead[:, step ^ 1], step] for step in range(4)], dim=2)
        return cls(lattice, leaf, arriving.flatten(2, 3), rotations[:, :, ::2])

    def neighbours(self, values: Matrices) -> Matrices:
        """What lies at +e1, −e1, +e2, −e2 of every flag, carried to its site: ``4C`` channels."""
        numbers = gather(values.numbers, _plan(self.lattice, 1, False))
        if values.charged is None:
            return Matrices(numbers, None)
        if self.arriving is None:
            return Matrices(numbers, gather(values.charged, _plan(self.lattice, 1, False)))
        size = values.charged.shape
        carried = (self.arriving @ values.charged.flatten(3)).view(*size[:2], 4, *size[2:])
        return Matrices(numbers, gather(carried, _plan(self.lattice, 3, True)))


def components(links: Tensor, group: str) -> Tensor:
    """Links by their real components, one after another on the last axis.

    Args:
        links: ``[B, N, 2]`` or ``[B, N, 2, 2, 2]``.
        group: ``Z2``, ``U1`` or ``SU2``.

    Returns:
        ``[B, N, 2, d]`` with d = 1, 2, 4.
    """
    if group == "Z2":
        return links[..., None]
    if not links.is_complex():
        links = torch.complex(links, torch.zeros_like(links))
    if group == "U1":
        return torch.view_as_real(links.resolve_conj())
    (a, b), (c, d) = (row.unbind(-1) for row in links.unbind(-2))
    parts = (a.real + d.real, -b.imag - c.imag, c.real - b.real, d.imag - a.imag)
    return 0.5 * torch.stack(parts, -1)


def _rotation(quaternions: Tensor) -> Tensor:
    """Rotations ``[…, 3, 3]`` of vectors by quaternions ``[…, 4]``: v → q v q*."""
    w, x, y, z = quaternions.unbind(-1)
    rows = (
        (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def per_flag(sides: Tensor, way: int) -> Matrices:
    """Values of the four directions ``[B, N, 4, d]`` at the flags, by e1 (way 0) or e2 (way 1)."""
    index = torch.tensor([flag[way] for flag in FLAGS], device=sides.device)
    chosen = sides.index_select(2, index).movedim(3, 2)[..., None]  # [B, N, d, 8, 1]
    return Matrices(chosen[:, :, :1], chosen[:, :, 1:] if chosen.shape[2] > 1 else None)


def _leaves(every: Tensor, lattice: Lattice) -> Matrices:
    """Plaquettes U_a(i) U_b(i+a) U_a(i+b)† U_b(i)† of all flags (a, b)."""
    targets = _targets(lattice)
    turned = torch.cat([every[..., :1], -every[..., 1:]], -1)
    found = []
    for a, b in FLAGS:
        corners = (
            every[:, :, a],
            every[:, targets[:, a], b],
            turned[:, targets[:, b], a],
            turned[:, :, b],
        )
        loop = None
        for corner in corners:
            shaped = corner[..., None, None]  # [B, N, d, 1, 1]
            charged = shaped[:, :, 1:] if shaped.shape[2] > 1 else None
            factor = Matrices(shaped[:, :, :1], charged)
            loop = factor if loop is None else multiply(loop, factor)
        assert loop is not None
        found.append(loop)
    numbers = torch.cat([loop.numbers for loop in found], 3)
    parts = [loop.charged for loop in found if loop.charged is not None]
    return Matrices(numbers, torch.cat(parts, 3) if parts else None)


# ---- shifts of all flags at once -----------------------------------------------------------------


@lru_cache(maxsize=64)
def _targets(lattice: Lattice) -> Tensor:
    """Sites at the end of a step along +x, −x, +y, −y, ``[N, 4]``."""
    place = torch.arange(lattice.n_sites).view(lattice.shape)
    ends = [torch.roll(place, (-step[0], -step[1]), (0, 1)).flatten() for step in STEPS]
    return torch.stack(ends, 1)


class _Plan(NamedTuple):
    """Rows to fetch for every row that comes out, and where every row that goes in was sent."""

    rows: Tensor
    inverse: Tensor
    copies: int
    tail: tuple[int, ...]


@lru_cache(maxsize=64)
def _plan(lattice: Lattice, parts: int, carried: bool) -> _Plan:
    """Neighbours in the frame of every flag, as rows of C channels.

    Rows come out in the order (site, part, flag, frame direction). They go in as (site, part, flag)
    or, where values have been carried in every direction before, (site, direction, part, flag).
    """
    way = torch.tensor([(e1, e1 ^ 1, e2, e2 ^ 1) for e1, e2 in FLAGS])  # [8, 4]
    row = _targets(lattice)[:, way][:, None]  # [N, 1, 8, 4]
    row = row * 4 + way if carried else row
    part, flag = torch.arange(parts)[:, None, None], torch.arange(8)[:, None]
    chosen = ((row * parts + part) * 8 + flag).flatten()
    copies = 1 if carried else 4
    return _Plan(chosen, torch.argsort(chosen), copies, (lattice.n_sites, parts, 8))


class _Gather(torch.autograd.Function):
    """Rows by an index that names every row equally often; its adjoint fetches rows as well."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, plan: _Plan) -> Tensor:
        ctx.plan = plan
        return rows.index_select(1, plan.rows.to(rows.device))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(grad, ctx.plan), None


class _Spread(torch.autograd.Function):
    """The adjoint of :class:`_Gather`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, plan: _Plan) -> Tensor:
        ctx.plan = plan
        found = rows.index_select(1, plan.inverse.to(rows.device))
        return found if plan.copies == 1 else found.unflatten(1, (-1, plan.copies)).sum(2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Gather.apply(grad, ctx.plan), None


def gather(values: Tensor, plan: _Plan) -> Tensor:
    """Neighbours of all flags, ``[B, N, part, 8, 4C]``."""
    rows = values.reshape(values.shape[0], -1, values.shape[-1])
    found: Tensor = _Gather.apply(rows, plan)
    return found.view(values.shape[0], *plan.tail, 4 * values.shape[-1])
