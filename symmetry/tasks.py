"""What a network shall learn: the types of its inputs and targets, and the symmetry of the map."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field, check_layout
from latticezoo.symmetry.lattices import Lattice


@dataclass(frozen=True)
class Conservation:
    r"""A fixed number of particles, by which a target depends on all sites at once.

    At fixed chemical potential the target f at a site depends on its surroundings alone. At a fixed
    number of particles N it does not: the potential μ is whatever gives N. But μ shifts every
    on-site energy alike, and where these are linear in an input Q that is a uniform shift of it:

    .. math::
        f_N(Q) = f_0(Q + \delta) + a\, \delta, \qquad
        \frac1N \sum_i \big[ f_0(Q + \delta)_i + a\,(Q_i + \delta) \big] = b

    with f_0 the local function at μ = 0, a the ``slope`` and b the ``mean``. A network that learns
    f_0, and takes δ from the second equation, is local where the physics is, and has the right
    number of particles.

    Attributes:
        target: Name of the target, whose component ``target_channel`` is meant.
        input: Name of the input that is shifted, in its component ``input_channel``.
        mean: b, the fixed mean over the sites.
        slope: a, zero where the target is the density itself.
        per_potential: δ/μ, in units of the input by energy.
        compressibility: A rough size of ∂b/∂μ, for the first step of the solution.
    """

    target: str
    input: str
    mean: float
    per_potential: float
    slope: float = 0.0
    compressibility: float = 0.1
    target_channel: int = 0
    input_channel: int = 0


@dataclass(frozen=True)
class Task:
    """A map from fields to fields on a family of lattices, with its symmetry.

    A dataset states its task, a model is built from one.

    Attributes:
        name: Such as ``holstein_square``.
        inputs: Fields that go in.
        targets: Fields that come out.
        family: Lattice family.
        flips: Two-element symmetries of the map, such as ``("particle_hole",)``. Each field says
            itself whether it is odd under them.
        internal: Global internal group (``"SO3"``), or None.
        gauge: Local gauge group (``"Z2"``, ``"U1"``, ``"SU2"``), or None.
        conservative: Pairs (target, input) for which the target is minus the derivative of one
            energy with respect to the input.
        tangent: Pairs (target, input) for which the target is perpendicular to the input, a field
            of unit vectors, at every site: a derivative on the sphere. Both have internal type
            ``"1x1e"``.
        conserved: The fixed number of particles, or None. It is no part of what makes two tasks
            equal: it says how the targets came about.

    Raises:
        InputError: For an unknown lattice family, no input or target, a name used twice, or a
            conservative pair that names no field.
    """

    name: str
    inputs: tuple[Field, ...]
    targets: tuple[Field, ...]
    family: str
    flips: tuple[str, ...] = ()
    internal: str | None = None
    gauge: str | None = None
    conservative: tuple[tuple[str, str], ...] = ()
    tangent: tuple[tuple[str, str], ...] = ()
    conserved: Conservation | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        for attribute in ("inputs", "targets", "flips"):
            object.__setattr__(self, attribute, tuple(getattr(self, attribute)))
        for attribute in ("conservative", "tangent"):
            pairs = tuple((target, source) for target, source in getattr(self, attribute))
            object.__setattr__(self, attribute, pairs)
        Lattice.dimension(self.family)  # raises for an unknown family
        if not self.inputs or not self.targets:
            raise InputError(f"task {self.name!r} needs at least one input and one target field.")
        for kind, fields in (("input", self.inputs), ("target", self.targets)):
            names = [field.name for field in fields]
            if len(set(names)) < len(names):
                raise InputError(f"task {self.name!r} names an {kind} field twice: {names}.")
        for target, source in (*self.conservative, *self.tangent):
            self.target(target)
            self.input(source)
        if self.conserved is not None:
            self.target(self.conserved.target)
            self.input(self.conserved.input)

    def input(self, name: str) -> Field:
        """The input field of that name."""
        return _find("input field", name, self.inputs)

    def target(self, name: str) -> Field:
        """The target field of that name."""
        return _find("target field", name, self.targets)

    def symmetry(self, lattice: Lattice) -> SymmetryGroup:
        """The full symmetry group of the map on one torus.

        Raises:
            InputError: When the lattice is of another family.
        """
        self._check_family(lattice)
        return SymmetryGroup(lattice, self.flips, self.internal, self.gauge)

    def check(self, fields: Mapping[str, Tensor], lattice: Lattice) -> None:
        """Check the inputs: every field there, of the right shape, and finite.

        Raises:
            InputError: Naming the field and what is wrong with it.
        """
        self._check_family(lattice)
        for field in self.inputs:
            if field.name not in fields:
                given = ", ".join(sorted(fields)) or "none"
                raise InputError(f"input field {field.name!r} is missing; given: {given}.")
            values = fields[field.name]
            check_layout(field, values, lattice)
            if not bool(values.isfinite().all()):
                count = int((~values.isfinite()).sum())
                raise InputError(
                    f"input field {field.name!r} holds {count} NaN or infinite values; "
                    "only finite ones are accepted."
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        special: dict[str, Any] = {}
        if self.tangent:
            special["tangent"] = [list(pair) for pair in self.tangent]
        if self.conserved is not None:
            special["conserved"] = dataclasses.asdict(self.conserved)
        return {
            "name": self.name,
            "inputs": [field.to_dict() for field in self.inputs],
            "targets": [field.to_dict() for field in self.targets],
            "family": self.family,
            "flips": list(self.flips),
            "internal": self.internal,
            "gauge": self.gauge,
            "conservative": [list(pair) for pair in self.conservative],
            **special,
        }

    @classmethod
    def from_dict(cls, values: Task | Mapping[str, Any]) -> Task:
        """Inverse of :meth:`to_dict`; a task is passed through."""
        if isinstance(values, Task):
            return values
        plain = dict(values)
        plain["inputs"] = tuple(Field.from_dict(field) for field in plain["inputs"])
        plain["targets"] = tuple(Field.from_dict(field) for field in plain["targets"])
        if plain.get("conserved") is not None:
            plain["conserved"] = Conservation(**plain["conserved"])
        return cls(**plain)

    def _check_family(self, lattice: Lattice) -> None:
        if lattice.family != self.family:
            raise InputError(f"task {self.name!r} lives on {self.family} lattices, not {lattice}.")


def _find(kind: str, name: str, fields: tuple[Field, ...]) -> Field:
    for field in fields:
        if field.name == name:
            return field
    raise unknown(kind, name, [field.name for field in fields])
