"""Networks that drive the trajectories of a recipe in the place of the exact solver.

A step with a network costs milliseconds where diagonalization costs a second, so that frames of
large lattices, labelled exactly afterwards, become cheap. A driver that is wrong for the recipe is
refused before anything is made: it must serve the task, have been trained on the very system, and
give forces at the start of trajectories that resemble the exact ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from latticezoo.datasets.torus import torus_task
from latticezoo.simulate.forcefield import Fields, LearnedForceField
from latticezoo.simulate.systems.adiabatic import AdiabaticSystem
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

if TYPE_CHECKING:
    from latticezoo.zoo.base import ZooModel

#: What a system has besides the forces; a driver may be trained with other values.
_INERTIA = ("mass", "damping")
#: Largest error of a driver at the start of trajectories, as a share of the forces' spread.
WORST_START = 0.5
#: |Q| beyond this many times the largest at the start of a trajectory, or Q0, is a blow-up.
BOUND = 10.0


class DriverError(InputError):
    """A trajectory blew up; made again with the same driver, it would do so again."""


@dataclass(frozen=True)
class Driver:
    """A network that drives trajectories.

    Attributes:
        name: As given: pretrained name, checkpoint, run folder or card folder.
        sha256: Of its weights in the safetensors format, so that a checkpoint and the card made
            from it have the same.
        force_field: The network in the place of the electrons of the system.
    """

    name: str
    sha256: str
    force_field: LearnedForceField

    @classmethod
    def open(
        cls, name: str, system: AdiabaticSystem, lattice: Lattice, targets: Sequence[str]
    ) -> Driver:
        """Load a driver and check that it is one for the system.

        Args:
            name: Pretrained name, checkpoint, run folder or card folder.
            system: The exact system.
            lattice: Where it shall drive.
            targets: What a network may have learned.

        Raises:
            InputError: There is no such network, it serves another task, was trained on another
                system, or does not fit on the lattice.
        """
        from latticezoo.zoo.loading import load_network, trained_system

        network = load_network(name, what="driver")
        learned = network.task.targets[0].name
        if learned not in targets or network.task not in (
            torus_task(system, lattice, learned, odd) for odd in (True, False)
        ):
            raise InputError(
                f"the driver {name!r} serves the task {network.task.name!r} ({learned}), not "
                f"{system.task(lattice.family).name!r} of {system.name!r} on {lattice}."
            )
        _check_system(name, trained_system(name), system)
        lattice.require(network.required_shells, what=f"the driver {name!r}")
        return cls(name, weights_sha256(network), system.learned(network))

    @property
    def network(self) -> Any:
        """The network."""
        return self.force_field.model

    @property
    def target(self) -> str:
        """What it predicts."""
        return str(self.network.task.targets[0].name)

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Total forces, float64 as the fields."""
        return self.force_field.forces(fields, lattice)

    def check_starts(self, fields: Fields, lattice: Lattice) -> None:
        """Compare with exact forces on states such as trajectories start from.

        Args:
            fields: A few starting states.
            lattice: Their lattice, a small one.

        Raises:
            InputError: The error is over half of the spread of the exact labels.
        """
        exact = self.force_field.system.labels(fields, lattice)[self.target]
        share = float(self.errors(fields, {self.target: exact}, lattice).square().mean().sqrt())
        share /= max(float(exact.std(correction=0)), 1e-30)
        if not share <= WORST_START:
            raise InputError(
                f"the driver {self.name!r} errs by {100 * share:.0f} % of the spread of "
                f"{self.target} where trajectories start, over {100 * WORST_START:.0f} %; train "
                "it more, or on data of this system."
            )

    def errors(self, fields: Fields, labels: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        """Predicted minus exact target ``[S, N, C]``, float64, sample by sample."""
        network, rows = self.network, []
        weight = next(network.parameters())
        exact = labels[self.target]
        with torch.no_grad():
            for row in range(len(exact)):
                inputs = {name: values[row : row + 1].to(weight) for name, values in fields.items()}
                rows.append(network(inputs, lattice)[self.target].to(exact))
        return torch.cat(rows) - exact

    def bound(self, Q: Tensor) -> float:
        """Displacement beyond which a trajectory that starts from Q has blown up."""
        system: Any = self.force_field.system
        return BOUND * max(float(Q.abs().max()), abs(system.Q0))


def weights_sha256(network: ZooModel) -> str:
    """SHA-256 of the weights in the safetensors format: that of the file in a card."""
    from latticezoo.zoo.pretrained import weights_bytes

    return hashlib.sha256(weights_bytes(network)).hexdigest()


def _check_system(name: str, trained: Mapping[str, Any] | None, system: AdiabaticSystem) -> None:
    """Refuse a driver whose weights say that they were trained on another system."""
    if trained is None:  # weights from elsewhere: what they do at the start must tell
        return
    wanted = {"system": system.name, **system.parameters}
    different = [
        f"{key} {trained.get(key)}, not {value}"
        for key, value in wanted.items()
        if key not in _INERTIA and trained.get(key) != value
    ]
    if different:
        raise InputError(
            f"the driver {name!r} was trained on another system than this recipe's: it has "
            f"{'; '.join(different[:4])}."
        )
