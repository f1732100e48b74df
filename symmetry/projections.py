"""Symmetry-adapted coordinates of a neighbourhood: from field values to irreps.

The values of a field on the sites about a site carry the representation T(g) = P(g) ⊗ M(g),
permutation of the sites times field matrices. :func:`projection` finds the orthogonal matrix B
that makes it block diagonal, B T(g) Bᵀ = ⊕ D^Γ(g), with the same tabulated D^Γ in every copy, so
that inner products between copies are invariant (S. Zhang, dissertation, section 7.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.symmetry.neighbourhoods import (
    family_lattice,
    offset_permutations,
    resolve_shells,
)
from latticezoo.symmetry.point_groups import point_group

_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class IrrepCopies:
    """All copies of one irrep in a neighbourhood.

    Attributes:
        name: The irrep.
        dim: Its dimension d.
        rows: Orthonormal coefficients ``[m, d, L·M]``, the site slower than the component.
        radii: Distance of each copy's shell, ``[m]``.
        shells: Index of each copy's shell.
        channels: First field component of the block that each copy is made of.
    """

    name: str
    dim: int
    rows: np.ndarray
    radii: np.ndarray
    shells: tuple[int, ...]
    channels: tuple[int, ...]

    @property
    def multiplicity(self) -> int:
        """Number of copies m."""
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Projection:
    """Symmetry-adapted coordinates of a neighbourhood.

    Attributes:
        group: The group of the site.
        shells: The neighbourhood.
        spec: Representation of the field.
        irreps: Copies of every irrep that occurs, in the order of the group.
    """

    group: FiniteGroup
    shells: tuple[Shell, ...]
    spec: str
    irreps: tuple[IrrepCopies, ...]

    @property
    def matrix(self) -> np.ndarray:
        """The orthogonal matrix B ``[L·M, L·M]``: irrep by irrep, copy by copy."""
        size = sum(shell.size for shell in self.shells)
        columns = size * self.group.representation(self.spec).dim
        return np.concatenate([irrep.rows.reshape(-1, columns) for irrep in self.irreps])

    @property
    def multiplicities(self) -> dict[str, int]:
        """Number of copies of every irrep that occurs."""
        return {irrep.name: irrep.multiplicity for irrep in self.irreps}

    def irrep(self, name: str) -> IrrepCopies:
        """The copies of one irrep.

        Raises:
            InputError: When the irrep does not occur.
        """
        for irrep in self.irreps:
            if irrep.name == name:
                return irrep
        raise unknown("irrep of this neighbourhood", name, self.multiplicities)

    def field_matrices(self) -> np.ndarray:
        """The representation T(g) on the values of the neighbourhood, ``[order, L·M, L·M]``."""
        return neighbourhood_matrices(self.group, self.shells, self.spec)

    def block_matrices(self) -> np.ndarray:
        """The block diagonal representation ⊕ D^Γ(g), ``[order, L·M, L·M]``."""
        order = self.group.order
        size = sum(irrep.multiplicity * irrep.dim for irrep in self.irreps)
        result, start = np.zeros((order, size, size)), 0
        for irrep in self.irreps:
            for _ in range(irrep.multiplicity):
                stop = start + irrep.dim
                result[:, start:stop, start:stop] = self.group.irreps[irrep.name].matrices
                start = stop
        return result


def neighbourhood_matrices(group: FiniteGroup, shells: Sequence[Shell], spec: str) -> np.ndarray:
    """Representation T(g) = P(g) ⊗ M(g) of field values on a neighbourhood.

    Args:
        group: The group of the site.
        shells: The neighbourhood of L sites.
        spec: Representation of the field, of dimension M.

    Returns:
        ``[order, L·M, L·M]``, the site slower than the component.
    """
    images = offset_permutations(group, shells)
    width = images.shape[1]
    field = group.representation(spec).matrices
    moved = (images[:, None, :] == np.arange(width)[None, :, None]).astype(float)  # [g, to, from]
    product = np.einsum("gst,gab->gsatb", moved, field)
    return product.reshape(group.order, width * field.shape[-1], -1)


def projection(
    lattice: Lattice | str,
    shells: Sequence[Shell] | int,
    field_rep: str = "A1",
    group: str | None = None,
) -> Projection:
    """Decompose the values of a field on a neighbourhood into irreps.

    For each shell and each block of the field, the copies of an irrep are built one after the
    other: the unit vector with the largest part outside the copies found so far (the first such,
    in the order of the sites) is projected on the first row of the irrep, and its partners follow.
    For an irrep of complex type (E of C4, E1 and E2 of C6) this fixes the rotation that such
    copies leave open; nothing else is special about them.

    Args:
        lattice: A lattice, or the name of its family.
        shells: The neighbourhood; a number stands for the site and that many shells around it.
        field_rep: Representation of the field at one site, such as ``"2xA1+B1"``.
        group: Name of a subgroup of the lattice's site group, such as ``"C4"`` where reflections
            are broken; the whole site group by default.

    Returns:
        The projection; Σ_Γ m_Γ d_Γ = L M.

    Raises:
        InputError: For an unknown name, a bad list of shells, or a group that is not part of the
            site group.
    """
    lattice = family_lattice(lattice)
    chosen = resolve_shells(lattice, shells)
    return _projection(lattice.family, chosen, field_rep.replace(" ", ""), group)


def site_subgroup(lattice: Lattice | str, name: str | None) -> FiniteGroup:
    """The site group of a lattice, or a subgroup of it by name.

    Raises:
        InputError: When the named group is not part of the site group.
    """
    whole = family_lattice(lattice).site_group
    if name is None or name == whole.name:
        return whole
    group = point_group(name)
    if group.dim == whole.dim:
        difference = np.abs(group.matrices[:, None] - whole.matrices[None]).max((-1, -2))
        if difference.min(1).max() < _TOLERANCE:
            return group
    raise InputError(f"{name} is not a subgroup of {whole.name}, the group of a lattice site.")


@lru_cache(maxsize=64)
def _projection(
    family: str, shells: tuple[Shell, ...], spec: str, group_name: str | None
) -> Projection:
    group = site_subgroup(family, group_name)
    field = group.representation(spec)
    total = sum(shell.size for shell in shells)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in group.irreps}
    origins: dict[str, list[tuple[Shell, int]]] = {name: [] for name in group.irreps}

    start = 0
    for shell in shells:
        channel = 0
        for number, name, dim in field.blocks:
            # Equal blocks decompose alike: solve once, then place at each copy's channels.
            matrices = neighbourhood_matrices(group, (shell,), name)
            for irrep in group.irreps:
                copies = irrep_copies(group, matrices, irrep)
                copies = copies.reshape(*copies.shape[:2], shell.size, dim)
                for copy in range(number):
                    first = channel + copy * dim
                    for found in copies:
                        row = np.zeros((len(found), total, field.dim))
                        row[:, start : start + shell.size, first : first + dim] = found
                        rows[irrep].append(row.reshape(len(found), -1))
                        origins[irrep].append((shell, first))
            channel += number * dim
        start += shell.size

    return Projection(
        group,
        shells,
        spec,
        tuple(
            IrrepCopies(
                name,
                group.irreps[name].dim,
                np.array(found),
                np.array([shell.radius for shell, _ in origins[name]]),
                tuple(shell.index for shell, _ in origins[name]),
                tuple(channel for _, channel in origins[name]),
            )
            for name, found in rows.items()
            if found
        ),
    )


def irrep_copies(group: FiniteGroup, matrices: np.ndarray, name: str) -> np.ndarray:
    """Orthonormal copies of one irrep in a representation, ``[m, d, n]``.

    A copy is an isometry W with T(g) W = W D(g). Projecting a unit vector e,
    W = Σ_g T(g) e (D(g) e₁)ᵀ, gives one up to its length, by Schur's lemma for real and for
    complex type alike; the span of a copy is invariant, so the remainder of the next unit vector
    gives a copy orthogonal to it.
    """
    irrep = group.irreps[name]
    # Projector on all copies together; over the reals complex type counts its character twice.
    norm = float((irrep.character**2).mean())
    isotypic = np.einsum("g,gij->ij", irrep.character, matrices) * irrep.dim / norm / group.order
    first = irrep.matrices[:, :, 0]  # [g, d]: D(g) e₁
    weights = np.einsum("gij,gm->mij", matrices, first) / group.order  # [d, n, n]
    found: list[np.ndarray] = []
    remainder = isotypic
    while np.trace(remainder) > 0.5:
        # Length of the copy that each unit vector yields: its part in the first row.
        lengths = np.linalg.norm(np.einsum("mij,jk->mik", weights, remainder), axis=(0, 1))
        pivot = int(np.argmax(lengths > lengths.max() - _TOLERANCE))
        copy = weights @ remainder[:, pivot]
        copy /= np.linalg.norm(copy[0])
        copy *= np.sign(copy[0, pivot]) or 1.0
        found.append(copy)
        remainder = remainder - np.einsum("mi,mj->ij", copy, copy)
    return np.array(found).reshape(len(found), irrep.dim, matrices.shape[-1])
