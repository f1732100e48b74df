"""What the systems of classical spins share: unit vectors, effective fields, a task."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from latticezoo.simulate.forcefield import Fields, System
from latticezoo.simulate.unit_vectors import check_unit_length
from latticezoo.symmetry.errors import unknown
from latticezoo.symmetry.fields import Field, perpendicular
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

#: What networks learn: the part of −∂E/∂S that is perpendicular to the spin.
TARGET = "perpendicular_field"

Vector = tuple[float, float, float]


class SpinSystem(System):
    r"""Unit vectors S_i on the sites, field ``S`` ``[B, N, 3]``, in a field that others make.

    ``forces`` are the effective fields :math:`H_i = -\partial E / \partial S_i`, the derivative
    taken without the constraint |S| = 1; the equations of motion see
    :math:`H^\perp_i = H_i - (H_i \cdot S_i) S_i` alone. Subclasses are frozen dataclasses that give
    :meth:`interaction_energy` and :meth:`interaction_field`, all but the Zeeman term
    :math:`-B \cdot \sum_i S_i`, which is constant and is added here, and for learned fields too.

    The perpendicular field is minus the derivative of E(S/|S|) at |S| = 1: a network that
    differentiates an energy of the directions learns it exactly.

    Attributes:
        zeeman: The external field B, three numbers.
    """

    zeeman: Vector

    fields: ClassVar[tuple[Field, ...]] = (Field("S", internal="1x1e", odd=("time_reversal",)),)
    families: ClassVar[tuple[str, ...]] = ("square", "triangular")

    @abstractmethod
    def interaction_energy(self, spins: Tensor, lattice: Lattice) -> Tensor:
        """Energy ``[B]`` without the Zeeman term, float64."""

    @abstractmethod
    def interaction_field(self, spins: Tensor, lattice: Lattice) -> Tensor:
        """Minus its derivative, ``[B, N, 3]`` float64."""

    @property
    def masses(self) -> dict[str, float]:
        """Spins have no inertia."""
        return {}

    def check(self, fields: Fields, lattice: Lattice) -> None:
        """Check family, shapes, finiteness, and that the spins are unit vectors.

        Raises:
            InputError: Naming what does not fit.
        """
        super().check(fields, lattice)
        check_unit_length(fields["S"])

    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Energy ``[B]``, Zeeman term included, float64."""
        self.check(fields, lattice)
        spins = fields["S"].double()
        return self.interaction_energy(spins, lattice) + self.zeeman_energy(spins)

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Effective fields −∂E/∂S ``[B, N, 3]``, Zeeman term included, float64."""
        self.check(fields, lattice)
        spins = fields["S"].double()
        return {"S": self.interaction_field(spins, lattice) + spins.new_tensor(self.zeeman)}

    def labels(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """The perpendicular field ``[B, N, 3]`` and the energy ``[B]``, without the Zeeman term."""
        self.check(fields, lattice)
        spins = fields["S"].double()
        return {
            TARGET: perpendicular(self.interaction_field(spins, lattice), spins),
            "energy": self.interaction_energy(spins, lattice),
        }

    def observables(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Energy ``[B]`` and magnetization ``[B, 3]`` per site."""
        return {
            "energy": self.energy(fields, lattice),
            "magnetization": fields["S"].double().mean(1),
        }

    def zeeman_energy(self, spins: Tensor) -> Tensor:
        """−B · Σ S, ``[B]``."""
        return -(spins.sum(1) @ spins.new_tensor(self.zeeman))

    def task(self, family: str = "square", target: str = TARGET) -> Task:
        """The map from spins to perpendicular fields: equivariant under rotations of all spins.

        Lattice and spins turn independently, and time reversal turns all spins and fields over.

        Raises:
            InputError: For an unknown target or family.
        """
        if target != TARGET:
            raise unknown(f"target of the system {self.name!r}", target, (TARGET,))
        if family not in self.families:
            raise unknown("lattice", family, self.families)
        return Task(
            f"{self.name}_{family}",
            inputs=self.fields,
            targets=(Field(TARGET, internal="1x1e", odd=("time_reversal",)),),
            family=family,
            flips=("time_reversal",),
            internal="SO3",
            conservative=((TARGET, "S"),),
            tangent=((TARGET, "S"),),
        )

    def assemble(self, predictions: Fields, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """The predicted field made perpendicular to the spins, and the Zeeman field."""
        found = perpendicular(predictions[TARGET], fields["S"])
        return {"S": found + found.new_tensor(self.zeeman)}

    def assemble_energy(
        self, energy: Tensor, target: str, fields: Fields, lattice: Lattice
    ) -> Tensor:
        """The learned energy and the Zeeman energy."""
        return energy + self.zeeman_energy(fields["S"].double())
