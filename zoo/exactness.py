"""How exact the symmetry of every network of the zoo is: every model, every field it can carry.

The cases hold one task for each kind of surroundings (D4, D6, D3 and T_d sites) and of fields
(scalars, the Jahn–Teller modes, displacements, spins, gauge links). A network that is registered is
tried on all of them; those whose task it refuses count as such, by its own sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import (
    EquivarianceReport,
    equivariance_error,
    random_inputs,
    random_values,
)
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.registry import create_model


def _force_task(name: str, family: str, point: str, flips: tuple[str, ...] = ()) -> Task:
    return Task(
        name,
        (Field("Q", point=point, odd=flips),),
        (Field("force", point=point, odd=flips),),
        family,
        flips,
        conservative=(("force", "Q"),),
    )


def _spin_task(name: str, family: str) -> Task:
    odd = ("time_reversal",)
    return Task(
        name,
        (Field("S", internal="1x1e", odd=odd),),
        (Field("perpendicular_field", internal="1x1e", odd=odd),),
        family,
        ("time_reversal",),
        internal="SO3",
        conservative=(("perpendicular_field", "S"),),
        tangent=(("perpendicular_field", "S"),),
    )


def _link_task(group: str) -> Task:
    """Bonds and an energy from gauge links, and forces (U(1) currents, SU(2) vectors)."""
    conjugation = ("charge_conjugation",) if group == "U1" else ()
    forces = {
        "Z2": (),
        "U1": (Field("current", "link", odd=conjugation, oriented=True),),
        "SU2": (Field("force", "link", internal="adjoint", oriented=True),),
    }
    return Task(
        f"square {group} links",
        (Field("U", "link", internal="link", conjugated=conjugation),),
        (Field("bond", "link"), Field("energy_per_site", "global"), *forces[group]),
        "square",
        conjugation,
        gauge=group,
    )


#: What the library's physics has: a force on a field, for every kind of site and field, and what
#: fermions do to gauge links.
TASKS: tuple[Task, ...] = (
    _force_task("square scalar", "square", "A1", ("particle_hole",)),
    _force_task("square Jahn–Teller modes", "square", "2xA1+B1", ("particle_hole",)),
    _force_task("square displacement", "square", "vector"),
    _force_task("triangular scalar", "triangular", "A1"),
    _force_task("triangular displacement", "triangular", "vector"),
    _force_task("honeycomb scalar", "honeycomb", "A1"),
    _force_task("honeycomb displacement", "honeycomb", "vector"),
    _force_task("diamond scalar", "diamond", "A1"),
    _force_task("diamond displacement", "diamond", "vector"),
    _spin_task("square spins", "square"),
    _spin_task("triangular spins", "triangular"),
    *(_link_task(group) for group in ("Z2", "U1", "SU2")),
)


@dataclass(frozen=True)
class Exactness:
    """The largest relative error of equivariance of one network on one task.

    Attributes:
        lattice: Where it was tried.
        elements: Group elements that were tried: all of the finite part, and random ones where
            there are rotations of spins or local gauge transformations.
        errors: Report by ``(type, trained)``, such as ``("float64", False)``.
    """

    lattice: Lattice
    elements: int
    errors: Mapping[tuple[str, bool], EquivarianceReport]


def smallest_lattice(network: ZooModel) -> Lattice:
    """The smallest torus of equal sides that holds a network's neighbourhood."""
    family = network.task.family
    size = 1
    while True:
        lattice = Lattice(family, (size,) * Lattice.dimension(family))
        try:
            lattice.require(network.required_shells)
        except InputError:
            size += 1
        else:
            return lattice


def train_a_little(network: ZooModel, lattice: Lattice, steps: int = 5, seed: int = 0) -> ZooModel:
    """Take some steps of training on random inputs and targets; statistics are set from them.

    Args:
        network: Changed in place; any type.
        lattice: Where.
        steps: Number of steps of Adam.
        seed: Of inputs and targets.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype = next(network.parameters()).dtype
    tables: dict[str, dict[str, Tensor]] = {
        "inputs": random_inputs(network.task, lattice, 2, dtype, generator),
        "targets": {
            field.name: random_values(field, lattice, 2, dtype, generator)
            for field in network.task.targets
        },
    }
    network.set_statistics(
        {
            group: {name: _moments(values) for name, values in table.items()}
            for group, table in tables.items()
        }
    )
    batch: dict[str, Any] = {
        "fields": tables["inputs"],
        "targets": tables["targets"],
        "lattice": lattice,
    }
    network.calibrate([batch])
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=1e-3)
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        network.loss(network(batch["fields"], lattice), batch).backward()
        optimizer.step()
    return network.eval()


def measure(
    name: str,
    task: Task,
    lattice: Lattice | None = None,
    *,
    steps: int = 5,
    batch: int = 1,
    chunk_sites: int = 8192,
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32),
    **options: Any,
) -> Exactness:
    """Try every element of the symmetry group on a network with random and with trained weights.

    Args:
        name: Registry name.
        task: What it shall carry.
        lattice: Where; by default the smallest one that holds it.
        steps: Training steps in between.
        batch: Random configurations.
        chunk_sites: About how many sites go through the network at once.
        dtypes: Real types to compute in.
        **options: Of the network.

    Raises:
        InputError: When the network refuses the task.
    """
    torch.manual_seed(0)
    network = create_model(name, task, **options).double().eval()
    lattice = smallest_lattice(network) if lattice is None else lattice
    trained = train_a_little(deepcopy(network), lattice, steps)
    errors: dict[tuple[str, bool], EquivarianceReport] = {}
    for dtype in dtypes:
        for is_trained, tried in ((False, network), (True, trained)):
            errors[str(dtype).removeprefix("torch."), is_trained] = equivariance_error(
                deepcopy(tried).to(dtype),
                task,
                lattice,
                batch=batch,
                dtype=dtype,
                chunk_sites=chunk_sites,
            )
    some = next(iter(errors.values()))
    return Exactness(lattice, some.elements, errors)


def carried(name: str, **options: Any) -> Iterator[Task]:
    """The tasks of :data:`TASKS` that a network does not refuse."""
    for task in TASKS:
        try:
            create_model(name, task, **options)
        except InputError:
            continue
        yield task


def _moments(values: Tensor) -> dict[str, Tensor]:
    flat = values.reshape(-1, values.shape[-1])
    return {"mean": flat.mean(0), "std": flat.std(0)}
