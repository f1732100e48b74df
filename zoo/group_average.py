"""Make any map exactly symmetric by averaging it over a finite group."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain, combinations
from typing import Any

import torch
from torch import Tensor, nn

from latticezoo.symmetry.elements import Element
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field, transform
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.point_groups import point_group
from latticezoo.symmetry.tasks import Task

Model = Callable[[dict[str, Tensor], Lattice], Mapping[str, Tensor]]


def symmetrize(
    model: Model,
    group: str | FiniteGroup | None = None,
    *,
    task: Task | None = None,
    flips: tuple[str, ...] | None = None,
) -> GroupAverage:
    """Average a map over point operations and two-element symmetries.

    Args:
        model: ``model(fields, lattice) -> targets``: a network of the zoo or any other callable.
        group: Point group, by name (``"D4"``, ``"C4"``) or as such; by default everything that
            maps the lattice onto itself.
        task: Types of inputs and targets; that of the model by default.
        flips: Two-element symmetries to average over; all of the task by default.

    Returns:
        The averaged map, a module where the model is one.

    Raises:
        InputError: When the model brings no task and none is given, or a name is not known.

    Example:
        >>> exact = symmetrize(network, "D4")  # doctest: +SKIP
        >>> exact(fields, lattice)  # doctest: +SKIP
    """
    return GroupAverage(model, group, task=task, flips=flips)


class GroupAverage(nn.Module):
    r"""A map averaged over a finite group G (the Reynolds operator).

    .. math::
        \bar f(x) = \frac{1}{|G|} \sum_{g \in G} g^{-1} f(g\, x)

    It is exactly equivariant under G whatever f is, and equals f where f was equivariant already.
    Point operations turn about the first site; with them a map that commutes with translations
    (a convolution, a perceptron on a neighbourhood) commutes with the whole space group. It costs
    \|G\| evaluations, which go through the map in one batch. On a torus of unequal sides only the
    operations that map it onto itself are taken.

    Args:
        model: The map.
        group: Point group; see :func:`symmetrize`.
        task: Types of inputs and targets.
        flips: Two-element symmetries.
    """

    def __init__(
        self,
        model: Model,
        group: str | FiniteGroup | None = None,
        *,
        task: Task | None = None,
        flips: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        task = task or getattr(model, "task", None)
        if not isinstance(task, Task):
            raise InputError("a map without a task of its own needs one to be averaged.")
        self.model, self.task = model, task
        chosen = task.flips if flips is None else tuple(flips)
        for name in chosen:
            if name not in task.flips:
                raise unknown(f"two-element symmetry of {task.name}", name, task.flips)
        self.flips = chosen
        self.group = point_group(group) if isinstance(group, str) else group
        self.operations(_smallest(task.family))  # raises for a group that is not the lattice's

    def operations(self, lattice: Lattice) -> tuple[int, ...]:
        """Point operations that are averaged over on a lattice, by their number in its group.

        Raises:
            InputError: When an element of the group is no operation of the lattice.
        """
        if self.group is None:
            return lattice.operations
        whole = lattice.point_group
        if self.group.dim != whole.dim:
            raise InputError(
                f"{self.group.name} acts in {self.group.dim} dimensions, {lattice} in {whole.dim}."
            )
        found = tuple(whole.index(matrix) for matrix in self.group.matrices)
        return tuple(point for point in found if point in lattice.operations)

    def elements(self, lattice: Lattice) -> tuple[Element, ...]:
        """All group elements on a lattice, the identity first."""
        sizes = range(len(self.flips) + 1)
        subsets = list(chain.from_iterable(combinations(self.flips, size) for size in sizes))
        return tuple(
            Element(lattice, point, None, frozenset(chosen))
            for chosen in subsets
            for point in self.operations(lattice)
        )

    def forward(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """The averaged targets.

        Args:
            fields: Inputs by name.
            lattice: Where they live.
        """
        elements = self.elements(lattice)
        found = self.model(self._images(fields, elements), lattice)
        result = {}
        for field in self.task.targets:
            parts = found[field.name].chunk(len(elements))
            turned = [_undo(field, part, g) for part, g in zip(parts, elements, strict=True)]
            result[field.name] = torch.stack(turned).mean(0)
        return result

    def forces(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Averaged forces without gradients, by the name of the input they belong to.

        Raises:
            InputError: When no target of the task is a force.
        """
        if not self.task.conservative:
            raise InputError(f"no target of the task {self.task.name!r} is a force.")
        with torch.no_grad():
            found = self(fields, lattice)
        return {source: found[target].detach() for target, source in self.task.conservative}

    def __getattr__(self, name: str) -> Any:
        # An averaged map has an energy where the map has one.
        if name == "energy" and hasattr(self.model, "energy"):
            return self._energy
        return super().__getattr__(name)

    def _energy(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        """Averaged energies ``[batch]``, of which the averaged targets are minus the gradient."""
        elements = self.elements(lattice)
        found = self.model.energy(self._images(fields, elements), lattice)  # type: ignore[attr-defined]
        return found.view(len(elements), -1).mean(0)

    def _images(
        self, fields: Mapping[str, Tensor], elements: tuple[Element, ...]
    ) -> dict[str, Tensor]:
        return {
            field.name: torch.cat([transform(field, fields[field.name], g) for g in elements])
            for field in self.task.inputs
        }


def _smallest(family: str) -> Lattice:
    return Lattice(family, (1,) * Lattice.dimension(family))


def _undo(field: Field, values: Tensor, element: Element) -> Tensor:
    """Act with the inverse of an element that has no translation."""
    lattice = element.lattice
    inverse = int(lattice.point_group.inverse[element.point])
    values = transform(field, values, Element(lattice, inverse, None, element.flips))
    if field.support == "global":
        return values
    rest = _leftover(lattice, element.point, inverse)
    return values if rest is None else values.index_select(1, rest.to(values.device))


@lru_cache(maxsize=512)
def _leftover(lattice: Lattice, point: int, inverse: int) -> Tensor | None:
    """The translation that is left of an operation followed by that of the inverse matrix.

    Operations that exchange the sublattices of honeycomb or diamond come with a shift, and so do
    their inverses, but not with the opposite one.

    Returns:
        ``[sites]``: site ``i`` has gone to ``result[i]``; None where it is back.
    """
    composed = lattice.permutation(inverse)[lattice.permutation(point)]
    back = torch.equal(composed, torch.arange(lattice.n_sites))
    return None if back else composed
