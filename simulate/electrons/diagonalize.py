"""Exact electrons: thermal averages of quadratic Hamiltonians by full diagonalization.

For a batch of Hermitian matrices h, with H = Σ c_i† h_ij c_j:

* CPU: LAPACK's divide and conquer, one matrix after the other on one thread, or spread over worker
  processes. The bits of a configuration's result depend on that configuration alone: not on the
  batch it is in, nor on the number of workers.
* GPU: batched ``torch.linalg.eigh`` in double precision, with a check that V†V = 1.

Nothing is differentiated through the eigenvectors: the density *is* the derivative of the free
energy (Hellmann–Feynman).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy import sparse
from threadpoolctl import ThreadpoolController
from torch import Tensor

from latticezoo.simulate.electrons.fermi import Filling, check_ensemble, fill
from latticezoo.simulate.electrons.lapack import (
    Solution,
    solve_averages,
    solve_diagonals,
    solve_matrices,
    solve_site_blocks,
)
from latticezoo.simulate.workers import pool
from latticezoo.symmetry.errors import InputError, unknown

_log = logging.getLogger(__name__)

BACKENDS = ("auto", "lapack", "torch")
#: Largest deviation of V†V from 1, element by element, that eigenvectors may have.
ORTHONORMALITY = 1e-10


@dataclass(frozen=True)
class ThermalState:
    """Free electrons in equilibrium, for B configurations of N states; all float64.

    At fixed electron number the free energy A is what the forces derive from, at fixed chemical
    potential the grand potential Ω; the mean energy ⟨H⟩ is neither, unless T = 0.

    Attributes:
        mu: Chemical potential ``[B]``.
        n_electrons: Σ f ``[B]``.
        density: ⟨c_i† c_i⟩ ``[B, N]``, which is ∂A/∂h_ii at fixed number and ∂Ω/∂h_ii at fixed μ.
        band_energy: ⟨H⟩ = Σ f ε ``[B]``.
        entropy: ``[B]``.
        free_energy: A = −T Σ ln(1 + e^{−(ε − μ)/T}) + μ N_e ``[B]``.
        grand_potential: Ω = A − μ N_e ``[B]``.
        levels: ε in rising order ``[B, N]``.
        density_matrix: ρ_ij = ⟨c_j† c_i⟩ ``[B, N, N]``, when asked for; ∂A/∂h_ji = ρ_ij.
        site_density: Its blocks on the sites ``[B, sites, states, states]``, when h was given with
            site blocks.
    """

    mu: Tensor
    n_electrons: Tensor
    density: Tensor
    band_energy: Tensor
    entropy: Tensor
    free_energy: Tensor
    grand_potential: Tensor
    levels: Tensor
    density_matrix: Tensor | None = None
    site_density: Tensor | None = None


def thermal_state(
    h: Tensor | np.ndarray | sparse.sparray,
    temperature: float,
    n_electrons: float | None = None,
    mu: float | None = None,
    *,
    diagonal: Tensor | None = None,
    site_blocks: Tensor | None = None,
    density_matrix: bool = False,
    workers: int = 1,
    backend: str = "auto",
) -> ThermalState:
    """Diagonalize a batch of Hamiltonians and fill their levels.

    Args:
        h: Hermitian matrices ``[B, N, N]``, or one ``[N, N]``, dense or scipy sparse. Only the
            lower triangle is read.
        temperature: T ≥ 0. At T = 0, levels degenerate with the chemical potential are filled in
            equal parts: the limit of T → 0.
        n_electrons: Number of electrons, whole or not; or
        mu: the chemical potential. Give one of the two.
        diagonal: Real ``[B, N]``, added to the diagonal of one common ``h``.
        site_blocks: Hermitian ``[B, sites, states, states]``, added to one common ``h`` in which
            the states of a site (orbitals, spins) follow each other; instead of a diagonal.
        density_matrix: Whether to form the density matrix.
        workers: Number of processes for a batch on the CPU.
        backend: ``lapack``, ``torch``, or ``auto``: torch for tensors on a GPU, LAPACK elsewhere.
            torch runs on the device of ``diagonal``, ``site_blocks`` or ``h``; its low bits
            depend on the batch.

    Returns:
        The thermal averages, on the device of the input.

    Raises:
        InputError: For a bad temperature or filling, a matrix that is not square or not finite, or
            an unknown backend.
    """
    _check_options(workers, backend)
    if not sparse.issparse(h) and not isinstance(h, Tensor):
        h = torch.from_numpy(np.asarray(h))
    _check_shapes(h, diagonal, site_blocks)
    check_ensemble(temperature, n_electrons, mu, h.shape[-1])
    local = diagonal if diagonal is not None else site_blocks
    lead = local if local is not None else h
    device = lead.device if isinstance(lead, Tensor) else torch.device("cpu")
    filling = (float(temperature), n_electrons, mu, density_matrix)
    if backend == "torch" or (backend == "auto" and device.type != "cpu"):
        return _solve_by_torch(h, local, device, *filling)
    return _collect(_solve_by_lapack(h, local, workers, filling), device)


def averaged_state(
    matrices: Sequence[sparse.sparray],
    temperature: float,
    n_electrons: float | None = None,
    mu: float | None = None,
    *,
    site_blocks: Tensor,
    workers: int = 1,
    backend: str = "auto",
) -> ThermalState:
    """:func:`thermal_state` with site blocks, averaged over several Hamiltonians.

    For twisted boundaries: the levels of all twists are filled together, to one chemical potential,
    as on the large torus that the twists stand for.

    Args:
        matrices: Hermitian ``[N, N]`` each, scipy sparse, to each of which the site blocks are
            added.
        temperature: T ≥ 0.
        n_electrons: Mean number of electrons, or
        mu: the chemical potential. Give one of the two.
        site_blocks: As in :func:`thermal_state`.
        workers: Number of processes for a batch on the CPU.
        backend: As in :func:`thermal_state`.

    Returns:
        Means over the Hamiltonians; ``levels`` ``[B, count · N]`` are those of all.

    Raises:
        InputError: As :func:`thermal_state`, and for no matrix at all.
    """
    if not matrices:
        raise InputError("an average needs at least one Hamiltonian.")
    if len(matrices) == 1:
        return thermal_state(
            matrices[0],
            temperature,
            n_electrons,
            mu,
            site_blocks=site_blocks,
            workers=workers,
            backend=backend,
        )
    _check_options(workers, backend)
    for h in matrices:
        _check_shapes(h, None, site_blocks)
    check_ensemble(temperature, n_electrons, mu, matrices[0].shape[-1])
    device = site_blocks.device
    if backend == "torch" or (backend == "auto" and device.type != "cpu"):
        return _average_by_torch(matrices, site_blocks, float(temperature), n_electrons, mu)
    items = list(_double(site_blocks.detach().cpu().numpy()))
    common = (tuple(_double(h) for h in matrices), float(temperature), n_electrons, mu)
    if workers > 1 and len(items) > 1:
        return _collect(pool().map(solve_averages, items, common, count=workers), device)
    with one_thread():
        return _collect(solve_averages(items, *common), device)


def bits_are_replicas_own(backend: str) -> bool:
    """Whether the bits of a configuration are sure not to depend on the batch it is in.

    LAPACK's are, torch's are not. With ``auto`` the tensors decide, so that a machine with a GPU
    makes no promise.
    """
    return backend == "lapack" or (backend == "auto" and not torch.cuda.is_available())


def _check_options(workers: int, backend: str) -> None:
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if workers < 1 or int(workers) != workers:
        raise InputError(f"workers is {workers}; it must be a whole number of at least 1.")


def _check_shapes(h: Any, diagonal: Tensor | None, blocks: Tensor | None) -> None:
    shape = tuple(h.shape)
    if len(shape) not in (2, 3) or shape[-1] != shape[-2] or 0 in shape:
        raise InputError(f"a Hamiltonian has shape [batch, N, N] or [N, N], not {list(shape)}.")
    values = torch.from_numpy(h.data) if sparse.issparse(h) else h
    finite = bool(values.isfinite().all())
    if diagonal is not None:
        if len(shape) != 2 or diagonal.ndim != 2 or diagonal.shape[-1] != shape[-1]:
            raise InputError(
                f"a diagonal [batch, N] goes with one Hamiltonian [N, N], but they have shapes "
                f"{list(diagonal.shape)} and {list(shape)}."
            )
        finite = finite and bool(diagonal.isfinite().all())
    if blocks is not None:
        if diagonal is not None:
            raise InputError("give a diagonal or site blocks, which hold a diagonal, not both.")
        shapes = tuple(blocks.shape)
        square = len(shapes) == 4 and shapes[2] == shapes[3]
        if len(shape) != 2 or not square or shapes[1] * shapes[2] != shape[-1]:
            raise InputError(
                f"site blocks [batch, sites, states, states] go with one Hamiltonian of sites × "
                f"states, but they have shapes {list(blocks.shape)} and {list(shape)}."
            )
        finite = finite and bool(blocks.isfinite().all())
    if not finite:
        raise InputError("the Hamiltonian holds NaN or infinite values; only finite are accepted.")


def _solve_by_lapack(
    h: Any, local: Tensor | None, workers: int, filling: tuple[Any, ...]
) -> list[Solution]:
    if sparse.issparse(h):
        matrices: Any = _double(h)
    else:
        matrices = _double(h.detach().cpu().numpy())
    function: Any
    if local is not None:
        items = list(_double(local.detach().cpu().numpy()))
        function = solve_diagonals if local.ndim == 2 else solve_site_blocks
        common = (matrices, *filling)
    else:
        items = [matrices] if sparse.issparse(h) or h.ndim == 2 else list(matrices)
        function, common = solve_matrices, filling
    if workers > 1 and len(items) > 1:
        return pool().map(function, items, common, count=workers)
    with one_thread():
        return function(items, *common)


def one_thread() -> AbstractContextManager[Any]:
    """Inside, LAPACK runs on one thread: on two it is slower, and its bits may differ."""
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    # Searching the loaded libraries takes milliseconds, so it is done once; scipy.linalg and numpy
    # are loaded by then.
    return ThreadpoolController()


def _double(values: Any) -> Any:
    kind = np.complex128 if np.iscomplexobj(values) else np.float64
    return values.astype(kind, copy=False)


def _collect(solutions: list[Solution], device: torch.device) -> ThermalState:
    matrices = [s.density_matrix for s in solutions if s.density_matrix is not None]
    blocks = [s.site_density for s in solutions if s.site_density is not None]
    return _assemble(
        [solution.filling for solution in solutions],
        _stack([solution.levels for solution in solutions], device),
        _stack([solution.density for solution in solutions], device),
        _stack(matrices, device) if matrices else None,
        _stack(blocks, device) if blocks else None,
    )


def _assemble(
    fillings: list[Filling],
    levels: Tensor,
    density: Tensor,
    density_matrix: Tensor | None,
    site_density: Tensor | None,
) -> ThermalState:
    def column(name: str) -> Tensor:
        return _stack([getattr(filling, name) for filling in fillings], levels.device)

    return ThermalState(
        mu=column("mu"),
        n_electrons=column("n_electrons"),
        density=density,
        band_energy=column("band_energy"),
        entropy=column("entropy"),
        free_energy=column("free_energy"),
        grand_potential=column("grand_potential"),
        levels=levels,
        density_matrix=density_matrix,
        site_density=site_density,
    )


def _stack(rows: list[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(rows)).to(device)


def _solve_by_torch(
    h: Any,
    local: Tensor | None,
    device: torch.device,
    temperature: float,
    n_electrons: float | None,
    mu: float | None,
    density_matrix: bool,
) -> ThermalState:
    dense = torch.from_numpy(h.toarray()) if sparse.issparse(h) else h.detach()
    dense = dense.to(device, torch.complex128 if dense.is_complex() else torch.float64)
    dense = dense if dense.ndim == 3 else dense[None]
    states = 0
    if local is not None and local.ndim == 2:
        dense = dense + torch.diag_embed(local.detach().double())
    elif local is not None:
        states = local.shape[-1]
        wide = torch.complex128 if local.is_complex() else torch.float64
        dense = dense + _block_diagonal(local.detach().to(wide))
    levels, vectors = checked_eigh(dense)
    # The levels are few; filling them on the CPU shares the careful root search.
    fillings = [fill(row, float(temperature), n_electrons, mu) for row in levels.cpu().numpy()]
    occupations = _stack([filling.occupations for filling in fillings], device)
    squares = vectors.real**2 + vectors.imag**2 if vectors.is_complex() else vectors * vectors
    density = torch.einsum("bim,bm->bi", squares, occupations)
    matrices = (vectors * occupations[:, None]) @ vectors.mH if density_matrix else None
    blocks = None
    if states:
        split = vectors.unflatten(1, (-1, states))
        weighted = split * occupations[:, None, None]
        blocks = torch.einsum("biam,bicm->biac", weighted, split.conj())
    return _assemble(fillings, levels, density, matrices, blocks)


def _average_by_torch(
    matrices: Sequence[sparse.sparray],
    blocks: Tensor,
    temperature: float,
    n_electrons: float | None,
    mu: float | None,
) -> ThermalState:
    local = _block_diagonal(blocks.detach().to(torch.complex128))
    solved = [checked_eigh(torch.from_numpy(h.toarray()).to(local) + local) for h in matrices]
    count, states = len(matrices), blocks.shape[-1]
    every, order = torch.cat([levels for levels, _ in solved], 1).sort(1)
    number = None if n_electrons is None else count * n_electrons
    fillings = [fill(row, temperature, number, mu) for row in every.cpu().numpy()]
    sorted_occupations = _stack([filling.occupations for filling in fillings], blocks.device)
    occupations = torch.empty_like(sorted_occupations).scatter_(1, order, sorted_occupations)
    total: Any = 0
    for (_, vectors), part in zip(solved, occupations.chunk(count, 1), strict=True):
        split = vectors.unflatten(1, (-1, states))
        total = total + torch.einsum("biam,bicm->biac", split * part[:, None, None], split.conj())
    total = total / count
    density = total.diagonal(dim1=2, dim2=3).real.flatten(1)
    return _assemble([filling.shared(count) for filling in fillings], every, density, None, total)


def _block_diagonal(blocks: Tensor) -> Tensor:
    """Matrices ``[B, sites · states, sites · states]`` of site blocks and zeros."""
    batch, sites, states, _ = blocks.shape
    matrix = blocks.new_zeros(batch, sites, states, sites, states)
    matrix.diagonal(dim1=1, dim2=3)[:] = blocks.movedim(1, -1)
    return matrix.reshape(batch, sites * states, sites * states)


def checked_eigh(h: Tensor) -> tuple[Tensor, Tensor]:
    """Batched ``torch.linalg.eigh`` in double precision that verifies its eigenvectors.

    Batched solvers on GPUs are known to have returned vectors that are not orthonormal without an
    error. Configurations for which V†V differs from 1, or which the solver gave up on, are
    diagonalized again on the CPU by LAPACK, with a warning.

    Args:
        h: Hermitian ``[B, N, N]``, float64 or complex128.

    Returns:
        Levels ``[B, N]`` in rising order and vectors ``[B, N, N]`` in columns.
    """
    try:
        levels, vectors = torch.linalg.eigh(h)
        one = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
        deviation = (vectors.mH @ vectors - one).abs().amax((1, 2))
        sound = deviation < ORTHONORMALITY  # False for NaN
    except torch.linalg.LinAlgError as error:
        _log.warning("the batched solver failed (%s).", error)
        levels = h.new_empty(h.shape[:2], dtype=torch.float64)
        vectors = torch.empty_like(h)
        sound = torch.zeros(len(h), dtype=torch.bool, device=h.device)
    bad = (~sound).nonzero()[:, 0].tolist()
    if bad:
        _log.warning(
            "torch.linalg.eigh on %s gave unsound eigenvectors for %d of %d matrices; these are "
            "diagonalized again on the CPU.",
            h.device,
            len(bad),
            len(h),
        )
    for row in bad:
        exact, basis = np.linalg.eigh(h[row].cpu().numpy())
        levels[row] = torch.from_numpy(exact).to(levels)
        vectors[row] = torch.from_numpy(basis).to(vectors)
    return levels, vectors
