"""Direct sums of irreps, written as text: ``"2xA1+B1"``, ``"vector"``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.irreps import Irrep, characters, frozen

#: Besides irreps: the group's matrices, and the matrices times their determinant.
CARTESIAN = ("vector", "pseudovector")


@dataclass(frozen=True, eq=False)
class Representation:
    """A direct sum of irreps and Cartesian representations.

    Components run over the blocks in order; inside a block over the copies, then over the
    components of the irrep (the layout of e3nn).

    Attributes:
        spec: The sum as text, such as ``"2xA1+B1"``.
        blocks: ``(multiplicity, name, dim)`` for each term; ``dim`` is that of one copy.
        matrices: ``[order, dim, dim]``, float64, block diagonal, read-only.
    """

    spec: str
    blocks: tuple[tuple[int, str, int], ...]
    matrices: np.ndarray

    @property
    def dim(self) -> int:
        """Number of components."""
        return self.matrices.shape[-1]

    @cached_property
    def character(self) -> np.ndarray:
        """Trace of every element, ``[order]``."""
        return frozen(characters(self.matrices))

    def __str__(self) -> str:
        return self.spec


def direct_sum(
    spec: str, group: str, matrices: np.ndarray, irreps: Mapping[str, Irrep]
) -> Representation:
    """Read a direct sum.

    Args:
        spec: The text.
        group: Name of the group, for messages.
        matrices: The group, ``[order, d, d]``.
        irreps: Its irreps by name.

    Raises:
        InputError: For text that is no such sum, or an unknown name, with the nearest ones.
    """
    blocks, parts = [], []
    for term in str(spec).replace(" ", "").split("+"):
        match = re.fullmatch(r"(?:([1-9]\d*)x)?([^\W\d_][\w']*)", term)
        if match is None:
            raise InputError(
                f"{spec!r} is no representation; write a sum of irreps such as '2xA1+B1'."
            )
        count, name = int(match[1] or 1), match[2]
        if name == "vector":
            part = matrices
        elif name == "pseudovector":
            part = matrices * np.rint(np.linalg.det(matrices))[:, None, None] + 0.0
        elif name in irreps:
            part = irreps[name].matrices
        else:
            raise unknown(f"irrep of {group}", name, [*irreps, *CARTESIAN])
        blocks.append((count, name, part.shape[-1]))
        parts += [part] * count
    size, start = sum(part.shape[-1] for part in parts), 0
    total = np.zeros((len(matrices), size, size))
    for part in parts:
        stop = start + part.shape[-1]
        total[:, start:stop, start:stop] = part
        start = stop
    return Representation(str(spec), tuple(blocks), frozen(total))
