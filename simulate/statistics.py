"""Errors of means of correlated samples: integrated autocorrelation times and blocking."""

from __future__ import annotations

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
    spectrum = np.fft.rfft(centred, 2 * count, axis=0)
    products = np.fft.irfft(np.abs(spectrum) ** 2, axis=0)[:count].sum(1)
    found = products / np.arange(count, 0, -1)
    if found[0] <= 0:
        return np.eye(1, count)[0]
    return found / found[0]


def integrated_time(series: Array, window: float = 5.0) -> float:
    """Integrated autocorrelation time τ = ½ + Σ_{t>0} Γ(t), in samples; ½ when uncorrelated.

    The sum ends at the first t ≥ ``window`` · τ(t) (N. Madras, A. D. Sokal, J. Stat. Phys. 50, 109
    (1988)).

    Args:
        series: ``[samples, …]``; further axes are independent replicas.
        window: How many τ the sum reaches.
    """
    sums = np.cumsum(autocorrelation(series)) - 0.5
    reached = np.arange(len(sums)) >= window * sums
    return float(max(sums[int(np.argmax(reached))] if reached.any() else sums[-1], 0.5))


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
