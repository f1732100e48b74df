"""Thermal averages of free electrons with one Hermitian matrix, by LAPACK.

Plain numpy without torch: this is what worker processes import.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
    """One configuration: filling, levels, density ⟨n_i⟩ and, when asked for, ρ_ij = ⟨c_j† c_i⟩.

    ``site_density`` holds the blocks of ρ on the sites, ``[sites, states, states]``.
    """

    filling: Filling
    levels: Array
    density: Array
    density_matrix: Array | None
    site_density: Array | None


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
    solutions = []
    for work, diagonal in zip(_copies(h, h.dtype, len(diagonals)), diagonals, strict=True):
        np.einsum("ii->i", work)[:] += diagonal
        solutions.append(_solve_in_place(work, 0, *filling))
    return solutions


def solve_site_blocks(
    site_blocks: Sequence[Array], h: Array | sparse.csr_array, *filling: Any
) -> list[Solution]:
    """:func:`solve_diagonals` for blocks on the sites, ``[sites, states, states]`` Hermitian each.

    The states of a site follow each other in ``h``. The solutions hold the site densities.
    """
    dtype = np.result_type(h.dtype, *(blocks.dtype for blocks in site_blocks))
    solutions = []
    for work, blocks in zip(_copies(h, dtype, len(site_blocks)), site_blocks, strict=True):
        _add_blocks(work, blocks)
        solutions.append(_solve_in_place(work, blocks.shape[1], *filling))
    return solutions


def _add_blocks(work: Array, blocks: Array) -> None:
    sites, states, _ = blocks.shape
    first = states * np.arange(sites)[:, None, None]
    here = first + np.arange(states)[:, None]
    work[here, first + np.arange(states)] += blocks


def solve_matrices(matrices: Sequence[Array | sparse.csr_array], *filling: Any) -> list[Solution]:
    """:func:`solve_diagonals` for whole matrices."""
    return [_solve_in_place(work, 0, *filling) for h in matrices for work in _copies(h, h.dtype, 1)]


def solve_averages(
    site_blocks: Sequence[Array],
    matrices: Sequence[Array | sparse.csr_array],
    temperature: float,
    n_electrons: float | None,
    mu: float | None,
) -> list[Solution]:
    """:func:`solve_site_blocks` for the mean over several ``h``, whose levels are filled together.

    One chemical potential holds for all; numbers, energies and densities are means, the levels
    those of all ``h`` in rising order. At a given μ no eigenvectors are kept.
    """
    return [_average(blocks, matrices, temperature, n_electrons, mu) for blocks in site_blocks]


def _average(
    blocks: Array,
    matrices: Sequence[Array | sparse.csr_array],
    temperature: float,
    n_electrons: float | None,
    mu: float | None,
) -> Solution:
    count, states = len(matrices), blocks.shape[-1]
    kept: list[tuple[Array, Array]] = []
    parts: list[Solution] = []
    for h in matrices:
        dtype = np.result_type(h.dtype, blocks.dtype)
        (work,) = _copies(h, dtype, 1)
        _add_blocks(work, blocks)
        levels, vectors = eigh_in_place(work)
        kept.append((levels, vectors if mu is None else np.empty(0)))
        if mu is not None:
            parts.append(_averages(levels, vectors, states, fill(levels, temperature, None, mu)))
    every = np.sort(np.concatenate([levels for levels, _ in kept]))
    number = None if n_electrons is None else count * n_electrons
    filling = fill(every, temperature, number, mu)
    if mu is None:
        for levels, vectors in kept:
            occupations = filling.occupations[np.searchsorted(every, levels)]
            parts.append(
                _averages(levels, vectors, states, replace(filling, occupations=occupations))
            )
    density = np.add.reduce([part.density for part in parts]) / count
    own = [part.site_density for part in parts if part.site_density is not None]
    return Solution(filling.shared(count), every, density, None, np.add.reduce(own) / count)


def _copies(h: Array | sparse.csr_array, dtype: Any, count: int) -> Iterator[Array]:
    """Give ``h``, dense and column-major, a number of times, in the same memory."""
    work = np.empty(h.shape, dtype, order="F")
    if isinstance(h, np.ndarray):
        for _ in range(count):
            work[:] = h
            yield work
        return
    entries = h.tocoo(copy=True)
    entries.sum_duplicates()
    for _ in range(count):
        work.fill(0)
        work[entries.row, entries.col] = entries.data
        yield work


def _solve_in_place(
    h: Array,
    states: int,
    temperature: float,
    n_electrons: float | None,
    mu: float | None,
    full: bool,
) -> Solution:
    levels, vectors = eigh_in_place(h)
    filling = fill(levels, temperature, n_electrons, mu)
    return _averages(levels, vectors, states, filling, full)


def _averages(
    levels: Array, vectors: Array, states: int, filling: Filling, full: bool = False
) -> Solution:
    matrix = (vectors * filling.occupations) @ vectors.conj().T if full else None
    blocks = None
    if states:
        split = vectors.reshape(-1, states, len(levels))
        blocks = (split * filling.occupations) @ split.conj().swapaxes(1, 2)
    return Solution(filling, levels, _squares(vectors) @ filling.occupations, matrix, blocks)


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


def _squares(vectors: Array) -> Array:
    """|V|², element by element; real vectors are overwritten, which spares a large array."""
    if np.iscomplexobj(vectors):
        return vectors.real**2 + vectors.imag**2
    return np.multiply(vectors, vectors, out=vectors)
