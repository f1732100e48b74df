"""Several scalar site fields as the channels of one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice

if TYPE_CHECKING:
    from latticezoo.zoo.base import ZooModel


def check_scalar(model: ZooModel, field: Field) -> None:
    """Refuse a field that is not real, invariant under the site group and on the sites.

    Raises:
        InputError: In the name of the model.
    """
    group = model._family.site_group
    names = {name for _, name, _ in group.representation(field.point).blocks}
    if field.support != "site":
        what = f"lives on the {field.support} support"
    elif names != {group.trivial}:
        what = f"has point type {field.point!r}"
    elif field.internal is not None or field.conjugated:
        what = f"has internal type {field.internal!r}"
    else:
        return
    raise model.refuse(f"it carries real scalar site fields only, but {field.name!r} {what}.")


def scalar_channels(model: ZooModel, fields: Sequence[Field]) -> int:
    """Number of channels of some scalar site fields together.

    Raises:
        InputError: In the name of the model, when one of them is not a scalar site field.
    """
    for field in fields:
        check_scalar(model, field)
    return sum(field.channels(model._family) for field in fields)


def join_scalars(values: Mapping[str, Tensor], fields: Sequence[Field]) -> Tensor:
    """Channels of all fields side by side, ``[batch, sites, C]``."""
    if len(fields) == 1:
        return values[fields[0].name]
    return torch.cat([values[field.name] for field in fields], dim=-1)


def split_scalars(values: Tensor, fields: Sequence[Field], lattice: Lattice) -> dict[str, Tensor]:
    """The inverse of :func:`join_scalars`."""
    widths = [field.channels(lattice) for field in fields]
    parts = values.split(widths, dim=-1)
    return {field.name: part for field, part in zip(fields, parts, strict=True)}
