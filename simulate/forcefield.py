"""What drives a simulation: anything with the shape of a :class:`ForceField`.

An exact :class:`System` is one; a network becomes one through :meth:`System.learned`, which adds to
its prediction the part of the force that is known exactly.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, check_layout
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

Fields = Mapping[str, Tensor]
Model = Callable[[dict[str, Tensor], Lattice], Mapping[str, Tensor]]


@runtime_checkable
class ForceField(Protocol):
    """All that a simulator knows of what drives it.

    A force field may also have ``energy(fields, lattice) -> [B]``, whose derivatives its forces
    are, ``density_from_forces(fields, forces, lattice)``, ``force_spread(fields, lattice)``, the
    uncertainty of its forces in their shape, and an attribute ``batch_invariant``: True when the
    bits of a replica's forces do not depend on the batch it is in.
    """

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Forces ``[B, N, C]`` by the name of the field they act on."""
        ...


class System(ABC):
    """Base of the exact systems: frozen dataclasses of physical parameters.

    Everything is batched over replicas: fields are ``[B, N, C]`` (links ``[B, N, D, …]``), energies
    ``[B]``. Energies and labels are float64.

    Attributes:
        name: Name under which the system is registered.
        fields: The classical fields it lives on.
        families: Lattice families it is defined on.
        order_source: What its staggered order is read off, as observers take it.
        start_weights: Relative size of the channels of its field in a disordered state.
        energy_unit: What energies are measured in.
    """

    name: ClassVar[str]
    fields: ClassVar[tuple[Field, ...]]
    families: ClassVar[tuple[str, ...]]
    order_source: ClassVar[str] = "density"
    start_weights: ClassVar[tuple[float, ...]] = (1.0,)
    energy_unit: ClassVar[str] = "the hopping t"

    @property
    def parameters(self) -> dict[str, Any]:
        """The physical parameters by name, plain values: all fields that comparison looks at."""
        made: Any = self
        return {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(made)
            if entry.compare
        }

    @property
    @abstractmethod
    def masses(self) -> dict[str, float]:
        """Mass of each field that moves by inertia."""

    @abstractmethod
    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """The potential ``[B]`` whose negative derivatives the forces are."""

    @abstractmethod
    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Total forces by field name, shaped as the fields."""

    @abstractmethod
    def labels(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Every target that a network can be trained on, and ``energy`` ``[B]``."""

    @abstractmethod
    def observables(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """What an experiment would measure, by name; first axis ``[B]``."""

    @abstractmethod
    def task(self, family: str = "square", target: str = "density") -> Task:
        """The map that a network shall learn, with its symmetry."""

    @abstractmethod
    def assemble(self, predictions: Fields, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Total forces from a network's predictions: what is known exactly is added exactly."""

    def assemble_energy(
        self, energy: Tensor, target: str, fields: Fields, lattice: Lattice
    ) -> Tensor:
        """Potential ``[B]`` from a learned energy, as :meth:`assemble` makes forces of predictions.

        Args:
            energy: Energies ``[B]`` of which the predicted ``target`` is minus the derivative.
            target: A target of the task.
            fields: The fields they belong to.
            lattice: The lattice.

        Raises:
            InputError: Where the system does not know what to add.
        """
        raise InputError(f"system {self.name!r} makes no potential of a learned {target!r}.")

    def learned(self, model: Model) -> LearnedForceField:
        """Force field that takes the electronic part from a network."""
        return LearnedForceField(self, model)

    def check(self, fields: Fields, lattice: Lattice) -> None:
        """Check lattice family, presence, shapes and finiteness of the fields.

        Raises:
            InputError: Naming what does not fit.
        """
        if lattice.family not in self.families:
            raise InputError(
                f"system {self.name!r} lives on {' and '.join(self.families)} lattices, "
                f"not on {lattice}."
            )
        for field in self.fields:
            if field.name not in fields:
                given = ", ".join(sorted(fields)) or "none"
                raise InputError(f"field {field.name!r} is missing; given: {given}.")
            values = fields[field.name]
            check_layout(field, values, lattice)
            # A sum is finite only if all its terms are, and costs a tenth of a look at each.
            if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
                count = int((~values.isfinite()).sum())
                raise InputError(
                    f"field {field.name!r} holds {count} NaN or infinite values; "
                    "only finite ones are accepted."
                )


def in_precision(values: Tensor, like: Tensor) -> Tensor:
    """Values on the device and in the precision of others; complex ones stay complex."""
    real = like.dtype.to_real() if like.is_complex() else like.dtype
    return values.to(like.device, real.to_complex() if values.is_complex() else real)


@dataclass(frozen=True)
class LearnedForceField:
    """A network in the place of the electrons of a system.

    No gradients are kept. A network that makes its forces by differentiating an energy must enable
    gradients itself while it does so.

    Attributes:
        system: Knows what to add to the network's prediction.
        model: ``model(fields, lattice) -> predictions``.
    """

    system: System
    model: Model

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Total forces by field name, in the precision of the fields.

        The network computes in the precision of its weights; what is known exactly is added in
        that of the fields.
        """
        with torch.no_grad():
            like = next(iter(fields.values()))
            inputs = {name: self._to_model(values) for name, values in fields.items()}
            forces = self._assemble(self._predict(inputs, lattice), like, fields, lattice)
        return {name: force.detach() for name, force in forces.items()}

    def _predict(self, inputs: dict[str, Tensor], lattice: Lattice) -> Mapping[str, Tensor]:
        """What the network says; at the potential of the system, where that is fixed.

        A network that searches the potential of a fixed number of particles is then evaluated once.
        """
        network: Any = self.model
        potential = getattr(self.system, "chemical_potential", None)
        if potential is None or getattr(network, "conserved", None) is None:
            return self.model(inputs, lattice)
        like = next(iter(inputs.values()))
        return network.at_potential(inputs, lattice, like.new_full(like.shape[:1], potential))

    def _assemble(
        self, predictions: Fields, like: Tensor, fields: Fields, lattice: Lattice
    ) -> dict[str, Tensor]:
        found = {name: in_precision(values, like) for name, values in predictions.items()}
        return self.system.assemble(found, fields, lattice)

    @property
    def force_spread(self) -> Callable[[Fields, Lattice], dict[str, Tensor]]:
        """``force_spread(fields, lattice)``: standard deviation of the forces over an ensemble.

        Shaped as the forces, in their units. It costs as much as the forces. Only of ensembles:
        networks with ``predictions(fields, lattice)``, one mapping a member.

        Raises:
            AttributeError: When the network is a single one.
        """
        if not callable(getattr(self.model, "predictions", None)):
            name = getattr(self.model, "registry_name", type(self.model).__name__)
            raise AttributeError(f"{name} is a single network; its forces have no spread")
        return self._force_spread

    def _force_spread(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        ensemble: Any = self.model
        with torch.no_grad():
            like = next(iter(fields.values()))
            inputs = {name: self._to_model(values) for name, values in fields.items()}
            members = [
                self._assemble(predictions, like, fields, lattice)
                for predictions in ensemble.predictions(inputs, lattice)
            ]
            return {
                name: torch.stack([forces[name] for forces in members]).detach().std(0)
                for name in members[0]
            }

    @property
    def energy(self) -> Callable[[Fields, Lattice], Tensor]:
        """``energy(fields, lattice)``: the learned potential ``[B]``, float64, up to a constant.

        Forces are minus its derivatives. Only of networks that derive their forces from an energy.

        Raises:
            AttributeError: When the network predicts its forces directly.
        """
        if not callable(getattr(self.model, "energy", None)):
            name = getattr(self.model, "registry_name", type(self.model).__name__)
            raise AttributeError(f"{name} predicts forces directly; it has no energy")
        return self._energy

    def _energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        network: Any = self.model
        with torch.no_grad():
            inputs = {name: self._to_model(values) for name, values in fields.items()}
            energy = network.energy(inputs, lattice).detach().double()
            (target, _), *_ = network.task.conservative
            return self.system.assemble_energy(energy, target, fields, lattice).detach()

    def _to_model(self, values: Tensor) -> Tensor:
        """Values in the precision and on the device of the network's weights."""
        weights = self.model.parameters() if isinstance(self.model, torch.nn.Module) else ()
        weight = next(iter(weights), None)
        return values if weight is None else in_precision(values, weight)

    def density_from_forces(self, fields: Fields, forces: Fields, lattice: Lattice) -> Tensor:
        """Density ⟨n⟩ that belongs to total forces, where the system can read it off."""
        read: Any = getattr(self.system, "density_from_forces", None)
        if read is None:
            raise InputError(f"system {self.system.name!r} cannot read a density off its forces.")
        return read(fields, forces, lattice)
