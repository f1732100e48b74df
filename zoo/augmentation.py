"""Examples turned at random, for networks that learn the symmetry of their task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from latticezoo.symmetry.fields import transform
from latticezoo.symmetry.tasks import Task


def turned(batch: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """A batch with every sample turned by a random element of the task's group.

    Inputs and targets of a sample are turned alike. Elements are drawn by torch's own random number
    generator: point operations, translations and flips uniformly, rotations of spins and local
    gauge transformations by the Haar measure.

    Args:
        batch: ``fields``, ``targets`` and ``lattice``; whatever else it holds is kept.
        task: Types of the fields, and the group.
    """
    lattice, fields = batch["lattice"], batch["fields"]
    size = len(fields[task.inputs[0].name])
    elements = list(task.symmetry(lattice).sample(size))
    links = next((fields[field.name] for field in task.inputs if field.internal == "link"), None)
    found = dict(batch)
    for key, entries in (("fields", task.inputs), ("targets", task.targets)):
        found[key] = dict(batch[key])
        for field in entries:
            values = batch[key][field.name]
            found[key][field.name] = torch.cat(
                [
                    transform(
                        field,
                        values[i : i + 1],
                        element,
                        None if links is None else links[i : i + 1],
                    ).to(values)
                    for i, element in enumerate(elements)
                ]
            )
    return found
