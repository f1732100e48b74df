r"""Pure gauge theory on the square torus: heat bath and over-relaxation for Z2, U(1) and SU(2).

Weight exp(−S) with S = −β Σ_p Re Tr W_p/d, where d = 1, and 2 for SU(2). A link U sees the sum A of
its two staples, exp(β Re Tr(U A)/d), and is drawn from just this distribution:

* Z2: a sign;
* U(1): the angle to A* has a von Mises distribution;
* SU(2): A = k V† with V in the group, and U = X V with the first quaternion component a of X
  distributed as √(1 − a²) e^{βka}: by the method of Kennedy and Pendleton (Phys. Lett. B 156, 393
  (1985)) for large βk, of Creutz (Phys. Rev. D 21, 2308 (1980)) for small.

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit, ive
from torch import Tensor

from latticezoo.simulate.noise import generator
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.gauge import check_links
from latticezoo.symmetry.internal import internal_group
from latticezoo.symmetry.lattices import Lattice

Array = NDArray[Any]
Generators = list[np.random.Generator]

#: βk below which the method of Creutz accepts more often than that of Kennedy and Pendleton.
_CREUTZ = 1.7


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
        if self.group not in _ALGEBRAS:
            raise unknown("gauge group", self.group, _ALGEBRAS)
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
        algebra = _ALGEBRAS[self.group]
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
    if group not in _ALGEBRAS:
        raise unknown("gauge group", group, _ALGEBRAS)
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


def _drawn(draws: Generators, draw: Callable[[int, np.random.Generator], Array]) -> Array:
    """One draw a replica, stacked."""
    return np.stack([draw(row, source) for row, source in enumerate(draws)])


# ---- the groups ------------------------------------------------------------------------------


class _Numbers:
    """Links as numbers, ``[1, R, Lx, Ly]``."""

    @staticmethod
    def unpack(links: Array, lattice: Lattice) -> list[Array]:
        torus = links.reshape(1, len(links), *lattice.shape, 2)
        return [np.ascontiguousarray(torus[..., way]) for way in range(2)]

    @staticmethod
    def pack(both: Sequence[Array]) -> Array:
        stacked = np.stack([links[0] for links in both], -1)
        return stacked.reshape(len(stacked), -1, 2)

    @staticmethod
    def multiply(a: Array, b: Array) -> Array:
        return a * b

    @staticmethod
    def adjoint(a: Array) -> Array:
        return a.conj()

    @staticmethod
    def real(a: Array) -> Array:
        return a[0].real


class _Signs(_Numbers):
    @staticmethod
    def normalize(both: list[Array]) -> None:
        """Signs are exact."""

    @staticmethod
    def heat_bath(beta: float, around: Array, draws: Generators) -> Array:
        uniform = _drawn(draws, lambda _, source: source.random(around.shape[2:]))
        return np.where(uniform < expit(2 * beta * around), 1.0, -1.0)

    @staticmethod
    def reflected(links: Array, around: Array) -> Array:
        return links


class _Phases(_Numbers):
    @staticmethod
    def normalize(both: list[Array]) -> None:
        for links in both:
            links /= np.abs(links)

    @staticmethod
    def heat_bath(beta: float, around: Array, draws: Generators) -> Array:
        kappa = beta * np.abs(around[0])
        angle = _drawn(draws, lambda row, source: source.vonmises(0.0, kappa[row]))
        return np.exp(1j * (angle - np.angle(around[0])))[None]

    @staticmethod
    def reflected(links: Array, around: Array) -> Array:
        square = np.abs(around) ** 2
        still = square < 1e-20
        turned = links.conj() * around.conj() ** 2 / np.where(still, 1.0, square)
        return np.where(still, links, turned)


class _Quaternions:
    """SU(2) as unit quaternions ``[4, R, Lx, Ly]``: U = w − i(xσ¹ + yσ² + zσ³)."""

    @staticmethod
    def unpack(links: Array, lattice: Lattice) -> list[Array]:
        torus = links.reshape(len(links), *lattice.shape, 2, 2, 2)
        w, z = torus[..., 0, 0].real, -torus[..., 0, 0].imag
        y, x = torus[..., 1, 0].real, -torus[..., 1, 0].imag
        whole = np.stack([w, x, y, z])
        return [np.ascontiguousarray(whole[..., way]) for way in range(2)]

    @staticmethod
    def pack(both: Sequence[Array]) -> Array:
        w, x, y, z = np.stack(both, -1)
        rows = [np.stack([w - 1j * z, -y - 1j * x], -1), np.stack([y - 1j * x, w + 1j * z], -1)]
        stacked = np.stack(rows, -2)
        return stacked.reshape(len(stacked), -1, 2, 2, 2)

    @staticmethod
    def multiply(a: Array, b: Array) -> Array:
        aw, ax, ay, az = a
        bw, bx, by, bz = b
        product = np.empty(np.broadcast_shapes(a.shape, b.shape))
        product[0] = aw * bw - ax * bx - ay * by - az * bz
        product[1] = aw * bx + ax * bw + ay * bz - az * by
        product[2] = aw * by - ax * bz + ay * bw + az * bx
        product[3] = aw * bz + ax * by - ay * bx + az * bw
        return product

    @staticmethod
    def adjoint(a: Array) -> Array:
        turned = -a
        turned[0] = a[0]
        return turned

    @staticmethod
    def real(a: Array) -> Array:
        return a[0]

    @staticmethod
    def normalize(both: list[Array]) -> None:
        for links in both:
            links /= np.sqrt((links**2).sum(0))

    @classmethod
    def heat_bath(cls, beta: float, around: Array, draws: Generators) -> Array:
        size = np.sqrt((around**2).sum(0))
        still = size < 1e-10
        safe = np.where(still, 1.0, size)
        best = cls.adjoint(around) / safe
        best[:, still] = np.array([1.0, 0, 0, 0])[:, None]
        cosine = _first_components(beta * size, draws)
        normals = _drawn(draws, lambda _, source: source.standard_normal((3, *size.shape[1:])))
        axis = np.moveaxis(normals, 1, 0)
        axis *= np.sqrt(np.maximum(1 - cosine**2, 0) / (axis**2).sum(0))
        return cls.multiply(np.concatenate([cosine[None], axis]), best)

    @classmethod
    def reflected(cls, links: Array, around: Array) -> Array:
        square = (around**2).sum(0)
        still = square < 1e-20
        best = cls.adjoint(around)
        turned = cls.multiply(cls.multiply(best, cls.adjoint(links)), best)
        return np.where(still, links, turned / np.where(still, 1.0, square))


def _first_components(alpha: Array, draws: Generators) -> Array:
    """Draw a in [−1, 1] with density √(1 − a²) e^{αa}.

    Args:
        alpha: ``[R, …]``.
        draws: One generator a replica; how much is drawn from it depends on its replica alone.
    """
    flat = alpha.reshape(len(alpha), -1)
    found = np.empty_like(flat)
    replica, place = np.indices(flat.shape).reshape(2, -1)
    while len(place):
        counts = np.bincount(replica, minlength=len(draws))
        uniform = np.concatenate(
            [source.random((4, n)) for source, n in zip(draws, counts, strict=True)], axis=1
        )
        uniform = 1 - uniform  # in (0, 1]
        value, accepted = _proposals(flat[replica, place], uniform)
        found[replica[accepted], place[accepted]] = value[accepted]
        replica, place = replica[~accepted], place[~accepted]
    return found.reshape(alpha.shape)


def _proposals(alpha: Array, uniform: Array) -> tuple[Array, Array]:
    creutz = alpha < _CREUTZ
    low = np.maximum(alpha, 1e-12)
    flat = 1 + np.log1p((1 - uniform[0]) * np.expm1(-2 * low)) / low
    high = np.maximum(alpha, _CREUTZ)
    cosine = np.cos(2 * math.pi * uniform[2])
    below = -(np.log(uniform[0]) * cosine**2 + np.log(uniform[1])) / high
    value = np.where(creutz, flat, 1 - below)
    limit = np.where(creutz, 1 - flat**2, 1 - below / 2)
    return value, uniform[3] ** 2 <= limit


_ALGEBRAS: dict[str, Any] = {"Z2": _Signs, "U1": _Phases, "SU2": _Quaternions}
