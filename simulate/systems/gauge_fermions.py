"""Fermions that hop along the links of a lattice gauge field: Z2, U(1) or SU(2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.electrons.link_fermions import Wanted
from latticezoo.simulate.forcefield import Fields, System
from latticezoo.simulate.systems.adiabatic import sums
from latticezoo.simulate.systems.link_electrons import LinkElectrons, solve_batch
from latticezoo.symmetry.compact import CompactGroup
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.gauge import check_links, plaquettes, staples, trace
from latticezoo.symmetry.internal import SU2, internal_group
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

GROUPS = ("Z2", "U1", "SU2")
CONJUGATION = "charge_conjugation"
#: Targets of each group.
_COMMON = ("bond", "energy_per_site", "energy_density", "density", "local_density_of_states")
TARGETS: dict[str, tuple[str, ...]] = {
    "Z2": (*_COMMON, "flip_cost"),
    "U1": (*_COMMON, "current", "force"),
    "SU2": (*_COMMON, "force"),
}


@dataclass(frozen=True)
class GaugeFermions(System):
    r"""Fermions in a classical gauge field on the links of the square lattice.

    .. math::
        H = -t \sum_{l = (i \to j)} \big( \psi_i^\dagger U_l \psi_j + \mathrm{h.c.} \big)
            + m \sum_i \epsilon_i\, \psi_i^\dagger \psi_i - \mu N
            + \kappa \sum_p \big( 1 - \tfrac1d \mathrm{Re\,Tr}\, W_p \big), \qquad
        \epsilon_i = (-1)^{x+y}

    The links are one field ``U``, laid out as :mod:`latticezoo.symmetry.gauge` says: ±1 for Z2,
    phases for U(1), 2 × 2 matrices for SU(2), whose fermions have two colours; d is the size of the
    matrix. The fermions are in equilibrium at every U, at a fixed chemical potential; μ = 0 is half
    filling where all sides are even. The plaquette term is known exactly, so that it is no part of
    the labels; what follows is that of the fermions.

    **Labels.** With the invariant k_l = Tr(U_l K_l), (K_l)_ba = ⟨ψ_ia† ψ_jb⟩:

    * ``bond`` Re k_l and ``current`` Im k_l: ⟨H⟩ = −2t Σ Re k_l at m = 0;
    * ``energy`` Ω = −T Σ ln(1 + e^{−(ε − μ)/T}), whose derivatives the forces are (at T = 0 and
      μ = 0 it is ⟨H⟩), and ``energy_per_site``;
    * ``energy_density`` e_i = −t Σ_{l at i} Re k_l + m ε_i n_i, half of each adjacent bond, with
      sum ⟨H⟩; ``density`` n_i;
    * ``local_density_of_states`` A_i(ω) at :attr:`energies`, Lorentzians of width 0.1 t;
    * ``force`` F_l^a = −dΩ/dε at U_l → exp(iεT^a) U_l, minus the left Lie derivative: for U(1)
      −2t Im k_l, for SU(2) the components −2t Im Tr(T^a U_l K_l), T^a = σ^a/2, at the start of the
      link;
    * ``flip_cost`` Ω(−U_l) − Ω(U_l) (Z2, T > 0): what stands for a force there. All costs come
      from one diagonalization.

    Label definitions follow from the Hamiltonian; a plaquette flux of π lowers the energy of the
    half-filled band, −0.9581 against −0.8106 per site (Lieb, Phys. Rev. Lett. 73, 2158 (1994)).

    **Mass.** The mass term takes one sublattice to be the heavy one. It is a field ``sublattice``
    ``[B, N, 1]`` of the task, ε_i = ±1, that is moved by translations like any other; without it
    the map from links to labels would have half of the translations alone.

    Attributes:
        group: ``Z2``, ``U1`` or ``SU2``.
        t: Hopping, the unit of energy.
        mass: m; other than 0 only on tori with even sides.
        temperature: Temperature of the fermions, T ≥ 0 (k_B = 1). At T = 0 levels at the chemical
            potential are refused.
        chemical_potential: μ.
        antiperiodic: Whether fermions change sign around the first and the second side. This is
            the other Polyakov sector, not another model.
        kappa: Plaquette coupling κ.
        workers: Processes that share a batch.

    Raises:
        InputError: For parameters outside their range.
    """

    group: str
    t: float = 1.0
    mass: float = 0.0
    temperature: float = 0.02
    chemical_potential: float = 0.0
    antiperiodic: tuple[bool, bool] = (False, False)
    kappa: float = 0.0
    workers: int = field(default=1, compare=False, repr=False)

    name: ClassVar[str] = "gauge_fermions"
    families: ClassVar[tuple[str, ...]] = ("square",)
    fields: ClassVar[tuple[Field, ...]] = (
        Field("U", "link", internal="link", conjugated=(CONJUGATION,)),
    )
    #: LAPACK solves one configuration after the other.
    batch_invariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise unknown("gauge group", self.group, GROUPS)
        check_couplings(self, ("t", "mass", "temperature", "chemical_potential", "kappa"))
        flags = tuple(self.antiperiodic)
        if len(flags) != 2 or not all(isinstance(flag, bool) for flag in flags):
            raise InputError(
                f"antiperiodic is {self.antiperiodic!r}; it must be two of true, false."
            )
        object.__setattr__(self, "antiperiodic", flags)
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}; it must be 0 or more.")

    # ---- parameters ----------------------------------------------------------------------------

    @property
    def gauge_group(self) -> CompactGroup:
        """The gauge group."""
        return internal_group(self.group)

    @property
    def colours(self) -> int:
        """Fermion states of a site."""
        return 2 if self.group == "SU2" else 1

    @property
    def energies(self) -> tuple[float, ...]:
        """Energies of the local density of states, 64 from −4.5 t to 4.5 t."""
        return tuple((abs(self.t) * np.linspace(-4.5, 4.5, 64)).tolist())

    @property
    def masses(self) -> dict[str, float]:
        """Links have no inertia of their own; that of rotors belongs to the dynamics."""
        return {}

    def describe(self) -> dict[str, Any]:
        """What tells two runs apart: the physics, not the number of processes."""
        return {"class": type(self).__name__, **self.parameters}

    # ---- fermions ------------------------------------------------------------------------------

    def check(self, fields: Fields, lattice: Lattice) -> None:
        """Check lattice, layout, and that the links lie in the group.

        Raises:
            InputError: Naming what does not fit, with the size of the violation; odd sides with a
                mass.
        """
        super().check(fields, lattice)
        check_links(fields["U"], lattice, self.group)
        self.sublattice(fields, lattice)

    def sublattice(self, fields: Fields, lattice: Lattice) -> Tensor | None:
        """ε ``[B, N]`` float64: the field of that name, or +1 where x + y is even; None if m = 0.

        Raises:
            InputError: On a torus with an odd side, or for a field of another shape.
        """
        if self.mass == 0:
            return None
        if any(size % 2 for size in lattice.shape):
            raise InputError(
                f"{lattice} has an odd side, on which a staggered mass does not close; give even "
                "sides, or mass 0."
            )
        links = fields["U"]
        signs = fields.get("sublattice")
        if signs is None:
            stagger = lattice.stagger.to(links.device, torch.float64)
            return stagger.expand(len(links), lattice.n_sites)
        if signs.shape != (len(links), lattice.n_sites, 1):
            raise InputError(
                f"field 'sublattice' has shape {list(signs.shape)}; it needs "
                f"[{len(links)}, {lattice.n_sites}, 1]."
            )
        return signs[..., 0].double()

    def electrons(
        self, fields: Fields, lattice: Lattice, wanted: Wanted | None = None
    ) -> LinkElectrons:
        """The fermions in equilibrium at given links, by exact diagonalization.

        Args:
            fields: ``U``, and ``sublattice`` where there is a mass.
            lattice: The lattice.
            wanted: What to compute beside energies, correlators and densities.

        Raises:
            InputError: As :meth:`check`, and for a level at μ at T = 0.
        """
        self.check(fields, lattice)
        signs = self.sublattice(fields, lattice)
        return solve_batch(
            fields["U"],
            None if signs is None else self.mass * signs,
            lattice,
            t=self.t,
            temperature=self.temperature,
            mu=self.chemical_potential,
            antiperiodic=self.antiperiodic,
            wanted=wanted or Wanted(),
            workers=self.workers,
        )

    def labels(
        self, fields: Fields, lattice: Lattice, names: tuple[str, ...] | None = None
    ) -> dict[str, Tensor]:
        """Everything a network can be trained on, from one diagonalization; float64.

        Args:
            fields: ``U``, and ``sublattice`` where there is a mass.
            lattice: The lattice.
            names: Targets to return; all of the group by default.

        Returns:
            ``energy`` ``[B]``, and the targets: of links ``[B, N, D]`` (the ``force`` of SU(2)
            ``[B, N, D, 3]``), of sites ``[B, N, C]``, ``energy_per_site`` ``[B, 1]``.

        Raises:
            InputError: For an unknown name; flip costs at T = 0.
        """
        known = TARGETS[self.group]
        chosen = names or tuple(n for n in known if n != "flip_cost" or self.temperature > 0)
        for name in chosen:
            if name not in known:
                raise unknown(f"label of {self.group} fermions", name, known)
        found = self.electrons(fields, lattice, self._wanted(chosen))
        make: dict[str, Any] = {
            "bond": lambda: self.invariants(found, fields).real,
            "current": lambda: self.invariants(found, fields).imag,
            "energy_per_site": lambda: found.energy[:, None] / lattice.n_sites,
            "energy_density": lambda: self.energy_density(found, fields, lattice),
            "density": lambda: found.density[..., None],
            "local_density_of_states": lambda: found.local_density,
            "flip_cost": lambda: found.flip_costs,
            "force": lambda: self.fermion_force(found.correlator, fields),
        }
        labels = {name: make[name]().contiguous() for name in chosen}
        return {**labels, "energy": found.energy}

    def _wanted(self, names: tuple[str, ...]) -> Wanted:
        if "flip_cost" in names and self.temperature == 0:
            raise InputError("temperature is 0; flip costs need a temperature above 0.")
        wants_spectrum = "local_density_of_states" in names
        return Wanted(
            flip_costs="flip_cost" in names,
            energies=self.energies if wants_spectrum else None,
            broadening=0.1 * abs(self.t),
        )

    def invariants(self, found: LinkElectrons, fields: Fields) -> Tensor:
        """k_l = Tr(U_l K_l) ``[B, N, D]``, complex128."""
        return link_invariants(fields["U"], found.correlator)

    def fermion_force(self, correlator: Tensor, fields: Fields) -> Tensor:
        """F of fermions with correlators K: ``[B, N, D]`` for U(1), ``[B, N, D, 3]`` for SU(2).

        Raises:
            InputError: For Z2.
        """
        links = fields["U"].to(correlator)
        if self.group == "SU2":
            return -self.t * SU2.components(-1j * (links @ correlator))
        if self.group == "U1":
            return -2 * self.t * (links * correlator).imag
        raise InputError("Z2 links have no forces; they flip, by kinetic Monte Carlo.")

    def energy_density(self, found: LinkElectrons, fields: Fields, lattice: Lattice) -> Tensor:
        """e_i ``[B, N, 1]``: half of each adjacent bond, and the mass term; its sum is ⟨H⟩."""
        half = -self.t * self.invariants(found, fields).real
        local = half.sum(2)
        for way in range(lattice.directions):
            local = local.index_add(1, lattice.link_target[:, way].to(half.device), half[..., way])
        signs = self.sublattice(fields, lattice)
        if signs is not None:
            local = local + self.mass * signs * found.density
        return local[..., None]

    # ---- energy and forces ---------------------------------------------------------------------

    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Ω + κ Σ (1 − Re Tr W/d), ``[B]`` float64."""
        self.check(fields, lattice)
        fermions = 0.0 if self.t == 0 else self.electrons(fields, lattice).energy
        return fermions + self.plaquette_energy(fields, lattice)

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Minus the left Lie derivatives of :meth:`energy`; for Z2 minus the flip costs.

        Returns:
            ``E``, the field that they change: ``[B, N, D]`` for U(1), ``[B, N, D, 3]`` for SU(2);
            for Z2, where there is none, ``U``: ``[B, N, D]``. All float64.
        """
        self.check(fields, lattice)
        return self._total(self._fermion_part(fields, lattice), fields, lattice)

    def _fermion_part(self, fields: Fields, lattice: Lattice) -> Tensor | None:
        if self.t == 0:
            return None
        if self.group == "Z2":
            costs = self.electrons(fields, lattice, self._wanted(("flip_cost",))).flip_costs
            assert costs is not None
            return -costs
        return self.fermion_force(self.electrons(fields, lattice).correlator, fields)

    def _total(
        self, fermions: Tensor | None, fields: Fields, lattice: Lattice
    ) -> dict[str, Tensor]:
        known = self.plaquette_force(fields, lattice)
        total = known if fermions is None else fermions + known.to(fermions)
        return {"U" if self.group == "Z2" else "E": total}

    def plaquette_energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """κ Σ_p (1 − Re Tr W_p/d), ``[B]`` float64."""
        loops = trace(plaquettes(double(fields["U"]), lattice)).real
        return self.kappa * sums(1 - loops / self.colours)

    def plaquette_force(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Its force on the links, shaped as in :meth:`forces`."""
        links = double(fields["U"])
        around = staples(links, lattice)
        if self.group == "SU2":
            return -self.kappa / 4 * SU2.components(-1j * (links @ around))
        if self.group == "U1":
            return -self.kappa * (links * around).imag
        return -2 * self.kappa * links * around

    def observables(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Thermodynamics of the fermions and the plaquette, from one diagonalization.

        Returns:
            ``energy`` Ω, ``band_energy`` ⟨H⟩, ``entropy``, ``gap`` between the levels next to μ,
            ``plaquette`` mean of Re Tr W/d, each ``[B]``; ``density`` ``[B, N, 1]``; ``levels``
            ``[B, M]``.
        """
        found = self.electrons(fields, lattice)
        above = found.levels.where(found.levels > self.chemical_potential, math.inf).amin(1)
        below = found.levels.where(found.levels <= self.chemical_potential, -math.inf).amax(1)
        loops = trace(plaquettes(fields["U"], lattice)).real / self.colours
        return {
            "energy": found.energy,
            "band_energy": found.band_energy,
            "entropy": found.entropy,
            "gap": above - below,
            "plaquette": loops.double().mean(1),
            "density": found.density[..., None],
            "levels": found.levels,
        }

    # ---- learning ------------------------------------------------------------------------------

    def task(self, family: str = "square", target: str = "bond") -> Task:
        """The map from links to labels: invariant or covariant under local transformations.

        Charge conjugation U → U* is stated for U(1), where it changes the sign of currents and
        forces; for Z2 it does nothing, for SU(2) it is a global transformation of the gauge group.

        Args:
            family: ``square``.
            target: A label, or several with commas between, such as ``"bond,current"``.

        Raises:
            InputError: For an unknown target or family, and for boundary conditions that differ
                between the sides, which rotations would exchange.
        """
        names = tuple(name.strip() for name in target.split(","))
        for name in names:
            if name not in TARGETS[self.group]:
                raise unknown(f"target of {self.group} fermions", name, TARGETS[self.group])
        if family not in self.families:
            raise unknown("lattice of gauge fermions", family, self.families)
        if self.antiperiodic[0] != self.antiperiodic[1]:
            raise InputError(
                f"antiperiodic is {self.antiperiodic}; networks keep the rotation that exchanges "
                "the sides, so give both sides the same boundaries."
            )
        mass = () if self.mass == 0 else (Field("sublattice"),)
        types = self.label_types()
        return Task(
            f"{self.group.lower()}_fermions_{family}",
            inputs=(*self.link_fields(), *mass),
            targets=tuple(types[name] for name in names),
            family=family,
            flips=(CONJUGATION,) if self.group == "U1" else (),
            gauge=self.group,
            conservative=(("force", "U"),) if "force" in names else (),
        )

    def link_fields(self) -> tuple[Field, ...]:
        """The field U; only U(1) has a charge conjugation to speak of."""
        conjugated = (CONJUGATION,) if self.group == "U1" else ()
        return (Field("U", "link", internal="link", conjugated=conjugated),)

    def label_types(self) -> dict[str, Field]:
        """The type of every label."""
        if self.group == "SU2":
            force = Field("force", "link", internal="adjoint", oriented=True)
        else:
            force = Field("force", "link", odd=(CONJUGATION,), oriented=True)
        every = (
            Field("bond", "link"),
            Field("current", "link", odd=(CONJUGATION,), oriented=True),
            Field("energy_per_site", "global"),
            Field("energy_density"),
            Field("density"),
            Field("local_density_of_states", point=f"{len(self.energies)}xA1"),
            Field("flip_cost", "link"),
            force,
        )
        return {kind.name: kind for kind in every if kind.name in TARGETS[self.group]}

    def assemble(self, predictions: Fields, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Total forces from predicted forces, currents (U(1)) or flip costs (Z2).

        Returns:
            As :meth:`forces`.

        Raises:
            InputError: When none of them is predicted.
        """
        if "force" in predictions:
            force = predictions["force"]
        elif "current" in predictions:
            force = -2 * self.t * predictions["current"]
        elif "flip_cost" in predictions:
            force = -predictions["flip_cost"]
        else:
            given = ", ".join(predictions) or "nothing"
            raise InputError(
                f"forces on links need a predicted force, current or flip_cost, not {given}."
            )
        return self._total(force, fields, lattice)

    def assemble_energy(
        self, energy: Tensor, target: str, fields: Fields, lattice: Lattice
    ) -> Tensor:
        """The learned Ω ``[B]`` and the plaquette energy."""
        return energy + self.plaquette_energy(fields, lattice)


def link_invariants(links: Tensor, correlator: Tensor) -> Tensor:
    """k_l = Tr(U_l K_l), complex128, ``[B, N, D]``."""
    products = links.to(correlator.dtype)
    found = trace(products @ correlator) if correlator.dim() == 5 else products * correlator
    return found.to(torch.complex128)


def double(links: Tensor) -> Tensor:
    """Links in double precision."""
    return links.to(torch.complex128 if links.is_complex() else torch.float64)


def check_couplings(system: System, names: tuple[str, ...]) -> None:
    """Check that parameters are finite numbers.

    Raises:
        InputError: Naming the first that is not.
    """
    for name in names:
        value = getattr(system, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise InputError(f"{name} is {value!r}; it must be a finite number.")


#: T = 0.02 smooths crossings of levels at the chemical potential.
PRESETS: dict[str, GaugeFermions] = {
    "z2_fermions": GaugeFermions("Z2"),
    "u1_fermions": GaugeFermions("U1"),
    "su2_fermions": GaugeFermions("SU2"),
}
