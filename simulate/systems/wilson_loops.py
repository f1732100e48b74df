"""Traced Wilson loops of gauge links: what a network can be asked to see without any fermions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from latticezoo.simulate.forcefield import Fields, System
from latticezoo.simulate.systems.gauge_fermions import GaugeFermions, double
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.gauge import trace, wilson_line
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task


@dataclass(frozen=True)
class WilsonLoops(System):
    r"""The pure gauge theory E = Σ_p (1 − Re Tr W_p/d), with rectangular loops as labels.

    Label ``loop_mxn``, m < n, ``[B, N, 1]``: the mean of Re Tr W/d over the eight m × n loops that
    have a corner at the site, so that rotations and reflections about the site leave it as it is.
    Label ``loop_n``: the same of the four n × n loops.

    Learned together, each rectangle is one product away from a smaller one that a network has
    already, while no loop of random links says anything of a larger one: between squares alone
    there are several products without a label on the way.

    Attributes:
        group: ``Z2``, ``U1`` or ``SU2``.
        largest: Labels are made for n = 1 to this.

    Raises:
        InputError: For parameters outside their range.
    """

    group: str
    largest: int = 4

    name: ClassVar[str] = "wilson_loops"
    families: ClassVar[tuple[str, ...]] = ("square",)
    fields: ClassVar[tuple[Field, ...]] = GaugeFermions.fields
    batch_invariant: ClassVar[bool] = True
    energy_unit: ClassVar[str] = "the plaquette coupling"

    def __post_init__(self) -> None:
        if isinstance(self.largest, bool) or not isinstance(self.largest, int) or self.largest < 1:
            raise InputError(f"largest is {self.largest!r}; it must be a whole number from 1.")
        self._gauge  # noqa: B018  raises for an unknown group

    @property
    def _gauge(self) -> GaugeFermions:
        """The same theory as fermions that do not hop."""
        return GaugeFermions(self.group, t=0.0, kappa=1.0)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the labels that a task can have."""
        return tuple(_name(*sides) for sides in self._sides)

    @property
    def _sides(self) -> list[tuple[int, int]]:
        sizes = range(1, self.largest + 1)
        return [(m, n) for n in sizes for m in sizes[:n]]

    @property
    def masses(self) -> dict[str, float]:
        """Links have no inertia of their own."""
        return {}

    def energy(self, fields: Fields, lattice: Lattice) -> Tensor:
        """Σ (1 − Re Tr W/d), ``[B]`` float64."""
        return self._gauge.energy(fields, lattice)

    def forces(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """As :meth:`GaugeFermions.forces`."""
        return self._gauge.forces(fields, lattice)

    def labels(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """All loops ``[B, N, 1]`` and ``energy`` ``[B]``, float64."""
        energy = self.energy(fields, lattice)
        links = double(fields["U"])
        size = self._gauge.colours
        labels = {}
        for m, n in self._sides:
            corners: list[Tensor] = []
            for x, y in ((1, 2), (2, -1), (-1, -2), (-2, 1)):
                for a, b in {(m, n), (n, m)}:
                    path = (x,) * a + (y,) * b + (-x,) * a + (-y,) * b
                    corners.append(trace(wilson_line(links, lattice, path)).real / size)
            labels[_name(m, n)] = torch.stack(corners).mean(0)[..., None]
        return {**labels, "energy": energy}

    def observables(self, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Mean of each label, ``[B]``, and the energy."""
        return {
            name: values if name == "energy" else values.mean((1, 2))
            for name, values in self.labels(fields, lattice).items()
        }

    def task(self, family: str = "square", target: str = "loop_1") -> Task:
        """The map from links to traced loops.

        Args:
            family: ``square``.
            target: A label, or several with commas between.

        Raises:
            InputError: For an unknown target or family.
        """
        names = tuple(name.strip() for name in target.split(","))
        for name in names:
            if name not in self.targets:
                raise unknown("target of Wilson loops", name, self.targets)
        if family not in self.families:
            raise unknown("lattice of Wilson loops", family, self.families)
        links = self._gauge.task(family)
        return Task(
            f"{self.group.lower()}_loops_{family}",
            inputs=links.inputs,
            targets=tuple(Field(name) for name in names),
            family=family,
            flips=links.flips,
            gauge=self.group,
        )

    def label_types(self) -> dict[str, Field]:
        """The type of every label."""
        return {name: Field(name) for name in self.targets}

    def assemble(self, predictions: Fields, fields: Fields, lattice: Lattice) -> dict[str, Tensor]:
        """Forces are known exactly; predictions of loops add nothing."""
        return self.forces(fields, lattice)


def _name(m: int, n: int) -> str:
    return f"loop_{n}" if m == n else f"loop_{m}x{n}"
