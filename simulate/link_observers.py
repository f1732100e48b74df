"""Observers of gauge links: see :mod:`latticezoo.simulate.observers` for what an observer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from latticezoo.simulate.link_observables import electric_energy, gauss_violation, loop_means
from latticezoo.simulate.observers import Energy, Observer, Snapshot
from latticezoo.symmetry.errors import InputError


@dataclass(frozen=True)
class RotorEnergy(Energy):
    """Energy ``[R]`` of rotors: that of the force field, and (g²/2) Σ E².

    Args:
        every: Sampling interval.
        name: Name of the samples.
        g2: g².
    """

    g2: float = 1.0

    def measure(self, snapshot: Snapshot) -> Tensor:
        return super().measure(snapshot) + electric_energy(snapshot.values("E"), self.g2)


@dataclass(frozen=True)
class GaussLaw(Observer):
    """Largest |charge − div E| ``[R]``; the charge is that of the field ``rho``, else zero."""

    default_name: ClassVar[str] = "gauss_violation"

    def measure(self, snapshot: Snapshot) -> Tensor:
        fields = snapshot.state.fields
        return gauss_violation(
            snapshot.values("E"), snapshot.values("U"), snapshot.lattice, fields.get("rho")
        )


@dataclass(frozen=True)
class WilsonLoop(Observer):
    """Mean of Re Tr W/d over all loops of a size, ``[R]``; by default the plaquette.

    Args:
        every: Sampling interval.
        name: Name of the samples; of larger loops ``wilson_<width>x<height>``.
        width: Links along x.
        height: Links along y.
    """

    width: int = 1
    height: int = 1

    default_name: ClassVar[str] = "plaquette"

    def __post_init__(self) -> None:
        for size in (self.width, self.height):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"a Wilson loop has sides of 1 or more links, not {size!r}.")
        if self.name is None and (self.width, self.height) != (1, 1):
            object.__setattr__(self, "name", f"wilson_{self.width}x{self.height}")
        super().__post_init__()

    def measure(self, snapshot: Snapshot) -> Tensor:
        return loop_means(snapshot.values("U"), snapshot.lattice, self.width, self.height)


@dataclass(frozen=True)
class ElectricField(Observer):
    """Mean square E ``[R]``, summed over components."""

    default_name: ClassVar[str] = "electric_square"

    def measure(self, snapshot: Snapshot) -> Tensor:
        electric = snapshot.values("E")
        squares = electric.square()
        return (squares if squares.dim() == 3 else squares.sum(-1)).mean((1, 2))
