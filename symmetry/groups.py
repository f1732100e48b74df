"""Finite groups of orthogonal matrices: product table, classes, irreps, Clebsch–Gordan.

A :class:`FiniteGroup` is made from its matrices; all else is worked out from them once and kept.
Element 0 is the identity. ``print(group)`` shows the character table.

Irreps are real and orthogonal and the same for ever: those of the groups in
:mod:`latticezoo.symmetry.point_groups` are written down there, those of other groups are generated
by a fixed construction. Saved weights depend on them, and on the bases returned by
:meth:`FiniteGroup.intertwiners` and :meth:`FiniteGroup.clebsch_gordan`; whoever changes one of
these must raise :data:`CONVENTION_VERSION`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np

from latticezoo.symmetry import product_tables as tables
from latticezoo.symmetry.character_table import CharacterTable, character_table
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.irreps import (
    TOLERANCE,
    Irrep,
    characters,
    clebsch_gordan,
    frozen,
    generate_irreps,
    intertwiner_basis,
)
from latticezoo.symmetry.mulliken import field_order, mulliken_names
from latticezoo.symmetry.representations import Representation, direct_sum
from latticezoo.symmetry.schoenflies import Geometry, Operation, element_names

__all__ = ["CONVENTION_VERSION", "CharacterTable", "FiniteGroup", "Irrep", "Representation"]

#: Version of the representation conventions (element order, irrep matrices, bases of intertwiners
#: and Clebsch–Gordan coefficients). Saved weights of another version are not loaded.
CONVENTION_VERSION = 1

#: What stands for a representation: a spec, a representation, an irrep, or its matrices.
RepresentationLike = str | Representation | Irrep | np.ndarray


class FiniteGroup:
    """A finite group of orthogonal matrices.

    Args:
        name: What to call it; the Schoenflies symbol when None.
        matrices: ``[order, d, d]``, the identity first.
        irreps: Real orthogonal matrices ``[order, dim, dim]`` by Mulliken symbol, in the order of
            the tables; generated and named when None.
        element_names: One for each element; read off the matrices when None.

    Raises:
        InputError: For matrices that are not orthogonal, not different or not closed under
            multiplication, for a first one that is not the identity, and for irreps that do not
            multiply like the elements or are not complete.

    Attributes:
        name: The name.
        matrices: ``[order, d, d]``, read-only.
        order: Number of elements.
        dim: Dimension d of the matrices.
        product_table: ``[order, order]``: index of ``matrices[a] @ matrices[b]``.
        inverse: ``[order]``: index of the inverse.
        parent: The group it is a subgroup of, or None.
        embedding: Indices of its elements in ``parent``, or None.

    Example:
        >>> from latticezoo.symmetry.point_groups import D
        >>> D(4).tensor_product("E", "E")
        {'A1': 1, 'A2': 1, 'B1': 1, 'B2': 1}
    """

    def __init__(
        self,
        name: str | None,
        matrices: np.ndarray,
        irreps: Mapping[str, np.ndarray] | None = None,
        element_names: Iterable[str] | None = None,
    ) -> None:
        what = f"the matrices of {name}" if name else "the matrices"
        self.matrices = frozen(tables.checked_matrices(matrices, what))
        self.order, self.dim = self.matrices.shape[:2]
        self.product_table = frozen(tables.product_table(self.matrices, what))
        self.inverse = frozen(self.product_table.argmin(axis=1))
        self.parent: FiniteGroup | None = None
        self.embedding: np.ndarray | None = None
        self._given_name = name
        self._given_elements = tuple(element_names) if element_names is not None else None
        self._representations: dict[str, Representation] = {}
        if irreps is not None:
            self.irreps = self._check_irreps(irreps)

    # ---- elements and classes ------------------------------------------------------------------

    @cached_property
    def name(self) -> str:
        """Schoenflies symbol, or the name given."""
        if self._given_name is not None:
            return self._given_name
        return self._geometry.name if self._geometry else f"G{self.order}"

    @cached_property
    def element_names(self) -> tuple[str, ...]:
        """A name for each element, such as ``"C4^3"`` or, for a mirror line, ``"C2'(45°)"``."""
        if self._given_elements:
            return self._given_elements
        if self._geometry is None:
            return ("E", *(f"g{k}" for k in range(1, self.order)))
        return element_names(self._geometry.operations, self._geometry.planar)

    def index(self, matrix: np.ndarray) -> int:
        """Index of the element with this matrix.

        Raises:
            InputError: When no element has it.
        """
        given = np.asarray(matrix, dtype=float)
        if given.shape == (self.dim, self.dim):
            distance = np.abs(self.matrices - given).max(axis=(1, 2))
            if distance.min() < TOLERANCE:
                return int(distance.argmin())
        raise InputError(f"the matrix {given.round(4).tolist()} is no element of {self.name}.")

    @cached_property
    def _geometry(self) -> Geometry | None:
        if self.dim > 3:
            return None
        classes = tables.conjugacy_classes(self.product_table)
        rank: dict[int, tuple[int, ...]] = {k: (len(c),) for c in classes for k in c}
        if self.parent is not None and self.embedding is not None:
            for index, members in enumerate(self.parent.conjugacy_classes):
                inside = np.flatnonzero(np.isin(self.embedding, members))
                rank |= {int(k): (len(members), index) for k in inside}
        return Geometry(
            operations=tuple(map(Operation.of, self.matrices)),
            classes=classes,
            planar=self.dim < 3,
            rank=tuple(rank[k] for k in range(self.order)),
        )

    @cached_property
    def conjugacy_classes(self) -> tuple[tuple[int, ...], ...]:
        """Element indices of each class, in the order of the tables."""
        if self._geometry is None:
            return tables.conjugacy_classes(self.product_table)
        return self._geometry.ordered_classes

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes with their sizes: ``("E", "2C4", "C2", "2C2'", "2C2''")``."""
        classes = self.conjugacy_classes
        if self._geometry is None:
            labels = ("E", *(f"K{k}" for k in range(1, len(classes))))
        else:
            labels = self._geometry.labels
        sizes = (f"{len(members)}" if len(members) > 1 else "" for members in classes)
        return tuple(size + label for size, label in zip(sizes, labels, strict=True))

    # ---- irreps and representations ------------------------------------------------------------

    @cached_property
    def irreps(self) -> dict[str, Irrep]:
        """Irreps by Mulliken symbol, in the order of the tables."""
        found = [Irrep.of("", matrices) for matrices in generate_irreps(self.matrices)]
        if self._geometry is None:
            names = [f"Γ{k + 1}" for k in range(len(found))]
        else:
            names = mulliken_names(self._geometry, found)
        irreps = {n: Irrep.of(n, f.matrices) for n, f in zip(names, found, strict=True)}
        return {key: irreps[key] for key in sorted(irreps, key=field_order)}

    @cached_property
    def trivial(self) -> str:
        """Name of the trivial irrep."""
        return next(n for n, i in self.irreps.items() if np.allclose(i.character, 1))

    def irrep(self, name: str) -> Irrep:
        """Look an irrep up.

        Raises:
            InputError: For an unknown name, with the nearest ones.
        """
        if name not in self.irreps:
            raise unknown(f"irrep of {self.name}", name, self.irreps)
        return self.irreps[name]

    @cached_property
    def character_table(self) -> CharacterTable:
        """The character table; printing shows it as in a textbook."""
        return character_table(self)

    def representation(self, spec: str) -> Representation:
        """A direct sum of irreps and Cartesian representations.

        Args:
            spec: Such as ``"2xA1+B1"``; besides irreps ``"vector"`` (the matrices themselves) and
                ``"pseudovector"`` (the matrices times their determinant).

        Raises:
            InputError: For text that is no such sum, or an unknown name, with the nearest ones.
        """
        if spec not in self._representations:
            self._representations[spec] = direct_sum(spec, self.name, self.matrices, self.irreps)
        return self._representations[spec]

    def decompose(self, value: RepresentationLike) -> dict[str, int]:
        """Decompose a representation: m_Γ = (1/n_Γ|G|) Σ_g χ_Γ(g) χ(g), n_Γ = 1, 2, 4 by type.

        Args:
            value: Matrices ``[order, d, d]``, a character ``[order]``, a representation or a spec.

        Returns:
            Multiplicities of the irreps that occur, in the order of the tables.

        Raises:
            InputError: When it is no representation, as far as its character tells.
        """
        character = self._character(value)
        if not np.isfinite(character).all():
            raise InputError(f"a representation of {self.name} must not contain NaN or infinity.")
        result, rest = {}, character.copy()
        for name, irrep in self.irreps.items():
            share = irrep.character @ character / (self.order * irrep.commutant_dim)
            if count := int(np.rint(share)):
                result[name] = count
                rest -= count * irrep.character
        size = 1 + np.abs(character).max()
        if min(result.values(), default=0) < 0 or np.abs(rest).max() > TOLERANCE * size:
            raise InputError(
                f"the characters {character[:4].round(4).tolist()}… belong to no representation "
                f"of {self.name}."
            )
        return result

    def tensor_product(self, a: RepresentationLike, b: RepresentationLike) -> dict[str, int]:
        """Decompose the tensor product of two representations, as :meth:`decompose`."""
        return self.decompose(self._character(a) * self._character(b))

    def intertwiners(self, rep_in: RepresentationLike, rep_out: RepresentationLike) -> np.ndarray:
        """Basis of the linear maps W with ρ_out(g) W = W ρ_in(g) for every element.

        Returns:
            ``[m, dim_out, dim_in]`` with Σ_kl W_r[k, l] W_s[k, l] = δ_rs; always the same basis.
        """
        return intertwiner_basis(self._matrices(rep_in), self._matrices(rep_out))

    def clebsch_gordan(self, a: str, b: str, c: str) -> np.ndarray:
        """Clebsch–Gordan coefficients: all ways to make c from the product of a and b.

        ``np.einsum("kij,i,j->k", C[r], u, v)`` transforms as c if u and v transform as a and b.

        For c of real type there are as many as the multiplicity of c in a ⊗ b. For complex type
        there are twice as many, since each can be turned by the imaginary unit that commutes with
        c: ``C[1] = J C[0]``, and ``C[::c.commutant_dim]`` are the independent copies. These,
        stacked over all c, are an orthogonal matrix.

        Returns:
            ``[multiplicity · commutant_dim, dim_c, dim_a, dim_b]``; the rows of each ``C[r]`` (and
            of all independent copies) are orthonormal. Always the same coefficients.
        """
        return clebsch_gordan(self.irrep(a), self.irrep(b), self.irrep(c))

    def _matrices(self, value: RepresentationLike) -> np.ndarray:
        if isinstance(value, str):
            return self.representation(value).matrices
        matrices = np.asarray(getattr(value, "matrices", value), dtype=float)
        if matrices.ndim != 3 or matrices.shape[0] != self.order:
            raise InputError(
                f"a representation of {self.name} has matrices [{self.order}, d, d], not "
                f"{list(matrices.shape)}."
            )
        return matrices

    def _character(self, value: RepresentationLike) -> np.ndarray:
        if isinstance(value, np.ndarray) and value.shape == (self.order,):
            return np.asarray(value, dtype=float)
        return characters(self._matrices(value))

    # ---- subgroups -----------------------------------------------------------------------------

    def subgroup(self, indices: Iterable[int], name: str | None = None) -> FiniteGroup:
        """The subgroup with these elements.

        It keeps its elements' names, in the order of this group. Its own name, classes and irreps
        follow from the matrices (see :mod:`latticezoo.symmetry.schoenflies`).

        Args:
            indices: Elements of this group, the identity among them, closed under multiplication.
            name: The Schoenflies symbol when None.

        Raises:
            InputError: For indices that do not exist or are not closed under multiplication.
        """
        chosen = np.unique(np.asarray(list(indices), dtype=int))
        if not len(chosen) or chosen[0] < 0 or chosen[-1] >= self.order:
            raise InputError(
                f"elements {chosen.tolist()} are no subgroup of {self.name}, whose elements are 0 "
                f"to {self.order - 1}."
            )
        products = self.product_table[np.ix_(chosen, chosen)]
        if not np.isin(products, chosen).all():
            a, b = np.argwhere(~np.isin(products, chosen))[0]
            names = [self.element_names[k] for k in (chosen[a], chosen[b], products[a, b])]
            raise InputError(
                f"elements {chosen.tolist()} of {self.name} are not closed under multiplication: "
                f"{names[0]} times {names[1]} is {names[2]}."
            )
        group = FiniteGroup(
            name, self.matrices[chosen], element_names=[self.element_names[k] for k in chosen]
        )
        group.parent, group.embedding = self, frozen(chosen)
        return group

    def subgroups(self, up_to_conjugacy: bool = True) -> tuple[FiniteGroup, ...]:
        """All subgroups, the trivial one and the group itself included, smallest first.

        Args:
            up_to_conjugacy: Give one of each set {g H g⁻¹}, that with the first elements; False
                gives all of them.
        """
        seen: set[tuple[int, ...]] = set()
        chosen = []
        for members in self._subgroup_indices:
            if members not in seen:
                chosen.append(members)
            if up_to_conjugacy:
                seen |= tables.conjugate_subgroups(self.product_table, members)
        return tuple(map(self.subgroup, chosen))

    @cached_property
    def _subgroup_indices(self) -> tuple[tuple[int, ...], ...]:
        return tables.all_subgroups(self.product_table)

    def generated(self, elements: Iterable[int], name: str | None = None) -> FiniteGroup:
        """The smallest subgroup that contains the given elements."""
        return self.subgroup(tables.generated(self.product_table, elements), name)

    def stabilizer(self, point: np.ndarray) -> FiniteGroup:
        """The subgroup that leaves a point ``[d]`` where it is."""
        position = np.asarray(point, dtype=float)
        moved = np.abs(self.matrices @ position - position).max(axis=1)
        return self.subgroup(np.flatnonzero(moved < TOLERANCE * (1 + np.abs(position).max())))

    def cosets(self, subgroup: FiniteGroup) -> tuple[tuple[int, ...], ...]:
        """Left cosets g H as element indices, H itself first; each begins with its first element.

        With the stabilizer of a point, one coset for each point of its orbit.
        """
        return tables.left_cosets(self.product_table, self._embed(subgroup))

    def restrict(self, irrep: RepresentationLike, subgroup: FiniteGroup) -> dict[str, int]:
        """Branching rule: decompose a representation under a subgroup.

        Args:
            irrep: Name of an irrep or any representation of this group.
            subgroup: From :meth:`subgroup`, or any group all of whose matrices this one has.

        Returns:
            Multiplicities of the subgroup's irreps.

        Raises:
            InputError: When it is no subgroup.
        """
        return subgroup.decompose(self._character(irrep)[self._embed(subgroup)])

    def _embed(self, subgroup: FiniteGroup) -> np.ndarray:
        if subgroup.parent is self and subgroup.embedding is not None:
            return subgroup.embedding
        try:
            return np.array([self.index(matrix) for matrix in subgroup.matrices])
        except InputError:
            raise InputError(f"{subgroup.name} is no subgroup of {self.name}.") from None

    # ---- checks --------------------------------------------------------------------------------

    def _check_irreps(self, given: Mapping[str, np.ndarray]) -> dict[str, Irrep]:
        irreps = {}
        for name, matrices in given.items():
            rep = np.asarray(matrices, dtype=float) + 0.0
            product = np.einsum("aij,bjk->abik", rep, rep)
            if rep.shape[0] != self.order or np.abs(product - rep[self.product_table]).max() > 1e-9:
                raise InputError(f"the matrices of {name!r} do not multiply like {self.name}.")
            irreps[name] = Irrep.of(name, rep)
        total = sum(i.dim**2 // i.commutant_dim for i in irreps.values())
        if total != self.order:
            raise InputError(
                f"the irreps {', '.join(irreps)} of {self.name} are not complete: their squared "
                f"dimensions add up to {total}, not {self.order}."
            )
        return irreps

    def __len__(self) -> int:
        return self.order

    def __repr__(self) -> str:
        return f"FiniteGroup({self.name!r}, order {self.order})"

    def __str__(self) -> str:
        return str(self.character_table)
