"""From site fields of any type to features of irreps, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import (
    ExactBuffers,
    family_lattice,
    in_frames,
)
from latticezoo.symmetry.projections import projection
from latticezoo.symmetry.stencils import stencil_basis
from latticezoo.zoo.layers.irrep_linear import IrrepLinear
from latticezoo.zoo.layers.irreps import Features, field_layout, parity_of
from latticezoo.zoo.layers.neighbourhood_product import neighbour_columns

if TYPE_CHECKING:
    from latticezoo.zoo.base import ZooModel


def check_site_field(model: ZooModel, field: Field, *, turning: bool = False) -> None:
    """Refuse a field that is not real and on the sites, or has an internal type.

    Args:
        model: In whose name.
        field: An input or target.
        turning: Whether an irrep of SO(3) is served.

    Raises:
        InputError: In the name of the model.
    """
    if field.support != "site":
        what = f"lives on the {field.support} support"
    elif field.conjugated or (field.internal is not None and not turning):
        what = f"has internal type {field.internal!r}"
    else:
        return
    raise model.refuse(
        f"it carries real site fields without internal type, but {field.name!r} {what}."
    )


class FieldGroup(nn.Module):
    """Fields of one parity side by side."""

    def __init__(self, family: str, fields: Sequence[Field]) -> None:
        super().__init__()
        self.names = [field.name for field in fields]
        self.spec = "+".join(field.point for field in fields)
        lattice = family_lattice(family)
        self.widths = [field.point_dim(lattice) for field in fields]
        self.blocks = lattice.site_group.representation(self.spec).blocks

    def join(self, values: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        """Values in the frame of each sublattice, ``[batch, sites, C]``."""
        found = [values[name] for name in self.names]
        joined = found[0] if len(found) == 1 else torch.cat(found, dim=-1)
        return in_frames(joined, lattice, self.blocks)

    def split(self, values: Tensor, lattice: Lattice) -> dict[str, Tensor]:
        """The inverse of :meth:`join`."""
        parts = in_frames(values, lattice, self.blocks).split(self.widths, dim=-1)
        return dict(zip(self.names, parts, strict=True))


def fields_by_parity(
    family: str, fields: Sequence[Field], flips: Sequence[str]
) -> dict[int, FieldGroup]:
    """Site fields by the symmetries under which they are odd; bit k stands for flip k."""
    parities = sorted({parity_of(field, flips) for field in fields})
    return {
        p: FieldGroup(family, [f for f in fields if parity_of(f, flips) == p]) for p in parities
    }


class Embedding(nn.Module):
    """Equivariant linear map from fields to features of all parities, over several shells.

    Args:
        fields: Site fields.
        features: Type of the features, for every parity.
        flips: Names of the two-element symmetries.
        shells: Number of shells around the site.

    Shapes:
        - output ``[batch, sites, C]`` for every parity, or ``[1, 1, C]`` for those that no field
          has: constants, the same everywhere
    """

    def __init__(
        self, fields: Sequence[Field], features: Features, flips: Sequence[str], shells: int
    ) -> None:
        super().__init__()
        self.parities = 2 ** len(flips)
        self._groups = fields_by_parity(features.family, fields, flips)
        self.maps = nn.ModuleDict()
        for parity, group in self._groups.items():
            layout = field_layout(features.family, group.spec)
            self.maps[str(parity)] = IrrepLinear(layout, features.layout, shells)
        # A constant is invariant and even: one number for every trivial copy.
        trivial = features.group.trivial
        self.bias: nn.Parameter | None = None
        if trivial in features.copies:
            self.bias = nn.Parameter(torch.zeros(features.copies[trivial]))
            channels = torch.from_numpy(features.channels_of((trivial, 0)))
            self.register_buffer("_place", channels, persistent=False)
        self._channels = features.channels

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return _radius(self.maps)

    def forward(self, values: Mapping[str, Tensor], lattice: Lattice) -> list[Tensor]:
        """Features of fields."""
        parts = []
        reference = next(iter(values.values()))
        for parity in range(self.parities):
            if parity in self._groups:
                joined = self._groups[parity].join(values, lattice)
                part = self.maps[str(parity)]([joined], lattice)[0]
            else:
                part = reference.new_zeros(1, 1, self._channels)
            if parity == 0 and self.bias is not None:
                place = self.get_buffer("_place")
                offset = torch.zeros_like(part[0, 0]).index_copy(0, place, self.bias)
                part = part + offset
            parts.append(part)
        return parts


class Readout(nn.Module):
    """Equivariant linear map from features of all parities to fields.

    Args:
        features: Type of the features, for every parity.
        fields: Site fields.
        flips: Names of the two-element symmetries.
        shells: Number of shells around the site.

    Attributes:
        parities: Parities that the fields have, rising.
    """

    def __init__(
        self, features: Features, fields: Sequence[Field], flips: Sequence[str], shells: int
    ) -> None:
        super().__init__()
        self._groups = fields_by_parity(features.family, fields, flips)
        self.parities = tuple(self._groups)
        self.maps = nn.ModuleDict()
        for parity, group in self._groups.items():
            layout = field_layout(features.family, group.spec)
            self.maps[str(parity)] = IrrepLinear(features.layout, layout, shells)

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return _radius(self.maps)

    def forward(self, values: Sequence[Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Fields of features ``[batch, sites, C]``, one tensor for each of :attr:`parities`."""
        result: dict[str, Tensor] = {}
        for number, (parity, group) in enumerate(self._groups.items()):
            found = self.maps[str(parity)](values[number : number + 1], lattice)[0]
            result |= group.split(found, lattice)
        return result


def unreachable(family: str, into: str, out: str, shells: int) -> str | None:
    """Name of the first block of ``out`` to which no linear map leads from ``into``, or None."""
    for _, name, _ in family_lattice(family).site_group.representation(out).blocks:
        if not len(stencil_basis(family, shells, into, name)):
            return name
    return None


class NeighbourhoodIrreps(ExactBuffers):
    """The irreps of fields on a neighbourhood, by a fixed orthogonal transformation.

    Args:
        family: Lattice family.
        fields: Site fields.
        shells: Number of shells around the site.

    Attributes:
        copies: Copies of each irrep.
        scale: Largest modulus of each irrep over the data, by which it is divided; the components
            of an irrep share it.
    """

    scale: Tensor
    _matrix: Tensor

    def __init__(self, family: str, fields: Sequence[Field], shells: int) -> None:
        super().__init__()
        self.group = FieldGroup(family, fields)
        found = projection(family, shells, self.group.spec)
        self.shells: tuple[Shell, ...] = found.shells
        self.copies = found.multiplicities
        self._dims = {irrep.name: irrep.dim for irrep in found.irreps}
        self.register_constant("_matrix", found.matrix)
        self.register_buffer("scale", torch.ones(len(self.copies)))

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return max(shell.radius for shell in self.shells)

    def columns(self, values: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        """Values on the neighbourhood of every site, ``[batch · sites, L · M]``."""
        return neighbour_columns(self.group.join(values, lattice), lattice, self.shells)

    def coefficients(self, columns: Tensor) -> dict[str, Tensor]:
        """Irreps before scaling, ``[copies, dim, S]`` each."""
        rows = self._matrix @ columns.t()
        parts = rows.split([n * self._dims[name] for name, n in self.copies.items()])
        return {
            name: part.view(n, self._dims[name], -1)
            for (name, n), part in zip(self.copies.items(), parts, strict=True)
        }

    def forward(self, columns: Tensor) -> dict[str, Tensor]:
        """Scaled irreps of values on neighbourhoods, ``[copies, dim, S]`` each."""
        found = self.coefficients(columns)
        return {name: part / s for (name, part), s in zip(found.items(), self.scale, strict=True)}


class IrrepsToFields(ExactBuffers):
    """Put irreps together to fields, by a fixed orthogonal transformation.

    Args:
        family: Lattice family.
        fields: Site fields.

    Attributes:
        copies: Copies of each irrep that are needed.
    """

    _matrix: Tensor

    def __init__(self, family: str, fields: Sequence[Field]) -> None:
        super().__init__()
        self.group = FieldGroup(family, fields)
        group = family_lattice(family).site_group
        self.copies = group.decompose(self.group.spec)
        self.register_constant("_matrix", _assembly(group, self.group.spec, self.copies))

    def forward(self, values: Mapping[str, Tensor], shape: tuple[int, ...], lattice: Lattice):
        """Fields ``[batch, sites, C]`` of irreps ``[copies, dim, S]``, ``shape`` = batch, sites."""
        rows = torch.cat([values[name].flatten(0, 1) for name in self.copies])
        return self.group.split((self._matrix @ rows).t().reshape(*shape, -1), lattice)


def _assembly(group: FiniteGroup, spec: str, copies: Mapping[str, int]) -> np.ndarray:
    """Matrix from irreps, copy by copy, to a representation, ``[dim, dim]``, orthogonal."""
    starts, start = {}, 0
    for name, number in copies.items():
        starts[name] = start
        start += number * group.irreps[name].dim
    result, row = np.zeros((start, start)), 0
    for number, block, dim in group.representation(spec).blocks:
        for _ in range(number):
            for name, count in group.decompose(block).items():
                size = group.irreps[name].dim
                maps = group.intertwiners(name, block)[:: group.irreps[name].commutant_dim]
                for k in range(count):
                    column = starts[name]
                    result[row : row + dim, column : column + size] = maps[k] * np.sqrt(size)
                    starts[name] += size
            row += dim
    return result


def _radius(maps: nn.ModuleDict) -> float:
    return max(m.radius for m in maps.values() if isinstance(m, IrrepLinear))
