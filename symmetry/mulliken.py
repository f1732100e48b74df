"""Mulliken symbols of the irreps of point groups.

A and B are even and odd under the principal rotation, E and T have two and three components; 1 and
2 are even and odd under C2' or a vertical mirror, g and u under the inversion, ' and '' under σh.
A conjugate pair of complex irreps is one irrep E here.

Source: R. S. Mulliken, J. Chem. Phys. 23, 1997 (1955).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from latticezoo.symmetry.irreps import Irrep
from latticezoo.symmetry.schoenflies import Geometry


def mulliken_names(geometry: Geometry, irreps: Sequence[Irrep]) -> list[str]:
    """Mulliken symbols of the irreps of a point group, in the order given.

    Where the rules above do not tell all irreps apart (in the icosahedral groups, or for a set of
    matrices that is no point group of space), all are called Γ1, Γ2, … instead.
    """
    classes = zip(geometry.labels, geometry.ordered_classes, strict=True)
    element = {label: members[0] for label, members in classes}
    if geometry.is_cubic:
        stems = _cubic_stems(element, irreps)
    elif geometry.name in ("D2", "D2h") and not geometry.planar:
        stems = _rhombic_stems(element, irreps)
    else:
        stems = _axial_stems(geometry, element, irreps)

    inversion = element.get("i")
    horizontal = element.get("σh") if inversion is None else None
    names = [
        stem + _mark(irrep, inversion, "g", "u") + _mark(irrep, horizontal, "'", "''")
        for stem, irrep in zip(stems, irreps, strict=True)
    ]
    if len(set(names)) < len(names) or any("?" in name for name in names):
        return [f"Γ{k + 1}" for k in range(len(irreps))]
    return names


def field_order(name: str) -> tuple:
    """Sort key that puts symbols in the order of the tables: A1g A2g Eg … A1u …"""
    return (name.count("'"), name.endswith("u"), name[0], len(name), name)


def _mark(irrep: Irrep, element: int | None, even: str, odd: str) -> str:
    """One of two symbols by the sign of a character; none without the element."""
    if element is None:
        return ""
    return even if irrep.character[element] > 0 else odd


def _cubic_stems(element: Mapping[str, int], irreps: Sequence[Irrep]) -> list[str]:
    """A and T are numbered by the four-fold rotation or rotation–reflection."""
    fourfold = element.get("C4", element.get("S4"))
    letters = {1: "A", 2: "E", 3: "T"}
    return [
        letters.get(irrep.dim, "?") + ("" if irrep.dim == 2 else _mark(irrep, fourfold, "1", "2"))
        for irrep in irreps
    ]


def _rhombic_stems(element: Mapping[str, int], irreps: Sequence[Irrep]) -> list[str]:
    """D2: B1, B2 and B3 are even under the half turn about z, y and x."""
    half_turns = {"B1": element["C2"], "B2": element["C2''"], "B3": element["C2'"]}
    stems = []
    for irrep in irreps:
        even = [name for name, k in half_turns.items() if irrep.character[k] > 0]
        stems.append("A" if len(even) == 3 else even[0])
    return stems


def _axial_stems(
    geometry: Geometry, element: Mapping[str, int], irreps: Sequence[Irrep]
) -> list[str]:
    """A and B by the principal operation, E_l by the angle it turns by."""
    powers = {
        int(label[1:]): k
        for label, k in element.items()
        if label[0] == geometry.principal_letter and label[1:].isdigit() and geometry.along(k)
    }
    fold = max(powers, default=1)
    principal = powers.get(fold)
    vertical = next((element[label] for label in ("C2'", "σv", "σ") if label in element), None)

    def turns(irrep: Irrep) -> int:
        """l, where the principal operation turns by l times its angle."""
        cosine = float(np.clip(irrep.character[principal] / 2, -1, 1))
        return round(fold * math.acos(cosine) / (2 * math.pi))

    several = len({turns(irrep) for irrep in irreps if irrep.dim == 2}) > 1
    stems = []
    for irrep in irreps:
        if irrep.dim == 1:
            letter = "A" if fold == 1 else _mark(irrep, principal, "A", "B")
            stems.append(letter + _mark(irrep, vertical, "1", "2"))
        elif irrep.dim == 2:
            stems.append(f"E{turns(irrep)}" if several else "E")
        else:
            stems.append("?")
    return stems
