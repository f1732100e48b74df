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
    """Local order φ_i = ±(n_i − mean of the neighbours) of every site, ``[R, N]`` (Eq. 24)."""

    default_name: ClassVar[str] = "local_order"

    def measure(self, snapshot: Snapshot) -> Tensor:
        """Local order of the electron density."""
        return local_order(snapshot.values("density"), snapshot.lattice)[..., 0]


def three_times(times: np.ndarray) -> list[int]:
    """Indices of an early, a middle and the last sample, evenly on a logarithmic scale."""
    last = len(times) - 1
    positive = np.flatnonzero(times > 0)
    if len(positive) < 3:
        return list(range(len(times)))
    wanted = np.geomspace(times[positive[0]], times[last], 3)
    return sorted({int(np.abs(times - t).argmin()) for t in wanted})


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
