"""Errors of means of correlated samples: integrated autocorrelation times and blocking."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latticezoo.symmetry.errors import InputError

Array = NDArray[Any]


def autocorrelation(series: Array) -> Array:
    """Normalized autocorrelation function Γ(t), Γ(0) = 1, averaged over the other axes.

    Each series is taken about the mean of all of them.

    Args:
        series: ``[samples, …]``, samples at equal distances.

    Returns:
        ``[samples]``, or zeros beyond t = 0 for series that do not change.

    Raises:
        InputError: For fewer than two samples.
    """
    values = np.asarray(series, dtype=np.float64)
    if len(values) < 2:
        raise InputError(f"an autocorrelation needs at least 2 samples, not {len(values)}.")
    count = len(values)
    centred = values.reshape(count, -1) - values.mean()
    power = (np.abs(np.fft.rfft(centred, 2 * count, axis=0)) ** 2).sum(1)
    products = np.fft.irfft(power)[:count]
    found = products / np.arange(count, 0, -1)
    if found[0] <= 0:
        return np.eye(1, count)[0]
    return found / found[0]


def integrated_time(series: Array, window: float = 5.0, until: int | None = None) -> float:
    """Integrated autocorrelation time τ = ½ + Σ_{t>0} Γ(t), in samples; ½ when uncorrelated.

    The sum ends at the first t ≥ ``window`` · τ(t) (N. Madras, A. D. Sokal, J. Stat. Phys. 50, 109
    (1988)). Where Γ has a long tail that end differs from series to series by more than Γ does; the
    part of τ up to the same time is what can be compared.

    Args:
        series: ``[samples, …]``; further axes are independent replicas.
        window: How many τ the sum reaches.
        until: The last t of the sum, in samples, in place of ``window``.

    Raises:
        InputError: ``until`` is not among the times of the series.
    """
    sums = np.cumsum(autocorrelation(series)) - 0.5
    if until is not None:
        if not 0 <= until < len(sums):
            raise InputError(
                f"until is {until}; {len(sums)} samples have correlations at 0 to {len(sums) - 1}."
            )
        return float(sums[until])
    reached = np.arange(len(sums)) >= window * sums
    return float(max(sums[int(np.argmax(reached))] if reached.any() else sums[-1], 0.5))


def decay_time(series: Array, level: float = math.exp(-1)) -> float:
    """First time at which Γ has fallen to ``level``, in samples, by linear interpolation.

    Runs of a few such times settle it, where the integrated time of a long tail needs hundreds.

    Args:
        series: ``[samples, …]``; further axes are independent replicas.
        level: Between 0 and 1.

    Returns:
        The time, or infinity when Γ stays above ``level``.

    Raises:
        InputError: ``level`` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level}; correlations fall to a number between 0 and 1.")
    found = autocorrelation(series)
    below = found <= level
    if not below.any():
        return math.inf
    end = int(np.argmax(below))
    return end - float((level - found[end]) / (found[end - 1] - found[end]))


def blocked_error(series: Array, length: int | None = None) -> float:
    """Standard error of the mean over samples and replicas, from means of blocks of samples.

    Args:
        series: ``[samples, …]``; further axes are independent replicas.
        length: Samples in a block; by default 10 τ, but at most such that each series has 4.

    Raises:
        InputError: When fewer than two blocks would be left.
    """
    values = np.asarray(series, dtype=np.float64)
    flat = values.reshape(len(values), -1)
    if length is None:
        length = max(1, min(int(np.ceil(10 * integrated_time(values))), len(flat) // 4))
    blocks = len(flat) // length
    if blocks * flat.shape[1] < 2:
        raise InputError(
            f"{len(flat)} samples in blocks of {length} leave fewer than two blocks; take more."
        )
    means = flat[: blocks * length].reshape(blocks, length, -1).mean(1).ravel()
    return float(means.std(ddof=1) / np.sqrt(len(means)))
