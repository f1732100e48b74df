r"""Classical many-body models on any lattice, cheap and exact: targets to try networks on.

No electrons: the energy is a formula and the forces are its derivatives, so thousands of exact
samples take seconds, on lattices and for field types that no electronic model here has.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from latticezoo.simulate.forcefield import Fields, System
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.geometry import UNIT_CELLS
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task


class ClassicalSystem(System):
    """A field on the sites with an energy in closed form; forces by differentiation.

    Subclasses are frozen dataclasses whose fields are the parameters, all numbers.

    Attributes:
        temperature: Temperature of the bath (k_B = 1).
        mass: Mass of every component.
        damping: Friction coefficient γ; the friction rate is γ/m.
        start_amplitude: Half width of a disordered start.
    """

    temperature: float
    mass: float
    damping: float

    families: ClassVar[tuple[str, ...]] = tuple(UNIT_CELLS)
    start_amplitude: ClassVar[float]
    energy_unit: ClassVar[str] = "the parameters"

    def check_parameters(self, positive: tuple[str, ...]) -> None:
        """Check the parameters' types and ranges.

        Args:
            positive: Names of those that must be positive; all others must be 0 or more.

        Raises:
            InputError: Naming the first that is not accepted.
        """
        for name, value in self.parameters.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value):
                raise InputError(f"{name} is {value!r}; it must be a finite number.")
            if value < 0 or (value == 0 and name in positive):
                least = "positive" if name in positive else "0 or more"
                raise InputError(f"{name} is {value}; it must be {least}.")

    @property
    def masses(self) -> dict[str, float]:
        """Mass of the field."""
        return {self.fields[0].name: self.mass}

    @abstractmethod
    def site_energies(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Energies ``[B, N]`` that sites and half their bonds carry, differentiable.

        Args:
            values: The field ``[B, N, C]``.
            lattice: The lattice.
        """

    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Energy ``[B]``, float64."""
        self.check(fields, lattice)
        with torch.no_grad():
            return self.site_energies(fields[self.fields[0].name].double(), lattice).sum(1)

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Forces −∂E/∂field, ``[B, N, C]`` float64."""
        self.check(fields, lattice)
        name = self.fields[0].name
        with torch.inference_mode(False), torch.enable_grad():
            values = fields[name].detach().double().clone().requires_grad_()
            total = self.site_energies(values, lattice).sum()
            (slope,) = torch.autograd.grad(total, [values])
        return {name: -slope}

    def labels(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """The force and the energy."""
        (force,) = self.forces(fields, lattice).values()
        return {"force": force, "energy": self.energy(fields, lattice)}

    def observables(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Energy ``[B]`` and root-mean-square value of the field ``[B]``."""
        values = fields[self.fields[0].name].double()
        return {
            "energy": self.energy(fields, lattice),
            "spread": values.flatten(1).square().mean(1).sqrt(),
        }

    def task(self, family: str = "square", target: str = "force") -> Task:
        """The map from the field to its force, minus the derivative of the energy.

        Raises:
            InputError: For an unknown target or family.
        """
        if target != "force":
            raise unknown(f"target of the system {self.name!r}", target, ("force",))
        if family not in self.families:
            raise unknown("lattice", family, self.families)
        (field,) = self.fields
        return Task(
            f"{self.name}_{family}",
            inputs=(field,),
            targets=(Field("force", point=field.point),),
            family=family,
            conservative=(("force", field.name),),
        )

    def assemble(self, predictions: Fields, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """The predicted force; nothing is known beside it."""
        return {self.fields[0].name: predictions["force"]}

    def assemble_energy(
        self, energy: Tensor, target: str, fields: Fields, lattice: Lattice
    ) -> Tensor:
        """The learned energy."""
        return energy


@dataclass(frozen=True)
class Springs(ClassicalSystem):
    r"""Atoms on a lattice that bend and stretch their bonds: displacements u, Cartesian vectors.

    With :math:`r_{ij} = R_j - R_i + u_j - u_i` on nearest-neighbour bonds,

    .. math::
        E = \sum_i \frac{k}{2} |u_i|^2
          + D \sum_{\langle ij \rangle} \big(1 - e^{-a (|r_{ij}| - 1)}\big)^2
          + \frac{\kappa}{2} \sum_i \sum_{j < l}
            \big(\hat r_{ij} \cdot \hat r_{il} - \cos\theta^0_{jl}\big)^2

    Morse bonds, and three-body angle terms as in Keating's and Stillinger and Weber's models of
    diamond (Phys. Rev. 145, 637 (1966); Phys. Rev. B 31, 5262 (1985)) about the undistorted
    angles of the lattice. The undistorted lattice has energy and forces zero.

    Attributes:
        k: Spring constant of every atom to its site.
        depth: Depth D of the Morse bond.
        steepness: Its inverse length a; the spring constant of a bond is 2 D a².
        angle: Stiffness κ of the angles.
        temperature: Temperature of the bath.
        mass: Mass of an atom.
        damping: Friction coefficient.
    """

    k: float = 0.5
    depth: float = 1.0
    steepness: float = 2.0
    angle: float = 2.0
    temperature: float = 0.06
    mass: float = 1.0
    damping: float = 0.5

    name: ClassVar[str] = "springs"
    fields: ClassVar[tuple[Field, ...]] = (Field("u", point="vector"),)
    start_amplitude: ClassVar[float] = 0.2

    def __post_init__(self) -> None:
        self.check_parameters(positive=("depth", "steepness", "mass"))

    def site_energies(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Energies ``[B, N]``."""
        neighbours, offsets = _bonds(lattice)
        bonds = offsets.to(values) + values[:, neighbours] - values[:, :, None]  # [B, N, z, dim]
        lengths = bonds.norm(dim=-1)
        stretch = 1 - torch.exp(-self.steepness * (lengths - 1))
        energy = 0.5 * self.k * values.square().sum(-1)
        energy = energy + 0.5 * self.depth * stretch.square().sum(-1)
        unit = bonds / lengths[..., None]
        # Every pair of bonds stands twice in the matrix, and the diagonal is zero.
        bend = unit @ unit.mT - (offsets @ offsets.mT).to(values)
        return energy + 0.25 * self.angle * bend.square().sum((-2, -1))


@dataclass(frozen=True)
class Gradients(ClassicalSystem):
    r"""A scalar field whose coupling to its neighbours depends on their directions.

    .. math::
        E = \sum_i \Big[\frac{k}{2} Q_i^2 + \frac{b}{4} Q_i^4
            + \frac{w}{2} (1 + \tanh Q_i)\, |g_i|^2\Big]
          + \frac{\kappa}{2} \sum_{\langle ij \rangle} (Q_i - Q_j)^2, \qquad
        g_i = \sum_j (R_j - R_i) \tanh Q_j

    The square of the lattice gradient g tells neighbours on opposite sides from those at other
    angles, which no function of the mere sum over neighbours can do.

    Attributes:
        k: Spring constant.
        quartic: b.
        gradient: w.
        coupling: κ between nearest neighbours.
        temperature: Temperature of the bath.
        mass: Mass.
        damping: Friction coefficient.
    """

    k: float = 1.0
    quartic: float = 0.5
    gradient: float = 0.5
    coupling: float = 0.3
    temperature: float = 0.3
    mass: float = 1.0
    damping: float = 0.5

    name: ClassVar[str] = "gradients"
    fields: ClassVar[tuple[Field, ...]] = (Field("Q"),)
    start_amplitude: ClassVar[float] = 1.5

    def __post_init__(self) -> None:
        self.check_parameters(positive=("k", "mass"))

    def site_energies(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Energies ``[B, N]``."""
        neighbours, offsets = _bonds(lattice)
        Q = values[..., 0]
        around = Q[:, neighbours]  # [B, N, z]
        energy = 0.5 * self.k * Q.square() + 0.25 * self.quartic * Q.square().square()
        energy = energy + 0.25 * self.coupling * (around - Q[..., None]).square().sum(-1)
        slope = (torch.tanh(around)[..., None, :] @ offsets.to(values)).squeeze(-2)
        return energy + 0.5 * self.gradient * (1 + torch.tanh(Q)) * slope.square().sum(-1)


@lru_cache(maxsize=16)
def _bonds(lattice: Lattice) -> tuple[Tensor, Tensor]:
    """Nearest neighbours ``[N, z]``, and the vectors to them ``[N, z, dim]``."""
    shell = lattice.shells(count=1)[1]
    lattice.require(shell, "a model with nearest neighbours")
    frames = torch.from_numpy(lattice.point_group.matrices[list(lattice.frames)])
    offsets = torch.einsum("sij,kj->ski", frames, torch.from_numpy(shell.vectors))
    return lattice.neighbours(1), offsets.repeat(lattice.n_cells, 1, 1)


#: Parameter sets under the names of the systems.
PRESETS: dict[str, ClassicalSystem] = {"springs": Springs(), "gradients": Gradients()}
