"""Pictures of simulations: maps of the order, correlation functions, growth of the domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from latticezoo.simulate.observables import local_order
from latticezoo.simulate.observers import Observer, Snapshot
from latticezoo.simulate.run import Result
from latticezoo.training import plots
from latticezoo.training.analysis import correlation_lengths, correlations

if TYPE_CHECKING:
    from latticezoo.training.simulate_command import Plan


@dataclass(frozen=True)
class LocalOrder(Observer):
    """Local order φ_i = ±(n_i − mean of the neighbours) of every site, ``[R, N]`` (Eq. 24).

    Args:
        every: Sampling interval.
        name: Name of the samples.
        source: What orders, as for :class:`~latticezoo.simulate.observers.OrderParameter`.
    """

    source: str = "density"

    default_name: ClassVar[str] = "local_order"

    def measure(self, snapshot: Snapshot) -> Tensor:
        """Local order of the source."""
        return local_order(snapshot.values(self.source), snapshot.lattice)[..., 0]


def three_times(times: np.ndarray) -> list[int]:
    """Indices of an early, a middle and the last sample, evenly on a logarithmic scale."""
    last = len(times) - 1
    positive = np.flatnonzero(times > 0)
    if len(positive) < 3:
        return list(range(len(times)))
    wanted = np.geomspace(times[positive[0]], times[last], 3)
    return sorted({int(np.abs(times - t).argmin()) for t in wanted})


def agreement(plan: Plan, results: Mapping[str, Result]) -> list[str]:
    """How far the correlation functions of two runs lie apart, in standard errors.

    The error of the difference counts both runs as independent, which makes it too large when they
    share starts and noise: the statement is on the safe side only at late times.

    Args:
        plan: What was simulated.
        results: The reference first.

    Returns:
        One sentence a time.
    """
    (_, first), (label, second) = list(results.items())[:2]
    samples = [run.observers["local_order"] for run in (first, second)]
    times = samples[0].times / plan.time_unit
    chosen = three_times(times)
    one, other = (correlations(series.values[chosen], plan.lattice) for series in samples)
    error = np.hypot(one.error, other.error)[:, 1:]  # C(0) = 1 in both
    difference = np.abs(one.mean - other.mean)[:, 1:]
    return [
        f"t = {times[index]:.3g} τ₀: C(r) of {label} and exact differ by at most "
        f"{difference[row].max():.3f}, {np.max(difference[row] / error[row]):.1f} standard errors"
        for row, index in enumerate(chosen)
    ]


def simulation_pictures(out: Path, plan: Plan, results: Mapping[str, Result]) -> list[Path]:
    """Draw the runs of one plan, such as exact and learned, into a folder.

    Args:
        out: The folder.
        plan: What was simulated.
        results: By label; the first is the reference.

    Returns:
        The pictures.
    """
    samples = {label: result.observers["local_order"] for label, result in results.items()}
    first = next(iter(samples.values()))
    times = first.times / plan.time_unit
    chosen = three_times(times)
    shown = [float(f"{times[index]:.3g}") for index in chosen]
    pictures = []
    if plan.lattice.dim == 2:
        maps = {
            label: series.values[chosen, 0].reshape(len(chosen), *plan.lattice.shape)
            for label, series in samples.items()
        }
        pictures.append(plots.order_parameter_maps(out / "order_parameter.png", maps, shown))
    curves = {
        label: correlations(series.values[chosen], plan.lattice)
        for label, series in samples.items()
    }
    distances = np.arange(next(iter(curves.values())).mean.shape[1])
    pictures.append(
        plots.correlation(out / "correlation.png", distances, shown, curves, plan.replicas)
    )
    lengths = {
        label: correlation_lengths(series.values, plan.lattice) for label, series in samples.items()
    }
    pictures.append(plots.growth(out / "growth.png", times, lengths))
    return pictures
