r"""Pure gauge theory on the square torus: heat bath and over-relaxation for Z2, U(1) and SU(2).

Weight exp(−S) with S = −β Σ_p Re Tr W_p/d, where d = 1, and 2 for SU(2). A link U sees the sum A of
its two staples, exp(β Re Tr(U A)/d), and is drawn from just this distribution
(:mod:`~latticezoo.simulate.gauge_algebras`).

Isolated fluxes of Z2 wander slowly at large β. But on a torus its plaquettes are independent signs
of product 1, so that :meth:`GaugeSampler.start` draws whole Z2 configurations from the exact
distribution.

Over-relaxation U → V U† V (V = A†/|A|) keeps the action and moves the link as far as it can
(Creutz, Phys. Rev. D 36, 515 (1987)).

Links along one direction only meet those of the same direction in the rows beside them. So all
links of every other row are drawn at once, and on a torus with an odd number of rows the last row
by itself: any size will do. Replicas are drawn together; what is random in one depends on (seed,
replica, sweep) alone.

The mean plaquette of a torus of V plaquettes is known exactly. With e^{−S_p} = Σ_r d_r c_r χ_r the
torus has Z = Σ_r c_r^V (A. A. Migdal, Sov. Phys. JETP 42, 413 (1975)), where c = cosh β, sinh β for
Z2, I_n(β) for U(1) and 2 I_n(β)/β, n = 1, 2, …, for SU(2); see :func:`mean_plaquette`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import expit, ive
from torch import Tensor

from latticezoo.simulate.gauge_algebras import ALGEBRAS, Array
from latticezoo.simulate.noise import generator
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.gauge import check_links
from latticezoo.symmetry.internal import internal_group
from latticezoo.symmetry.lattices import Lattice


class Sampled(NamedTuple):
    """What a run of a sampler leaves.

    Attributes:
        links: After the last sweep, as :mod:`latticezoo.symmetry.gauge` lays them out.
        plaquettes: Mean Re Tr W/d after every sweep, ``[sweeps, R]`` float64.
    """

    links: Tensor
    plaquettes: Array


@dataclass(frozen=True)
class GaugeSampler:
    """Sampler of the pure gauge theory; a sweep is one heat bath and some over-relaxation.

    Attributes:
        group: ``Z2``, ``U1`` or ``SU2``.
        beta: β ≥ 0.
        overrelaxation: Sweeps of over-relaxation after each heat bath; for Z2 it does nothing.
        seed: Seed of the run.

    Raises:
        InputError: For another group, or a value out of range.
    """

    group: str
    beta: float
    overrelaxation: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.group not in ALGEBRAS:
            raise unknown("gauge group", self.group, ALGEBRAS)
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise InputError(f"beta is {self.beta}; it must be finite and 0 or more.")
        if self.overrelaxation < 0 or int(self.overrelaxation) != self.overrelaxation:
            raise InputError(
                f"overrelaxation is {self.overrelaxation}; it must be a whole number of 0 or more."
            )

    def start(self, lattice: Lattice, replicas: Sequence[int], cold: bool = False) -> Tensor:
        """Links to start from: thermal ones for Z2, Haar-random ones for the other groups.

        Args:
            lattice: The torus.
            replicas: Replica numbers.
            cold: Units instead.

        Returns:
            Links of the group's layout, in double precision.
        """
        self.check(lattice)
        group = internal_group(self.group)
        shape = (lattice.n_sites, lattice.directions)
        if cold:
            return group.identity(len(replicas), *shape, dtype=torch.float64)
        if self.group == "Z2":
            draws = [generator(self.seed, r, stream="gauge start") for r in replicas]
            return torch.from_numpy(
                np.stack([_thermal_signs(lattice, self.beta, d) for d in draws])
            )
        drawn = []
        for replica in replicas:
            word = generator(self.seed, replica, stream="gauge start").integers(1 << 62)
            source = torch.Generator().manual_seed(int(word))
            drawn.append(group.random(*shape, generator=source, dtype=torch.float64))
        return torch.stack(drawn)

    def run(
        self,
        links: Tensor,
        lattice: Lattice,
        sweeps: int,
        replicas: Sequence[int] | None = None,
        first: int = 0,
    ) -> Sampled:
        """Do sweeps.

        Args:
            links: Where to start, double precision.
            lattice: The square torus, of any size from 2.
            sweeps: How many.
            replicas: Replica numbers; 0, 1, … by default.
            first: Number of the first sweep: run A, then B sweeps with ``first`` A, and you have
                the bits of A + B sweeps.

        Raises:
            InputError: For links that do not fit the lattice or the group.
        """
        self.check(lattice)
        check_links(links, lattice, self.group)
        numbers = range(len(links)) if replicas is None else replicas
        algebra = ALGEBRAS[self.group]
        # Two arrays, of the links along x and y, each [components, R, Lx, Ly].
        both = algebra.unpack(links.detach().cpu().resolve_conj().numpy(), lattice)
        means = np.empty((sweeps, len(links)))
        for sweep in range(sweeps):
            draws = [generator(self.seed, r, first + sweep, "gauge sweep") for r in numbers]
            for along, rows, around in _classes(algebra, *both):
                along[..., rows] = algebra.heat_bath(self.beta, around, draws)
            for _ in range(self.overrelaxation if self.group != "Z2" else 0):
                for along, rows, around in _classes(algebra, *both):
                    along[..., rows] = algebra.reflected(along[..., rows], around)
            algebra.normalize(both)
            means[sweep] = _plaquettes(algebra, *both)
        packed = torch.from_numpy(algebra.pack(both))
        return Sampled(packed.to(links.device), means)

    @staticmethod
    def check(lattice: Lattice) -> None:
        """Raise InputError unless the lattice is a square torus with sides of at least 2."""
        if lattice.family != "square" or min(lattice.shape) < 2:
            raise InputError(
                f"gauge fields are sampled on square tori with sides of at least 2, not {lattice}."
            )


def mean_plaquette(group: str, beta: float, plaquettes: int | None = None) -> float:
    """Exact mean of Re Tr W/d.

    Args:
        group: ``Z2``, ``U1`` or ``SU2``.
        beta: β.
        plaquettes: Number of plaquettes of the torus; None for the infinite lattice.

    Raises:
        InputError: For an unknown group.
    """
    if group not in ALGEBRAS:
        raise unknown("gauge group", group, ALGEBRAS)
    if beta == 0:
        return 0.0
    if group == "Z2":
        weights = np.array([math.cosh(beta), math.sinh(beta)])
        slopes = weights[::-1]
    else:
        orders = np.arange(1 if group == "SU2" else 0, 60 + 4 * math.ceil(beta))
        weights = ive(orders, beta)
        slopes = (ive(orders - 1, beta) + ive(orders + 1, beta)) / 2
        if group == "SU2":
            slopes = slopes - weights / beta
    # d ln Z/dβ; the largest weight, that of the trivial representation, is divided out.
    if plaquettes is None:
        return float(slopes[0] / weights[0])
    powers = (weights / weights[0]) ** (plaquettes - 1)
    count = np.where(np.arange(len(weights)) > 0, 2, 1) if group == "U1" else 1
    return float((count * powers * slopes).sum() / (count * powers * weights).sum())


def _thermal_signs(lattice: Lattice, beta: float, draw: np.random.Generator) -> Array:
    """Z2 links ``[N, 2]`` from the exact distribution: fluxes, holonomies and gauge at random."""
    while True:
        fluxes = np.where(draw.random(lattice.shape) < expit(-2 * beta), -1.0, 1.0)
        if fluxes.prod() > 0:
            break
    links = np.ones((*lattice.shape, 2))
    # In the gauge where links along y are 1 but in the last row, each link along x is the one below
    # times the flux between; the fluxes of whole columns are left to the last row.
    links[:, 1:, 0] = np.cumprod(fluxes, axis=1)[:, :-1]
    links[1:, -1, 1] = np.cumprod(fluxes.prod(1))[:-1]
    links[0, :, 0] *= draw.choice([-1.0, 1.0])
    links[:, 0, 1] *= draw.choice([-1.0, 1.0])
    turns = draw.choice([-1.0, 1.0], lattice.shape)
    for way in range(2):
        links[..., way] *= turns * np.roll(turns, -1, axis=way)
    return links.reshape(-1, 2)


# ---- the links of a class --------------------------------------------------------------------


def _classes(algebra: Any, x_links: Array, y_links: Array) -> Iterator[tuple[Array, slice, Array]]:
    """Links that can be drawn at once: a view, rows of its last axis, and their staples."""
    y_axis = (x_links, y_links)
    x_axis = tuple(links.swapaxes(-1, -2) for links in (y_links, x_links))
    for along, across in (y_axis, x_axis):
        count = along.shape[-1]
        even = count - count % 2
        for rows in (slice(0, even, 2), slice(1, even, 2), slice(even, count)):
            if rows.start < count:
                yield along, rows, _staples(algebra, along, across, rows)


def _staples(algebra: Any, along: Array, across: Array, rows: slice) -> Array:
    """Sum of the two ways back from the end of each link to its start."""
    count = along.shape[-1]
    numbers = np.arange(count)[rows]
    up, down = (numbers + 1) % count, (numbers - 1) % count
    here, below = across[..., rows], across[..., down]
    multiply, adjoint = algebra.multiply, algebra.adjoint
    first = multiply(_ahead(here), adjoint(multiply(here, along[..., up])))
    second = multiply(adjoint(multiply(along[..., down], _ahead(below))), below)
    return first + second


def _ahead(values: Array) -> Array:
    return np.roll(values, -1, axis=-2)


def _plaquettes(algebra: Any, x_links: Array, y_links: Array) -> Array:
    there = algebra.multiply(x_links, _ahead(y_links))
    back = algebra.multiply(y_links, np.roll(x_links, -1, axis=-1))
    return algebra.real(algebra.multiply(there, algebra.adjoint(back))).mean((-2, -1))
