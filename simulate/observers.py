"""Observers: what is measured on the way, so that the run need not be kept.

An observer is a frozen dataclass with a name, an interval ``every`` and a method ``measure`` that
turns a :class:`Snapshot` into one value or array per replica. Its samples stream into the
trajectory file and the result. :class:`TimeAverage` keeps the running mean alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.dynamics.langevin import per_field
from latticezoo.simulate.records import Row
from latticezoo.simulate.state import State
from latticezoo.simulate.trajectory import check_every
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


@dataclass(frozen=True)
class Snapshot:
    """What an observer sees: the state, the lattice, and what drives it."""

    state: State
    lattice: Lattice
    force_field: Any
    dynamics: Any

    def values(self, source: str) -> Tensor:
        """Site values ``[R, N, C]``: a field by name, or "density".

        "density" is the density n of the electrons, read off the forces where the force field can
        (``density(fields, forces, lattice)``), which costs no further diagonalization.

        Raises:
            InputError: There is no such field, or the force field gives no density.
        """
        state = self.state
        if source in state.fields:
            return state.fields[source]
        density = getattr(self.force_field, "density_from_forces", None)
        if source == "density" and callable(density):
            return density(state.fields, state.forces, self.lattice)
        raise InputError(
            f"an observer asks for {source!r}; this run has the fields "
            f"{', '.join(sorted(state.fields))}"
            + (", and density." if callable(density) else ", and its force field has no density.")
        )


@dataclass(frozen=True)
class Observer:
    """Base of the observers.

    Args:
        every: Sampled at each step that is a multiple of this.
        name: Name of the samples in the result and the trajectory; None for the default.
    """

    every: int = 1
    name: str | None = None

    default_name: ClassVar[str] = "observer"

    def __post_init__(self) -> None:
        if self.name is None:
            object.__setattr__(self, "name", self.default_name)
        check_every(self.every, f"observer {self.name!r}")
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise InputError(f"an observer is named {self.name!r}; use letters, digits and _.")

    @property
    def label(self) -> str:
        """The name, known to be there."""
        assert self.name is not None
        return self.name

    def measure(self, snapshot: Snapshot) -> Tensor:
        """One value or array per replica, ``[R, …]``."""
        raise NotImplementedError

    def axes(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        """Coordinates of the axes after the first."""
        return {}


@dataclass(frozen=True)
class Energy(Observer):
    """Potential energy [R] in units of t: the force field's ``energy(fields, lattice)``.

    For electrons at T > 0 this is the free energy, whose slope the forces are. An exact system
    diagonalizes once more for it: choose ``every`` accordingly.
    """

    default_name: ClassVar[str] = "energy"

    def measure(self, snapshot: Snapshot) -> Tensor:
        energy = getattr(snapshot.force_field, "energy", None)
        if not callable(energy):
            raise InputError(
                f"the force field {type(snapshot.force_field).__name__} has no energy; leave out "
                "the observer Energy or use a force field that derives from an energy."
            )
        return energy(snapshot.state.fields, snapshot.lattice)


@dataclass(frozen=True)
class KineticTemperature(Observer):
    """Kinetic temperature ⟨P² / m⟩ [R], averaged over sites and channels of the moving fields.

    Args:
        every: Sampling interval.
        name: Name of the samples.
        mass: Mass, or a mapping by field name; None takes that of the dynamics.
    """

    mass: float | Mapping[str, float] | None = None

    default_name: ClassVar[str] = "kinetic_temperature"

    def measure(self, snapshot: Snapshot) -> Tensor:
        mass = getattr(snapshot.dynamics, "mass", None) if self.mass is None else self.mass
        momenta = snapshot.state.momenta
        if not momenta or mass is None:
            raise InputError(
                f"{type(snapshot.dynamics).__name__} has no momenta or no mass, so no kinetic "
                "temperature; leave out the observer KineticTemperature."
            )
        per_site = [
            (values**2 / per_field(mass, name, "mass")).flatten(1)
            for name, values in momenta.items()
        ]
        return torch.cat(per_site, 1).mean(1)


@dataclass(frozen=True)
class FunctionObserver(Observer):
    """Any function of a snapshot.

    Args:
        every: Sampling interval.
        name: Name of the samples (required).
        function: Takes a :class:`Snapshot`, returns a tensor ``[R, …]``, row by row for each
            replica. It counts by its name when a checkpoint is compared with a run.
    """

    function: Callable[[Snapshot], Tensor] | None = None

    default_name: ClassVar[str] = "function"

    def measure(self, snapshot: Snapshot) -> Tensor:
        if self.function is None:
            raise InputError(f"the observer {self.label!r} has no function; give one.")
        return self.function(snapshot)


@dataclass(frozen=True)
class TimeAverage(Observer):
    """Mean over time of another observer: one array per replica for the whole run.

    Sums are part of the checkpoint. ``every`` is that of the other observer.

    Args:
        every: Not used; the other observer's counts.
        name: Name of the mean; default "<name>_mean".
        observer: What to average.
        after: Only samples at steps beyond this count.
    """

    observer: Observer = field(default_factory=Observer)
    after: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", self.observer.every)
        if self.name is None:
            object.__setattr__(self, "name", f"{self.observer.name}_mean")
        super().__post_init__()

    def measure(self, snapshot: Snapshot) -> Tensor:
        return self.observer.measure(snapshot)

    def axes(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        return self.observer.axes(snapshot)


class Samples:
    """Takes the samples of a run's observers.

    Args:
        observers: The observers, of different names.
        whole: Measure all replicas at once; else one by one, so that a sample's bits do not depend
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
            if alone is None:
                alone = self._split(snapshot)
            values = np.concatenate([self._measure(observer, part) for part in alone])
            if isinstance(observer, TimeAverage):
                self._add(observer.label, values, step, time)
            else:
                yield (
                    observer.label,
                    {"steps": np.array(step), "times": np.array(time), "values": values},
                )

    def _split(self, snapshot: Snapshot) -> list[Snapshot]:
        if self.whole:
            return [snapshot]
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
        return values.detach().cpu().numpy()

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
