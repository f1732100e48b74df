"""The lattice of a recipe, and the task of an adiabatic model on it."""

from __future__ import annotations

from dataclasses import replace

from latticezoo.simulate.systems.adiabatic import AdiabaticSystem
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task


def parse_lattice(given: int | str | Lattice, family: str) -> Lattice:
    """A lattice of a family from one size, sizes such as ``"12,16"``, or a lattice's text.

    Raises:
        InputError: It is none, or of another family.
    """
    if isinstance(given, bool) or not isinstance(given, int | str | Lattice):
        raise InputError(f"lattice is {given!r}; give a size, or text such as '{family}(12)'.")
    text = str(given).strip()
    sizes = text.replace("x", ",") if text[:1].isdigit() else ""
    if isinstance(given, int) and given < 1:
        raise InputError(f"the lattice size is {given}; it must be at least 1.")
    lattice = Lattice.parse(f"{family}({sizes})" if sizes else text)
    if lattice.family != family:
        raise InputError(f"lattice is {lattice}, but the recipe is for the {family} lattice.")
    return lattice


def torus_task(
    system: AdiabaticSystem, lattice: Lattice, target: str, odd_symmetry: bool = True
) -> Task:
    """The task of a system on one lattice.

    Args:
        system: The parameters.
        lattice: The lattice.
        target: One of the system's targets.
        odd_symmetry: State the particle–hole symmetry F(−Q) = −F(Q) where it holds: at half
            filling on even sides.

    Raises:
        InputError: For an unknown target.
    """
    task = system.task(lattice.family, target)
    if odd_symmetry and not any(size % 2 for size in lattice.shape):
        return task
    return replace(
        task,
        flips=(),
        inputs=tuple(replace(field, odd=()) for field in task.inputs),
        targets=tuple(replace(field, odd=()) for field in task.targets),
    )
