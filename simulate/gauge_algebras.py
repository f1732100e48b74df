"""Links of Z2, U(1) and SU(2) in NumPy arrays, as the samplers of pure gauge theory see them.

A link U sees the sum A of its two staples, and the heat bath draws it with exp(β Re Tr(U A)/d):

* Z2: a sign;
* U(1): the angle to A* has a von Mises distribution;
* SU(2): A = k V† with V in the group, and U = X V with the first quaternion component a of X
  distributed as √(1 − a²) e^{βka}: by the method of Kennedy and Pendleton (Phys. Lett. B 156, 393
  (1985)) for large βk, of Creutz (Phys. Rev. D 21, 2308 (1980)) for small.

Every class has the same functions: ``unpack`` to two arrays, of the links along x and y, each
``[components, R, Lx, Ly]``, and ``pack`` back to ``[R, N, 2, …]``; ``multiply``, ``adjoint`` and
``real`` (Re Tr U/d); ``heat_bath`` and the over-relaxation ``reflected``; ``normalize``, against
rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from latticezoo.symmetry.lattices import Lattice

Array = NDArray[Any]
Generators = list[np.random.Generator]

#: βk below which the method of Creutz accepts more often than that of Kennedy and Pendleton.
_CREUTZ = 1.7


def _drawn(draws: Generators, draw: Callable[[int, np.random.Generator], Array]) -> Array:
    """One draw a replica, stacked."""
    return np.stack([draw(row, source) for row, source in enumerate(draws)])


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
        cosine = first_components(beta * size, draws)
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


def first_components(alpha: Array, draws: Generators) -> Array:
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


#: By the name of the group.
ALGEBRAS: dict[str, Any] = {"Z2": _Signs, "U1": _Phases, "SU2": _Quaternions}
