"""What the adiabatic models share: units, checks of parameters, the ensemble of electrons."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from latticezoo.simulate.electrons.diagonalize import ThermalState, bits_are_replicas_own
from latticezoo.simulate.forcefield import Fields, System
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

#: A real matrix over the states of a site.
Coupling = tuple[tuple[int, ...], ...]


class AdiabaticSystem(System):
    """Electrons in equilibrium at every displacement Q of a lattice with inertia and friction.

    Subclasses are frozen dataclasses with at least the fields listed here; they call
    :meth:`check_parameters` when made.

    Attributes:
        g: Electron–lattice coupling.
        k: Spring constant of a mode.
        t: Hopping, the unit of energy.
        temperature: Temperature of the electrons, T ≥ 0 (k_B = 1).
        filling: Share of the electron states that are filled, in (0, 1).
        chemical_potential: When given, it is fixed at every configuration instead of the filling.
        mass: Mass m of a mode.
        damping: Friction coefficient γ of Langevin dynamics; the friction rate is γ/m.
        workers: Processes that share a batch on the CPU.
        backend: Where to diagonalize.
        states_per_site: Electron states of a site.
        couplings: Operators O_c on the states of a site: channel c of Q enters h as −g Q_c O_c.
    """

    g: float
    k: float
    t: float
    temperature: float
    filling: float
    chemical_potential: float | None
    mass: float
    damping: float
    workers: int
    backend: str

    states_per_site: ClassVar[int] = 1
    couplings: ClassVar[tuple[Coupling, ...]] = (((1,),),)

    def check_parameters(self, positive: tuple[str, ...]) -> None:
        """Check the parameters' types and ranges.

        Args:
            positive: Names of those that must be positive.

        Raises:
            InputError: Naming the first that is not accepted.
        """
        model = type(self).__name__
        for what, value in self.parameters.items():
            if value is None and what == "chemical_potential":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{model} parameter {what} is {value!r}; it must be a number.")
            if not math.isfinite(value):
                raise InputError(f"{model} parameter {what} is {value}; it must be finite.")
        for what in positive:
            if getattr(self, what) <= 0:
                raise InputError(f"{what} is {getattr(self, what)}; it must be positive.")
        for what in ("temperature", "damping"):
            if getattr(self, what) < 0:
                raise InputError(f"{what} is {getattr(self, what)}; it must be 0 or more.")
        if not 0 < self.filling < 1:
            raise InputError(
                f"filling is {self.filling}; it must lie between 0 and 1, both excluded."
            )

    # ---- parameters and units ------------------------------------------------------------------

    @property
    def masses(self) -> dict[str, float]:
        """Mass of each moving field."""
        return {"Q": self.mass}

    @property
    def Q0(self) -> float:
        """Unit of displacement, g/k."""
        return self.g / self.k

    @property
    def omega(self) -> float:
        """Frequency Ω = √(k/m) of a mode."""
        return math.sqrt(self.k / self.mass)

    @property
    def tau0(self) -> float:
        """Unit of time, 1/Ω = √(m/k)."""
        return 1 / self.omega

    @property
    def P0(self) -> float:
        """Unit of momentum, m Ω Q0."""
        return self.mass * self.omega * self.Q0

    @property
    def damping_ratio(self) -> float:
        """Dimensionless damping γ̃ = (γ/m)/Ω."""
        return self.damping / (self.mass * self.omega)

    @property
    def batch_invariant(self) -> bool:
        """Whether a replica's bits are sure not to depend on the batch: LAPACK's are, a GPU's not.

        With ``backend="auto"`` the fields decide where to diagonalize, so a machine with a GPU
        makes no promise.
        """
        return bits_are_replicas_own(self.backend)

    @property
    def has_particle_hole(self) -> bool:
        """Whether the filling keeps the particle–hole symmetry: half filling, or μ = 0."""
        if self.chemical_potential is None:
            return self.filling == 0.5
        return self.chemical_potential == 0

    def describe(self) -> dict[str, Any]:
        """What tells two runs apart: the physics, not the number of processes."""
        return {"class": type(self).__name__, "backend": self.backend, **self.parameters}

    # ---- electrons -----------------------------------------------------------------------------

    @abstractmethod
    def hamiltonian(self, lattice: Lattice) -> Any:
        """Hopping part of h, scipy sparse; what Q does on the sites comes on top.

        Raises:
            InputError: On a torus smaller than 3.
        """

    @abstractmethod
    def electrons(self, fields: Fields, lattice: Lattice) -> ThermalState:
        """Thermal averages of the electrons at given displacements, by exact diagonalization."""

    @abstractmethod
    def elastic_energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Energy ``[B]`` of the displacements alone, float64."""

    def ensemble(self, lattice: Lattice) -> dict[str, Any]:
        """The number of electrons, or the chemical potential, for ``thermal_state``."""
        if self.chemical_potential is not None:
            return {"n_electrons": None, "mu": self.chemical_potential}
        return {"n_electrons": self.filling * self.states_per_site * lattice.n_sites, "mu": None}

    def electronic_energy(self, state: ThermalState) -> Tensor:
        """The potential ``[B]`` of the electrons: A at fixed filling, Ω at fixed μ."""
        fixed_mu = self.chemical_potential is not None
        return state.grand_potential if fixed_mu else state.free_energy


def sums(values: Tensor) -> Tensor:
    """Sum of each configuration, ``[B]``.

    Row by row, each from memory of its own: the order of a batched sum depends on the batch.
    """
    return torch.stack([row.clone().sum() for row in values])
