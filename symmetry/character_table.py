"""Character tables that print as in a textbook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from latticezoo.symmetry.irreps import TOLERANCE, Irrep, frozen, isotypic_projector

if TYPE_CHECKING:
    from latticezoo.symmetry.groups import FiniteGroup


@dataclass(frozen=True, eq=False)
class CharacterTable:
    """Characters of the real irreps of a group.

    Attributes:
        group: Name of the group.
        order: Number of elements.
        class_names: Classes with their sizes, such as ``"2C4"``.
        class_sizes: Number of elements in each class.
        irrep_names: Mulliken symbols.
        kinds: ``"real"``, ``"complex"`` or ``"quaternionic"`` for each irrep.
        functions: Coordinates and rotations that transform like each irrep.
        values: Characters ``[irreps, classes]``.
    """

    group: str
    order: int
    class_names: tuple[str, ...]
    class_sizes: tuple[int, ...]
    irrep_names: tuple[str, ...]
    kinds: tuple[str, ...]
    functions: tuple[str, ...]
    values: np.ndarray

    def __str__(self) -> str:
        head = [self.group, *self.class_names]
        rows = [
            [name + ("*" if kind != "real" else ""), *map(_number, row)]
            for name, kind, row in zip(self.irrep_names, self.kinds, self.values, strict=True)
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        first = widths[0]

        def line(cells: list[str], tail: str = "") -> str:
            body = "  ".join(cell.rjust(w) for cell, w in zip(cells[1:], widths[1:], strict=True))
            return f"{cells[0].ljust(first)} │ {body}{' │ ' + tail if any(self.functions) else ''}"

        top = line(head).rstrip()
        rule = "─" * (first + 1) + "┼" + "─" * (sum(widths[1:]) + 2 * len(widths) - 2)
        if any(self.functions):
            rule += "┼" + "─" * (1 + max(map(len, self.functions)))
        lines = [top, rule]
        lines += [line(row, f).rstrip() for row, f in zip(rows, self.functions, strict=True)]
        if any(kind == "complex" for kind in self.kinds):
            lines.append("* complex type: two conjugate irreps of half the dimension")
        return "\n".join(lines)


def character_table(group: FiniteGroup) -> CharacterTable:
    """Tabulate the characters of a group."""
    first = [members[0] for members in group.conjugacy_classes]
    irreps = tuple(group.irreps.values())
    return CharacterTable(
        group=group.name,
        order=group.order,
        class_names=group.class_names,
        class_sizes=tuple(map(len, group.conjugacy_classes)),
        irrep_names=tuple(group.irreps),
        kinds=tuple(irrep.kind for irrep in irreps),
        functions=tuple(_functions(group, irrep) for irrep in irreps),
        values=frozen(np.array([irrep.character[first] for irrep in irreps])),
    )


def _functions(group: FiniteGroup, irrep: Irrep) -> str:
    """Coordinates that transform like the irrep, and rotations where there are mirrors."""
    determinant = np.rint(np.linalg.det(group.matrices))[:, None, None]
    mirrors = group.dim in (2, 3) and (determinant < 0).any()
    candidates: list[tuple[np.ndarray, Sequence[str]]] = []
    if group.dim <= 3:
        candidates.append((group.matrices, "xyz"[: group.dim]))
    if mirrors and group.dim == 3:
        candidates.append((determinant * group.matrices, ("Rx", "Ry", "Rz")))
    elif mirrors:
        candidates.append((determinant, ("Rz",)))
    parts = []
    for rep, names in candidates:
        inside = np.diagonal(isotypic_projector(irrep, rep))
        found = [name for name, weight in zip(names, inside, strict=True) if weight > 1 - TOLERANCE]
        if found:
            parts.append(f"({', '.join(found)})" if irrep.dim > 1 else ", ".join(found))
    return ", ".join(parts)


def _number(value: float) -> str:
    whole = round(float(value))
    return str(whole) if abs(value - whole) < 1e-9 else f"{value:.3f}"
