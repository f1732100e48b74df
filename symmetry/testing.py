"""Check with one call that a map respects the symmetry of its problem.

``assert_equivariant`` goes through every element of the finite part of the symmetry group
(translations, point operations, particle–hole and the like) and through random elements of the
continuous part (rotations of spins, local gauge transformations), and reports the worst of them.
It takes any callable ``model(fields, lattice) -> dict``, not only networks of this library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from latticezoo.symmetry.elements import Element, SymmetryGroup
from latticezoo.symmetry.fields import Field, transform, value_shape
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

#: Largest relative error that counts as exact, by real number type.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}

Model = Callable[[dict[str, Tensor], Lattice], Mapping[str, Tensor]]


@dataclass(frozen=True)
class EquivarianceReport:
    """What was found.

    Attributes:
        error: Largest deviation over all elements and targets, as a share of the largest
            modulus of that target.
        worst: The element that gave it, in words.
        target: The target field that gave it.
        errors: Largest error of each target.
        elements: How many group elements were tried.
        exhaustive: Whether the group is finite and every element was tried.
        group: The symmetry group in words.
    """

    error: float
    worst: str
    target: str
    errors: dict[str, float]
    elements: int
    exhaustive: bool
    group: str

    def __str__(self) -> str:
        extent = "all" if self.exhaustive else "random elements included,"
        return (
            f"largest relative error {self.error:.2e} in {self.target!r} under {self.worst} "
            f"({extent} {self.elements} elements of {self.group})"
        )


def random_values(
    field: Field,
    lattice: Lattice,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator | None = None,
    gauge: str | None = None,
) -> Tensor:
    """Random values of a field: normal numbers, or Haar-random elements for gauge links.

    Args:
        field: The type.
        lattice: Where.
        batch: How many configurations.
        dtype: Real type; charged and gauge fields get the complex type of that precision.
        generator: Source of randomness.
        gauge: Name of the gauge group, for link fields.

    Returns:
        Values in the field's layout.
    """
    if field.internal == "link":
        from latticezoo.symmetry.internal import internal_group

        if gauge is None:
            raise ValueError(f"link field {field.name!r} needs the name of its gauge group")
        links = (batch, lattice.n_sites, lattice.directions)
        return internal_group(gauge).random(*links, generator=generator, dtype=dtype)
    size = (batch, *value_shape(field, lattice, matrices=gauge == "SU2"))
    charged = (isinstance(field.internal, int) and field.internal != 0 and gauge != "Z2") or (
        field.internal == "fundamental"
    )
    if charged or field.conjugated:
        dtype = {torch.float64: torch.complex128, torch.float32: torch.complex64}[dtype]
    return torch.randn(size, dtype=dtype, generator=generator)


def random_inputs(
    task: Task,
    lattice: Lattice,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Random inputs of a task; unit vectors where a target is perpendicular to them.

    Args:
        task: Whose inputs.
        lattice: Where.
        batch: How many configurations.
        dtype: Real type.
        generator: Source of randomness.

    Returns:
        Values by name, in the layout of their field.
    """
    units = {source for _, source in task.tangent}
    found = {
        field.name: random_values(field, lattice, batch, dtype, generator, task.gauge)
        for field in task.inputs
    }
    return {k: v / v.norm(dim=-1, keepdim=True) if k in units else v for k, v in found.items()}


def equivariance_error(
    model: Model,
    task: Task,
    lattice: Lattice,
    *,
    fields: Mapping[str, Tensor] | None = None,
    batch: int = 2,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    n_random: int = 16,
    group: SymmetryGroup | None = None,
    chunk_sites: int = 65536,
) -> EquivarianceReport:
    """Measure how far a map is from equivariance, element by element.

    For every element g it compares ``model(g · fields)`` with ``g · model(fields)``.

    Args:
        model: ``model(fields, lattice) -> targets``.
        task: Types of inputs and targets, and the symmetry.
        lattice: Where to try it.
        fields: Inputs to try; random ones by default. Give physical ones for a trained model
            whose errors far from its data mean nothing.
        batch: Number of random configurations.
        dtype: Their real type.
        seed: Of the inputs and of the random group elements.
        n_random: Number of random elements of the whole group, when it has a continuous part.
        group: Group to test instead of the task's.
        chunk_sites: About how many sites go through the model at once.

    Returns:
        The report; its ``error`` is relative to the largest modulus of the target.

    Raises:
        InputError: When the lattice does not fit the task.
    """
    generator = torch.Generator().manual_seed(seed)
    group = group or task.symmetry(lattice)
    if fields is None:
        inputs = random_inputs(task, lattice, batch, dtype, generator)
    else:
        inputs = dict(fields)
    links = next((inputs[f.name] for f in task.inputs if f.internal == "link"), None)
    size = next(iter(inputs.values())).shape[0]
    elements: Iterable[Element] = group.finite()
    if not group.is_finite:
        elements = [*group.finite(), *group.sample(n_random, generator, dtype)]

    with torch.no_grad():
        reference = {name: values.detach() for name, values in model(inputs, lattice).items()}
    errors = dict.fromkeys([field.name for field in task.targets], 0.0)
    worst, worst_error, worst_target, count = "the identity", -1.0, task.targets[0].name, 0
    iterator = iter(elements)
    per_call = max(1, chunk_sites // (size * lattice.n_sites))
    while chunk := list(islice(iterator, per_call)):
        count += len(chunk)
        outputs = _evaluate(model, task, inputs, lattice, chunk, links)
        for field in task.targets:
            scale = max(float(reference[field.name].abs().max()), torch.finfo(dtype).tiny)
            for position, element in enumerate(chunk):
                found = outputs[field.name][position * size : (position + 1) * size]
                expected = transform(field, reference[field.name], element, links)
                error = float((found - expected).abs().max()) / scale
                if not error <= errors[field.name]:  # NaN counts as the worst
                    errors[field.name] = error
                if not error <= worst_error:
                    worst, worst_error, worst_target = str(element), error, field.name
    return EquivarianceReport(
        worst_error, worst, worst_target, errors, count, group.is_finite, str(group)
    )


def _evaluate(
    model: Model,
    task: Task,
    inputs: Mapping[str, Tensor],
    lattice: Lattice,
    elements: Sequence[Element],
    links: Tensor | None,
) -> Mapping[str, Tensor]:
    moved = {
        field.name: torch.cat([transform(field, inputs[field.name], g, links) for g in elements])
        for field in task.inputs
    }
    with torch.no_grad():
        return {name: values.detach() for name, values in model(moved, lattice).items()}


def assert_equivariant(
    model: Model,
    task: Task,
    lattice: Lattice,
    *,
    tolerance: float | None = None,
    dtype: torch.dtype = torch.float64,
    **options,
) -> EquivarianceReport:
    """Fail unless a map respects the full symmetry of its task.

    Args:
        model: ``model(fields, lattice) -> targets``.
        task: Types of inputs and targets, and the symmetry.
        lattice: Where to try it.
        tolerance: Largest relative error; 1e-10 in float64 and 1e-5 in float32 by default.
        dtype: Real type of the inputs.
        **options: As in :func:`equivariance_error`.

    Returns:
        The report.

    Raises:
        AssertionError: With the worst element and its error.
    """
    report = equivariance_error(model, task, lattice, dtype=dtype, **options)
    limit = TOLERANCES[dtype] if tolerance is None else tolerance
    if not report.error <= limit:
        raise AssertionError(f"not equivariant within {limit:.0e}: {report}")
    return report
