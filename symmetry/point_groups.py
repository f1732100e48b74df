"""The point groups of the lattices, by name, with their irreps written down.

Planar groups act on (x, y); their mirrors are half turns about axes in the plane and carry the
labels C2' and C2''. Conventions that saved weights depend on:

* ``C(n)``: rotations by 2πk/n, k = 0 … n−1. A; for even n B; then E_l, rotations by l times the
  angle.
* ``D(n)``: the rotations of C(n), then mirrors at the lines πk/n; for n = 3 at 90°, 150°, 30°, the
  lines through the bonds of a honeycomb site. A1, A2 (sin nθ); for even n B1 (cos nθ/2) and B2
  (sin nθ/2); then E_l (cos lθ, sin lθ). D(1) acts on a line: [1], [−1].
* ``Td()``, ``O()``, ``Oh()``: signed permutation matrices; E is (2z² − x² − y², √3(x² − y²)). In Td
  the vector is T2 and the rotations are T1; in O the vector is T1 and (yz, zx, xy) is T2; in Oh the
  vector is T1u.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.groups import FiniteGroup

_ROOT3 = math.sqrt(3.0)


@lru_cache
def C(n: int) -> FiniteGroup:
    """Cyclic group of the n rotations of the plane.

    Raises:
        InputError: Unless n is a whole number of at least 1.
    """
    _check_fold("C", n)
    irreps = {"A": np.ones(n)} | ({} if n % 2 else {"B": (-1.0) ** np.arange(n)})
    table = {name: values[:, None, None] for name, values in irreps.items()}
    for turns in range(1, (n + 1) // 2):
        table[_e_name(n, turns)] = np.array([_rotation(turns * k, n) for k in range(n)])
    return FiniteGroup(f"C{n}", np.array([_rotation(k, n) for k in range(n)]), table)


@lru_cache
def D(n: int) -> FiniteGroup:
    """Dihedral group of n rotations and n mirrors of the plane; D(1) of the line.

    Raises:
        InputError: Unless n is a whole number of at least 1.
    """
    _check_fold("D", n)
    steps = range(n)
    even, odd = np.ones(n), -np.ones(n)
    irreps = {"A1": np.r_[even, even], "A2": np.r_[even, odd]}
    if n == 1:
        line = np.array([[[1.0]], [[-1.0]]])
        return FiniteGroup("D1", line, {"A1": line**2, "A2": line}, ["E", "σ"])
    if n % 2 == 0:
        alternating = (-1.0) ** np.arange(n)
        irreps |= {"B1": np.r_[alternating, alternating], "B2": np.r_[alternating, -alternating]}
    table = {name: values[:, None, None] for name, values in irreps.items()}
    # Mirror k lies at πk/n; on honeycomb sites it is turned by 90°.
    mirrors = [(2 * k + (n if n == 3 else 0), 4 * n) for k in steps]
    for turns in range(1, (n + 1) // 2):
        table[_e_name(n, turns)] = np.array(
            [_rotation(turns * k, n) for k in steps] + [_mirror(turns * k, m) for k, m in mirrors]
        )
    matrices = [_rotation(k, n) for k in steps] + [_mirror(k, m) for k, m in mirrors]
    return FiniteGroup(f"D{n}", np.array(matrices), table)


@lru_cache
def Td() -> FiniteGroup:
    """Full tetrahedral group, of the corners (1,1,1), (1,−1,−1), (−1,1,−1), (−1,−1,1)."""
    m, swap, e = _cubic(lambda m: m.sum(axis=1).prod() > 0)
    table = {"A1": swap**2, "A2": swap, "E": e, "T1": swap * m, "T2": m}
    return FiniteGroup("Td", m, table)


@lru_cache
def O() -> FiniteGroup:  # noqa: E743
    """Group of the rotations of the cube."""
    m, swap, e = _cubic(lambda m: np.linalg.det(m) > 0)
    table = {"A1": swap**2, "A2": swap, "E": e, "T1": m, "T2": swap * m}
    return FiniteGroup("O", m, table)


@lru_cache
def Oh() -> FiniteGroup:
    """Full symmetry group of the cube."""
    m, swap, e = _cubic(lambda m: True)
    parity = np.rint(np.linalg.det(m))[:, None, None]
    even = {"A1": swap**2, "A2": swap, "E": e, "T1": parity * m, "T2": swap * parity * m}
    table = {f"{name}g": x for name, x in even.items()}
    table |= {f"{name}u": x * parity for name, x in even.items()}
    return FiniteGroup("Oh", m, table)


_KNOWN: dict[str, Callable[[], FiniteGroup]] = {
    **{f"C{n}": lambda n=n: C(n) for n in (1, 2, 3, 4, 6)},  # type: ignore[misc]
    **{f"D{n}": lambda n=n: D(n) for n in (1, 2, 3, 4, 6)},  # type: ignore[misc]
    "Td": Td,
    "O": O,
    "Oh": Oh,
}

#: Names that :func:`point_group` accepts.
POINT_GROUPS = tuple(_KNOWN)


def point_group(name: str) -> FiniteGroup:
    """A point group by Schoenflies symbol; always the same object.

    Raises:
        InputError: For an unknown name, with the nearest ones.
    """
    if name not in _KNOWN:
        raise unknown("point group", name, _KNOWN)
    return _KNOWN[name]()


def _check_fold(family: str, n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"{family}(n) needs a whole number n of at least 1, not {n!r}.")


def _e_name(n: int, turns: int) -> str:
    return "E" if n < 5 else f"E{turns}"


def _cos_sin(k: int, n: int) -> tuple[float, float]:
    """Cosine and sine of 2πk/n; exact, or the nearest double, at the multiples of 30°."""
    twelfths, rest = divmod(12 * k, n)
    if rest:
        return math.cos(2 * math.pi * k / n), math.sin(2 * math.pi * k / n)
    quarter = (0.0, 0.5, _ROOT3 / 2)
    half = (*quarter, 1.0, *quarter[:0:-1])
    sines = (*half, *(-x + 0.0 for x in half))
    return sines[(twelfths + 3) % 12], sines[twelfths % 12]


def _rotation(k: int, n: int) -> np.ndarray:
    """Rotation by 2πk/n."""
    c, s = _cos_sin(k, n)
    return np.array([[c, -s], [s, c]])


def _mirror(k: int, n: int) -> np.ndarray:
    """Mirror about the line at half the angle 2πk/(n/2): the line at 2πk/n."""
    c, s = _cos_sin(2 * k, n)
    return np.array([[c, s], [s, -c]])


def _cubic(keep: Callable[[np.ndarray], bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed permutation matrices of a cubic group.

    Returns:
        The matrices ``[order, 3, 3]``; ±1 by whether the axes are permuted evenly or oddly,
        ``[order, 1, 1]``; and E, ``[order, 2, 2]``.
    """
    found = []
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product([1.0, -1.0], repeat=3):
            matrix = np.zeros((3, 3))
            matrix[range(3), axes] = signs
            if keep(matrix):
                found.append(matrix)
    m = np.array(sorted(found, key=lambda m: (-np.trace(m), tuple(-m.ravel()))))
    permutation = np.abs(m)
    swap = np.rint(np.linalg.det(permutation))[:, None, None]
    harmonics = np.array([[-1, -1, 2], [_ROOT3, -_ROOT3, 0]]) / math.sqrt(6.0)
    return m, swap, harmonics @ permutation @ harmonics.T
