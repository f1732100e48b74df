r"""Kernel polynomials for electrons with spin on a lattice, matrix-free and in batches.

Charge and spin of every site, which are the 2×2 site blocks of f(h), and the energies, for hopping
by shells plus a Hermitian 2×2 block on every site: fields of itinerant magnets without
diagonalization. Three files below this one: the products with vectors, the exact moments of all
sites, and the estimates from random vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latticezoo.simulate.electrons.fermi import check_ensemble
from latticezoo.simulate.electrons.kpm import fermi_order
from latticezoo.simulate.electrons.operators import Window, check_window
from latticezoo.simulate.electrons.shell_hopping import ShellHopping
from latticezoo.simulate.electrons.spin_moments import Problem, Row, solve_exactly, together
from latticezoo.simulate.electrons.spin_probes import sample
from latticezoo.simulate.electrons.spin_products import spin_operator
from latticezoo.simulate.workers import pool
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


@dataclass(frozen=True)
class SpinState:
    """Thermal averages of electrons with spin by Chebyshev expansion; all float64.

    Attributes:
        mu: Chemical potential ``[B]``.
        n_electrons: Σ_i ⟨n_i⟩ ``[B]``.
        charge_spin: (n, s^x, s^y, s^z) = Tr(σ_a ρ_ii) ``[B, N, 4]``.
        free_energy: A = Ω + μ N_e ``[B]``.
        grand_potential: Ω = −T Tr ln(1 + e^{−(h − μ)/T}) ``[B]``.
        order: Chebyshev order.
        window: Spectral window.
        charge_spin_error: Standard error of each entry ``[B, N, 4]`` for random vectors, else None.
        energy_error: Standard error ``[B]`` of A at fixed number, of Ω at fixed μ, for random
            vectors, else None.
    """

    mu: Tensor
    n_electrons: Tensor
    charge_spin: Tensor
    free_energy: Tensor
    grand_potential: Tensor
    order: int
    window: Window
    charge_spin_error: Tensor | None = None
    energy_error: Tensor | None = None


def spin_state(
    hoppings: Sequence[ShellHopping],
    blocks: Tensor,
    temperature: float,
    n_electrons: float | None = None,
    mu: float | None = None,
    *,
    window: Window | None = None,
    error: float = 1e-6,
    order: int | None = None,
    n_random: int | None = None,
    spacing: int = 1,
    seed: int = 0,
    workers: int = 1,
) -> SpinState:
    r"""Charge, spin and energies at T > 0, averaged over the hoppings (one for each twist).

    Without random vectors every state of the lattice is a start vector: the result is exact but for
    the truncated series, and costs about N · order products of h with a vector. The moments come
    two by two, ⟨a|T_{2n}|b⟩ = 2⟨T_n a|T_n b⟩ − ⟨a|b⟩ and its sister, the element between the spins
    of a site included.

    Random vectors have random phases on all sites, or on every ``spacing``-th site in each
    direction. Then the site block of f is read off f v, its own phases taken back: the probing
    with colours of which Wang, Chern, Batista and Barros (J. Chem. Phys. 148, 094107 (2018)) give a
    gradient-based variant. The estimate is not biased; its noise
    comes from the elements of f between sites that share a vector, falls with 1/√n_random, and with
    the spacing as correlations do. A spacing of the whole lattice is exact. Both spins have the
    same phases: the estimate turns with the spins exactly, and the noise of the spin is smaller
    than that of the charge by the part of the blocks that depends on spin. At fixed number, the
    noise of μ is part of the errors.

    Args:
        hoppings: On one lattice; one, or one for each twist.
        blocks: Hermitian ``[B, N, 2, 2]``.
        temperature: T > 0.
        n_electrons: Number of electrons, or
        mu: the chemical potential. Give one of the two.
        window: Holds the spectrum. When None, the band plus the largest and smallest level of the
            blocks, a strict bound.
        error: Largest error, by truncation, of an eigenvalue of a site block, and half of that of
            the energy per site. It fixes the order.
        order: Chebyshev order instead.
        n_random: Number of random vectors for each spin and each class of sites.
        spacing: Of the sites that share a random vector; divides the sides of the lattice.
        seed: Of the random vectors. They are the same for all configurations.
        workers: Processes that share a batch on the CPU.

    Raises:
        InputError: For T ≤ 0, a bad filling, shapes that do not fit, NaN, a window that leaves out
            part of the spectrum, or a spacing that does not divide the sides.
    """
    lattice = _check(hoppings, blocks, n_random, spacing, workers)
    check_ensemble(temperature, n_electrons, mu, 2 * lattice.n_sites)
    blocks = blocks.detach().to(torch.complex128)
    bound = strict_window(hoppings, *_extremes(blocks))
    span = bound if window is None else window
    if span.lower > bound.lower or span.upper < bound.upper:
        for hopping in hoppings:
            for row in blocks:
                check_window(spin_operator(hopping, row), span)
    if order is None:
        # Half for the series, half for the shift of μ that its error brings.
        order = fermi_order(temperature, span, error if mu is not None else 0.5 * error, mu)
    problem = Problem(
        tuple(hoppings), float(temperature), n_electrons, mu, span, order, n_random, spacing, seed
    )
    if workers > 1 and len(blocks) > 1 and blocks.device.type == "cpu":
        rows = pool().map(_solve_rows, list(blocks.numpy()), (problem,), count=workers)
    else:
        with torch.no_grad():
            rows = [
                row
                for part in blocks.split(together(problem, blocks))
                for row in _solve(problem, part)
            ]
    return _collect(rows, problem, blocks.device)


def strict_window(hoppings: Sequence[ShellHopping], lowest: float, highest: float) -> Window:
    """Window that holds every spectrum of hopping plus site blocks with levels in an interval."""
    bands = np.concatenate([hopping.levels() for hopping in hoppings])
    lower, upper = float(bands.min()) + lowest, float(bands.max()) + highest
    margin = 1e-3 * max(upper - lower, 1e-3)
    return Window(lower - margin, upper + margin)


def charge_spin(site_density: Tensor) -> Tensor:
    """(n, s^x, s^y, s^z) = Tr(σ_a ρ), ``[…, 4]``, of Hermitian blocks ρ ``[…, 2, 2]``."""
    up, down, mixed = site_density[..., 0, 0], site_density[..., 1, 1], site_density[..., 0, 1]
    parts = ((up + down).real, 2 * mixed.real, -2 * mixed.imag, (up - down).real)
    return torch.stack(parts, -1)


def _solve_rows(rows: Sequence[NDArray[np.complex128]], problem: Problem) -> list[Row]:
    """What a worker does: configurations one by one."""
    with torch.no_grad():
        return [row for blocks in rows for row in _solve(problem, torch.from_numpy(blocks)[None])]


def _solve(problem: Problem, blocks: Tensor) -> list[Row]:
    return solve_exactly(problem, blocks) if problem.n_random is None else sample(problem, blocks)


# ---- input and output --------------------------------------------------------------------------


def _check(
    hoppings: Sequence[ShellHopping],
    blocks: Tensor,
    n_random: int | None,
    spacing: int,
    workers: int,
) -> Lattice:
    if not hoppings:
        raise InputError("an average over twists needs at least one hopping.")
    lattice = hoppings[0].lattice
    if blocks.ndim != 4 or tuple(blocks.shape[1:]) != (lattice.n_sites, 2, 2):
        raise InputError(
            f"site blocks on {lattice} have shape [batch, {lattice.n_sites}, 2, 2], "
            f"not {list(blocks.shape)}."
        )
    if not bool(blocks.isfinite().all()):
        raise InputError("the site blocks hold NaN or infinite values; only finite are accepted.")
    check_whole("workers", workers, 1)
    check_probes(n_random, spacing)
    if any(size % spacing for size in lattice.shape):
        raise InputError(
            f"spacing is {spacing}, which does not divide the sides of {lattice}; "
            "random vectors repeat along them."
        )
    return lattice


def check_probes(n_random: int | None, spacing: int) -> None:
    """Check number and spacing of random vectors.

    Raises:
        InputError: Naming the one that is not accepted.
    """
    for name, value in (("n_random", n_random), ("spacing", spacing)):
        if value is not None:
            check_whole(name, value, 1)


def check_whole(name: str, value: Any, least: int) -> None:
    """Check a parameter that counts something.

    Raises:
        InputError: When it is not a whole number, or smaller than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least {least}.")


def _extremes(blocks: Tensor) -> tuple[float, float]:
    """Smallest and largest level of Hermitian 2×2 blocks."""
    up, down, mixed = blocks[..., 0, 0].real, blocks[..., 1, 1].real, blocks[..., 0, 1]
    middle, radius = 0.5 * (up + down), (0.25 * (up - down).square() + mixed.abs().square()).sqrt()
    return float((middle - radius).min()), float((middle + radius).max())


def _collect(rows: Sequence[Row], problem: Problem, device: torch.device) -> SpinState:
    def column(values: Sequence[Any]) -> Tensor:
        return torch.from_numpy(np.array(values)).to(device)

    mu = column([row[0] for row in rows])
    number = column([row[1] for row in rows])
    if problem.n_electrons is not None:
        number = torch.full_like(number, float(problem.n_electrons))
    grand = column([row[3] for row in rows])
    sampled = problem.n_random is not None
    return SpinState(
        mu,
        number,
        column([row[2] for row in rows]),
        grand + mu * number,
        grand,
        problem.order,
        problem.window,
        column([row[4] for row in rows]) if sampled else None,
        column([row[5] for row in rows]) if sampled else None,
    )
