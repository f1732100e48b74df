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

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latticezoo.symmetry.character_table import CharacterTable
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.irreps import (
    TOLERANCE,
    Irrep,
    characters,
    frozen,
    generate_irreps,
    intertwiner_basis,
    kronecker,
)
from latticezoo.symmetry.schoenflies import (
    Geometry,
    Operation,
    element_names,
    field_order,
    mulliken_names,
)

__all__ = ["CONVENTION_VERSION", "CharacterTable", "FiniteGroup", "Irrep", "Representation"]

#: Version of the representation conventions (element order, irrep matrices, bases of intertwiners
#: and Clebsch–Gordan coefficients). Saved weights of another version are not loaded.
CONVENTION_VERSION = 1

_CARTESIAN = ("vector", "pseudovector")


@dataclass(frozen=True, eq=False)
class Representation:
    """A direct sum of irreps and Cartesian representations.

    Components run over the blocks in order; inside a block over the copies, then over the
    components of the irrep (the layout of e3nn).

    Attributes:
        spec: The sum as text, such as ``"2xA1+B1"``.
        blocks: ``(multiplicity, name, dim)`` for each term; ``dim`` is that of one copy.
        matrices: ``[order, dim, dim]``, float64, block diagonal.
    """

    spec: str
    blocks: tuple[tuple[int, str, int], ...]
    matrices: np.ndarray

    @property
    def dim(self) -> int:
        """Number of components."""
        return self.matrices.shape[-1]

    @cached_property
    def character(self) -> np.ndarray:
        """Trace of every element, ``[order]``."""
        return frozen(characters(self.matrices))

    def __str__(self) -> str:
        return self.spec


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
        class_order: Labels of the classes without their sizes, in the order of the tables, where
            that differs from the usual (proper before improper operations, by angle).

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
        class_order: Iterable[str] | None = None,
    ) -> None:
        self.matrices = frozen(_checked(name, matrices))
        self.order, self.dim = self.matrices.shape[:2]
        self.parent: FiniteGroup | None = None
        self.embedding: np.ndarray | None = None
        self._given_name, self._given_elements = name, element_names and tuple(element_names)
        self._given_order = class_order and tuple(class_order)
        self.product_table = frozen(_product_table(name, self.matrices))
        self.inverse = frozen(self.product_table.argmin(axis=1))
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
    def _bare_classes(self) -> tuple[tuple[int, ...], ...]:
        """Conjugacy classes {h g h⁻¹}, by first element."""
        table = self.product_table
        conjugates = table[table, self.inverse[:, None]]  # [h, g]
        return tuple(sorted({tuple(np.unique(conjugates[:, g])) for g in range(self.order)}))

    @cached_property
    def _geometry(self) -> Geometry | None:
        if self.dim > 3:
            return None
        classes = self._bare_classes
        rank: list[tuple[int, ...]] = [()] * self.order
        for members in classes:
            for k in members:
                rank[k] = (len(members),)
        if self.parent is not None and self.embedding is not None:
            for index, members in enumerate(self.parent.conjugacy_classes):
                for k in np.flatnonzero(np.isin(self.embedding, members)):
                    rank[k] = (len(members), index)
        operations = tuple(map(Operation.of, self.matrices))
        return Geometry(operations, classes, self.dim < 3, tuple(rank))

    @cached_property
    def _labelled_classes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        if self._geometry is None:
            return tuple((f"K{k + 1}", c) for k, c in enumerate(self._bare_classes))
        labelled = dict(zip(self._geometry.labels, self._geometry.ordered_classes, strict=True))
        return tuple((label, labelled[label]) for label in self._given_order or labelled)

    @cached_property
    def conjugacy_classes(self) -> tuple[tuple[int, ...], ...]:
        """Element indices of each class, in the order of the tables."""
        return tuple(tuple(int(k) for k in members) for _, members in self._labelled_classes)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes with their sizes: ``("E", "2C4", "C2", "2C2'", "2C2''")``."""
        return tuple(
            label if len(members) == 1 else f"{len(members)}{label}"
            for label, members in self._labelled_classes
        )

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
        first = [members[0] for members in self.conjugacy_classes]
        return CharacterTable(
            group=self.name,
            order=self.order,
            class_names=self.class_names,
            class_sizes=tuple(map(len, self.conjugacy_classes)),
            irrep_names=tuple(self.irreps),
            kinds=tuple(irrep.kind for irrep in self.irreps.values()),
            functions=tuple(map(self._functions, self.irreps.values())),
            values=frozen(np.array([i.character[first] for i in self.irreps.values()])),
        )

    def _functions(self, irrep: Irrep) -> str:
        """Coordinates and rotations that transform like the irrep: those on its axes."""
        parts = []
        words = {"vector": "xyz"[: self.dim]}
        if self.dim == 3 and (np.linalg.det(self.matrices) < 0).any():
            words["pseudovector"] = "xyz"
        for word, letters in words.items():
            weight = irrep.dim / (irrep.commutant_dim * self.order)
            rep = self.representation(word).matrices
            inside = weight * np.einsum("g,gii->i", irrep.character, rep)
            prefix = "R" if word == "pseudovector" else ""
            found = [prefix + c for c, w in zip(letters, inside, strict=True) if w > 1 - TOLERANCE]
            if found:
                parts.append(f"({', '.join(found)})" if irrep.dim > 1 else ", ".join(found))
        return ", ".join(parts)

    def representation(self, spec: str) -> Representation:
        """A direct sum of irreps and Cartesian representations.

        Args:
            spec: Such as ``"2xA1+B1"``; besides irreps ``"vector"`` (the matrices themselves) and
                ``"pseudovector"`` (the matrices times their determinant).

        Raises:
            InputError: For text that is no such sum, or an unknown name, with the nearest ones.
        """
        if spec not in self._representations:
            self._representations[spec] = self._build_representation(spec)
        return self._representations[spec]

    def _build_representation(self, spec: str) -> Representation:
        blocks, parts = [], []
        for term in str(spec).replace(" ", "").split("+"):
            match = re.fullmatch(r"(?:([1-9]\d*)x)?([^\W\d_][\w']*)", term)
            if match is None:
                raise InputError(
                    f"{spec!r} is no representation; write a sum of irreps such as '2xA1+B1'."
                )
            count, name = int(match[1] or 1), match[2]
            if name in _CARTESIAN:
                sign = np.linalg.det(self.matrices) if name == "pseudovector" else 1.0
                part = self.matrices * np.reshape(np.rint(sign), (-1, 1, 1)) + 0.0
            elif name in self.irreps:
                part = self.irreps[name].matrices
            else:
                raise unknown(f"irrep of {self.name}", name, [*self.irreps, *_CARTESIAN])
            blocks.append((count, name, part.shape[-1]))
            parts += [part] * count
        size, start = sum(part.shape[-1] for part in parts), 0
        matrices = np.zeros((self.order, size, size))
        for part in parts:
            stop = start + part.shape[-1]
            matrices[:, start:stop, start:stop] = part
            start = stop
        return Representation(str(spec), tuple(blocks), frozen(matrices))

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
        result, rest = {}, character.copy()
        for name, irrep in self.irreps.items():
            share = float(irrep.character @ character) / (self.order * irrep.commutant_dim)
            if count := round(share):
                result[name] = count
                rest -= count * irrep.character
        if min(result.values(), default=0) < 0 or np.abs(rest).max() > TOLERANCE * (
            1 + np.abs(character).max()
        ):
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
        first, second, target = self.irrep(a), self.irrep(b), self.irrep(c)
        product = kronecker(first.matrices, second.matrices)
        chosen: list[np.ndarray] = []
        for candidate in intertwiner_basis(product, target.matrices):
            rest = candidate.copy()
            for known in chosen:
                rest -= np.vdot(known, candidate) * known
            if np.linalg.norm(rest) > TOLERANCE:
                rest /= np.linalg.norm(rest)
                chosen += list(target.commutant @ rest)
        shape = (-1, target.dim, first.dim, second.dim)
        return np.array(chosen).reshape(shape) * np.sqrt(target.dim)

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

    def generate(self, elements: Iterable[int]) -> tuple[int, ...]:
        """Elements of the smallest subgroup that contains the given ones."""
        inside = np.zeros(self.order, dtype=bool)
        inside[[0, *elements]] = True
        while True:
            members = np.flatnonzero(inside)
            inside[self.product_table[np.ix_(members, members)]] = True
            if inside.sum() == len(members):
                return tuple(int(k) for k in members)

    def subgroups(self, up_to_conjugacy: bool = True) -> tuple[FiniteGroup, ...]:
        """All subgroups, the trivial one and the group itself included, smallest first.

        Args:
            up_to_conjugacy: Give one of each set {g H g⁻¹}, that with the first elements; False
                gives all of them.
        """
        seen = set()
        chosen = []
        for members in self._subgroup_indices:
            if members in seen:
                continue
            chosen.append(members)
            if up_to_conjugacy:
                seen |= set(self._conjugates(members))
        return tuple(self.subgroup(members) for members in chosen)

    @cached_property
    def _subgroup_indices(self) -> tuple[tuple[int, ...], ...]:
        """Elements of every subgroup: joins of cyclic ones, smallest first."""
        cyclic = {self.generate([k]) for k in range(self.order)}
        found, new = set(cyclic), set(cyclic)
        while new:
            joined = {self.generate({*h, *c}) for h in new for c in cyclic if not {*c} <= {*h}}
            new = joined - found
            found |= new
        return tuple(sorted(found, key=lambda members: (len(members), members)))

    def _conjugates(self, members: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        table = self.product_table
        for g in range(self.order):
            yield tuple(int(k) for k in np.sort(table[table[g, list(members)], self.inverse[g]]))

    def stabilizer(self, point: np.ndarray) -> FiniteGroup:
        """The subgroup that leaves a point ``[d]`` where it is."""
        position = np.asarray(point, dtype=float)
        moved = np.abs(self.matrices @ position - position).max(axis=1)
        return self.subgroup(np.flatnonzero(moved < TOLERANCE * (1 + np.abs(position).max())))

    def cosets(self, subgroup: FiniteGroup) -> tuple[tuple[int, ...], ...]:
        """Left cosets g H as element indices, H itself first; each begins with its first element.

        With the stabilizer of a point, one coset for each point of its orbit.
        """
        members = self._embed(subgroup)
        cosets = {tuple(np.sort(self.product_table[g, members])) for g in range(self.order)}
        return tuple(tuple(int(k) for k in coset) for coset in sorted(cosets))

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


def _checked(name: str | None, matrices: np.ndarray) -> np.ndarray:
    what = f"the matrices of {name}" if name else "the matrices"
    array = np.asarray(matrices, dtype=float)
    if array.ndim != 3 or array.shape[1] != array.shape[2] or 0 in array.shape:
        raise InputError(f"{what} must have the shape [order, d, d], not {list(array.shape)}.")
    identity = np.eye(array.shape[1])
    error = np.abs(array @ array.transpose(0, 2, 1) - identity).max(axis=(1, 2))
    if not error.max() < TOLERANCE:
        raise InputError(f"{what} must be orthogonal, but number {int(error.argmax())} is not.")
    if np.abs(array[0] - identity).max() > TOLERANCE:
        raise InputError(f"{what} must begin with the identity.")
    return array + 0.0


def _product_table(name: str | None, matrices: np.ndarray) -> np.ndarray:
    """Match products with elements: Tr(Aᵀ B) = d if and only if A = B."""
    what = f"the {len(matrices)} matrices{f' of {name}' if name else ''}"
    flat = matrices.reshape(len(matrices), -1)
    overlap = flat @ flat.T - np.eye(len(matrices)) * matrices.shape[1]
    if overlap.max() > matrices.shape[1] - TOLERANCE:
        a, b = np.unravel_index(overlap.argmax(), overlap.shape)
        raise InputError(f"{what} are not all different: numbers {min(a, b)} and {max(a, b)}.")
    products = np.einsum("aij,bjk->abik", matrices, matrices).reshape(len(matrices), len(matrices), -1)
    overlap = products @ flat.T
    if overlap.max(axis=-1).min() < matrices.shape[1] - TOLERANCE:
        a, b = np.argwhere(overlap.max(axis=-1) < matrices.shape[1] - TOLERANCE)[0]
        raise InputError(
            f"{what} are not closed under multiplication: number {a} times number {b} is missing."
        )
    return overlap.argmax(axis=-1)
