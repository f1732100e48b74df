"""The U(1) quantum link model with fermions, semiclassical: a classical spin on every link."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from latticezoo.simulate.electrons.link_fermions import Wanted
from latticezoo.simulate.forcefield import Fields, System
from latticezoo.simulate.systems.adiabatic import sums
from latticezoo.simulate.systems.gauge_fermions import (
    CONJUGATION,
    check_couplings,
    link_invariants,
)
from latticezoo.simulate.systems.link_electrons import LinkElectrons, solve_batch
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.gauge import check_links, plaquettes, staples
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

TARGETS = ("link_field", "bond", "current", "energy_per_site")


@dataclass(frozen=True)
class QuantumLink(System):
    r"""Fermions and classical spins S_l of fixed length on the links of the square lattice.

    .. math::
        H = -t \sum_{l = (i \to j)} ( S^+_l \psi_i^\dagger \psi_j + \mathrm{h.c.} )
            + \frac{g^2}{2} \sum_l E_l^2 - J \sum_p ( W_p + W_p^* ), \qquad
        W_p = S^+_1 S^+_2 S^-_3 S^-_4

    E = S^z is the electric field and U = S^x + iS^y = √(S² − E²) e^{iφ} the link (U.-J. Wiese,
    Ann. Phys. 525, 777 (2013), where the spins are quantum mechanical). The spins are two fields:
    ``U`` ``[B, N, D]`` complex and ``E`` ``[B, N, D]`` real; nothing is singular at |E| = S. The
    brackets {S^a, S^b} = ε_abc S^c give

    .. math::
        \dot S = S \times B, \quad B = -\partial H/\partial S
        \quad\Longleftrightarrow\quad
        \dot U = i (E B^+ - U B^z), \quad \dot E = \mathrm{Im}(U^* B^+)

    with B^+ = B^x + iB^y. Fermions are in equilibrium at every S: at μ = 0 the lattice is half
    filled, on even sides with n_i = ½ at every site, and div E is conserved.

    The fermions see U alone. Their part of B^+, 2t ⟨ψ_i†ψ_j⟩*, is the label ``link_field``; it is
    minus the gradient of their Ω with respect to (S^x, S^y) and transforms as U does. Other labels:
    Re and Im of k_l = U_l ⟨ψ_i†ψ_j⟩ as ``bond`` and ``current``, Ω as ``energy`` and
    ``energy_per_site``.

    Attributes:
        g2: g².
        J: Plaquette coupling.
        length: S.
        t: Hopping; the amplitude of a link is t |U|.
        temperature: Temperature of the fermions, T ≥ 0.
        antiperiodic: Whether fermions change sign around the first and the second side.
        workers: Processes that share a batch.

    Raises:
        InputError: For parameters outside their range.
    """

    g2: float = 0.7
    J: float = 0.25
    length: float = 1.0
    t: float = 1.0
    temperature: float = 0.02
    antiperiodic: tuple[bool, bool] = (False, False)
    workers: int = field(default=1, compare=False, repr=False)

    name: ClassVar[str] = "quantum_link"
    families: ClassVar[tuple[str, ...]] = ("square",)
    fields: ClassVar[tuple[Field, ...]] = (
        Field("U", "link", internal="link", conjugated=(CONJUGATION,)),
        Field("E", "link", odd=(CONJUGATION,), oriented=True),
    )
    batch_invariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_couplings(self, ("g2", "J", "length", "t", "temperature"))
        object.__setattr__(self, "antiperiodic", tuple(self.antiperiodic))
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}; it must be 0 or more.")
        if self.length <= 0:
            raise InputError(f"length is {self.length}; it must be positive.")

    @property
    def masses(self) -> dict[str, float]:
        """Spins have no inertia."""
        return {}

    def describe(self) -> dict[str, Any]:
        """What tells two runs apart: the physics, not the number of processes."""
        return {"class": type(self).__name__, **self.parameters}

    def check(self, fields: Fields, lattice: Lattice) -> None:
        """Check lattice, layout, and the length of the spins.

        Raises:
            InputError: Naming what does not fit: also for |E| > S.
        """
        super().check(fields, lattice)
        self.check_reach(fields, lattice)
        electric = fields["E"]
        largest, slack = float(electric.abs().max()), self._slack(fields["U"])
        if largest > self.length + slack:
            raise InputError(
                f"the electric field reaches {largest:.9g}, beyond the length S = {self.length:g} "
                "of the link spins; |E| must be at most S (in a run: take smaller time steps)."
            )
        length = torch.sqrt(fields["U"].abs() ** 2 + electric**2)
        deviation = float((length - self.length).abs().max())
        if deviation > slack:
            raise InputError(
                f"link spins have lengths that deviate from S = {self.length:g} by up to "
                f"{deviation:.3g}; at most {slack:.3g} is accepted."
            )

    def check_reach(self, fields: Fields, lattice: Lattice) -> None:
        """Check the links alone: layout, and |U| ≤ S.

        Raises:
            InputError: Naming what does not fit.
        """
        if "U" not in fields:
            raise InputError(f"field 'U' is missing; given: {', '.join(fields) or 'none'}.")
        links = fields["U"]
        check_links(links, lattice)
        if links.dim() != 3 or not links.is_complex():
            raise InputError(
                f"quantum links are complex numbers, not {list(links.shape)} of {links.dtype}."
            )
        largest, slack = float(links.abs().max()), self._slack(links)
        if not largest <= self.length + slack:  # NaN is refused too
            raise InputError(
                f"the modulus of a quantum link is {largest:.6g}; it must be at most the length "
                f"S = {self.length:g} of the link spins."
            )

    def _slack(self, links: Tensor) -> float:
        # Of the size of what an integrator leaves in the steps that a spin spends near a pole.
        return self.length * (1e-4 if links.dtype == torch.complex64 else 1e-6)

    # ---- fermions ------------------------------------------------------------------------------

    def electrons(self, links: Tensor, lattice: Lattice) -> LinkElectrons:
        """The fermions in equilibrium at links ``[B, N, D]`` of any modulus."""
        return solve_batch(
            links,
            None,
            lattice,
            t=self.t,
            temperature=self.temperature,
            mu=0.0,
            antiperiodic=self.antiperiodic,
            wanted=Wanted(),
            workers=self.workers,
        )

    def labels(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Everything a network can be trained on, of the fermions alone; they see ``U`` alone.

        Returns:
            ``link_field`` ``[B, N, D]`` complex128; ``bond``, ``current`` ``[B, N, D]``,
            ``energy_per_site`` ``[B, 1]`` and ``energy`` ``[B]`` float64.
        """
        self.check_reach(fields, lattice)
        found = self.electrons(fields["U"], lattice)
        invariants = link_invariants(fields["U"], found.correlator)
        return {
            "link_field": self.fermion_field(found.correlator),
            "bond": invariants.real.contiguous(),
            "current": invariants.imag.contiguous(),
            "energy_per_site": found.energy[:, None] / lattice.n_sites,
            "energy": found.energy,
        }

    def fermion_field(self, correlator: Tensor) -> Tensor:
        """B^+ of the fermions, 2t K*, ``[B, N, D]`` complex128."""
        return (2 * self.t * correlator.conj()).to(torch.complex128).resolve_conj()

    # ---- energy and forces ---------------------------------------------------------------------

    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Ω + electric and plaquette energy, ``[B]`` float64."""
        self.check(fields, lattice)
        fermions = 0.0 if self.t == 0 else self.electrons(fields["U"], lattice).energy
        return fermions + self.link_energy(fields, lattice)

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """B = −∂H/∂S: ``U`` holds B^x + iB^y, complex128; ``E`` holds B^z, float64."""
        self.check(fields, lattice)
        known = self.known_forces(fields, lattice)
        if self.t == 0:
            return known
        found = self.electrons(fields["U"], lattice)
        return {**known, "U": known["U"] + self.fermion_field(found.correlator)}

    def link_energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """(g²/2) Σ E² − 2J Σ Re W, ``[B]`` float64."""
        loops = plaquettes(fields["U"].to(torch.complex128), lattice).real
        electric = fields["E"].double().square().flatten(1)
        return 0.5 * self.g2 * sums(electric) - 2 * self.J * sums(loops)

    def known_forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """The part of B that needs no fermions, shaped as in :meth:`forces`."""
        around = staples(fields["U"].to(torch.complex128), lattice)
        return {
            "U": (2 * self.J * around.conj()).resolve_conj(),
            "E": -self.g2 * fields["E"].double(),
        }

    def observables(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Energy ``[B]``, plaquette Re W ``[B, N]``, density ``[B, N, 1]``."""
        self.check(fields, lattice)
        found = self.electrons(fields["U"], lattice)
        return {
            "energy": found.energy + self.link_energy(fields, lattice),
            "plaquette": plaquettes(fields["U"].to(torch.complex128), lattice).real,
            "density": found.density[..., None],
        }

    # ---- learning ------------------------------------------------------------------------------

    def task(self, family: str = "square", target: str = "link_field") -> Task:
        """The map from U, of any modulus up to S, to labels of the fermions.

        Args:
            family: ``square``.
            target: A label, or several with commas between.

        Raises:
            InputError: For an unknown target or family, and for boundary conditions that differ
                between the sides.
        """
        names = tuple(name.strip() for name in target.split(","))
        for name in names:
            if name not in TARGETS:
                raise unknown("target of the quantum link model", name, TARGETS)
        if family not in self.families:
            raise unknown("lattice of the quantum link model", family, self.families)
        if self.antiperiodic[0] != self.antiperiodic[1]:
            raise InputError(
                f"antiperiodic is {self.antiperiodic}; networks keep the rotation that exchanges "
                "the sides, so give both sides the same boundaries."
            )
        types = self.label_types()
        return Task(
            f"quantum_link_{family}",
            inputs=self.fields[:1],
            targets=tuple(types[name] for name in names),
            family=family,
            flips=(CONJUGATION,),
            gauge="U1",
            conservative=(("link_field", "U"),) if "link_field" in names else (),
        )

    def label_types(self) -> dict[str, Field]:
        """The type of every label."""
        every = (
            Field("link_field", "link", internal="link", conjugated=(CONJUGATION,)),
            Field("bond", "link"),
            Field("current", "link", odd=(CONJUGATION,), oriented=True),
            Field("energy_per_site", "global"),
        )
        return {kind.name: kind for kind in every}

    def assemble(self, predictions: Fields, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """B from the predicted ``link_field``, shaped as in :meth:`forces`.

        Raises:
            InputError: When it is not among the predictions.
        """
        if "link_field" not in predictions:
            given = ", ".join(predictions) or "nothing"
            raise InputError(f"link spins need a predicted link_field, not {given}.")
        known = self.known_forces(fields, lattice)
        return {**known, "U": known["U"] + predictions["link_field"]}

    def assemble_energy(
        self, energy: Tensor, target: str, fields: Fields, lattice: Lattice
    ) -> Tensor:
        """The learned Ω ``[B]``, electric and plaquette energy."""
        return energy + self.link_energy(fields, lattice)


PRESETS: dict[str, QuantumLink] = {"quantum_link": QuantumLink()}
