"""The task that networks on spins serve: unit vectors in, fields perpendicular to them out."""

from __future__ import annotations

from latticezoo.symmetry.neighbourhoods import family_lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.layers.spin_network import degree


def maps_spins(task: Task) -> bool:
    """Whether a task maps one vector a site to one perpendicular to it, under all rotations.

    Input and target change their signs under the same two-element symmetries, so an energy that
    no rotation changes, of scalar products S·S' alone, is even and its derivative has the right
    sign.
    """
    if task.internal != "SO3" or len(task.inputs) > 1 or len(task.targets) > 1:
        return False
    spin, target = task.inputs[0], task.targets[0]
    trivial = family_lattice(task.family).site_group.trivial
    return task.tangent == ((target.name, spin.name),) and all(
        field.support == "site"
        and field.point == trivial
        and degree(field) == 1
        and not field.conjugated
        and set(field.odd) & set(task.flips) == set(spin.odd) & set(task.flips)
        for field in (spin, target)
    )
