"""Geometry behind the lattices: unit cells, shells of neighbours, images of sites, as tables.

Points are row vectors in units of the cell edges ("fractional") unless said to be Cartesian.
Tables are cached by lattice family, or by family and shape; callers must not write into them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from latticezoo.symmetry.errors import unknown
from latticezoo.symmetry.point_groups import point_group

_TOLERANCE = 1e-6
_ROOT3 = math.sqrt(3.0)


class UnitCell(NamedTuple):
    """What the name of a lattice fixes.

    Attributes:
        vectors: Edges of the cell as rows ``[dim, dim]``, Cartesian, bond length 1.
        centring: Lattice translations inside the cell, fractional, ``[centrings, dim]``.
        basis: The one or two sites of a primitive cell, fractional, ``[1 or 2, dim]``.
        site_group: Name of the point group about a site.
        point_group: Name of the point group of the lattice.
        bipartite: Whether bonds join two sublattices only.
        links: Positive link directions in cells ``[directions, dim]``; None when links do not
            start from every site.
    """

    vectors: np.ndarray
    centring: np.ndarray
    basis: np.ndarray
    site_group: str
    point_group: str
    bipartite: bool
    links: np.ndarray | None

    @property
    def dim(self) -> int:
        """Number of space dimensions."""
        return self.vectors.shape[0]

    @property
    def sites(self) -> np.ndarray:
        """All sites of the cell ``[sublattices, dim]``, those of the first kind in front."""
        return (self.basis[:, None] + self.centring[None]).reshape(-1, self.dim)

    @property
    def frames(self) -> tuple[int, ...]:
        """For each site, the element of ``point_group`` that gives its surroundings."""
        group = point_group(self.point_group)
        kinds = (0, group.index(-np.eye(self.dim))) if len(self.basis) == 2 else (0,)
        return tuple(kind for kind in kinds for _ in self.centring)


_ORIGIN = np.zeros((1, 2))
_FCC = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
UNIT_CELLS: dict[str, UnitCell] = {
    "chain": UnitCell(
        vectors=np.eye(1),
        centring=np.zeros((1, 1)),
        basis=np.zeros((1, 1)),
        site_group="D1",
        point_group="D1",
        bipartite=True,
        links=np.array([[1]]),
    ),
    "square": UnitCell(
        vectors=np.eye(2),
        centring=_ORIGIN,
        basis=_ORIGIN,
        site_group="D4",
        point_group="D4",
        bipartite=True,
        links=np.array([[1, 0], [0, 1]]),
    ),
    "triangular": UnitCell(
        vectors=np.array([[1.0, 0.0], [0.5, _ROOT3 / 2]]),
        centring=_ORIGIN,
        basis=_ORIGIN,
        site_group="D6",
        point_group="D6",
        bipartite=False,
        links=np.array([[1, 0], [0, 1], [-1, 1]]),
    ),
    "honeycomb": UnitCell(
        vectors=np.array([[_ROOT3, 0.0], [_ROOT3 / 2, 1.5]]),
        centring=_ORIGIN,
        basis=np.array([[0.0, 0.0], [-1 / 3, 2 / 3]]),
        site_group="D3",
        point_group="D6",
        bipartite=True,
        links=None,
    ),
    "diamond": UnitCell(
        vectors=np.eye(3) * 4 / _ROOT3,
        centring=_FCC,
        basis=np.array([[0.0, 0.0, 0.0], [0.25, 0.25, 0.25]]),
        site_group="Td",
        point_group="Oh",
        bipartite=True,
        links=None,
    ),
}


def unit_cell(family: str) -> UnitCell:
    """The unit cell of a lattice family.

    Raises:
        InputError: For an unknown family.
    """
    if family not in UNIT_CELLS:
        raise unknown("lattice", family, UNIT_CELLS)
    return UNIT_CELLS[family]


@dataclass(frozen=True)
class Shell:
    """One orbit of neighbours: the sites that the site group carries into each other.

    One radius can hold two shells: on the square lattice (5, 0) and (4, 3) both lie at r² = 25.

    Attributes:
        family: Name of the lattice it belongs to.
        index: Position in :meth:`Lattice.shells`; shell 0 is the site itself.
        radius: Distance from the centre in bond lengths.
        offsets: Cartesian offsets ``[size, dim]`` seen from a site of sublattice 0; in the plane
            counter-clockwise from the first angle ≥ 0, in space in falling lexicographic order.
    """

    family: str
    index: int
    radius: float
    offsets: tuple[tuple[float, ...], ...]

    @property
    def size(self) -> int:
        """Number of sites in the shell."""
        return len(self.offsets)

    @property
    def vectors(self) -> np.ndarray:
        """The offsets as an array ``[size, dim]``."""
        return np.array(self.offsets)


def cells(shape: tuple[int, ...]) -> np.ndarray:
    """All cells of a torus in row-major order, ``[cells, dim]``."""
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, len(shape))


@lru_cache
def shells_within(family: str, cutoff: float) -> tuple[Shell, ...]:
    """Every shell up to a distance, inclusive, ordered by radius, then by first angle."""
    cell = UNIT_CELLS[family]
    # Every site within the cutoff lies in a cell whose index is bounded by the inverse vectors.
    reach = np.ceil(np.linalg.norm(np.linalg.inv(cell.vectors), axis=0) * cutoff + 1).astype(int)
    corners = cells(tuple(2 * reach + 1)) - reach
    points = (corners[:, None] + cell.sites).reshape(-1, cell.dim) @ cell.vectors
    points = points[np.linalg.norm(points, axis=1) <= cutoff + _TOLERANCE]

    group = point_group(cell.site_group)
    remaining = {_key(point): point for point in points}
    orbits = []
    while remaining:
        first = next(iter(remaining.values()))
        orbit = {_key(matrix @ first): matrix @ first for matrix in group.matrices}
        for key in orbit:
            del remaining[key]
        orbits.append(sorted(orbit.values(), key=_order))
    orbits.sort(key=lambda orbit: (round(float(np.linalg.norm(orbit[0])), 6), _order(orbit[0])))
    return tuple(
        Shell(
            family,
            index,
            float(np.linalg.norm(orbit[0])),
            tuple(tuple(float(x) for x in site) for site in orbit),
        )
        for index, orbit in enumerate(orbits)
    )


def _key(point: np.ndarray) -> tuple[int, ...]:
    return tuple(np.rint(point / _TOLERANCE / 10).astype(int))


def _order(point: np.ndarray) -> tuple[float, ...]:
    """Sort key inside a shell: the angle in the plane, else falling coordinates."""
    if len(point) == 2:
        full = round(2 * math.pi, 6)
        return (round(math.atan2(point[1], point[0]) % (2 * math.pi), 6) % full,)
    return tuple(-round(float(x), 6) for x in point)


@lru_cache
def linear_map(family: str, point: int) -> np.ndarray:
    """A point operation on fractional row vectors, ``n -> n @ map``; integer in every case."""
    cell = UNIT_CELLS[family]
    matrix = point_group(cell.point_group).matrices[point]
    return cell.vectors @ matrix.T @ np.linalg.inv(cell.vectors)


@lru_cache
def basis_images(family: str, point: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of the sites of cell 0 under a point operation.

    Operations of the site group turn about site 0. The others, which exchange the two kinds of
    sites, are followed by the shift to the second site of the primitive cell (the inversion
    becomes the one about the middle of a bond).

    Returns:
        Sublattices ``[sublattices]`` and cells ``[sublattices, dim]``, integers.
    """
    cell = UNIT_CELLS[family]
    turned = cell.sites @ linear_map(family, point)
    found = _split(family, turned) or _split(family, turned + cell.basis[-1])
    assert found is not None, f"operation {point} is no symmetry of the {family} lattice"
    return found


@lru_cache
def neighbour_targets(family: str, shell: Shell) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of each site of cell 0.

    Returns:
        Sublattices ``[sublattices, size]`` and cells ``[sublattices, size, dim]``, integers.
    """
    cell = UNIT_CELLS[family]
    matrices = point_group(cell.point_group).matrices[list(cell.frames)]
    turned = np.einsum("kd,sed->ske", shell.vectors, matrices) @ np.linalg.inv(cell.vectors)
    found = _split(family, cell.sites[:, None] + turned)
    assert found is not None, f"a shell leaves the {family} lattice"
    return found


def _split(family: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Write points ``[..., dim]`` as a site of the cell plus whole cells; None off the sites."""
    difference = points[..., None, :] - UNIT_CELLS[family].sites
    whole = np.rint(difference)
    fits = (np.abs(difference - whole) < _TOLERANCE).all(-1)
    if not fits.any(-1).all():
        return None
    sublattice = fits.argmax(-1)
    corner = np.take_along_axis(whole, sublattice[..., None, None], -2)[..., 0, :]
    return sublattice, corner.astype(np.int64)


# ---- on a torus ----------------------------------------------------------------------------------


def ravel(family: str, shape: tuple[int, ...], corner: np.ndarray, site: np.ndarray) -> np.ndarray:
    """Site numbers of cells ``[..., dim]`` (any, wrapped here) and sites of the cell ``[...]``."""
    wrapped = np.mod(corner, shape)
    index = np.ravel_multi_index(tuple(np.moveaxis(wrapped, -1, 0)), shape)
    return index * len(UNIT_CELLS[family].sites) + site


def neighbour_table(family: str, shape: tuple[int, ...], shell: Shell) -> np.ndarray:
    """Neighbours of every site, ``[sites, size]``."""
    site, shift = neighbour_targets(family, shell)
    corner = cells(shape)[:, None, None, :] + shift
    return ravel(family, shape, corner, site).reshape(-1, shell.size)


def rotated_sites(family: str, shape: tuple[int, ...], point: int) -> np.ndarray:
    """Where a point operation sends the sites, ``[sites]``."""
    site, shift = basis_images(family, point)
    turned = np.rint(cells(shape) @ linear_map(family, point)).astype(np.int64)
    return ravel(family, shape, turned[:, None] + shift, site).reshape(-1)


def translated_sites(family: str, shape: tuple[int, ...], shift: np.ndarray) -> np.ndarray:
    """Where a fractional translation by lattice vectors sends the sites, ``[sites]``."""
    found = _split(family, UNIT_CELLS[family].sites + shift)
    assert found is not None, f"{shift} is no translation of the {family} lattice"
    site, corner = found
    return ravel(family, shape, cells(shape)[:, None] + corner, site).reshape(-1)


@lru_cache
def torus_operations(family: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Point operations that carry the periods of a torus onto periods."""
    sizes = np.array(shape, dtype=float)
    kept = []
    for point in range(point_group(UNIT_CELLS[family].point_group).order):
        periods = sizes[:, None] * linear_map(family, point) / sizes
        if np.abs(periods - np.rint(periods)).max() < _TOLERANCE:
            kept.append(point)
    return tuple(kept)


def overlaps(family: str, shape: tuple[int, ...], shells: tuple[Shell, ...]) -> bool:
    """Whether two offsets of a neighbourhood, the centre included, reach the same site."""
    n_sites = len(UNIT_CELLS[family].sites)
    centre = np.arange(n_sites)[:, None]
    corner = np.zeros(len(shape), dtype=int)
    columns = [centre]  # cells are alike: the sites of one stand for all
    for shell in shells:
        if shell.index > 0:
            site, shift = neighbour_targets(family, shell)
            columns.append(ravel(family, shape, corner + shift, site))
    ordered = np.sort(np.concatenate(columns, axis=1), axis=1)
    return bool((ordered[:, 1:] == ordered[:, :-1]).any())


@lru_cache
def smallest_size(family: str, shells: tuple[Shell, ...]) -> int:
    """Smallest equal-sided torus on which a neighbourhood does not touch itself, in cells."""
    size = 1
    while overlaps(family, (size,) * UNIT_CELLS[family].dim, shells):
        size += 1
    return size
