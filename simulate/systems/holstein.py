"""The semiclassical Holstein model: electrons coupled to one classical displacement per site."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from latticezoo.simulate.electrons.diagonalize import ThermalState, thermal_state
from latticezoo.simulate.electrons.hopping import hopping_matrix
from latticezoo.simulate.forcefield import Fields
from latticezoo.simulate.observables import local_order, staggered_order
from latticezoo.simulate.systems.adiabatic import AdiabaticSystem, sums
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Conservation, Task

TARGETS = ("density", "force")


@dataclass(frozen=True)
class Holstein(AdiabaticSystem):
    r"""Spinless electrons and classical displacements Q_i on the square lattice or the chain.

    .. math::
        H = -t \sum_{\langle ij \rangle} (c_i^\dagger c_j + \mathrm{h.c.})
            - g \sum_i (n_i - \tfrac12) Q_i
            + \sum_i \Big( \frac{P_i^2}{2m} + \frac{k}{2} Q_i^2 \Big)
            + \kappa \sum_{\langle ij \rangle} Q_i Q_j

    The electrons are in equilibrium at every Q (Born–Oppenheimer). The forces

    .. math::
        F_i = g (\langle n_i \rangle - \tfrac12) - k Q_i - \kappa \sum_{j \in NN(i)} Q_j

    are minus the derivatives of the electronic *free* energy A at fixed electron number, or of the
    grand potential Ω at fixed μ, plus the elastic energy: :meth:`energy` gives that. The mean
    ⟨H⟩ has other derivatives unless T = 0.

    At half filling n(−Q) = 1 − n(Q), so that F is odd in Q (particle–hole symmetry), exactly so on
    a torus of even sides.

    Attributes:
        g: Electron–lattice coupling.
        k: Spring constant on a site.
        kappa: Coupling of neighbouring displacements; positive favours opposite signs.
        t: Nearest-neighbour hopping, the unit of energy.
        temperature: Temperature of the electrons, T ≥ 0 (k_B = 1).
        filling: Electrons per site in (0, 1), fixed at every configuration.
        chemical_potential: When given, it is fixed at every configuration instead of the filling.
        mass: Mass m of a site.
        damping: Friction coefficient γ of Langevin dynamics; the friction rate is γ/m.
        workers: Processes that share a batch on the CPU. No result depends on it.
        backend: Where to diagonalize: see
            :func:`~latticezoo.simulate.electrons.diagonalize.thermal_state`.

    Raises:
        InputError: For parameters outside their range, an unstable lattice (k ≤ 2 |κ| on the
            chain, k ≤ 4 |κ| on the square lattice) included.
    """

    g: float
    k: float
    kappa: float
    t: float = 1.0
    temperature: float = 0.1
    filling: float = 0.5
    chemical_potential: float | None = None
    mass: float = 1.0
    damping: float = 0.2
    workers: int = field(default=1, compare=False, repr=False)
    backend: str = field(default="auto", compare=False, repr=False)

    name: ClassVar[str] = "holstein"
    fields: ClassVar[tuple[Field, ...]] = (Field("Q", odd=("particle_hole",)),)
    families: ClassVar[tuple[str, ...]] = ("square", "chain")

    def __post_init__(self) -> None:
        self.check_parameters(positive=("k", "mass"))
        self._check_stability("chain", 2)  # the weaker condition: it holds on every lattice

    # ---- units -----------------------------------------------------------------------------------

    @property
    def lambda_(self) -> float:
        """Dimensionless coupling λ = g²/(k W), with the bandwidth W = 8 t of the square lattice."""
        return self.g**2 / (8 * self.k * self.t)

    @property
    def kappa_ratio(self) -> float:
        """Elastic ratio κ̃ = κ/k."""
        return self.kappa / self.k

    # ---- electrons -----------------------------------------------------------------------------

    def hamiltonian(self, lattice: Lattice) -> Any:
        """Hopping part of h, ``[N, N]`` scipy sparse; h_ii = −g Q_i comes on top."""
        return hopping_matrix(lattice, float(self.t))

    def electrons(self, fields: Fields, lattice: Lattice) -> ThermalState:
        """Thermal averages of the electrons at given displacements, by exact diagonalization.

        Args:
            fields: ``Q`` ``[B, N, 1]``.
            lattice: The lattice.

        Raises:
            InputError: For another lattice family, an unstable lattice, a torus smaller than 3,
                missing fields, wrong shapes, NaN.
        """
        self.check(fields, lattice)
        return thermal_state(
            self.hamiltonian(lattice),
            self.temperature,
            **self.ensemble(lattice),
            diagonal=-self.g * fields["Q"][..., 0].double(),
            workers=self.workers,
            backend=self.backend,
        )

    # ---- energy and forces ---------------------------------------------------------------------

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Total forces, ``Q`` ``[B, N, 1]``, float64 (Eq. 8)."""
        density = self.electrons(fields, lattice).density[..., None]
        return {"Q": self._total_force(density - 0.5, fields["Q"].double(), lattice)}

    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Potential ``[B]``: A (Ω at fixed μ) + (g/2) Σ Q + elastic energy, float64."""
        return self._potential(self.electrons(fields, lattice), fields["Q"].double(), lattice)

    def elastic_energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Σ k Q²/2 + κ Σ_<ij> Q_i Q_j, ``[B]``, float64."""
        self.check(fields, lattice)
        return sums(self._elastic_density(fields["Q"].double(), lattice))

    def labels(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Everything a network can be trained on, from one diagonalization; float64.

        Returns:
            ``density``: n − ½ ``[B, N, 1]``; ``force``: the total force ``[B, N, 1]``;
            ``energy``: as :meth:`energy`, ``[B]``; ``chemical_potential``: ``[B]``.
        """
        state, Q = self.electrons(fields, lattice), fields["Q"].double()
        excess = state.density[..., None] - 0.5
        return {
            "density": excess,
            "force": self._total_force(excess, Q, lattice),
            "chemical_potential": state.mu,
            "energy": self._potential(state, Q, lattice),
        }

    def observables(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Densities, order parameters and thermodynamics, from one diagonalization.

        Returns:
            ``density``: n ``[B, N, 1]``; ``local_order``: φ ``[B, N, 1]`` (Eq. 24);
            ``order_parameter``: mean φ ``[B]``; ``staggered_displacement``, ``mu``, ``energy``,
            ``entropy``: ``[B]``.

        Raises:
            InputError: For odd sides, which hold no staggered order.
        """
        lattice.stagger  # noqa: B018  raises before the work
        state, Q = self.electrons(fields, lattice), fields["Q"].double()
        density = state.density[..., None]
        order = local_order(density, lattice)
        return {
            "density": density,
            "local_order": order,
            "order_parameter": order.mean((1, 2)),
            "staggered_displacement": staggered_order(Q, lattice)[:, 0],
            "mu": state.mu,
            "energy": self._potential(state, Q, lattice),
            "entropy": state.entropy,
        }

    def density_from_forces(self, fields: Fields, forces: Fields, lattice: Lattice) -> Tensor:
        """Density n ``[B, N, 1]`` that belongs to total forces, without diagonalization.

        n_i = ½ + (F_i + k Q_i + κ Σ_j Q_j) / g.

        Raises:
            InputError: At g = 0, where the forces know nothing of the electrons.
        """
        if self.g == 0:
            raise InputError("g is 0: the forces hold no density; it needs a coupling g.")
        Q = fields["Q"]
        return 0.5 + (forces["Q"] + self.k * Q + self.kappa * _around(Q, lattice)) / self.g

    # ---- learning ------------------------------------------------------------------------------

    def task(self, family: str = "square", target: str = "density") -> Task:
        """The map to learn: Q to n − ½, or to the total force.

        The density is the default: it is bounded, and the elastic part of the force stays exact.
        Both derive from an energy: −∂E/∂Q_i is the force, and g (n_i − ½) is minus the derivative
        of the electronic part.

        Args:
            family: ``square`` or ``chain``.
            target: ``density`` or ``force``.

        Raises:
            InputError: For an unknown target or family, or a lattice unstable on it.
        """
        if target not in TARGETS:
            raise unknown("target of the Holstein task", target, TARGETS)
        if family not in self.families:
            raise unknown("lattice of the Holstein task", family, self.families)
        self._check_stability(family, 2 * Lattice.dimension(family))
        flips = ("particle_hole",) if self.has_particle_hole else ()
        return Task(
            f"holstein_{family}",
            inputs=(Field("Q", odd=flips),),
            targets=(Field(target, odd=flips),),
            family=family,
            flips=flips,
            conservative=((target, "Q"),),
            conserved=self._conserved(target, 2 * Lattice.dimension(family)),
        )

    def _conserved(self, target: str, neighbours: int) -> Conservation | None:
        """A uniform shift of Q by μ/g has the effect of the chemical potential μ."""
        if self.chemical_potential is not None or self.g == 0:
            return None
        excess, shift = self.filling - 0.5, 1 / self.g
        if target == "density":
            return Conservation(target, "Q", excess, shift)
        stiffness = self.k + neighbours * self.kappa
        return Conservation(target, "Q", self.g * excess, shift, stiffness, 0.1 * self.g)

    def assemble(self, predictions: Fields, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Total forces from predicted n − ½, or the predicted total forces themselves.

        Args:
            predictions: ``density`` (n − ½) or ``force``, ``[B, N, 1]``.
            fields: ``Q`` ``[B, N, 1]``.
            lattice: The lattice.

        Returns:
            ``Q`` ``[B, N, 1]`` in the precision of the prediction and the field.
        """
        if "density" in predictions:
            return {"Q": self._total_force(predictions["density"], fields["Q"], lattice)}
        if "force" in predictions:
            return {"Q": predictions["force"]}
        given = ", ".join(sorted(predictions)) or "nothing"
        raise InputError(f"Holstein forces need a predicted density or force, but got {given}.")

    def assemble_energy(
        self, energy: Tensor, target: str, fields: Fields, lattice: Lattice
    ) -> Tensor:
        """Potential ``[B]`` from the energy whose derivative −n + ½, or −F, was learned."""
        if target == "density":
            return self.g * energy + self.elastic_energy(fields, lattice).to(energy)
        return energy

    # ---- inner parts ---------------------------------------------------------------------------

    def check(self, fields: Fields, lattice: Lattice) -> None:
        """Check fields and lattice, the stability of the lattice on it included."""
        super().check(fields, lattice)
        self._check_stability(lattice.family, 2 * lattice.dim)

    def _check_stability(self, family: str, neighbours: int) -> None:
        if self.k <= neighbours * abs(self.kappa):
            raise InputError(
                f"k = {self.k} with kappa = {self.kappa} makes the lattice unstable: the {family} "
                f"needs k > {neighbours} |kappa| = {neighbours * abs(self.kappa):g}."
            )

    def _total_force(self, excess: Tensor, Q: Tensor, lattice: Lattice) -> Tensor:
        return self.g * excess - self.k * Q - self.kappa * _around(Q, lattice)

    def _potential(self, state: ThermalState, Q: Tensor, lattice: Lattice) -> Tensor:
        local = (0.5 * self.g) * Q + self._elastic_density(Q, lattice)
        return self.electronic_energy(state) + sums(local)

    def _elastic_density(self, Q: Tensor, lattice: Lattice) -> Tensor:
        return (0.5 * self.k) * (Q * Q) + (0.5 * self.kappa) * (Q * _around(Q, lattice))


def _around(Q: Tensor, lattice: Lattice) -> Tensor:
    return lattice.neighbour_sum(Q)


#: Set A (Zhang's dissertation, section 6.4) with γ̃ = 0.2 and m = k, so that tau0 = 1; and set B,
#: the parameters of the authors' public code (friction rate 0.2, so γ = 0.2 m; tau0 = √5).
PRESETS: dict[str, Holstein] = {
    "holstein_weak": Holstein(
        g=1.5, k=1.005, kappa=0.18, temperature=0.1, mass=1.005, damping=0.201
    ),
    "holstein_strong": Holstein(g=3.5, k=1.0, kappa=0.18, temperature=0.1, mass=5.0, damping=1.0),
}


def preset(name: str) -> Holstein:
    """The system of a named parameter set.

    Raises:
        InputError: For an unknown name, with the nearest ones.
    """
    if name not in PRESETS:
        raise unknown("Holstein preset", name, PRESETS)
    return PRESETS[name]
