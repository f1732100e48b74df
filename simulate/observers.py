"""Observers: what is measured on the way, so that the run need not be kept.

An observer is a frozen dataclass with a name, an interval ``every`` and a method ``measure`` that
turns a :class:`Snapshot` into one value or array per replica. Its samples stream into the
trajectory file and the result. :class:`TimeAverage` keeps the running mean alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate import observables
from latticezoo.simulate.dynamics.langevin import per_field
from latticezoo.simulate.state import State
from latticezoo.simulate.trajectory import check_every
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

_CHANNEL = re.compile(r"(?P<field>.+)\[(?P<channel>\d+)\]")


@dataclass(frozen=True)
class Snapshot:
    """What an observer sees: the state, the lattice, and what drives it."""

    state: State
    lattice: Lattice
    force_field: Any
    dynamics: Any

    def values(self, source: str) -> Tensor:
        """Site values ``[R, N, C]``: a field by name, one of its channels, or "density".

        "Q[2]" is channel 2 of the field Q, ``[R, N, 1]``. "density" is the density n of the
        electrons, read off the forces where the force field has
        ``density_from_forces(fields, forces, lattice)``: no further diagonalization.

        Raises:
            InputError: There is no such field or channel, or the force field gives no density.
        """
        state = self.state
        if source in state.fields:
            return state.fields[source]
        selected = _CHANNEL.fullmatch(source)
        if selected and selected["field"] in state.fields:
            values, channel = state.fields[selected["field"]], int(selected["channel"])
            if channel >= values.shape[-1]:
                raise InputError(
                    f"an observer asks for {source!r}, but the field has the channels 0 to "
                    f"{values.shape[-1] - 1}."
                )
            return values[..., channel : channel + 1]
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

    def batch_invariant(self, snapshot: Snapshot) -> bool:
        """Whether the bits of a replica's sample are sure not to depend on the batch.

        Then all replicas are measured in one call; otherwise each by itself.
        """
        return False


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

    def batch_invariant(self, snapshot: Snapshot) -> bool:
        return bool(getattr(snapshot.force_field, "batch_invariant", False))


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
        weighted, count = [], 0
        for name, values in momenta.items():
            size = values[0].numel()
            temperature = observables.kinetic_temperature(values, per_field(mass, name, "mass"))
            weighted.append(temperature * size)
            count += size
        return torch.stack(weighted).sum(0) / count


@dataclass(frozen=True)
class ForceSpread(Observer):
    """Uncertainty of the forces over all sites and components: root mean square, and largest.

    ``[R, 2]``: column 0 is the root mean square, column 1 the largest value, in units of a force.
    The force field gives it as ``force_spread(fields, lattice)``, as an ensemble of networks does:
    there it is the standard deviation over the members, at the cost of one more evaluation of all
    of them a sample.

    Args:
        every: Sampling interval.
        name: Name of the samples.
    """

    default_name: ClassVar[str] = "force_spread"

    def measure(self, snapshot: Snapshot) -> Tensor:
        spread = getattr(snapshot.force_field, "force_spread", None)
        if not callable(spread):
            raise InputError(
                "the force field gives no uncertainty of its forces; only an ensemble of networks "
                "does, so leave out the observer ForceSpread."
            )
        found = spread(snapshot.state.fields, snapshot.lattice)
        each = torch.cat([values.abs().flatten(1) for values in found.values()], dim=1)
        return torch.stack([each.square().mean(1).sqrt(), each.amax(1)], dim=1)

    def batch_invariant(self, snapshot: Snapshot) -> bool:
        return bool(getattr(snapshot.force_field, "batch_invariant", False))


@dataclass(frozen=True)
class OrderParameter(Observer):
    """Staggered mean of a site field (1/N) Σ ±v_i: δ in a charge-density wave n = ½ ± δ.

    ``[R]``, or ``[R, C]`` for a field of several channels. The sign says which of the two ordered
    states.

    Args:
        every: Sampling interval.
        name: Name of the samples.
        source: "density", a field by name, or one of its channels, such as "Q[2]".
    """

    source: str = "density"

    default_name: ClassVar[str] = "order_parameter"

    def measure(self, snapshot: Snapshot) -> Tensor:
        order = observables.staggered_order(snapshot.values(self.source), snapshot.lattice)
        return order[:, 0] if order.shape[1] == 1 else order


@dataclass(frozen=True)
class StructureFactor(Observer):
    """Structure factor S(k) = |(1/N) Σ v_i exp(i k·r_i)|², ``[R, *shape]``, with axes k1, k2, ….

    As large as a frame: wrap it into :class:`TimeAverage` where the mean will do.

    Args:
        every: Sampling interval.
        name: Name of the samples.
        source: "density", a field by name, or one of its channels, such as "Q[2]".
    """

    source: str = "density"

    default_name: ClassVar[str] = "structure_factor"

    def measure(self, snapshot: Snapshot) -> Tensor:
        return observables.structure_factor(snapshot.values(self.source), snapshot.lattice)

    def axes(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        return {
            f"k{number}": 2 * np.pi * np.fft.fftfreq(size)
            for number, size in enumerate(snapshot.lattice.shape, start=1)
        }


@dataclass(frozen=True)
class CorrelationFunction(Observer):
    """Correlation function C(r) of the local order along the axes, ``[R, distances]``; C(0) = 1.

    C(r) = [⟨φ(r0) φ(r0 + r)⟩ − ⟨φ⟩²] / [⟨φ²⟩ − ⟨φ⟩²] with averages over r0, each replica by itself.

    Args:
        every: Sampling interval.
        name: Name of the samples.
        source: "density", a field by name, or one of its channels, such as "Q[2]".
        local: Correlate the local order φ_i = ±(v_i − mean of the neighbours); False: v itself.
        connected: Subtract ⟨φ⟩².
    """

    source: str = "density"
    local: bool = True
    connected: bool = True

    default_name: ClassVar[str] = "correlation_function"

    def measure(self, snapshot: Snapshot) -> Tensor:
        values = snapshot.values(self.source)
        if self.local:
            values = observables.local_order(values, snapshot.lattice)
        return observables.correlation_function(values, snapshot.lattice, connected=self.connected)

    def axes(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        return {"distance": np.arange(min(snapshot.lattice.shape) // 2 + 1, dtype=np.float64)}


@dataclass(frozen=True)
class CorrelationLength(CorrelationFunction):
    """Distance at which C(r) falls to a level, ``[R]``; infinite when it stays above in the box.

    Args:
        every: Sampling interval.
        name: Name of the samples.
        source: As for :class:`CorrelationFunction`, likewise ``local`` and ``connected``.
        level: ½ for the half-maximum condition C(L) = ½.
    """

    level: float = 0.5

    default_name: ClassVar[str] = "correlation_length"

    def measure(self, snapshot: Snapshot) -> Tensor:
        return observables.correlation_length(super().measure(snapshot), self.level)

    def axes(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        return {}


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

    def batch_invariant(self, snapshot: Snapshot) -> bool:
        return self.observer.batch_invariant(snapshot)
