"""Thermal averages of free electrons with one Hermitian matrix, by LAPACK.

Plain numpy without torch: this is what worker processes import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy import sparse

from latticezoo.simulate.electrons.fermi import Filling, fill

Array = NDArray[Any]


@dataclass(frozen=True)
class Solution:
    """One configuration: filling, levels, density ⟨n_i⟩ and, when asked for, ρ_ij = ⟨c_j† c_i⟩."""

    filling: Filling
    levels: Array
    density: Array
    density_matrix: Array | None


def solve(
    diagonal: Array | None,
    h: Array | sparse.csr_array,
    temperature: float,
    n_electrons: float | None,
    mu: float | None,
    density_matrix: bool,
) -> Solution:
    """Diagonalize ``h + diag(diagonal)`` and fill its levels.

    Args:
        diagonal: Real, ``[N]``, or None.
        h: Hermitian ``[N, N]``, dense or sparse, float64 or complex128. Not changed.
        temperature: T ≥ 0.
        n_electrons: Number of electrons, or None.
        mu: Chemical potential, or None.
        density_matrix: Whether to form the density matrix.
    """
    # Column-major: LAPACK then works in place.
    dense = np.array(h, order="F") if isinstance(h, np.ndarray) else h.toarray(order="F")
    if diagonal is not None:
        np.einsum("ii->i", dense)[:] += diagonal
    levels, vectors = scipy.linalg.eigh(dense, driver="evd", overwrite_a=True, check_finite=False)
    filling = fill(levels, temperature, n_electrons, mu)
    return Solution(
        filling,
        levels,
        squares(vectors) @ filling.occupations,
        (vectors * filling.occupations) @ vectors.conj().T if density_matrix else None,
    )


def solve_matrix(h: Array | sparse.csr_array, *filling: Any) -> Solution:
    """:func:`solve` without a diagonal, for a batch of whole matrices."""
    return solve(None, h, *filling)


def squares(vectors: Array) -> Array:
    """|V|², element by element."""
    if np.iscomplexobj(vectors):
        return vectors.real**2 + vectors.imag**2
    return vectors * vectors
