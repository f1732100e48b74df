"""What lives where on a lattice, and how it transforms.

A :class:`Field` is the type of a tensor. :func:`transform` applies one element of a symmetry group
to values of that type; every claim of equivariance in the library is tested through it.

Layouts (``C`` channels run over the point-group components first, then the internal components):

========== =======================================================================
support    values
========== =======================================================================
site       ``[batch, sites, C]``
link       ``[batch, sites, directions, …]``, from the site in the positive direction
plaquette  ``[batch, sites, …]``, from the plaquette's lower left site
global     ``[batch, C]``
========== =======================================================================

Here ``…`` stands for the internal components of links and plaquettes: nothing for numbers and
Abelian gauge groups, ``2, 2`` for SU(2) matrices (also for loops that start at a site), ``3`` for
the adjoint components of an electric field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.lattices import Lattice

if TYPE_CHECKING:
    from latticezoo.symmetry.elements import Element

SUPPORTS = ("site", "link", "plaquette", "global")
GAUGE_KINDS = ("fundamental", "adjoint", "link", "loop")
_CARTESIAN = ("vector", "pseudovector")


@dataclass(frozen=True)
class Field:
    """The type of a tensor: where it lives and how it transforms.

    Attributes:
        name: Name under which models and solvers pass it.
        support: ``site``, ``link``, ``plaquette`` or ``global``.
        point: Representation of the point group about its place: a direct sum such as
            ``"2xA1+B1"`` of irreps of the lattice's site group, or ``"vector"`` and
            ``"pseudovector"`` for Cartesian components. Irreps are stored in the frame of the
            site's sublattice (:attr:`Lattice.frames`), Cartesian components in the global frame.
        internal: Type under the internal or gauge group: None for a scalar, an e3nn irreps string
            for SO(3) (``"1x1e"``), a whole charge for U(1) and Z2, or ``"fundamental"``,
            ``"adjoint"``, ``"link"``, ``"loop"`` for a gauge group.
        odd: Names of the two-element symmetries that change its sign, such as ``particle_hole``
            or ``time_reversal``.
        conjugated: Names of those that take its complex conjugate, such as
            ``charge_conjugation``.
        oriented: Whether a link or plaquette value changes sign when it is traversed backwards
            (a current does, a bond energy does not). Group-valued links and loops go to their
            adjoint instead.

    Raises:
        InputError: For an unknown support, or a point type where only scalars are served.
    """

    name: str
    support: str = "site"
    point: str = "A1"
    internal: str | int | None = None
    odd: tuple[str, ...] = ()
    conjugated: tuple[str, ...] = ()
    oriented: bool = False

    def __post_init__(self) -> None:
        if self.support not in SUPPORTS:
            raise unknown("field support", self.support, SUPPORTS)
        if self.support in ("link", "plaquette") and self.point != "A1":
            raise InputError(
                f"field {self.name!r} on {self.support}s has point type {self.point!r}, "
                "but only 'A1' is served there."
            )
        object.__setattr__(self, "odd", tuple(self.odd))
        object.__setattr__(self, "conjugated", tuple(self.conjugated))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Field:
        """Inverse of :meth:`to_dict`."""
        return cls(**values)

    @property
    def is_group_valued(self) -> bool:
        """Whether values are group elements that go to their adjoint when traversed backwards."""
        return self.internal in ("link", "loop")

    def point_dim(self, lattice: Lattice) -> int:
        """Number of point-group components."""
        return _point_dim(self.point, lattice.family)

    def channels(self, lattice: Lattice) -> int:
        """Number of channels ``C`` of a site or global field, internal components included."""
        return self.point_dim(lattice) * _internal_dim(self.internal)


def transform(
    field: Field, values: Tensor, element: Element, links: Tensor | None = None
) -> Tensor:
    """Act with a symmetry element on the values of a field.

    The two-element symmetries act first, then the internal or gauge group, then the point
    operation, then the translation.

    Args:
        field: The type of the values.
        values: In the layout of the field's support (see the module's table).
        element: The group element; its lattice fixes the sites.
        links: Gauge links of the same configuration, not yet transformed. They are needed where
            electric fields, ``"adjoint"`` values at the start of links, meet an element that
            reverses links: the field at the other end is −U† E U.

    Returns:
        The transformed values, same shape.

    Raises:
        InputError: When the layout does not fit the field.
    """
    check_layout(field, values, element.lattice)
    if links is not None and field.support == "link" and field.internal == "adjoint":
        return _transform_electric(values, element, links)
    for name in element.flips:
        if name in field.conjugated:
            values = values.conj()
        if name in field.odd:
            values = -values
    values = _act_internally(field, values, element)
    return _SPACE_ACTIONS[field.support](field, values, element)


def check_layout(field: Field, values: Tensor, lattice: Lattice) -> None:
    """Check the shape of a field's values.

    Raises:
        InputError: With the expected and the given shape.
    """
    shape = tuple(values.shape)[1:]
    if shape in {value_shape(field, lattice, matrices) for matrices in (False, True)}:
        return
    matrices = field.internal == "link" and len(shape) == 4
    wanted = ", ".join(map(str, ("batch", *value_shape(field, lattice, matrices))))
    raise InputError(
        f"field {field.name!r} on {lattice} needs values of shape [{wanted}], "
        f"but they have shape {list(values.shape)}."
    )


def value_shape(field: Field, lattice: Lattice, matrices: bool = False) -> tuple[int, ...]:
    """Shape of one configuration of a field, without the batch axis.

    Args:
        field: The type.
        lattice: Where it lives.
        matrices: Whether group-valued links and loops are 2 × 2 matrices (SU(2)).
    """
    places: tuple[int, ...] = () if field.support == "global" else (lattice.n_sites,)
    if field.support == "link":
        places = (*places, lattice.directions)
    if field.is_group_valued:
        return (*places, 2, 2) if matrices else places
    if field.support in ("site", "global"):
        return (*places, field.channels(lattice))
    components = _internal_dim(field.internal)
    return places if components == 1 else (*places, components)


def _act_internally(field: Field, values: Tensor, element: Element) -> Tensor:
    local = element.gauge is not None and _is_gauge_kind(field.internal)
    if local:
        group, g = element.gauge_group, element.gauge
    else:
        group, g = element.internal_group, element.internal
    if field.internal is None or group is None or g is None:
        return values
    if field.internal == "link":
        if not local:
            raise InputError(f"links such as {field.name!r} need a gauge group.")
        target = element.lattice.link_target
        return group.transport(g[:, None].expand_as(g[target]), values, g[target])
    if field.support == "link":
        g = g[:, None]  # the frame at the start of the link
    if field.support == "site" and not field.is_group_valued:
        dim = field.point_dim(element.lattice)
        split = values.unflatten(-1, (dim, -1)).movedim(-2, 1)  # [batch, point, sites, internal]
        return group.act(g, split, field.internal).movedim(1, -2).flatten(-2)
    return group.act(g, values, field.internal)


def _transform_electric(values: Tensor, element: Element, links: Tensor) -> Tensor:
    """Transform E = E^a σ^a/2 at the start of links through iEU, which transforms as U does."""
    from latticezoo.symmetry.internal import SU2

    kind = Field("U", "link", internal="link", conjugated=("charge_conjugation",))
    moved = transform(kind, 1j * SU2.matrix(values) @ links, element)
    return SU2.components(-1j * moved @ transform(kind, links, element).mH)


def _is_gauge_kind(kind: str | int | None) -> bool:
    return isinstance(kind, int) or kind in GAUGE_KINDS


def _act_on_sites(field: Field, values: Tensor, element: Element) -> Tensor:
    lattice = element.lattice
    matrices = site_matrices(lattice.family, field.point, element.point)
    if matrices.shape[-1] == 1 and (matrices == 1).all():
        turned = values
    else:
        rotation = torch.from_numpy(matrices).to(values.device, values.dtype)
        rotation = rotation.repeat(lattice.n_cells, 1, 1)
        split = values.unflatten(-1, (rotation.shape[-1], -1))
        turned = torch.einsum("npq,bnqm->bnpm", rotation, split).flatten(-2)
    return _scatter(turned, element.permutation)


def _act_on_links(field: Field, values: Tensor, element: Element) -> Tensor:
    lattice = element.lattice
    permutation = element.permutation
    directions = lattice.link_vectors @ lattice.vectors  # Cartesian, [directions, dim]
    turned = directions @ lattice.point_group.matrices[element.point].T
    result = torch.empty_like(values)
    for old, vector in enumerate(turned):
        overlap = directions @ vector
        new = int(np.abs(overlap).argmax())
        if overlap[new] > 0:
            result[:, permutation, new] = values[:, :, old]
        else:
            # Traversed backwards: the link now starts where its end went.
            starts = permutation[lattice.link_target[:, old]]
            result[:, starts, new] = _reverse(field, values[:, :, old])
    return result


def _act_on_plaquettes(field: Field, values: Tensor, element: Element) -> Tensor:
    lattice = element.lattice
    if lattice.family != "square":
        raise InputError(f"plaquette fields live on the square lattice, not on {lattice}.")
    matrix = lattice.point_group.matrices[element.point]
    # The corner of the plaquette that becomes its lower left one names its new place.
    corner = np.rint(0.5 - 0.5 * matrix.T.sum(1)).astype(int)
    corners = lattice.permutation(0, tuple(corner))
    if np.linalg.det(matrix) < 0:
        values = _reverse(field, values)
    return _scatter(values, element.permutation[corners])


def _act_globally(field: Field, values: Tensor, element: Element) -> Tensor:
    lattice = element.lattice
    matrix = site_matrices(lattice.family, field.point, element.point)[0]
    rotation = torch.from_numpy(matrix).to(values.device, values.dtype)
    return torch.einsum("pq,bqm->bpm", rotation, values.unflatten(-1, (len(matrix), -1))).flatten(
        -2
    )


def perpendicular(values: Tensor, units: Tensor) -> Tensor:
    """The part of vectors ``[…, 3]`` that is perpendicular to unit vectors: v − (v·S) S.

    Of the derivative of an energy it is the derivative on the sphere.
    """
    return values - (values * units).sum(-1, keepdim=True) * units


_SPACE_ACTIONS = {
    "site": _act_on_sites,
    "link": _act_on_links,
    "plaquette": _act_on_plaquettes,
    "global": _act_globally,
}


def _scatter(values: Tensor, permutation: Tensor) -> Tensor:
    result = torch.empty_like(values)
    result[:, permutation.to(values.device)] = values
    return result


def _reverse(field: Field, values: Tensor) -> Tensor:
    """Value of a link or loop traversed backwards."""
    if field.internal in ("fundamental", "adjoint"):
        raise InputError(
            f"field {field.name!r} is {field.internal!r} at the start of its link, and reversing "
            "it needs the link itself; act with operations that keep link directions."
        )
    if field.is_group_valued:
        return values.mH if values.shape[-2:] == (2, 2) and values.dim() > 3 else values.conj()
    return -values if field.oriented else values


@lru_cache(maxsize=4096)
def site_matrices(family: str, spec: str, point: int) -> np.ndarray:
    """Matrices of a point operation on the components of a site field.

    Args:
        family: The lattice.
        spec: Representation, as :attr:`Field.point`.
        point: Element of the lattice's point group.

    Returns:
        ``[sublattices, dim, dim]``: by the sublattice from which the value is carried away.
    """
    lattice = Lattice(family, (1,) * Lattice.dimension(family))
    result = []
    for sublattice in range(lattice.sublattices):
        _, inner = lattice.site_operation(point, sublattice)
        blocks = []
        for multiplicity, name, _ in lattice.site_group.representation(spec).blocks:
            if name in _CARTESIAN:
                block = lattice.point_group.representation(name).matrices[point]
            else:
                block = lattice.site_group.irreps[name].matrices[inner]
            blocks.extend([block] * multiplicity)
        result.append(_block_diagonal(blocks))
    return np.stack(result)


def _block_diagonal(blocks: list[np.ndarray]) -> np.ndarray:
    size = sum(len(block) for block in blocks)
    matrix, start = np.zeros((size, size)), 0
    for block in blocks:
        stop = start + len(block)
        matrix[start:stop, start:stop] = block
        start = stop
    return matrix


@lru_cache
def _point_dim(spec: str, family: str) -> int:
    lattice = Lattice(family, (1,) * Lattice.dimension(family))
    return lattice.site_group.representation(spec).dim


def _internal_dim(kind: str | int | None) -> int:
    if kind is None or isinstance(kind, int):
        return 1
    from latticezoo.symmetry.internal import kind_dim

    return kind_dim(kind)
