"""Standardization of fields that commutes with every symmetry.

Mean and scale come from the training data, but only as much of them as the symmetry allows: a
mean is subtracted only from components that no operation changes, and the components of one
irrep share one scale. So a field that is odd under a symmetry keeps its zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

Moments = Mapping[str, Mapping[str, Any]]


class FieldScaling(nn.Module):
    """Maps values of some fields to numbers of order one, and back.

    Args:
        fields: The fields.
        task: The task they belong to: its lattice family and two-element symmetries.

    Without :meth:`set` it changes nothing.
    """

    def __init__(self, fields: Sequence[Field], task: Task) -> None:
        super().__init__()
        self._fields = {field.name: field for field in fields}
        lattice = Lattice(task.family, (1,) * Lattice.dimension(task.family))
        self._blocks = {f.name: _blocks(f, lattice) for f in fields}
        self._has_mean = {f.name: _invariant(f, task, lattice) for f in fields}
        for field in fields:
            width = sum(self._blocks[field.name])
            self.register_buffer(f"{field.name}_mean", torch.zeros(width))
            self.register_buffer(f"{field.name}_scale", torch.ones(width))

    def mean(self, name: str) -> Tensor:
        """Mean that is subtracted, ``[C]``; one number for links and plaquettes."""
        return self.get_buffer(f"{name}_mean")

    def scale(self, name: str) -> Tensor:
        """Scale that is divided by, ``[C]``; one number for links and plaquettes."""
        return self.get_buffer(f"{name}_scale")

    def set(self, statistics: Moments, common: Sequence[str] = ()) -> None:
        """Take mean and scale from data, as far as the symmetry allows.

        Args:
            statistics: ``{name: {"mean": [C], "std": [C]}}`` in the fields' units.
            common: Fields all of whose components shall share one scale.

        Raises:
            InputError: When a field is missing, or its numbers are not finite or of wrong length.
        """
        for name, blocks in self._blocks.items():
            if name not in statistics:
                raise InputError(f"the statistics lack the field {name!r}.")
            mean, std = (
                _numbers(statistics[name].get(key), sum(blocks), name) for key in ("mean", "std")
            )
            allowed = torch.tensor(self._has_mean[name])
            square = std.square() + torch.where(allowed, 0.0, mean).square()
            sizes = (sum(blocks),) if name in common else blocks
            scale = torch.cat(
                [part.mean().sqrt().expand(len(part)) for part in square.split(sizes)]
            )
            if self._fields[name].is_group_valued:
                scale = torch.ones_like(scale)
            self.mean(name).copy_(torch.where(allowed, mean, 0.0))
            self.scale(name).copy_(torch.where(scale > 0, scale, 1.0))

    def normalize(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(values − mean) / scale for every field."""
        return {
            name: (values[name] - self.mean(name)) / self.scale(name)
            if any(self._has_mean[name])
            else values[name] / self.scale(name)
            for name in self._fields
        }

    def restore(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse: values · scale + mean."""
        return {
            name: values[name] * self.scale(name) + self.mean(name)
            if any(self._has_mean[name])
            else values[name] * self.scale(name)
            for name in self._fields
        }

    def to_dict(self) -> dict[str, dict[str, list[float]]]:
        """Mean and scale of every field as plain numbers."""
        return {
            name: {"mean": self.mean(name).tolist(), "scale": self.scale(name).tolist()}
            for name in self._fields
        }


def _blocks(field: Field, lattice: Lattice) -> tuple[int, ...]:
    """Numbers of components that must share a scale, in the order of the channels."""
    if field.support in ("link", "plaquette"):
        return (1,)
    internal = field.channels(lattice) // field.point_dim(lattice)
    blocks = lattice.site_group.representation(field.point).blocks
    return tuple(dim * internal for multiplicity, _, dim in blocks for _ in range(multiplicity))


def _invariant(field: Field, task: Task, lattice: Lattice) -> tuple[bool, ...]:
    """For each channel, whether no symmetry changes it, so that its mean means something."""
    flipped = set(task.flips) & {*field.odd, *field.conjugated}
    plain = field.internal is None and not flipped and not field.oriented
    if field.support in ("link", "plaquette"):
        return (plain,)
    group = lattice.site_group
    blocks = group.representation(field.point).blocks
    internal = field.channels(lattice) // field.point_dim(lattice)
    return tuple(
        plain and name == group.trivial
        for multiplicity, name, dim in blocks
        for _ in range(multiplicity * dim * internal)
    )


def _numbers(values: Any, width: int, name: str) -> Tensor:
    found = torch.as_tensor([] if values is None else values).detach().cpu()
    if found.is_complex():
        # Only the size of a complex field matters: it never has a mean to subtract.
        found = found.abs()
    found = found.double().reshape(-1)
    if width == 1 and len(found) > 1:  # several link directions share one scale
        found = found.square().mean().sqrt().reshape(1)
    if len(found) != width or not bool(found.isfinite().all()):
        raise InputError(
            f"the statistics of field {name!r} must be {width} finite numbers, "
            f"not {found.tolist()}."
        )
    return found
