"""Kernel polynomials: functions of a sparse Hamiltonian without diagonalization.

A function of h is expanded in Chebyshev polynomials of the scaled matrix x = (h − b)/a, whose
spectrum lies in [−1, 1]: f(h) = Σ_n c_n T_n(x). Moments ⟨v|T_n(x)|v⟩ need products of h with
vectors only. At T > 0 the Fermi function is smooth, so the plain series converges like e^{−πTM/a},
and no kernel is used: the Jackson kernel, made for sharp steps, would bring that down to 1/M².

Everything works on torch tensors on any device, for real and complex Hermitian h.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_expit
from torch import Tensor

from latticezoo.simulate.electrons.fermi import check_ensemble
from latticezoo.simulate.electrons.operators import (
    Operator,
    Window,
    check_window,
    outside,
    random_vectors,
    spectral_window,
)
from latticezoo.symmetry.errors import InputError

Array = NDArray[np.float64]

_LARGEST_ORDER = 2**20
_COLUMNS = 256  # vectors that are carried through the recursion together


# ---- moments -----------------------------------------------------------------------------------


def chebyshev_moments(h: Any, vectors: Tensor, order: int, window: Window | None = None) -> Tensor:
    """Moments μ_n = ⟨v|T_n(x)|v⟩, n = 0 … order, of each vector.

    Uses ⟨v|T_{2n}|v⟩ = 2⟨T_n v|T_n v⟩ − ⟨v|v⟩ and its sister for 2n + 1: half as many products
    as moments.

    Args:
        h: What :class:`Operator` takes.
        vectors: ``[N, R]``.
        order: Highest n.
        window: Holds the spectrum; found by :func:`spectral_window` when None.

    Returns:
        ``[order + 1, R]``, float64.

    Raises:
        InputError: When the spectrum lies partly outside the window.
    """
    if order < 0 or int(order) != order:
        raise InputError(f"the order of a Chebyshev expansion is {order}; it must be 0 or more.")
    operator = Operator.of(h)
    if window is None:
        window = spectral_window(h)
    else:
        check_window(operator, window)
    return _moments(operator, vectors.to(operator.device, operator.dtype), order, window)


def _moments(operator: Operator, vectors: Tensor, order: int, window: Window) -> Tensor:
    def scaled(block: Tensor) -> Tensor:
        return (operator.product(block) - window.centre * block) / window.half_width

    def dot(left: Tensor, right: Tensor) -> Tensor:
        return (left.conj() * right).sum(0).real

    norm = dot(vectors, vectors)
    moments = norm.new_empty(order + 1, vectors.shape[1])
    moments[0] = norm
    old, new = vectors, scaled(vectors)
    first = dot(vectors, new)
    for n in range(1, order // 2 + order % 2 + 1):  # new = T_n v, old = T_{n−1} v
        moments[2 * n - 1] = first if n == 1 else 2 * dot(old, new) - first
        if 2 * n <= order:
            moments[2 * n] = 2 * dot(new, new) - norm
            old, new = new, 2 * scaled(new) - old
    if not bool((moments.abs() <= norm * (1 + 1e-6)).all()):  # NaN included
        raise outside(window, "farther than expected: the moments grow")
    return moments


def local_moments(
    h: Any, order: int, window: Window | None = None, sites: Tensor | None = None
) -> Tensor:
    """Exact local moments ⟨i|T_n(x)|i⟩, ``[order + 1, sites]``, float64.

    Args:
        h: What :class:`Operator` takes.
        order: Highest n.
        window: As in :func:`chebyshev_moments`.
        sites: Which sites, ``[S]``; all when None.
    """
    operator = Operator.of(h)
    if window is None:
        window = spectral_window(h)
    else:
        check_window(operator, window)
    if sites is None:
        sites = torch.arange(operator.size)
    parts = []
    for some in sites.to(operator.device).split(_COLUMNS):
        unit = torch.zeros(operator.size, len(some), dtype=operator.dtype, device=operator.device)
        unit[some, torch.arange(len(some), device=some.device)] = 1
        parts.append(_moments(operator, unit, order, window))
    return torch.cat(parts, 1)


def trace_moments(
    h: Any, order: int, window: Window | None = None, *, n_random: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Stochastic traces Tr T_n(x) / N with their standard errors.

    The vectors have independent entries of modulus 1: ±1 for real h, random phases for complex h,
    so that μ_0 is exact.

    Args:
        h: What :class:`Operator` takes.
        order: Highest n.
        window: As in :func:`chebyshev_moments`.
        n_random: Number of random vectors, at least 2.
        seed: Of the random vectors.

    Returns:
        Means and standard errors, ``[order + 1]`` each, float64.
    """
    if n_random < 2:
        raise InputError(f"n_random is {n_random}; a stochastic trace needs at least 2 vectors.")
    operator = Operator.of(h)
    vectors = random_vectors(operator, n_random, seed)
    moments = chebyshev_moments(h, vectors, order, window) / operator.size
    return moments.mean(1), moments.std(1) / math.sqrt(n_random)


# ---- expansions --------------------------------------------------------------------------------


def jackson_kernel(order: int) -> Array:
    """Jackson's damping factors g_0 … g_order (Weiße et al., Rev. Mod. Phys. 78 (2006) 275).

    For densities of states and steps; not for forces at T > 0.
    """
    n, m = np.arange(order + 1), order + 2
    angle = np.pi / m
    return ((m - n) * np.cos(n * angle) + np.sin(n * angle) / np.tan(angle)) / m


def coefficients(function: Callable[[Array], Array], order: int, window: Window) -> Array:
    """Chebyshev coefficients c_0 … c_order of a function of the energy.

    By Gauss–Chebyshev quadrature with at least twice as many nodes as coefficients.
    """
    return _quadrature(function, max(2 * (order + 1), 16), window)[: order + 1]


def _quadrature(function: Callable[[Array], Array], nodes: int, window: Window) -> Array:
    x = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    series = scipy.fft.dct(function(window.energies(x)), type=2) / nodes
    series[0] /= 2
    return series


def expansion_order(function: Callable[[Array], Array], window: Window, error: float) -> int:
    """Smallest order at which the truncated series is within ``error`` of a smooth function.

    The bound Σ_{n > M} |c_n| holds everywhere in the window, hence for every expectation value.

    Raises:
        InputError: When it would pass 2^20: the function is too sharp for the error asked.
    """
    if not error > 0:
        raise InputError(f"the error of an expansion is {error}; it must be positive.")
    nodes = 64
    while nodes <= _LARGEST_ORDER:
        sizes = np.abs(_quadrature(function, nodes, window))
        rounding = 4e-16 * sizes.max() * nodes
        tails = np.cumsum(sizes[::-1])[::-1]  # tails[n] = sum from n on
        # Aliasing folds what lies beyond the nodes back: the last half must be negligible.
        if tails[nodes // 2] <= max(0.01 * error, rounding):
            return int(np.argmax(tails <= max(error, tails[nodes // 2]))) - 1
        nodes *= 2
    raise InputError(
        f"an error of {error} needs a Chebyshev expansion beyond order {_LARGEST_ORDER}; "
        "raise the temperature or the error."
    )


def fermi_order(temperature: float, window: Window, error: float, mu: float | None = None) -> int:
    """Order at which Fermi function and free energy are within ``error``.

    Their singularities lie at ε = μ ± iπT, nearest to the real axis in the sense of the Chebyshev
    series when μ is at the middle of the window: M ≈ ln(1/error) · a/(πT). At a distance x·a from
    the middle the order is smaller by √(1 − x²).

    Args:
        temperature: T > 0.
        window: Holds the spectrum.
        error: Largest error of an occupation, and of the free energy per state in units of t.
        mu: Chemical potential, where it is known; when None, the order serves every μ.
    """
    if not (temperature > 0 and math.isfinite(temperature)):
        raise InputError(
            f"temperature is {temperature}; Chebyshev expansions without kernel need T > 0."
        )
    fermi, free = thermal_functions(temperature, window.centre if mu is None else mu)
    return max(expansion_order(fermi, window, error), expansion_order(free, window, error))


def thermal_functions(
    temperature: float, mu: float
) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Occupation, and −T ln(1 + e^{−(ε − μ)/T}), as functions of the energy ε."""

    def fermi(energy: Array) -> Array:
        return expit((mu - energy) / temperature)

    def free(energy: Array) -> Array:
        return temperature * log_expit((energy - mu) / temperature)

    return fermi, free


# ---- thermal averages --------------------------------------------------------------------------


@dataclass(frozen=True)
class KPMState:
    """Thermal averages by Chebyshev expansion.

    Attributes:
        mu: Chemical potential.
        n_electrons: Σ_i ⟨n_i⟩.
        density: ⟨n_i⟩, ``[N]``, float64.
        free_energy: A = Ω + μ N_e.
        grand_potential: Ω = −T Tr ln(1 + e^{−(h − μ)/T}).
        order: Chebyshev order used.
        window: Spectral window used.
    """

    mu: float
    n_electrons: float
    density: Tensor
    free_energy: float
    grand_potential: float
    order: int
    window: Window


def kpm_thermal_state(
    h: Any,
    temperature: float,
    n_electrons: float | None = None,
    mu: float | None = None,
    *,
    window: Window | None = None,
    error: float = 1e-6,
    order: int | None = None,
    jackson: bool = False,
) -> KPMState:
    """Density and free energy at T > 0 from exact local moments of every site.

    Costs N · order products of h with a vector, no memory of order N².

    Args:
        h: Hermitian: a dense or sparse matrix, or an :class:`Operator`.
        temperature: T > 0.
        n_electrons: Number of electrons, or
        mu: the chemical potential. Give one of the two.
        window: Holds the spectrum; found by :func:`spectral_window` when None.
        error: Largest error of a density, which fixes the order.
        order: Chebyshev order instead.
        jackson: Use the Jackson kernel, for comparison.

    Raises:
        InputError: For T ≤ 0, a bad filling, or a window that leaves out part of the spectrum.
    """
    operator = Operator.of(h)
    check_ensemble(temperature, n_electrons, mu, operator.size)
    span = spectral_window(h) if window is None else window
    if order is None:
        # Half for the series, half for the shift of μ that its error brings.
        order = fermi_order(temperature, span, 0.5 * error)
    moments = local_moments(h, order, window).cpu()
    damping = jackson_kernel(order) if jackson else np.ones(order + 1)
    total = moments.sum(1).numpy() * damping

    def series(which: int, at: float) -> Array:
        return coefficients(thermal_functions(temperature, at)[which], order, span)

    if mu is None:
        assert n_electrons is not None
        mu = find_mu(lambda at: float(series(0, at) @ total), n_electrons, span, temperature)
    density = torch.from_numpy(series(0, mu) * damping) @ moments
    number = float(density.sum()) if n_electrons is None else float(n_electrons)
    grand = float(series(1, mu) @ total)
    return KPMState(
        mu,
        number,
        density.to(operator.device),
        grand + mu * number,
        grand,
        order,
        span,
    )


def find_mu(
    count: Callable[[float], float], n_electrons: float, window: Window, temperature: float
) -> float:
    """The μ at which a count that rises with μ is ``n_electrons``."""
    reach = window.half_width + 40 * temperature
    low, high = window.centre - reach, window.centre + reach
    while count(low) > n_electrons:
        low -= reach
    while count(high) < n_electrons:
        high += reach
    return float(brentq(lambda at: count(at) - n_electrons, low, high, xtol=1e-14, rtol=1e-14))
