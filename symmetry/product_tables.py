"""Finite groups as multiplication tables: what follows from the products of element numbers.

A table is ``[order, order]``: the number of g h in row g and column h; element 0 is the identity.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.irreps import TOLERANCE


def checked_matrices(matrices: np.ndarray, what: str) -> np.ndarray:
    """The matrices as float64 ``[order, d, d]``.

    Raises:
        InputError: Unless they are orthogonal, all different, and begin with the identity.
    """
    array = np.asarray(matrices, dtype=float) + 0.0
    if array.ndim != 3 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise InputError(f"{what} must have the shape [order, d, d], not {list(array.shape)}.")
    identity = np.eye(array.shape[1])
    error = np.abs(array @ array.transpose(0, 2, 1) - identity).max(axis=(1, 2))
    if not error.max() < TOLERANCE:
        worst = int(np.argmax(~(error < TOLERANCE)))
        raise InputError(f"{what} must be orthogonal, but number {worst} is not.")
    if np.abs(array[0] - identity).max() > TOLERANCE:
        raise InputError(f"{what} must begin with the identity.")
    a, b = np.nonzero(np.triu(_equal(array, array), 1))
    if len(a):
        raise InputError(f"{what} must be different, but numbers {a[0]} and {b[0]} are the same.")
    return array


def product_table(matrices: np.ndarray, what: str) -> np.ndarray:
    """Multiplication table of a set of orthogonal matrices.

    Raises:
        InputError: When a product is missing.
    """
    order, size = matrices.shape[:2]
    products = np.einsum("aij,bjk->abik", matrices, matrices).reshape(-1, size, size)
    equal = _equal(products, matrices)
    missing = np.flatnonzero(~equal.any(axis=1))
    if len(missing):
        a, b = divmod(int(missing[0]), order)
        raise InputError(
            f"{what} are not closed under multiplication: number {a} times number {b} is missing."
        )
    return equal.argmax(axis=1).reshape(order, order)


def _equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Which orthogonal matrices are equal: Tr(Aᵀ B) = d if and only if A = B."""
    return a.reshape(len(a), -1) @ b.reshape(len(b), -1).T > a.shape[1] - TOLERANCE**2


def conjugacy_classes(table: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The sets {h g h⁻¹}, by their first elements."""
    inverse = table.argmin(axis=1)
    conjugates = table[table, inverse[:, None]]  # [h, g]
    return tuple(sorted({_numbers(np.unique(column)) for column in conjugates.T}))


def generated(table: np.ndarray, elements: Iterable[int]) -> tuple[int, ...]:
    """Elements of the smallest subgroup that contains the given ones."""
    inside = np.zeros(len(table), dtype=bool)
    inside[[0, *elements]] = True
    while True:
        members = np.flatnonzero(inside)
        inside[table[np.ix_(members, members)]] = True
        if inside.sum() == len(members):
            return _numbers(members)


def all_subgroups(table: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Elements of every subgroup, smallest first: all joins of cyclic subgroups."""
    cyclic = {generated(table, [k]) for k in range(len(table))}
    found, new = set(cyclic), set(cyclic)
    while new:
        pairs = ((h, c) for h in new for c in cyclic if not set(c) <= set(h))
        new = {generated(table, {*h, *c}) for h, c in pairs} - found
        found |= new
    return tuple(sorted(found, key=lambda members: (len(members), members)))


def conjugate_subgroups(table: np.ndarray, members: tuple[int, ...]) -> set[tuple[int, ...]]:
    """The subgroups g H g⁻¹ of all elements g."""
    inverse = table.argmin(axis=1)
    moved = table[table[:, list(members)], inverse[:, None]]  # [g, h]
    return {_numbers(np.sort(row)) for row in moved}


def left_cosets(table: np.ndarray, members: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The sets g H, H itself first."""
    return tuple(sorted({_numbers(np.sort(row)) for row in table[:, members]}))


def _numbers(array: np.ndarray) -> tuple[int, ...]:
    return tuple(int(k) for k in array)
