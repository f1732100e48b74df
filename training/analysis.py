"""Averages over the replicas of a run, with their errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from latticezoo.simulate.observables import correlation_function, correlation_length
from latticezoo.symmetry.lattices import Lattice
from latticezoo.training.plots import Band


def jackknife(estimates: np.ndarray, whole: np.ndarray) -> np.ndarray:
    r"""Standard error of a function of averages, from its values with one replica left out each.

    .. math:: \sigma^2 = \frac{R - 1}{R} \sum_r (\theta_{(r)} - \bar\theta)^2

    Args:
        estimates: ``[R, …]``, replica ``r`` left out.
        whole: The function of all replicas ``[…]``, for its shape when there is one replica only.

    Returns:
        ``[…]``; NaN for a single replica.
    """
    count = len(estimates)
    if count < 2:
        return np.full_like(whole, np.nan)
    spread = estimates - estimates.mean(0)
    return np.sqrt((count - 1) / count * (spread**2).sum(0))


def correlations(order: np.ndarray, lattice: Lattice) -> Band:
    """Correlation function of the local order, averaged over sites, directions and replicas.

    Args:
        order: φ, ``[times, R, N]``.
        lattice: The lattice.

    Returns:
        C(r, t) at distances 0, 1, …, half the box, ``[times, D]``, with jackknife errors.
    """
    results = [_with_error(frame, lattice, lambda c: c) for frame in order]
    return Band(np.stack([mean for mean, _ in results]), np.stack([error for _, error in results]))


def correlation_lengths(order: np.ndarray, lattice: Lattice) -> Band:
    """Distance at which the averaged correlation function falls to one half.

    Args:
        order: φ, ``[times, R, N]``.
        lattice: The lattice.

    Returns:
        L(t) in lattice constants ``[times]``, with jackknife errors; NaN when C stays above one
        half in the box.
    """

    def length(c: np.ndarray) -> np.ndarray:
        found = correlation_length(torch.from_numpy(c)).numpy()
        return np.where(np.isfinite(found), found, np.nan)

    results = [_with_error(frame, lattice, length) for frame in order]
    return Band(np.stack([mean for mean, _ in results]), np.stack([error for _, error in results]))


def _with_error(
    frame: np.ndarray, lattice: Lattice, function: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    values = torch.as_tensor(np.asarray(frame), dtype=torch.float64)[..., None]
    whole = function(_average(values, lattice))
    left_out = [
        function(_average(values[torch.arange(len(values)) != r], lattice))
        for r in range(len(values))
        if len(values) > 1
    ]
    return whole, jackknife(np.array(left_out), whole)


def _average(values: torch.Tensor, lattice: Lattice) -> np.ndarray:
    return correlation_function(values, lattice, average_replicas=True)[0].numpy()
