r"""Invariant descriptors of the spins about a site (S. Zhang, dissertation, section 3.3.2).

Lattice and spins turn independently, so invariants of the spins come first (Eq. 3.12),

.. math::
    b_{ij} = S_i \cdot S_j, \qquad b_{mn} = S_m \cdot S_n, \qquad
    \chi_{imn} = S_i \cdot (S_m \times S_n),

with the site i, its neighbours j, and pairs m, n of neighbours that are close to each other. No
rotation of all spins changes them, and an operation of the lattice about site i permutes them;
where it exchanges the two ends of a pair, χ changes sign as well. Each orbit of such a signed
permutation is decomposed into irreps, with the same matrices in every copy, so that inner products
between copies are invariant (:func:`~latticezoo.symmetry.projections.irrep_copies`). The
dissertation's tables for the shells of the triangular lattice are special cases.

From the copies :math:`f_r` of an irrep come features that every operation leaves alone (Eq. 3.13):

* the values themselves for bonds in the trivial irrep, which may be negative,
* sizes, :math:`\sqrt{|f_r|^2 + e^2} - e`, for all others,
* the component along a reference, :math:`f_r \cdot \hat a`, with
  :math:`\hat a = f_\mathrm{ref} / \sqrt{|f_\mathrm{ref}|^2 + e^2}` and :math:`f_\mathrm{ref}` the
  sum of all copies over the root of their number,
* cubic invariants of the :math:`\hat a`, which tie the irreps together.

With e > 0 all of them are smooth functions of the spins. (The dissertation's phase divides by
:math:`|f_r|\,|f_\mathrm{ref}|`, has an infinite slope where one of them vanishes, and a field that
is the derivative of an energy has it too.)

Time reversal turns all spins over: bonds are even and chiralities odd. They have references of
their own, and a cubic invariant holds two references of chiralities or none, so every feature is
even.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.neighbourhoods import (
    ExactBuffers,
    check_size,
    family_lattice,
    gather,
    neighbour_tables,
    offset_permutations,
)
from latticezoo.symmetry.projections import irrep_copies
from latticezoo.symmetry.references import Product, invariant_tensors, reference_bispectrum

_ROUNDING = 1e-6
KINDS = ("bond", "chirality")


@dataclass(frozen=True, eq=False)
class SpinCopies:
    """All copies of one irrep among the bonds, or among the chiralities.

    Attributes:
        kind: ``"bond"`` or ``"chirality"``.
        name: The irrep.
        rows: Orthonormal coefficients ``[m, d, V]`` of all V variables.
        places: What each copy is made of, in words.
    """

    kind: str
    name: str
    rows: np.ndarray
    places: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Dimension d of the irrep."""
        return self.rows.shape[1]


class SpinInvariants(ExactBuffers):
    """Numbers about every site that neither the spins' rotations nor the lattice change.

    They are also even under time reversal, and smooth. Features are not standardized.

    Args:
        family: Lattice family, such as ``"triangular"``, or a lattice of it.
        bond_radius: Largest distance of j from i in bond lengths, inclusive.
        pair_radius: Largest distance of m and n from i; 0 for no pairs.
        pair_distance: Largest distance between m and n.
        smooth: The scale e, for unit vectors.

    Attributes:
        n_variables: Number of bonds and chiralities V.
        copies: The decomposition into irreps, bonds in the trivial irrep first, then by dimension.
        shells: Shells of neighbours that are looked at, the site itself left out.
        feature_names: One text per feature.

    Raises:
        InputError: For an unknown family, a radius that holds no neighbour, or a scale that is not
            positive.

    Example:
        >>> SpinInvariants("triangular", 2.0, 2.0, 1.0).n_variables
        90
    """

    _rows: Tensor
    _weights: Tensor
    _factors: Tensor

    def __init__(
        self,
        family: str | Lattice,
        bond_radius: float = 4.0,
        pair_radius: float = 2.0,
        pair_distance: float = 1.0,
        smooth: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in (
            ("bond_radius", bond_radius),
            ("pair_radius", pair_radius),
            ("pair_distance", pair_distance),
        ):
            if not 0 <= value < math.inf or (name == "bond_radius" and value < 1):
                least = "1" if name == "bond_radius" else "0"
                raise InputError(f"{name} must be a distance of at least {least}, not {value}.")
        if not 0 < smooth < math.inf:
            raise InputError(f"smooth must be a positive number, not {smooth}.")
        lattice = family_lattice(family)
        self.family, self.smooth = lattice.family, smooth
        self.group = lattice.site_group
        self.shells = lattice.shells(cutoff=max(bond_radius, pair_radius))[1:]
        vectors = np.concatenate([shell.vectors for shell in self.shells])
        radii = np.linalg.norm(vectors, axis=1)
        distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
        self._bonds = [int(k) for k in np.flatnonzero(radii <= bond_radius + _ROUNDING)]
        near = np.flatnonzero(radii <= pair_radius + _ROUNDING)
        pairs = [
            (int(m), int(n))
            for m, n in itertools.combinations(near, 2)
            if distances[m, n] <= pair_distance + _ROUNDING
        ]
        self._first, self._second = [m for m, _ in pairs], [n for _, n in pairs]

        images = offset_permutations(self.group, self.shells)
        members = [(-1, k) for k in self._bonds]
        self.n_variables = len(members) + 2 * len(pairs)
        found = _decomposed(self.group, images, vectors, members, pairs)
        # Bonds in the trivial irrep first, then by dimension.
        plain = ("bond", self.group.trivial)
        self.copies = tuple(sorted(found, key=lambda c: ((c.kind, c.name) != plain, c.dim)))
        self._build()
        self.feature_names = tuple(self._names())

    def _build(self) -> None:
        """Tables of the features: all irreps of one dimension go through them together."""
        blocks = [copies.rows.reshape(-1, self.n_variables) for copies in self.copies]
        turning = self.copies[1:]
        references = [copies.rows.sum(0) / len(copies.rows) ** 0.5 for copies in turning]
        self.register_constant("_rows", np.concatenate([*blocks, *references]).T)
        #: By dimension: its number of copies, and the reference of each of them.
        self._groups = [
            (dim, [len(c.rows) for c in turning if c.dim == dim])
            for dim in sorted({copies.dim for copies in turning})
        ]
        for dim, numbers in self._groups:
            own = np.repeat(np.arange(len(numbers)), numbers)
            self.register_buffer(f"_own_{dim}", torch.from_numpy(own), persistent=False)
        # Cubic invariants as sums of products of three components of the references.
        starts, place = {}, 0
        for copies in turning:
            starts[copies.kind, copies.name] = place
            place += copies.dim
        factors, weights = [], []
        self._products = tuple(self._ties())
        for number, (kinds, product) in enumerate(self._products):
            first = [starts[key] for key in zip(kinds, product.irreps, strict=True)]
            for index in zip(*np.nonzero(np.abs(product.tensor) > _ROUNDING), strict=True):
                factors.append([start + n for start, n in zip(first, index, strict=True)])
                weights.append((number, float(product.tensor[index])))
        table = np.zeros((len(weights), len(self._products)))
        for term, (number, weight) in enumerate(weights):
            table[term, number] = weight
        self.register_constant("_weights", table)
        chosen = torch.tensor(factors, dtype=torch.long).reshape(-1, 3).T.contiguous()
        self.register_buffer("_factors", chosen, persistent=False)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.feature_names)

    @property
    def radius(self) -> float:
        """Distance in bond lengths beyond which nothing is seen."""
        return max(shell.radius for shell in self.shells)

    def extra_repr(self) -> str:
        """Family and sizes."""
        return (
            f"{self.family}, bonds={len(self._bonds)}, pairs={len(self._first)}, "
            f"smooth={self.smooth}, features={self.n_features}"
        )

    def variables(self, spins: Tensor, lattice: Lattice) -> Tensor:
        """Bonds of the site, then bonds of its pairs, then their chiralities.

        Args:
            spins: ``[batch, sites, 3]``.
            lattice: Any torus of the family that holds the neighbourhood.

        Returns:
            ``[batch, sites, V]``.
        """
        if lattice.family != self.family:
            raise InputError(f"these invariants serve the {self.family} lattice, not {lattice}.")
        if spins.dim() != 3 or spins.shape[1:] != (lattice.n_sites, 3):
            raise InputError(
                f"spins on {lattice} have shape [batch, {lattice.n_sites}, 3], not "
                f"{list(spins.shape)}."
            )
        check_size(lattice, self.shells, f"invariants of spins within {self.radius:.3g} bonds")
        tables = neighbour_tables(lattice, self.shells, spins.device)
        # Components first, so that neighbours are rows of numbers.
        around = gather(spins, tables).unflatten(-1, (-1, 3)).movedim(-1, 0)
        centre = spins.movedim(-1, 0)[..., None]
        parts = [(centre * around[..., : len(self._bonds)]).sum(0)]
        if self._first:
            first, second = around[..., self._first], around[..., self._second]
            parts.append((first * second).sum(0))
            parts.append((centre * torch.linalg.cross(first, second, dim=0)).sum(0))
        return torch.cat(parts, dim=-1)

    def coefficients(self, spins: Tensor, lattice: Lattice) -> dict[tuple[str, str], Tensor]:
        """Irrep coefficients by kind and irrep, each ``[batch, sites, m, d]``."""
        sizes = [copies.rows.shape[0] * copies.dim for copies in self.copies]
        rows = self._rows[:, : sum(sizes)]
        parts = (self.variables(spins, lattice) @ rows).split(sizes, dim=-1)
        return {
            (copies.kind, copies.name): part.unflatten(-1, (-1, copies.dim))
            for part, copies in zip(parts, self.copies, strict=True)
        }

    def forward(self, spins: Tensor, lattice: Lattice) -> Tensor:
        """Compute the features.

        Args:
            spins: Unit vectors ``[batch, sites, 3]``.
            lattice: Any torus of the family that holds the neighbourhood.

        Returns:
            ``[batch, sites, n_features]``.

        Raises:
            InputError: For another family, a wrong shape, or a torus on which the neighbourhood
                touches itself.
        """
        found = self.variables(spins, lattice) @ self._rows
        square, sizes = self.smooth**2, self._sizes()
        values, *parts = found.split([len(self.copies[0].rows), *sizes, *self._widths()], dim=-1)
        features, units = [values], []
        for (dim, numbers), part, reference in zip(
            self._groups, parts, parts[len(sizes) :], strict=False
        ):
            f = part.unflatten(-1, (-1, dim))
            along = reference.unflatten(-1, (len(numbers), dim))
            unit = along * torch.rsqrt(along.square().sum(-1, keepdim=True) + square)
            own = unit.index_select(-2, self.get_buffer(f"_own_{dim}"))
            features.append(torch.sqrt(f.square().sum(-1) + square) - self.smooth)
            features.append((f * own).sum(-1))
            units.append(unit.flatten(-2))
        if self._products:
            joined = torch.cat(units, dim=-1)
            first, second, third = (joined.index_select(-1, index) for index in self._factors)
            features.append((first * second * third) @ self._weights)
        return torch.cat(features, dim=-1)

    def _sizes(self) -> list[int]:
        """Numbers of coefficients of each dimension."""
        return [dim * sum(numbers) for dim, numbers in self._groups]

    def _widths(self) -> list[int]:
        """Numbers of components of the references of each dimension."""
        return [dim * len(numbers) for dim, numbers in self._groups]

    # ---- parts -------------------------------------------------------------------------------

    def _ties(self) -> Iterator[tuple[tuple[str, str, str], Product]]:
        """Cubic invariants of the references: of three bonds, or of a bond and two chiralities."""
        names = {kind: [c.name for c in self.copies if c.kind == kind] for kind in KINDS}
        for product in reference_bispectrum(self.group, names["bond"]):
            yield ("bond", "bond", "bond"), product
        odd = list(itertools.combinations_with_replacement(names["chirality"], 2))
        for name, pair in itertools.product(names["bond"], odd):
            if name != self.group.trivial:
                for tensor in invariant_tensors(self.group, (name, *pair), fixed=1):
                    yield ("bond", "chirality", "chirality"), Product((name, *pair), tensor)

    def _names(self) -> Iterator[str]:
        plain, *turning = self.copies
        yield from (f"bond {plain.name} of {place}: value" for place in plain.places)
        for dim, _ in self._groups:
            for what in ("size", "along the reference"):
                for copies in turning:
                    for place in copies.places if copies.dim == dim else ():
                        yield f"{copies.kind} {copies.name} of {place}: {what}"
        for kinds, product in self._products:
            factors = zip(kinds, product.irreps, strict=True)
            yield "reference " + " ".join(f"{kind} {name}" for kind, name in factors)


def _decomposed(
    group: FiniteGroup,
    images: np.ndarray,
    vectors: np.ndarray,
    bonds: list[tuple[int, int]],
    pairs: list[tuple[int, int]],
) -> Iterator[SpinCopies]:
    """Decompose all variables, orbit by orbit; −1 stands for the site itself."""
    total = len(bonds) + 2 * len(pairs)
    rows: dict[tuple[str, str], list[np.ndarray]] = {}
    places: dict[tuple[str, str], list[str]] = {}
    solved: dict[tuple[str, bytes], np.ndarray] = {}
    start = 0
    for kind, members in (("bond", bonds), ("bond", pairs), ("chirality", pairs)):
        targets, signs = _signed_permutation(images, members, odd=kind == "chirality")
        for orbit in _orbits(targets):
            matrices = _matrices(targets, signs, orbit)
            place = _place(vectors, members[orbit[0]])
            for irrep in group.irreps:
                shape = irrep, matrices.tobytes()
                if shape not in solved:  # orbits of one type have the same matrices
                    solved[shape] = irrep_copies(group, matrices, irrep)
                for copy in solved[shape]:
                    row = np.zeros((len(copy), total))
                    row[:, [start + member for member in orbit]] = copy
                    rows.setdefault((kind, irrep), []).append(row)
                    places.setdefault((kind, irrep), []).append(place)
        start += len(members)
    for kind, irrep in itertools.product(KINDS, group.irreps):
        key = (kind, irrep)
        if key in rows:
            yield SpinCopies(kind, irrep, np.array(rows[key]), tuple(places[key]))


def _signed_permutation(
    images: np.ndarray, members: list[tuple[int, int]], odd: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Where every element sends every variable, and with which sign, ``[order, members]`` each."""
    numbers = {member: number for number, member in enumerate(members)}
    targets = np.empty((len(images), len(members)), dtype=int)
    signs = np.ones((len(images), len(members)))
    for g, image in enumerate(images):
        for number, (m, n) in enumerate(members):
            ends = (-1 if m < 0 else int(image[m]), int(image[n]))
            swapped = ends[0] > ends[1]
            targets[g, number] = numbers[ends[::-1] if swapped else ends]
            if odd and swapped:
                signs[g, number] = -1.0
    return targets, signs


def _orbits(targets: np.ndarray) -> list[list[int]]:
    """Orbits in order of their first member, each in the order in which the group reaches it."""
    found, seen = [], set()
    for number in range(targets.shape[1]):
        if number not in seen:
            orbit = list(dict.fromkeys(int(target) for target in targets[:, number]))
            seen.update(orbit)
            found.append(orbit)
    return found


def _matrices(targets: np.ndarray, signs: np.ndarray, orbit: list[int]) -> np.ndarray:
    """The representation of the group on an orbit, ``[order, n, n]``."""
    result = np.zeros((len(targets), len(orbit), len(orbit)))
    place = {member: number for number, member in enumerate(orbit)}
    for g, member in itertools.product(range(len(targets)), orbit):
        result[g, place[int(targets[g, member])], place[member]] = signs[g, member]
    return result


def _place(vectors: np.ndarray, member: tuple[int, int]) -> str:
    ends = ("(" + ", ".join(f"{x + 0.0:.3g}" for x in vectors[k]) + ")" for k in member if k >= 0)
    return "–".join(ends)
