"""Geometry of groups of orthogonal matrices: Schoenflies symbols, names of elements and classes.

Matrices of one or two dimensions are read as operations of the plane: a mirror line is a two-fold
axis in the plane (C2'), so that the planar groups are Cn and Dn. In three dimensions every point
group gets its own name. Where labels leave a choice (which of two axes is C2', which the principal
one) it is settled by, in this order: the smaller class of the parent group, the parent's order of
classes, and the axis nearest to x (for the principal axis: to z). So a subgroup has the names that
a textbook gives it, and conjugate subgroups have the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latticezoo.symmetry.irreps import TOLERANCE

# Classes of O and Oh in the order of the tables, as (order of the rotation, size of the class). The
# improper ones are −1 times the proper ones, in another order.
_PROPER_CUBIC = ((1, 1), (3, 8), (2, 6), (4, 6), (2, 3))
_IMPROPER_CUBIC = ((1, 1), (4, 6), (3, 8), (2, 3), (2, 6))


@dataclass(frozen=True)
class Operation:
    """Geometry of one orthogonal matrix M: proper rotation R = det(M) M about an axis.

    Attributes:
        proper: Whether det M = 1; planar operations count as proper (see the module).
        angle: Rotation angle of R in units of 2π: 0 ≤ angle ≤ 1/2.
        axis: Unit vector about which R turns counter-clockwise; zero for the identity. For half
            turns the first of its components z, y, x that is not zero is positive.
    """

    proper: bool
    angle: float
    axis: tuple[float, float, float]

    @classmethod
    def of(cls, matrix: np.ndarray) -> Operation:
        """Read the operation off a matrix of one, two or three dimensions."""
        space = np.eye(3)
        if len(matrix) < 3:
            space[: len(matrix), : len(matrix)] = matrix
            space[2, 2] = np.linalg.det(matrix)
        else:
            space = np.asarray(matrix)
        proper = np.linalg.det(space) > 0
        rotation = space if proper else -space
        turn = math.acos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)) / (2 * math.pi)
        # acos is good to the square root of the precision at its ends only.
        turn = 0.0 if turn < 1e-5 else 0.5 if turn > 0.5 - 1e-5 else turn
        if turn == 0:
            axis = np.zeros(3)
        elif turn == 0.5:
            projector = (rotation + np.eye(3)) / 2
            axis = projector[:, int(np.argmax(np.diagonal(projector)))]
            axis = _upward(axis)
        else:
            skew = rotation - rotation.T
            axis = np.array([skew[2, 1], skew[0, 2], skew[1, 0]])
        length = np.linalg.norm(axis) or 1.0
        x, y, z = (round(float(a), 12) + 0.0 for a in axis / length)
        return cls(bool(proper), turn, (x, y, z))

    @property
    def is_in_plane(self) -> bool:
        """Whether it is a half turn about an axis in the plane: a mirror of the plane."""
        return self.angle > 0 and abs(self.axis[2]) < 0.5

    def label(self, about: np.ndarray | None = None) -> str:
        """Symbol E, Cn, Cn^k, i, σ, Sn, Sn^k.

        Args:
            about: Direction that counts as up: a rotation the other way is a higher power. Without
                it, an operation and its inverse have the same symbol.
        """
        down = about is not None and float(np.dot(about, self.axis)) < -TOLERANCE
        turn = 1 - self.angle if down else self.angle
        if self.proper:
            return "E" if self.angle == 0 else _power("C", turn)
        if self.angle == 0:
            return "i"
        if self.angle == 0.5:
            return "σ"
        # −R turns and reflects: a rotation–reflection by half a turn more.
        turn = (turn + 0.5) % 1
        return _power("S", min(turn, 1 - turn) if about is None else turn)


@dataclass(frozen=True, eq=False)
class Geometry:
    """What a group of orthogonal matrices looks like.

    Attributes:
        operations: One for each element.
        classes: Conjugacy classes as element indices, in any order.
        planar: Whether the matrices have fewer than three dimensions.
        rank: For each element what makes its class the more distinguished one, smaller first.
    """

    operations: tuple[Operation, ...]
    classes: tuple[tuple[int, ...], ...]
    planar: bool
    rank: tuple[tuple[int, ...], ...]

    @cached_property
    def name(self) -> str:
        """Schoenflies symbol."""
        if self.planar:
            mirrors = sum(g.is_in_plane for g in self.operations)
            return f"D{mirrors}" if mirrors else f"C{len(self.operations)}"
        proper = [g for g in self.operations if g.proper]
        family, n = _rotation_group(proper)
        number = n or ""
        if len(proper) == len(self.operations):
            return f"{family}{number}"
        if self.has_inversion:
            if family == "C" and n % 2:
                return "Ci" if n == 1 else f"S{2 * n}"
            return f"{family}{number}{'d' if family == 'D' and n % 2 else 'h'}"
        if family in "TD":
            return "Td" if family == "T" else f"D{n}{'h' if n % 2 else 'd'}"
        # Without −1 the rotations R of all operations are a group of the same order.
        whole, twice = _rotation_group(self.operations)
        if whole == "D":
            return f"C{n}v"
        return f"S{twice}" if n % 2 == 0 else "Cs" if n == 1 else f"C{n}h"

    @cached_property
    def has_inversion(self) -> bool:
        """Whether −1 is an element."""
        return any(not g.proper and g.angle == 0 for g in self.operations)

    @cached_property
    def is_cubic(self) -> bool:
        """Whether there are several three-fold axes, with two rotations each."""
        threefold = sum(_order(g.angle) == 3 for g in self.operations)
        return threefold // (2 if self.has_inversion else 1) > 2

    @cached_property
    def principal(self) -> np.ndarray | None:
        """Direction of the principal axis; None for E, i and for the cubic groups."""
        if self.planar:
            return np.array([0.0, 0.0, 1.0])
        turning = [k for k, g in enumerate(self.operations) if g.angle]
        if not turning or self.is_cubic:
            return None
        top = max(_order(self.operations[k].angle) for k in turning)
        chosen = [k for k in turning if _order(self.operations[k].angle) == top]
        if self.name == "C2v":
            chosen = [k for k in turning if self.operations[k].proper]
        best = min(chosen, key=lambda k: (not self.operations[k].proper, self.rank[k], self._z(k)))
        return _upward(np.array(self.operations[best].axis))

    @cached_property
    def principal_letter(self) -> str:
        """``"S"`` where a rotation–reflection generates the operations about the axis, else "C"."""
        if self.has_inversion or self.is_cubic:
            return "C"
        return "S" if self.name[0] == "S" or self.name[-1] == "d" else "C"

    def _z(self, k: int) -> tuple[float, ...]:
        """Sort key: axes near z first, then near y."""
        return tuple(-round(abs(a), 6) for a in reversed(self.operations[k].axis))

    def _x(self, k: int) -> tuple[float, ...]:
        """Sort key: axes near x first, then near y, then those at an angle below 90°."""
        axis = np.round(self.operations[k].axis, 6)
        first = axis[np.flatnonzero(axis)[:1]]
        signed = axis * np.sign(first) if len(first) else axis
        return (*(-abs(axis)), *(-signed))

    def along(self, k: int) -> bool:
        """Whether an element turns about the principal axis."""
        return abs(self._upness(k)) > 1 - TOLERANCE

    def _upness(self, k: int) -> float:
        """Cosine of the angle between the axis of an element and the principal axis."""
        if self.principal is None:
            return 0.0
        return float(self.principal @ self.operations[k].axis)

    def _turn(self, k: int) -> float:
        """Angle of the rotation, about the upward direction where there is one."""
        angle = self.operations[k].angle
        return 1 - angle if self._upness(k) < TOLERANCE - 1 else angle

    @cached_property
    def ordered_classes(self) -> tuple[tuple[int, ...], ...]:
        """Classes: proper before improper, along the principal axis first, by angle, by rank."""
        return tuple(sorted(self.classes, key=lambda members: min(map(self._class_key, members))))

    def _class_key(self, k: int) -> tuple:
        g = self.operations[k]
        turn = round(self._turn(k), 6)
        tail = (self.rank[k], self._x(k))
        if self.name in ("O", "Oh"):
            tabulated = _PROPER_CUBIC if g.proper else _IMPROPER_CUBIC
            size = next(len(members) for members in self.classes if k in members)
            return (not g.proper, tabulated.index((_order(g.angle), size)))
        off_axis = self.principal is not None and bool(g.angle) and not self.along(k)
        if self.principal_letter == "S":
            turn = turn if g.proper else (turn + 0.5) % 1
            return (off_axis, not g.proper if off_axis else False, turn, *tail)
        return (not g.proper, off_axis, turn, *tail)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """One label for each of ``ordered_classes``, all different, without the class size."""
        labels: list[str] = []
        for members in self.ordered_classes:
            about = {k: self.principal if self.along(k) else None for k in members}
            plain = (self.operations[k].label(about[k]) for k in members)
            label = min(plain, key=lambda symbol: (len(symbol), symbol))
            if label == "σ":
                label = self._mirror_label(members, "σv" in labels)
            elif label == "C2" and self.is_cubic:
                label = "C2" if len(members) == 3 else "C2'"
            elif label == "C2" and not self.along(members[0]):
                label = "σ" if self.name == "D1" else "C2'"
            while label in labels:
                label += "'"
            labels.append(label)
        return tuple(labels)

    def _mirror_label(self, members: tuple[int, ...], second: bool) -> str:
        """σh across the principal axis, σv along it, σd along it between the axes C2'."""
        if self.is_cubic:
            return "σh" if len(members) == 3 else "σd"
        if self.along(members[0]):
            return "σh"
        if self.name.endswith("d"):
            return "σd"
        fold = max(_order(g.angle) for k, g in enumerate(self.operations) if self.along(k))
        return "σd" if second and fold > 2 else "σv"


def element_names(operations: Sequence[Operation], planar: bool) -> tuple[str, ...]:
    """Names for single elements, such as C4^3 and C2'(45°), or C3[1-11] and σ[110] in space.

    The direction of a rotation is that about which it turns counter-clockwise; of a mirror, its
    normal; in the plane, the angle of the mirror line.
    """
    names = []
    for g in operations:
        if not planar:
            plain = g.label()
            names.append(plain if plain in "Ei" else plain + _direction(g))
        elif g.is_in_plane:
            degrees = math.degrees(math.atan2(g.axis[1], g.axis[0])) % 180
            names.append(f"C2'({degrees:.4g}°)")
        else:
            names.append(g.label(np.array([0.0, 0.0, 1.0])))
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name}#{k}" for k, name in enumerate(names))


def _direction(g: Operation) -> str:
    # −R turns by half a turn more: the short way round is about the opposite axis.
    axis = np.array(g.axis) * (1 if g.proper or g.angle == 0.5 else -1)
    scaled = axis / np.abs(axis[np.abs(axis) > TOLERANCE]).min()
    if np.abs(scaled - np.rint(scaled)).max() < 1e-4 and np.abs(scaled).max() < 9.5:
        return "[" + "".join(f"{round(a)}" for a in scaled) + "]"
    return "[" + " ".join(f"{a:.3f}" for a in axis) + "]"


def _upward(axis: np.ndarray) -> np.ndarray:
    """The axis or its opposite: the first of z, y, x that is not zero is positive."""
    for component in axis[::-1]:
        if abs(component) > TOLERANCE:
            return axis * np.sign(component)
    return axis


def _order(angle: float) -> int:
    """Order of a rotation by ``angle`` full turns."""
    return _fraction(angle)[1]


def _fraction(angle: float) -> tuple[int, int]:
    """The angle in full turns as a fraction k/n in lowest terms."""
    for n in range(1, 1000):
        k = round(angle * n)
        if abs(angle * n - k) < 1e-6 * n:
            return k, n
    return 1, 1000


def _power(letter: str, turn: float) -> str:
    k, n = _fraction(turn)
    return f"{letter}{n}" if k == 1 else f"{letter}{n}^{k}"


def _rotation_group(operations: Sequence[Operation]) -> tuple[str, int]:
    """Type of a group by its rotations R: ("C", n), ("D", n), or ("T", 0), ("O", 0), ("I", 0)."""
    count, n = len(operations), max(_order(g.angle) for g in operations)
    if count in (n, 2 * n):
        return ("C" if count == n else "D"), n
    return {12: "T", 24: "O", 60: "I"}[count], 0
