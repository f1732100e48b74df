"""The cooperative Jahn–Teller model: two e_g orbitals and three classical modes on each site."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from latticezoo.simulate.electrons.diagonalize import ThermalState, thermal_state
from latticezoo.simulate.electrons.hopping import orbital_hopping
from latticezoo.simulate.forcefield import Fields
from latticezoo.simulate.observables import local_order, staggered_order
from latticezoo.simulate.systems.adiabatic import AdiabaticSystem, Coupling, sums
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Conservation, Task

TARGETS = ("scaled_force", "orbital")
#: Representation of the three modes, and of everything conjugate to them.
POINT = "2xA1+B1"
#: Their channels: the breathing mode, Q^z and Q^x.
BREATHING, QZ, QX = 0, 1, 2


@dataclass(frozen=True)
class JahnTeller(AdiabaticSystem):
    r"""Spinless e_g electrons and octahedra with three classical modes on the square lattice.

    Orbitals a = d_{x²−y²} and b = d_{3z²−r²}; modes: breathing Q^A and the Jahn–Teller doublet
    (Q^x, Q^z) (Zhang's dissertation, section 7.3).

    .. math::
        H = -\sum_{\gamma = x,y} \sum_{\langle ij \rangle \parallel \gamma} \sum_{\mu\nu}
              (t^\gamma_{\mu\nu} c_{i\mu}^\dagger c_{j\nu} + \mathrm{h.c.})
            - g \sum_i \big( Q^A_i (n_i - n_0) + Q^x_i \tau^x_i + Q^z_i \tau^z_i \big)
            + \frac{k}{2} \sum_i \big( \beta (Q^A_i)^2 + (Q^x_i)^2 + (Q^z_i)^2 \big)

    with :math:`t^{x,y} = t\,[[1, \mp 1/\sqrt3], [\mp 1/\sqrt3, 1/3]]`, τ the Pauli matrices in the
    orbitals, and kinetic energy P²/2m of every mode. (The other sign of the hopping is the same
    model: c_j → −c_j on one sublattice.)

    The modes are one field ``Q`` ``[B, N, 3]`` of type ``2xA1+B1`` with channels
    (Q^A, Q^z, Q^x): Q^x changes sign under C4 and under reflections at the diagonals. Forces and
    the orbital density (n − n0, τ^z, τ^x) have the same type.

    The electrons are in equilibrium at every Q. The forces

    .. math::
        F^A_i = g (\langle n_i \rangle - n_0) - \beta k Q^A_i, \qquad
        F^{z,x}_i = g \langle \tau^{z,x}_i \rangle - k Q^{z,x}_i

    (Eq. 7.58) are minus the derivatives of :meth:`energy`: the electronic *free* energy A at fixed
    electron number, or the grand potential Ω at fixed μ, plus g n0 Σ Q^A and the elastic energy.

    The reference density n0 only moves the origin of Q^A: with n0 = 1, the mean density at half
    filling, Q^A is measured from the rest position η = g/(β k) of the form with n0 = 0. Then, at
    half filling and on even sides, n(−Q) = 2 − n(Q) and τ(−Q) = −τ(Q): all forces are odd in Q
    (particle–hole symmetry, c → ±c† on the two sublattices). At fixed filling n and τ do not feel
    a uniform Q^A, which only moves μ.

    Attributes:
        g: Electron–lattice coupling λ.
        k: Spring constant K of the Jahn–Teller modes.
        beta: Ratio (ω_A/ω_E)² of the spring constants of breathing and Jahn–Teller modes.
        t: Largest hopping amplitude t_nn, the unit of energy.
        temperature: Temperature of the electrons, T ≥ 0 (k_B = 1).
        filling: Share N_e/2N of the orbitals that is filled, in (0, 1), fixed at every
            configuration.
        chemical_potential: When given, it is fixed at every configuration instead of the filling.
        reference_density: n0, the electrons of a site at which Q^A = 0 is at rest. 0 gives the
            Hamiltonian as published.
        mass: Mass m of every mode.
        damping: Friction coefficient γ of Langevin dynamics; the friction rate is γ/m.
        workers: Processes that share a batch on the CPU. No result depends on it.
        backend: Where to diagonalize: see
            :func:`~latticezoo.simulate.electrons.diagonalize.thermal_state`.

    Raises:
        InputError: For parameters outside their range.
    """

    g: float
    k: float
    beta: float = 2.0
    t: float = 1.0
    temperature: float = 0.01
    filling: float = 0.5
    chemical_potential: float | None = None
    reference_density: float = 1.0
    mass: float = 1.0
    damping: float = 0.25
    workers: int = field(default=1, compare=False, repr=False)
    backend: str = field(default="auto", compare=False, repr=False)

    name: ClassVar[str] = "jahn_teller"
    fields: ClassVar[tuple[Field, ...]] = (Field("Q", point=POINT, odd=("particle_hole",)),)
    families: ClassVar[tuple[str, ...]] = ("square",)
    states_per_site: ClassVar[int] = 2
    #: 1, τ^z and τ^x, in the order of the modes.
    couplings: ClassVar[tuple[Coupling, ...]] = (
        ((1, 0), (0, 1)),
        ((1, 0), (0, -1)),
        ((0, 1), (1, 0)),
    )
    order_source: ClassVar[str] = f"Q[{QX}]"
    #: Q^x, Q^z of ±g/k and Q^A of half that (the physics sheet's proposal).
    start_weights: ClassVar[tuple[float, ...]] = (0.5, 1.0, 1.0)

    def __post_init__(self) -> None:
        self.check_parameters(positive=("g", "k", "beta", "mass"))

    # ---- units ---------------------------------------------------------------------------------

    @property
    def lambda_(self) -> float:
        """Dimensionless coupling λ̃ = g²/(k t)."""
        return self.g**2 / (self.k * self.t)

    @property
    def rest_position(self) -> float:
        """Q^A at which a site with one electron is at rest: 0, or η = g/(β k) with n0 = 0."""
        return self.g * (1 - self.reference_density) / (self.beta * self.k)

    @property
    def has_particle_hole(self) -> bool:
        """Whether forces are odd in Q on even sides: half filling (or μ = 0), and n0 = 1."""
        return super().has_particle_hole and self.reference_density == 1

    # ---- electrons -----------------------------------------------------------------------------

    def hamiltonian(self, lattice: Lattice) -> Any:
        """Hopping part of h, ``[2N, 2N]`` scipy sparse, states (site, orbital) row-major."""
        return orbital_hopping(lattice, (_amplitudes(self.t, -1), _amplitudes(self.t, 1)))

    def electrons(self, fields: Fields, lattice: Lattice) -> ThermalState:
        """Thermal averages of the electrons at given distortions, by exact diagonalization.

        Args:
            fields: ``Q`` ``[B, N, 3]``.
            lattice: The lattice.

        Returns:
            The averages; ``site_density`` ``[B, N, 2, 2]`` is the density matrix in the orbitals.

        Raises:
            InputError: For another lattice family, a torus smaller than 3, missing fields, wrong
                shapes, NaN.
        """
        self.check(fields, lattice)
        breathing, z, x = (-self.g * fields["Q"].double()).unbind(-1)
        blocks = torch.stack([breathing + z, x, x, breathing - z], -1)
        return thermal_state(
            self.hamiltonian(lattice),
            self.temperature,
            **self.ensemble(lattice),
            site_blocks=blocks.unflatten(-1, (2, 2)),
            workers=self.workers,
            backend=self.backend,
        )

    def orbital(self, state: ThermalState) -> Tensor:
        """Orbital density (n − n0, τ^z, τ^x) ``[B, N, 3]`` of a thermal state (Eqs. 7.53–7.54)."""
        assert state.site_density is not None
        a, b = state.site_density[..., 0, 0], state.site_density[..., 1, 1]
        mixed = 2 * state.site_density[..., 0, 1]
        return torch.stack([a + b - self.reference_density, a - b, mixed], -1)

    # ---- energy and forces ---------------------------------------------------------------------

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Total forces, ``Q`` ``[B, N, 3]``, float64 (Eq. 7.58)."""
        orbital = self.orbital(self.electrons(fields, lattice))
        return {"Q": self._total_force(orbital, fields["Q"].double())}

    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Potential ``[B]``: A (Ω at fixed μ) + g n0 Σ Q^A + elastic energy, float64."""
        return self._potential(self.electrons(fields, lattice), fields["Q"].double())

    def elastic_energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """(k/2) Σ [β (Q^A)² + (Q^z)² + (Q^x)²], ``[B]``, float64 (Eq. 7.55)."""
        self.check(fields, lattice)
        return sums(self._elastic_density(fields["Q"].double()))

    def labels(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Everything a network can be trained on, from one diagonalization; float64.

        Returns:
            ``scaled_force``: the total force F/g ``[B, N, 3]``; ``orbital``: (n − n0, τ^z, τ^x)
            ``[B, N, 3]``; ``energy``: as :meth:`energy`, ``[B]``; ``chemical_potential``: ``[B]``.
        """
        state, Q = self.electrons(fields, lattice), fields["Q"].double()
        orbital = self.orbital(state)
        return {
            "scaled_force": self._total_force(orbital, Q) / self.g,
            "orbital": orbital,
            "chemical_potential": state.mu,
            "energy": self._potential(state, Q),
        }

    def observables(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Densities, C-type orbital order and thermodynamics, from one diagonalization.

        Returns:
            ``density``: n ``[B, N, 1]``; ``orbital``: (n − n0, τ^z, τ^x) ``[B, N, 3]``;
            ``local_order``: φ ``[B, N, 1]`` of Q^x, 2δ in perfect C-type order Q^x = ±δ
            (Eq. 7.70); ``order_parameter``: mean φ ``[B]``; ``staggered_displacement``: of the
            three modes ``[B, 3]``; ``mu``, ``energy``, ``entropy``: ``[B]``.

        Raises:
            InputError: For odd sides, which hold no staggered order.
        """
        lattice.stagger  # noqa: B018  raises before the work
        state, Q = self.electrons(fields, lattice), fields["Q"].double()
        orbital = self.orbital(state)
        order = local_order(Q[..., QX:], lattice)
        return {
            "density": orbital[..., :1] + self.reference_density,
            "orbital": orbital,
            "local_order": order,
            "order_parameter": order.mean((1, 2)),
            "staggered_displacement": staggered_order(Q, lattice),
            "mu": state.mu,
            "energy": self._potential(state, Q),
            "entropy": state.entropy,
        }

    def orbital_from_forces(self, fields: Fields, forces: Fields, lattice: Lattice) -> Tensor:
        """Orbital density (n − n0, τ^z, τ^x) ``[B, N, 3]`` that belongs to total forces.

        No diagonalization: τ^x = (F^x + k Q^x)/g and so on.
        """
        Q = fields["Q"]
        return (forces["Q"] + self._stiffness(Q) * Q) / self.g

    def density_from_forces(self, fields: Fields, forces: Fields, lattice: Lattice) -> Tensor:
        """Density n ``[B, N, 1]`` that belongs to total forces, without diagonalization."""
        orbital = self.orbital_from_forces(fields, forces, lattice)
        return orbital[..., :1] + self.reference_density

    # ---- learning ------------------------------------------------------------------------------

    def task(self, family: str = "square", target: str = "scaled_force") -> Task:
        """The map to learn: Q to the total force F/g, or to the orbital density.

        The force is the default, unlike in the Holstein model: near the ordered state τ is bimodal,
        dominated by k Q/g, while the force that is left is small and nearly Gaussian. Both derive
        from an energy: F is minus its derivative, and g (n − n0, τ) that of the electronic part.

        Args:
            family: ``square``.
            target: ``scaled_force`` or ``orbital``.

        Raises:
            InputError: For an unknown target or family.
        """
        if target not in TARGETS:
            raise unknown("target of the Jahn–Teller task", target, TARGETS)
        if family not in self.families:
            raise unknown("lattice of the Jahn–Teller task", family, self.families)
        flips = ("particle_hole",) if self.has_particle_hole else ()
        return Task(
            f"jahn_teller_{family}",
            inputs=(Field("Q", point=POINT, odd=flips),),
            targets=(Field(target, point=POINT, odd=flips),),
            family=family,
            flips=flips,
            conservative=((target, "Q"),),
            conserved=self._conserved(target),
        )

    def _conserved(self, target: str) -> Conservation | None:
        """A uniform shift of Q^A by μ/g has the effect of the chemical potential μ."""
        if self.chemical_potential is not None:
            return None
        slope = 0.0 if target == "orbital" else self.beta * self.k / self.g
        excess = self.states_per_site * self.filling - self.reference_density
        return Conservation(target, "Q", excess, 1 / self.g, slope)

    def assemble(self, predictions: Fields, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Total forces from predicted F/g, or from the predicted orbital density.

        Args:
            predictions: ``scaled_force`` or ``orbital``, ``[B, N, 3]``.
            fields: ``Q`` ``[B, N, 3]``.
            lattice: The lattice.

        Returns:
            ``Q`` ``[B, N, 3]`` in the precision of the prediction and the field.
        """
        if "scaled_force" in predictions:
            return {"Q": self.g * predictions["scaled_force"]}
        if "orbital" in predictions:
            return {"Q": self._total_force(predictions["orbital"], fields["Q"])}
        given = ", ".join(sorted(predictions)) or "nothing"
        raise InputError(
            f"Jahn–Teller forces need a predicted scaled_force or orbital, but got {given}."
        )

    def assemble_energy(
        self, energy: Tensor, target: str, fields: Fields, lattice: Lattice
    ) -> Tensor:
        """Potential ``[B]`` from the energy whose derivative was learned: that of F/g, or of τ."""
        if target == "orbital":
            return self.g * energy + self.elastic_energy(fields, lattice).to(energy)
        return self.g * energy

    # ---- inner parts ---------------------------------------------------------------------------

    def _stiffness(self, like: Tensor) -> Tensor:
        return like.new_tensor([self.beta * self.k, self.k, self.k])

    def _total_force(self, orbital: Tensor, Q: Tensor) -> Tensor:
        return self.g * orbital - self._stiffness(Q) * Q

    def _potential(self, state: ThermalState, Q: Tensor) -> Tensor:
        local = self._elastic_density(Q)
        local[..., BREATHING] += self.g * self.reference_density * Q[..., BREATHING]
        return self.electronic_energy(state) + sums(local)

    def _elastic_density(self, Q: Tensor) -> Tensor:
        return 0.5 * self._stiffness(Q) * (Q * Q)


def _amplitudes(t: float, sign: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Hopping t^γ between the orbitals of neighbours, sign −1 along x and +1 along y."""
    mixed = sign * t / 3**0.5
    return ((t, mixed), (mixed, t / 3))


_K = 1.25**2 / 1.35
#: λ = 1.25 and λ̃ = λ²/(K t) = 1.35 of Zhang's dissertation, section 7.3, at its two fillings, with
#: γ̃ = 0.25 and m = K, so that tau0 = 1.
PRESETS: dict[str, JahnTeller] = {
    "jahn_teller_half_filled": JahnTeller(g=1.25, k=_K, mass=_K, damping=0.25 * _K),
    "jahn_teller_doped": JahnTeller(g=1.25, k=_K, mass=_K, damping=0.25 * _K, filling=0.49),
}
