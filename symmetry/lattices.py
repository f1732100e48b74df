"""Periodic lattices: sites, shells of neighbours, site permutations of the space group, links.

A lattice is a torus of unit cells, every site of which has the same surroundings up to a rotation.
Sites are raveled row-major over cells, then over the sites of a cell. The bond length is 1.

Three groups act:

* translations by (centred) lattice vectors,
* ``site_group``: the point operations that fix a site,
* ``point_group``: all point operations, including those that exchange sublattices (honeycomb,
  diamond), about a fixed origin. On Bravais lattices it is the site group.

A torus of unequal sides keeps only some of the point operations: see :attr:`Lattice.operations`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from latticezoo.symmetry import geometry
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.geometry import Shell
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.point_groups import point_group


@dataclass(frozen=True)
class Lattice:
    """A periodic lattice of a named family; hashable and cheap to make.

    Attributes:
        family: ``chain``, ``square``, ``triangular``, ``honeycomb`` or ``diamond``.
        shape: Number of unit cells per direction. The honeycomb cell has 2 sites; the diamond
            cell is the conventional cube with 8.

    Raises:
        InputError: For an unknown family, a wrong number of directions, or a size below 1.

    Example:
        >>> square(4, 6).n_sites
        24
        >>> str(Lattice.parse("triangular(12)"))
        'triangular(12, 12)'
    """

    family: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = tuple(self.shape)
        if len(shape) != self.dim:
            raise InputError(
                f"a {self.family} lattice needs {self.dim} sizes, but {shape} was given."
            )
        if any(int(size) != size or size < 1 for size in shape):
            raise InputError(f"lattice sizes must be whole numbers of at least 1, not {shape}.")
        object.__setattr__(self, "shape", tuple(int(size) for size in shape))

    @classmethod
    def parse(cls, spec: str | Lattice) -> Lattice:
        """Read a lattice from text such as ``"square(24, 24)"``; one size stands for all."""
        if isinstance(spec, Lattice):
            return spec
        match = re.fullmatch(r"\s*([a-z]+)\s*\(\s*(\d+(?:\s*,\s*\d+)*)\s*\)\s*", str(spec))
        if match is None:
            raise InputError(f"{spec!r} is not a lattice; write for example 'square(24, 24)'.")
        family, sizes = match[1], [int(size) for size in match[2].split(",")]
        if len(sizes) == 1:
            sizes = sizes * cls.dimension(family)
        return cls(family, tuple(sizes))

    @staticmethod
    def dimension(family: str) -> int:
        """Number of space dimensions of a family."""
        return geometry.unit_cell(family).dim

    def __str__(self) -> str:
        return f"{self.family}({', '.join(map(str, self.shape))})"

    # ---- geometry ------------------------------------------------------------------------------

    @property
    def _cell(self) -> geometry.UnitCell:
        return geometry.unit_cell(self.family)

    @property
    def dim(self) -> int:
        """Number of space dimensions."""
        return self._cell.dim

    @property
    def sublattices(self) -> int:
        """Number of sites in a unit cell."""
        return len(self._cell.sites)

    @property
    def n_cells(self) -> int:
        """Number of unit cells."""
        return math.prod(self.shape)

    @property
    def n_sites(self) -> int:
        """Number of sites."""
        return self.n_cells * self.sublattices

    @property
    def vectors(self) -> np.ndarray:
        """Edges of the unit cell as rows ``[dim, dim]``, in bond lengths."""
        return self._cell.vectors.copy()

    @property
    def positions(self) -> Tensor:
        """Cartesian site positions ``[sites, dim]`` in bond lengths, float64."""
        fractional = geometry.cells(self.shape)[:, None, :] + self._cell.sites
        return torch.from_numpy(fractional.reshape(-1, self.dim) @ self._cell.vectors)

    @property
    def site_group(self) -> FiniteGroup:
        """Point operations about a site."""
        return point_group(self._cell.site_group)

    @property
    def point_group(self) -> FiniteGroup:
        """All point operations of the infinite lattice, those that swap sublattices included."""
        return point_group(self._cell.point_group)

    @property
    def frames(self) -> tuple[int, ...]:
        """For each site of the cell, the element of ``point_group`` that gives its surroundings.

        The element carries the surroundings of sublattice 0 onto those of sublattice ``s``: the
        identity for equal surroundings, the inversion for the other half of honeycomb or diamond.
        """
        return self._cell.frames

    # ---- neighbours ----------------------------------------------------------------------------

    def shells(self, count: int | None = None, cutoff: float | None = None) -> tuple[Shell, ...]:
        """Shells of neighbours in order of distance, shell 0 being the site itself.

        Args:
            count: Number of shells around the site (``count=8`` gives nine entries).
            cutoff: Largest distance in bond lengths, inclusive.

        Raises:
            InputError: Unless exactly one of the two is given, and not negative.
        """
        if (count is None) == (cutoff is None):
            raise InputError("give either count or cutoff for the shells, not both or none.")
        if count is not None:
            if count < 0 or int(count) != count:
                raise InputError(f"the number of shells must be 0 or more, not {count}.")
            radius = 2.0
            while len(found := geometry.shells_within(self.family, radius)) <= count:
                radius *= 1.5
            return found[: count + 1]
        assert cutoff is not None
        if not 0 <= cutoff < math.inf:
            raise InputError(f"the cutoff of the shells must be a finite distance, not {cutoff}.")
        return geometry.shells_within(self.family, float(cutoff))

    def neighbours(self, shell: Shell | int = 1) -> Tensor:
        """Site indices of a shell about every site.

        Column ``k`` is the neighbour at ``shell.offsets[k]``, carried along by the frame of the
        site's sublattice.

        Returns:
            ``[sites, shell.size]``, int64.
        """
        return _neighbours(self, self._shell(shell))

    def neighbourhood(self, shells: Sequence[Shell]) -> Tensor:
        """Neighbours of several shells side by side, ``[sites, total size]``, int64."""
        return torch.cat([self.neighbours(shell) for shell in shells], dim=1)

    def shifts(self, shell: Shell | int = 1) -> tuple[tuple[int, ...], ...]:
        """Offsets of a shell in whole cells, for lattices with one site per cell.

        Raises:
            InputError: For honeycomb and diamond, where a neighbour is no cell translation.
        """
        if self.sublattices > 1:
            raise InputError(f"offsets on {self.family} are no cell translations; use neighbours.")
        _, shifts = geometry.neighbour_targets(self.family, self._shell(shell))
        return tuple(tuple(int(n) for n in row) for row in shifts[0])

    def neighbour_sum(self, values: Tensor, shell: Shell | int = 1) -> Tensor:
        """Sum of the values on a shell about every site.

        Rolls the torus where a cell has one site, which measured 1.5–3 times faster than a gather;
        gathers by index elsewhere.

        Args:
            values: ``[batch, sites, channels]``.
            shell: The shell, or its index.

        Returns:
            ``[batch, sites, channels]``.
        """
        if self.sublattices > 1:
            return values[:, self.neighbours(shell).to(values.device)].sum(2)
        torus = values.reshape(values.shape[0], *self.shape, values.shape[-1])
        dims = tuple(range(1, 1 + self.dim))
        total: Tensor | None = None
        for shift in self.shifts(shell):
            moved = torch.roll(torus, tuple(-n for n in shift), dims)
            total = moved if total is None else total.add_(moved)
        assert total is not None
        return total.reshape(values.shape)

    def neighbour_mean(self, values: Tensor, shell: Shell | int = 1) -> Tensor:
        """Mean of the values on a shell about every site; shapes as in :meth:`neighbour_sum`."""
        return self.neighbour_sum(values, shell) / self._shell(shell).size

    def edge_index(self, shell: Shell | int = 1) -> Tensor:
        """Directed edges for torch-geometric.

        Returns:
            ``[2, sites · size]``, int64: row 0 the source (neighbour), row 1 the target (site).
        """
        neighbours = self.neighbours(shell)
        sites = torch.arange(self.n_sites)[:, None].expand_as(neighbours)
        return torch.stack([neighbours.reshape(-1), sites.reshape(-1)])

    def require(
        self, shells: Sequence[Shell] | Shell | int, what: str = "this neighbourhood"
    ) -> None:
        """Check that the torus holds a neighbourhood without wrapping onto itself.

        Args:
            shells: The shells that must consist of different sites.
            what: What needs them, for the message.

        Raises:
            InputError: When two offsets of the neighbourhood reach the same site.
        """
        chosen = (self._shell(shells),) if isinstance(shells, Shell | int) else tuple(shells)
        if geometry.overlaps(self.family, self.shape, chosen):
            reach = max(shell.radius for shell in chosen)
            need = geometry.smallest_size(self.family, chosen)
            raise InputError(
                f"lattice {self} is too small for {what}: a neighbourhood of radius {reach:.3g} "
                f"needs at least {need} cells in each direction."
            )

    def _shell(self, shell: Shell | int) -> Shell:
        if isinstance(shell, Shell):
            if shell.family != self.family:
                raise InputError(f"a shell of the {shell.family} lattice does not fit {self}.")
            return shell
        return self.shells(count=shell)[shell]

    # ---- symmetry ------------------------------------------------------------------------------

    @property
    def operations(self) -> tuple[int, ...]:
        """Elements of ``point_group`` that map this torus onto itself.

        An operation survives when it carries the periods onto periods: all of D4 on a square
        torus, the rectangle's four on one of unequal sides.
        """
        return geometry.torus_operations(self.family, self.shape)

    def translations(self) -> Iterator[tuple[int, ...]]:
        """Every translation of the torus, identity first.

        Tuples of cells per direction; on diamond a last entry counts the centring vector.
        """
        ranges = [range(size) for size in self.shape]
        if len(self._cell.centring) > 1:
            ranges.append(range(len(self._cell.centring)))
        return itertools.product(*ranges)

    @property
    def n_translations(self) -> int:
        """Number of translations."""
        return self.n_cells * len(self._cell.centring)

    def permutation(self, point: int = 0, translation: Sequence[int] | None = None) -> Tensor:
        """Where a space-group operation sends the sites: first ``point``, then ``translation``.

        Args:
            point: Element of ``point_group``, one of :attr:`operations`.
            translation: As given by :meth:`translations`; none by default.

        Returns:
            ``[sites]``, int64: site ``i`` goes to ``permutation[i]``.

        Raises:
            InputError: When the operation does not map the torus onto itself.
        """
        self.check_operation(point)
        rotated = _rotated_sites(self, point)
        if translation is None:
            return rotated.clone()
        return _translated_sites(self, tuple(translation))[rotated]

    def check_operation(self, point: int) -> None:
        """Make sure that a point operation maps this torus onto itself.

        Args:
            point: Element of ``point_group``.

        Raises:
            InputError: Naming the operation and those that do.
        """
        if point in self.operations:
            return
        names = self.point_group.element_names
        if not 0 <= point < len(names):
            raise InputError(
                f"there is no point operation {point} of {self}; {self.point_group.name} has the "
                f"elements 0 to {len(names) - 1}."
            )
        kept = ", ".join(names[number] for number in self.operations)
        raise InputError(
            f"{names[point]} of {self.point_group.name} does not map {self} onto itself; on sides "
            f"of these lengths only {kept} do."
        )

    def site_operation(self, point: int, sublattice: int) -> tuple[int, int]:
        """How an operation acts on the frame of a site.

        Args:
            point: Element of ``point_group``.
            sublattice: Site of the cell.

        Returns:
            The sublattice it goes to and the element of ``site_group`` that turns the values
            given in the old site's frame into values in the new site's frame.
        """
        target = int(geometry.basis_images(self.family, point)[0][sublattice])
        frames, group = self.frames, self.point_group
        inner = group.product_table[
            group.inverse[frames[target]], group.product_table[point, frames[sublattice]]
        ]
        return target, self.site_group.index(group.matrices[inner])

    @property
    def stagger(self) -> Tensor:
        """Sign of the two sublattices of a bipartite lattice, ``[sites]``, ±1 in float64.

        Raises:
            InputError: For the triangular lattice, and for an odd period of chain or square.
        """
        if not self._cell.bipartite:
            raise InputError(f"the {self.family} lattice has no two sublattices.")
        if self.sublattices > 1:
            half = self.sublattices // 2
            return torch.tensor([1.0] * half + [-1.0] * half).double().repeat(self.n_cells)
        if any(size % 2 for size in self.shape):
            raise InputError(
                f"lattice {self} has an odd period, but a staggered pattern needs even sizes."
            )
        return torch.from_numpy(1.0 - 2.0 * (geometry.cells(self.shape).sum(1) % 2))

    # ---- links ---------------------------------------------------------------------------------

    @property
    def directions(self) -> int:
        """Number of positive link directions from a site: 1, 2, 3 on chain, square, triangular."""
        return len(self.link_vectors)

    @property
    def link_vectors(self) -> np.ndarray:
        """Positive link directions in cells, ``[directions, dim]``.

        Raises:
            InputError: For honeycomb and diamond, whose links do not start from every site.
        """
        if self._cell.links is None:
            raise InputError(f"link fields need a chain, square or triangular lattice, not {self}.")
        return self._cell.links

    @property
    def link_target(self) -> Tensor:
        """Site at the end of every positive link, ``[sites, directions]``, int64."""
        return torch.stack(
            [_translated_sites(self, tuple(vector)) for vector in self.link_vectors.tolist()], dim=1
        )


def chain(length: int) -> Lattice:
    """Chain of ``length`` sites."""
    return Lattice("chain", (length,))


def square(first: int, second: int | None = None) -> Lattice:
    """Square lattice; one size gives equal sides."""
    return Lattice("square", (first, first if second is None else second))


def triangular(first: int, second: int | None = None) -> Lattice:
    """Triangular lattice along a1 = (1, 0) and a2 = (1/2, √3/2)."""
    return Lattice("triangular", (first, first if second is None else second))


def honeycomb(first: int, second: int | None = None) -> Lattice:
    """Honeycomb lattice, two sites a cell; the bonds of sublattice 0 point at 90°, 210°, 330°."""
    return Lattice("honeycomb", (first, first if second is None else second))


def diamond(first: int, second: int | None = None, third: int | None = None) -> Lattice:
    """Diamond lattice in conventional cubes of 8 sites; bonds of sublattice 0 along (1, 1, 1)."""
    second = first if second is None else second
    return Lattice("diamond", (first, second, second if third is None else third))


@lru_cache(maxsize=256)
def _neighbours(lattice: Lattice, shell: Shell) -> Tensor:
    return torch.from_numpy(geometry.neighbour_table(lattice.family, lattice.shape, shell))


@lru_cache(maxsize=256)
def _rotated_sites(lattice: Lattice, point: int) -> Tensor:
    return torch.from_numpy(geometry.rotated_sites(lattice.family, lattice.shape, point))


def _translated_sites(lattice: Lattice, translation: tuple[int, ...]) -> Tensor:
    shift = np.array(translation[: lattice.dim], dtype=float)
    if len(translation) > lattice.dim:
        shift += geometry.unit_cell(lattice.family).centring[translation[lattice.dim]]
    return torch.from_numpy(geometry.translated_sites(lattice.family, lattice.shape, shift))
