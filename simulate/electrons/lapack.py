"""Thermal averages of free electrons with one Hermitian matrix, by LAPACK.

Plain numpy without torch: this is what worker processes import.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

from latticezoo.simulate.electrons.fermi import Filling, fill

Array = NDArray[Any]


@dataclass(frozen=True)
class Solution:
    """One configuration: filling, levels, density ⟨n_i⟩ and, when asked for, ρ_ij = ⟨c_j† c_i⟩."""

    filling: Filling
    levels: Array
    density: Array
    density_matrix: Array | None


def solve_diagonals(
    diagonals: Sequence[Array], h: Array | sparse.csr_array, *filling: Any
) -> list[Solution]:
    """Diagonalize ``h + diag(diagonal)`` for each diagonal and fill the levels.

    Args:
        diagonals: Real, ``[N]`` each.
        h: Hermitian ``[N, N]``, dense or sparse, float64 or complex128. Not changed.
        filling: Temperature, electron number or None, chemical potential or None, and whether to
            form the density matrix.
    """
    common = np.array(h, order="F") if isinstance(h, np.ndarray) else h.toarray(order="F")
    solutions = []
    for diagonal in diagonals:
        dense = common.copy(order="F")
        np.einsum("ii->i", dense)[:] += diagonal
        solutions.append(_solve(dense, *filling))
    return solutions


def solve_matrices(matrices: Sequence[Array | sparse.csr_array], *filling: Any) -> list[Solution]:
    """:func:`solve_diagonals` for whole matrices."""
    return [
        _solve(np.array(h, order="F") if isinstance(h, np.ndarray) else h.toarray("F"), *filling)
        for h in matrices
    ]


def _solve(
    h: Array, temperature: float, n_electrons: float | None, mu: float | None, full: bool
) -> Solution:
    levels, vectors = eigh_in_place(h)
    filling = fill(levels, temperature, n_electrons, mu)
    return Solution(
        filling,
        levels,
        squares(vectors) @ filling.occupations,
        (vectors * filling.occupations) @ vectors.conj().T if full else None,
    )


def eigh_in_place(h: Array) -> tuple[Array, Array]:
    """Levels in rising order and eigenvectors in columns, by divide and conquer.

    What ``scipy.linalg.eigh(h, driver="evd", overwrite_a=True, check_finite=False)`` does, without
    its overhead: three per cent at N = 144.

    Args:
        h: Hermitian, column-major, float64 or complex128; its lower triangle is read. The
            eigenvectors take its memory.
    """
    routine, sizes = _workspace(len(h), np.iscomplexobj(h))
    levels, vectors, failed = routine(h, compute_v=1, lower=1, overwrite_a=1, **sizes)
    if failed:
        raise np.linalg.LinAlgError(f"the eigensolver did not converge ({failed}).")
    return levels, vectors


@lru_cache(maxsize=64)
def _workspace(n: int, is_complex: bool) -> tuple[Any, dict[str, int]]:
    query, routine = (
        (lapack.zheevd_lwork, lapack.zheevd) if is_complex else (lapack.dsyevd_lwork, lapack.dsyevd)
    )
    *sizes, _ = query(n, compute_v=1, lower=1)
    names = ("lwork", "liwork", "lrwork")[: len(sizes)]  # the last for complex matrices alone
    return routine, {name: int(size.real) for name, size in zip(names, sizes, strict=True)}


def squares(vectors: Array) -> Array:
    """|V|², element by element."""
    if np.iscomplexobj(vectors):
        return vectors.real**2 + vectors.imag**2
    return vectors * vectors
