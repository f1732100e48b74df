"""Observers of spins: see :mod:`latticezoo.simulate.observers` for what an observer is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latticezoo.simulate import spin_observables as observables
from latticezoo.simulate.observers import Observer, Snapshot
from latticezoo.symmetry.errors import InputError


@dataclass(frozen=True)
class SpinObserver(Observer):
    """Base of the observers of spins.

    Args:
        every: Sampling interval.
        name: Name of the samples.
        source: Name of the field of spins.
    """

    source: str = "S"


@dataclass(frozen=True)
class Magnetization(SpinObserver):
    """Mean spin ``[R, 3]``."""

    default_name: ClassVar[str] = "magnetization"

    def measure(self, snapshot: Snapshot) -> Tensor:
        return snapshot.values(self.source).mean(1)


@dataclass(frozen=True)
class TopologicalCharge(SpinObserver):
    """Topological charge ``[R]`` by solid angles: a whole number up to rounding."""

    default_name: ClassVar[str] = "topological_charge"

    def measure(self, snapshot: Snapshot) -> Tensor:
        return observables.topological_charge(snapshot.values(self.source), snapshot.lattice)


@dataclass(frozen=True)
class Chirality(SpinObserver):
    """Scalar chirality of the triangles, ``[R, 2]``: its mean, and the mean of its modulus.

    Tetrahedral order has ±4/(3√3) = ±0.77 throughout; domains of both signs show in the second.
    """

    default_name: ClassVar[str] = "chirality"

    def measure(self, snapshot: Snapshot) -> Tensor:
        found = observables.scalar_chirality(snapshot.values(self.source), snapshot.lattice)
        return torch.stack([found.mean((1, 2)), found.abs().mean((1, 2))], -1)


@dataclass(frozen=True)
class PeakOrder(SpinObserver):
    """Structure factor at the peaks of an order, ``[R]``: the mean of S(q) in a window about them.

    Args:
        every: Sampling interval.
        name: Name of the samples.
        source: Name of the field of spins.
        wave_number: Length of the six wave vectors at 0°, 60°, …, where no ``peaks`` are given.
        peaks: The wave vectors, Cartesian, in radians a bond length.
        window: Radius of the window.
    """

    wave_number: float = math.pi / 3
    peaks: tuple[tuple[float, ...], ...] | None = None
    window: float = 0.1

    default_name: ClassVar[str] = "peak_order"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.peaks is None:
            observables.six_peaks(self.wave_number)  # raises for a length that is none
            return
        try:
            plain = tuple(tuple(float(x) for x in peak) for peak in self.peaks)
        except (TypeError, ValueError):
            raise InputError(f"peaks are {self.peaks!r}; they must be lists of numbers.") from None
        object.__setattr__(self, "peaks", plain)

    def measure(self, snapshot: Snapshot) -> Tensor:
        return observables.peak_order(
            self._factor(snapshot), snapshot.lattice, self._waves(), self.window
        )

    def _waves(self) -> tuple[tuple[float, ...], ...]:
        return observables.six_peaks(self.wave_number) if self.peaks is None else self.peaks

    def _factor(self, snapshot: Snapshot) -> Tensor:
        return observables.spin_structure_factor(snapshot.values(self.source), snapshot.lattice)


@dataclass(frozen=True)
class PeakLength(PeakOrder):
    """Correlation length about the peaks, ``[R]``, in bond lengths; the window does not matter."""

    default_name: ClassVar[str] = "peak_length"

    def measure(self, snapshot: Snapshot) -> Tensor:
        return observables.peak_length(self._factor(snapshot), snapshot.lattice, self._waves())


#: By the names of their samples.
SPIN_OBSERVERS: dict[str, type[SpinObserver]] = {
    kind.default_name: kind
    for kind in (Magnetization, TopologicalCharge, Chirality, PeakOrder, PeakLength)
}
