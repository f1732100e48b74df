"""Samples of a run's observers: which are due, replica by replica, and the running means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from latticezoo.simulate.observers import Observer, Snapshot, TimeAverage
from latticezoo.simulate.records import Row
from latticezoo.symmetry.errors import InputError


class Samples:
    """Takes the samples of a run's observers.

    Args:
        observers: The observers, of different names.
        whole: Measure all replicas at once; else one by one where the bits of a sample would depend
            on the batch.
    """

    def __init__(self, observers: Sequence[Observer], whole: bool) -> None:
        names = [observer.label for observer in observers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"two observers are named {twice[0]!r}; give one another name.")
        self.observers = tuple(observers)
        self.whole = whole
        self.sums: dict[str, dict[str, np.ndarray]] = {}

    def take(self, snapshot: Snapshot) -> Iterator[tuple[str, Row]]:
        """Measure what is due at this step: rows by name; running means are only added up."""
        step, time = snapshot.state.step, snapshot.state.time
        alone: list[Snapshot] | None = None
        for observer in self.observers:
            if step % observer.every:
                continue
            if isinstance(observer, TimeAverage) and step <= observer.after:
                continue
            if self.whole or observer.batch_invariant(snapshot):
                values = self._measure(observer, snapshot)
            else:
                alone = self._split(snapshot) if alone is None else alone
                values = np.concatenate([self._measure(observer, part) for part in alone])
            if isinstance(observer, TimeAverage):
                self._add(observer.label, values, step, time)
            else:
                yield (
                    observer.label,
                    {"steps": np.array(step), "times": np.array(time), "values": values},
                )

    @staticmethod
    def _split(snapshot: Snapshot) -> list[Snapshot]:
        state = snapshot.state
        return [
            Snapshot(state.select([row]), snapshot.lattice, snapshot.force_field, snapshot.dynamics)
            for row in range(len(state.replicas))
        ]

    @staticmethod
    def _measure(observer: Observer, snapshot: Snapshot) -> np.ndarray:
        values = observer.measure(snapshot)
        count = len(snapshot.state.replicas)
        if not isinstance(values, Tensor) or values.ndim < 1 or values.shape[0] != count:
            shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise InputError(
                f"observer {observer.label!r} gave {shape} for {count} replicas; it must give a "
                "tensor whose first axis is the replicas."
            )
        return values.detach().cpu().resolve_conj().numpy()

    def _add(self, name: str, values: np.ndarray, step: int, time: float) -> None:
        old = self.sums.get(name)
        self.sums[name] = {
            "total": values.copy() if old is None else old["total"] + values,
            "count": np.array(1 if old is None else int(old["count"]) + 1),
            "steps": np.array(step),
            "times": np.array(time),
        }

    def restore(self, sums: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Go on with the sums of a checkpoint."""
        self.sums = {name: dict(columns) for name, columns in sums.items()}

    def series_names(self) -> list[str]:
        """Names of the observers that give a series of samples."""
        return [item.label for item in self.observers if not isinstance(item, TimeAverage)]

    def summaries(self) -> dict[str, Row]:
        """One row, at the last sample, for each running mean that has samples."""
        return {
            name: {
                "steps": sums["steps"][None],
                "times": sums["times"][None],
                "values": (sums["total"] / sums["count"])[None],
            }
            for name, sums in self.sums.items()
        }

    def axes(self, snapshot: Snapshot) -> dict[str, dict[str, np.ndarray]]:
        """Coordinates by observer name, of those that have any."""
        found = {item.label: item.axes(snapshot) for item in self.observers}
        return {name: table for name, table in found.items() if table}
