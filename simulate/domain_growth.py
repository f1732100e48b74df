"""Growth of ordered domains: lengths, their errors, power laws, dynamical scaling.

An observer gathers the averages on the way; the rest are functions of plain arrays. Times, replicas
and distances are the axes ``T``, ``R``, ``D``; lengths are in lattice constants. Averages are those
of an ensemble of replicas, and their errors come from resampling the replicas (the bootstrap):
sites and times of one run are not independent. See Bray, "Theory of phase-ordering kinetics", Adv.
Phys. 43, 357 (1994).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latticezoo.simulate.observables import (
    correlation_function,
    correlation_length,
    local_order,
    structure_factor,
    wave_vectors,
)
from latticezoo.simulate.observers import Observer, Snapshot
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


# ---- what is measured on the way ---------------------------------------------------------------


@dataclass(frozen=True)
class DomainStatistics(Observer):
    """All averages over a configuration that lengths of the ensemble are made of, ``[R, D + 5]``.

    Per replica a few hundred numbers in place of a frame: see :func:`unpack`.

    Args:
        every: Sampling interval.
        name: Name of the samples.
        source: What orders: "density", a field by name, or one of its channels, such as "Q[2]".
        cutoff: Largest |q − K| that the second pair of moments of the structure factor counts. The
            tail of thermal fluctuations, flat in q, has its weight at large |q − K| and would
            otherwise hide the growth of the domains.
    """

    source: str = "density"
    cutoff: float = 1.0

    default_name: ClassVar[str] = "domains"

    def measure(self, snapshot: Snapshot) -> Tensor:
        """Pair products of the local order, its mean, moments of its structure factor."""
        order = local_order(snapshot.values(self.source), snapshot.lattice).double()
        return domain_statistics(order, snapshot.lattice, self.cutoff)


def domain_statistics(order: Tensor, lattice: Lattice, cutoff: float = 1.0) -> Tensor:
    """The averages of :class:`DomainStatistics` of a local order ``[R, N, 1]``."""
    square = order.square().mean((1, 2))
    products = correlation_function(order, lattice, connected=False) * square[:, None]
    # The local order is staggered already: its wave vector k is q − K of the density's.
    power = structure_factor(order, lattice).flatten(1)
    k = wave_vectors(lattice).norm(dim=-1).flatten().to(power)
    low = power * (k <= cutoff)
    extra = [order.mean((1, 2)), power.sum(1), power @ k, low.sum(1), low @ k]
    return torch.cat([products, torch.stack(extra, 1)], 1)


class Statistics(NamedTuple):
    """Averages over the configurations of an ensemble.

    Attributes:
        products: ⟨φ(r0) φ(r0 + r)⟩ over r0 and the directions of the axes, ``[T, R, D]``.
        means: ⟨φ⟩, ``[T, R]``.
        moments: Σ_k S and Σ_k S |k|, ``[2, T, R]``, with S = |(1/N) Σ φ e^{ikr}|².
        low_moments: The same up to the cutoff.
    """

    products: Array
    means: Array
    moments: Array
    low_moments: Array

    def rows(self, rows: Integers) -> Statistics:
        """Those at some times."""
        return Statistics(
            self.products[rows], self.means[rows], self.moments[:, rows], self.low_moments[:, rows]
        )


def unpack(values: Array) -> Statistics:
    """Read the samples ``[T, R, D + 5]`` of :class:`DomainStatistics`."""
    extra = np.moveaxis(values[..., -5:], -1, 0)
    return Statistics(values[..., :-5], extra[0], extra[1:3], extra[3:5])


# ---- lengths of the ensemble -------------------------------------------------------------------


def ensemble_correlation(statistics: Statistics, replicas: Integers | None = None) -> Array:
    """Correlation function of an ensemble, C(r) = ⟨φ φ⟩_r / ⟨φ²⟩, ``[T, D]``.

    The ensemble's mean order vanishes by symmetry. It is not subtracted: the mean of a few replicas
    differs from zero by chance once the domains are large, and would bend C(r).

    Args:
        statistics: Of all replicas.
        replicas: Those to average over, with repetitions.
    """
    chosen = statistics.products if replicas is None else statistics.products[:, replicas]
    average = chosen.mean(1)
    result: Array = average / average[:, :1]
    return result


def half_height(correlation: Array, level: float = 0.5) -> Array:
    """Length at which C(r) falls to a level; NaN where it stays above: ``[…, D]`` to ``[…]``."""
    found = correlation_length(torch.from_numpy(correlation), level).numpy()
    return np.where(np.isfinite(found), found, np.nan)


def structure_length(moments: Array, replicas: Integers | None = None) -> Array:
    """Length from the first moment, L = Σ S / Σ S |q − K|, summed over the ensemble: ``[T]``.

    Args:
        moments: ``[2, T, R]``, as in :class:`Statistics`.
        replicas: Those to average over, with repetitions.

    Returns:
        L in lattice constants; domains have a size of about 2π L.
    """
    chosen = moments if replicas is None else moments[..., replicas]
    zeroth, first = chosen.mean(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        length = zeroth / first
    return np.where(np.isfinite(length), length, np.nan)


# ---- errors and fits ---------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A value of the whole ensemble, its bootstrap error, and the values of the resamples."""

    value: Array
    error: Array
    resamples: Array


def bootstrap(
    statistic: Callable[[Integers], Array | float], replicas: int, samples: int = 400, seed: int = 0
) -> Estimate:
    """Standard error of a function of an ensemble, by resampling its replicas with replacement.

    Args:
        statistic: Function of the rows of the replicas to average over, ``[R]``.
        replicas: Their number R. The error is biased low by about 1/(2R).
        samples: Number of resamples.
        seed: Seed of the choice; two statistics with the same seed see the same resamples.

    Returns:
        The estimate; the error is NaN for one replica, and where fewer than half of the resamples
        are finite.

    Raises:
        InputError: For less than one replica or two resamples.
    """
    if replicas < 1 or samples < 2:
        raise InputError(
            f"a bootstrap of {replicas} replicas with {samples} resamples was asked for; give at "
            "least 1 and 2."
        )
    value = np.asarray(statistic(np.arange(replicas)), dtype=np.float64)
    choice = np.random.default_rng(seed).integers(replicas, size=(samples, replicas))
    drawn = np.stack([np.asarray(statistic(rows), dtype=np.float64) for rows in choice])
    finite = np.isfinite(drawn)
    count = finite.sum(0)
    mean = np.where(finite, drawn, 0.0).sum(0) / np.maximum(count, 1)
    square = np.where(finite, (drawn - mean) ** 2, 0.0).sum(0) / np.maximum(count - 1, 1)
    known = (count >= samples / 2) & (replicas > 1)
    return Estimate(value, np.where(known, np.sqrt(square), np.nan), drawn)


def geometric_rows(times: Array, per_octave: int = 4) -> Integers:
    """Rows of about evenly spaced logarithms of the time; times at or below zero are left out.

    Samples at equal intervals crowd at the end of a logarithmic axis, where they are strongly
    correlated: an unweighted fit would see the last factor of two alone.

    Args:
        times: ``[T]``, rising.
        per_octave: Samples for each factor of two.
    """
    rows = np.flatnonzero(times > 0)
    if len(rows) < 2:
        return rows
    octaves = np.log2(times[rows[-1]] / times[rows[0]])
    grid = np.geomspace(times[rows[0]], times[rows[-1]], max(2, int(octaves * per_octave) + 1))
    logarithms = np.log(times[rows])
    nearest = np.abs(logarithms[None] - np.log(grid)[:, None]).argmin(1)
    return rows[np.unique(nearest)]


class PowerLaw(NamedTuple):
    """L = prefactor · t^exponent."""

    exponent: float
    prefactor: float


def power_law(times: Array, lengths: Array, window: tuple[float, float]) -> PowerLaw:
    """Fit a power law by least squares of the logarithms, evenly over the logarithm of the time.

    Args:
        times: ``[T]``, rising.
        lengths: ``[T]``; NaN is left out.
        window: First and last time that count, inclusive.

    Returns:
        The fit; NaN when fewer than three samples lie in the window.
    """
    inside = (times >= window[0]) & (times <= window[1]) & np.isfinite(lengths)
    times, lengths = times[inside], lengths[inside]
    rows = geometric_rows(times)
    if len(rows) < 3:
        return PowerLaw(np.nan, np.nan)
    slope, offset = np.polyfit(np.log(times[rows]), np.log(lengths[rows]), 1)
    return PowerLaw(float(slope), float(np.exp(offset)))


def running_exponent(times: Array, lengths: Array, at: Array, factor: float = 2.0) -> Array:
    """Local exponent d ln L / d ln t: the fit in a window around each time.

    Args:
        times: ``[T]``, rising.
        lengths: ``[T]``.
        at: Times at which it is wanted, ``[A]``.
        factor: The window around t reaches from t/factor to t·factor.

    Returns:
        ``[A]``; NaN where the window reaches beyond the samples.
    """
    found = np.full(len(at), np.nan)
    finite = np.flatnonzero(np.isfinite(lengths) & (times > 0))
    if not len(finite):
        return found
    for row, time in enumerate(at):
        window = (time / factor, time * factor)
        slack = 1 + 1e-9
        if window[0] * slack < times[finite[0]] or window[1] > times[finite[-1]] * slack:
            continue
        found[row] = power_law(times, lengths, window).exponent
    return found


# ---- scaling -----------------------------------------------------------------------------------


class Collapse(NamedTuple):
    """How well C(r, t) is one function G(r / L(t)).

    Attributes:
        residual: Root mean square of C − G over times and x.
        largest: Largest deviation.
        x: r / L, ``[X]``.
        master: G, the mean over times, ``[X]``.
        curves: C at x for each time, ``[T, X]``.
    """

    residual: float
    largest: float
    x: Array
    master: Array
    curves: Array


def collapse(correlation: Array, lengths: Array, reach: float = 3.0, points: int = 61) -> Collapse:
    """Rescale correlation functions by the length and measure how far they differ.

    With the half-height length all curves meet at x = 0 and x = 1 by construction; what is tested
    is the shape in between and beyond.

    Args:
        correlation: C ``[T, D]`` at distances 0, 1, ….
        lengths: L(t) ``[T]``, finite.
        reach: Largest x = r/L; less where half the box is nearer at the last time.
        points: Number of x.

    Raises:
        InputError: For fewer than two times, or a length that is not finite.
    """
    if len(lengths) < 2 or not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise InputError(
            f"a collapse needs two or more times with finite lengths; given: {lengths.tolist()}."
        )
    distances = np.arange(correlation.shape[1], dtype=np.float64)
    x = np.linspace(0.0, min(reach, float(distances[-1] / lengths.max())), points)
    curves = np.stack(
        [
            np.interp(x * length, distances, row)
            for row, length in zip(correlation, lengths, strict=True)
        ]
    )
    master = curves.mean(0)
    deviation = curves - master
    return Collapse(
        float(np.sqrt((deviation**2).mean())), float(np.abs(deviation).max()), x, master, curves
    )
