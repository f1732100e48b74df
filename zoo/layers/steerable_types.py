"""Our fields as types of the library escnn.

escnn is optional and takes seconds to import, so :func:`load_escnn` alone imports it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.groups import FiniteGroup


def load_escnn() -> Any:
    """The modules ``escnn.gspaces``, ``escnn.nn`` and ``escnn.group``, as attributes of ``escnn``.

    Raises:
        InputError: When it is not installed, with what to do.
    """
    try:
        with warnings.catch_warnings():
            # py3nj is missing, which only spherical harmonics need; torch.jit is deprecated.
            warnings.simplefilter("ignore")
            import escnn.group
            import escnn.gspaces
            import escnn.nn
    except ImportError as error:
        raise InputError(
            "steerable_cnn needs the library escnn, which cannot be imported "
            f"({error}): call pip install 'lattice-zoo[escnn]' and then "
            "pip install --no-deps escnn==1.0.11, with Python 3.12 or older."
        ) from error
    return escnn


class _Space(NamedTuple):
    """escnn's D4 on the plane, matched with ours."""

    gspace: Any
    elements: tuple[Any, ...]  # theirs, in the order of ours


@lru_cache(maxsize=1)
def _space() -> _Space:
    from latticezoo.symmetry.point_groups import D

    gspace = load_escnn().gspaces.flipRot2dOnR2(4)
    theirs = {element: gspace.basespace_action(element) for element in gspace.fibergroup.elements}
    # Our x is the row and our y the column of the image; to escnn the column is x, and y is minus
    # the row. That is one quarter turn of the frame.
    frame = np.array([[0.0, 1.0], [-1.0, 0.0]])
    elements = []
    for matrix in D(4).matrices:
        turned = frame @ matrix @ frame.T
        (match,) = [e for e, other in theirs.items() if np.abs(other - turned).max() < 1e-6]
        elements.append(match)
    return _Space(gspace, tuple(elements))


def field_type(group: FiniteGroup, spec: str) -> Any:
    """escnn's type of a field whose values are in our convention.

    Args:
        group: D4, the site group of the square lattice.
        spec: Representation, such as ``"2xA1+B1"`` or ``"vector"``.
    """
    blocks = group.representation(spec).blocks
    parts = [_irreducible(group, name) for count, name, _ in blocks for _ in range(count)]
    return load_escnn().nn.FieldType(_space().gspace, parts)


def regular_type(copies: int) -> Any:
    """The type of several copies of the regular representation, eight channels each."""
    gspace = _space().gspace
    return load_escnn().nn.FieldType(gspace, [gspace.regular_repr] * copies)


@lru_cache
def _irreducible(group: FiniteGroup, name: str) -> Any:
    """An irrep, or the vector, as escnn's irrep in another basis."""
    space, ours = _space(), group.representation(name).matrices
    for irrep in space.gspace.fibergroup.irreps():
        their = np.stack([irrep(element) for element in space.elements])
        seed = np.random.default_rng(0).normal(size=(ours.shape[-1], irrep.size))
        basis = np.einsum("gij,jk,glk->il", ours, seed, their)
        size = np.linalg.norm(basis) / np.sqrt(len(basis))
        if size > 1e-6:  # otherwise nothing intertwines the two, by Schur's lemma
            return load_escnn().group.Representation(
                space.gspace.fibergroup, name, [irrep.id], np.round(basis / size, 12)
            )
    raise ValueError(f"{name!r} is no irrep of {group.name}")


def matrices(representations: Sequence[Any]) -> np.ndarray:
    """Matrices of a sum of our representations, ``[8, C, C]``; all entries are 0, 1 or −1."""
    elements = _space().elements
    size, start = sum(part.size for part in representations), 0
    total = np.zeros((len(elements), size, size))
    for part in representations:
        stop = start + part.size
        total[:, start:stop, start:stop] = np.rint([part(element) for element in elements])
        start = stop
    return total
