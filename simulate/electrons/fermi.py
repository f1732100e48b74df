"""Fermi statistics of one set of levels: chemical potential, occupations, free energy.

Plain numpy on one configuration at a time, so that a result cannot depend on what else is computed
beside it. Energies and temperatures in units of t, k_B = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit, xlogy

from latticezoo.symmetry.errors import InputError

Array = NDArray[np.float64]

#: Levels closer than this share of the largest |level| count as degenerate at T = 0, and
#: temperatures below it count as zero: diagonalization does not resolve them.
RESOLUTION = 1e-10
_STEPS = 200
_sum = np.add.reduce  # without the layers of np.sum, a quarter of the time at 100 levels


@dataclass(frozen=True)
class Filling:
    """How the levels ε_m of one configuration are filled.

    Attributes:
        mu: Chemical potential.
        n_electrons: Number of electrons Σ f.
        occupations: f_m, ``[levels]``, between 0 and 1.
        band_energy: Σ f ε.
        entropy: −Σ [f ln f + (1 − f) ln(1 − f)].
        grand_potential: Ω = −T Σ ln(1 + e^{−(ε − μ)/T}); Σ f (ε − μ) at T = 0.
        free_energy: A = Ω + μ Σf, the Legendre partner at fixed electron number.
    """

    mu: float
    n_electrons: float
    occupations: Array
    band_energy: float
    entropy: float
    grand_potential: float
    free_energy: float

    def shared(self, count: int) -> Filling:
        """The part of one of ``count`` equal systems that were filled together."""
        return replace(
            self,
            n_electrons=self.n_electrons / count,
            band_energy=self.band_energy / count,
            entropy=self.entropy / count,
            grand_potential=self.grand_potential / count,
            free_energy=self.free_energy / count,
        )


def check_ensemble(
    temperature: float, n_electrons: float | None, mu: float | None, n_states: int
) -> None:
    """Check what fixes the filling.

    Raises:
        InputError: For a negative temperature, unless exactly one of electron number and chemical
            potential is given, and for a number outside (0, n_states).
    """
    if not (temperature >= 0 and math.isfinite(temperature)):
        raise InputError(f"temperature is {temperature}; it must be finite and 0 or more.")
    if (n_electrons is None) == (mu is None):
        raise InputError("give either the number of electrons or the chemical potential, not both.")
    if mu is not None and not math.isfinite(mu):
        raise InputError(f"the chemical potential is {mu}; it must be finite.")
    if n_electrons is not None and not 0 < n_electrons < n_states:
        raise InputError(
            f"{n_electrons} electrons do not partly fill {n_states} states; give a number between "
            f"0 and {n_states}, both excluded."
        )


def fill(
    levels: Array, temperature: float, n_electrons: float | None = None, mu: float | None = None
) -> Filling:
    """Fill sorted levels at a temperature, with a fixed electron number or chemical potential.

    At T = 0 the levels below μ are full. Levels degenerate with μ are equally and partly filled:
    with the electrons that remain at fixed number, by one half at fixed μ. Both are the limits of
    T → 0; so is μ in the middle of a gap.

    Args:
        levels: ``[levels]``, in rising order.
        temperature: T ≥ 0.
        n_electrons: Number of electrons, whole or not, or None.
        mu: Chemical potential, or None.

    Raises:
        InputError: As :func:`check_ensemble`.
    """
    check_ensemble(temperature, n_electrons, mu, len(levels))
    scale = max(abs(levels[0]), abs(levels[-1]))
    cold = temperature <= RESOLUTION * scale
    if mu is None:
        assert n_electrons is not None
        if cold:
            mu, occupations = _fill_ground_state(levels, n_electrons, RESOLUTION * scale)
        else:
            mu = chemical_potential(levels, temperature, n_electrons)
            occupations = expit((mu - levels) / temperature)
    elif cold:
        # Steps at μ; a level at μ is half filled.
        distance = np.where(np.abs(levels - mu) <= RESOLUTION * scale, 0.0, levels - mu)
        occupations = np.heaviside(-distance, 0.5)
    else:
        occupations = expit((mu - levels) / temperature)

    band = float(occupations @ levels)
    number = float(occupations.sum()) if n_electrons is None else float(n_electrons)
    if cold:
        free = band
        # Half-filled levels at T = 0 keep the entropy ln 2 each, which costs nothing at T = 0.
        grand = free - mu * number
    else:
        grand = temperature * float(log_expit((levels - mu) / temperature).sum())
        free = grand + mu * number
    holes = 1 - occupations
    entropy = -float((xlogy(occupations, occupations) + xlogy(holes, holes)).sum())
    return Filling(mu, number, occupations, band, entropy, grand, free)


def chemical_potential(levels: Array, temperature: float, n_electrons: float) -> float:
    """Chemical potential at which the sorted levels hold a number of electrons, T > 0.

    Solves ln(electrons above) = ln(holes below), where above and below refer to the ground state.
    Compared with Σf = N_e this neither cancels nor goes flat inside a gap at low temperature, and
    the slope of its difference stays near 1/T…2/T, so that Newton's method needs a few steps; a
    bracket that always holds the root guards it.

    Args:
        levels: ``[levels]``, in rising order.
        temperature: T > 0.
        n_electrons: Between 0 and the number of levels, both excluded.

    Returns:
        μ to the last digits of float64.
    """
    full = math.floor(n_electrons)
    part = n_electrons - full  # of the level at the edge, when the number is not whole
    # All levels at ε_0, or all at the top, would give these two; the root lies between.
    shift = temperature * float(logit(n_electrons / len(levels)))
    low, high = float(levels[0]) + shift, float(levels[-1]) + shift
    edge = float(levels[full]) if part else 0.5 * float(levels[full - 1] + levels[full])
    mu = min(max(edge, low), high)
    for _ in range(_STEPS):
        excess, slope = _imbalance((levels - mu) / temperature, full, part)
        if excess > 0:
            high = mu
        else:
            low = mu
        new = mu - temperature * excess / slope
        if not low <= new <= high:
            new = 0.5 * (low + high)
        # Newton's error is about the square of its last step in units of T.
        if abs(new - mu) <= 1e-9 * temperature or high <= low:
            return new
        mu = new
    return mu


def _imbalance(x: Array, full: int, part: float) -> tuple[float, float]:
    """ln(electrons above) − ln(holes below) and its derivative with respect to μ/T.

    Args:
        x: (ε − μ) / T, rising.
        full: Number of levels that are full at T = 0.
        part: Filling of the next level at T = 0.
    """
    electrons, holes = expit(-x), expit(x)
    product = electrons * holes
    above, below = float(_sum(electrons[full:])), float(_sum(holes[:full]))
    d_above, d_below = float(_sum(product[full:])), float(_sum(product[:full]))
    if part:  # the level at the edge counts on both sides
        above -= part * float(electrons[full])
        below += part * float(holes[full])
        d_above -= part * float(product[full])
        d_below += part * float(product[full])
    if min(above, below, d_above, d_below) > 1e-290:
        return math.log(above / below), d_above / above + d_below / below
    # Deep in a gap the populations underflow; the leading exponentials remain.
    weights = np.ones_like(x)
    weights[:full] = 0.0
    weights[full : full + 1] -= part
    log_above, s_above = _log_sum(log_expit(-x), weights, holes)
    log_below, s_below = _log_sum(log_expit(x), 1.0 - weights, electrons)
    return log_above - log_below, s_above + s_below


def _log_sum(logs: Array, weights: Array, factors: Array) -> tuple[float, float]:
    """ln Σ w e^{log}, and the mean of the factors under the weights w e^{log}."""
    used = weights > 0
    logs, weights, factors = logs[used], weights[used], factors[used]
    top = logs.max()
    terms = weights * np.exp(logs - top)
    total = terms.sum()
    return float(top + np.log(total)), float(terms @ factors / total)


def _fill_ground_state(levels: Array, n_electrons: float, width: float) -> tuple[float, Array]:
    """Chemical potential and occupations at T = 0; levels within ``width`` are degenerate."""
    full = math.floor(n_electrons)
    edge = levels[min(full, len(levels) - 1)]
    if n_electrons == full and edge - levels[full - 1] > width:
        occupations = np.zeros(len(levels))
        occupations[:full] = 1.0
        return 0.5 * float(levels[full - 1] + edge), occupations
    first = last = full if n_electrons > full else full - 1
    # A cluster of levels each within the width of the next: rounding splits a large one further.
    while first > 0 and levels[first] - levels[first - 1] <= width:
        first -= 1
    while last + 1 < len(levels) and levels[last + 1] - levels[last] <= width:
        last += 1
    occupations = np.zeros(len(levels))
    occupations[:first] = 1.0
    occupations[first : last + 1] = (n_electrons - first) / (last + 1 - first)
    return float(levels[first : last + 1].mean()), occupations
