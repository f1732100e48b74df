"""Real orthogonal irreps of finite groups, and the linear algebra of representations.

Everything here is a fixed function of its input: no random numbers, and no choice of basis that
rounding could tip over. Saved weights depend on it.

Over the real numbers an irrep is of one of three types, told apart by what commutes with it
(Frobenius and Schur): the multiples of the identity (*real*), a copy of the complex numbers
(*complex*: a conjugate pair of one-dimensional irreps of C4, say, kept together as one real irrep
of dimension 2), or of the quaternions. Schur's orthogonality then reads

    ⟨χ_a, χ_b⟩ = (1/|G|) Σ_g χ_a(g) χ_b(g) = n_a δ_ab ,   n = 1, 2 or 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latticezoo.symmetry.errors import InputError

#: Group elements, irreps and projectors are good to rounding; what differs, differs by far more.
TOLERANCE = 1e-6

_KINDS = {1: "real", 2: "complex", 4: "quaternionic"}


@dataclass(frozen=True, eq=False)
class Irrep:
    """A real orthogonal irreducible representation.

    Attributes:
        name: Mulliken symbol.
        dim: Dimension over the real numbers.
        matrices: ``[order, dim, dim]``, float64, in the order of the group's elements.
        kind: ``"real"``, ``"complex"`` or ``"quaternionic"``, by what commutes with it.
    """

    name: str
    dim: int
    matrices: np.ndarray
    kind: str = "real"

    @classmethod
    def of(cls, name: str, matrices: np.ndarray) -> Irrep:
        """Make an irrep; its kind is that of Frobenius and Schur.

        A real representation is irreducible if and only if its symmetric square holds one
        invariant: (⟨χ(g)²⟩ + ⟨χ(g²)⟩) / 2 = 1.

        Raises:
            InputError: When the matrices are reducible.
        """
        character = characters(matrices)
        norm = float(character @ character) / len(matrices)
        indicator = float(np.einsum("gij,gji->", matrices, matrices)) / len(matrices)
        invariants = (norm + indicator) / 2
        if not abs(invariants - 1) < TOLERANCE:
            raise InputError(
                f"{name!r} is reducible: its symmetric square holds {invariants:.4g} invariants, "
                "which should be 1."
            )
        return cls(name, matrices.shape[-1], frozen(matrices), _KINDS[round(norm)])

    @cached_property
    def character(self) -> np.ndarray:
        """Trace of every element, ``[order]``."""
        return frozen(characters(self.matrices))

    @property
    def commutant_dim(self) -> int:
        """Number n of independent matrices that commute with the irrep: 1, 2 or 4."""
        return next(number for number, kind in _KINDS.items() if kind == self.kind)

    @cached_property
    def commutant(self) -> np.ndarray:
        """Orthogonal matrices that span everything which commutes with the irrep.

        The identity first; the others are antisymmetric (imaginary units).

        Returns:
            ``[commutant_dim, dim, dim]``.
        """
        identity = np.eye(self.dim)[None]
        found = intertwiner_basis(self.matrices, self.matrices)
        # With Aᵀ A a multiple of 1, the antisymmetric parts of the basis span the rest.
        antisymmetric = (found - found.transpose(0, 2, 1)).reshape(len(found), -1) / 2
        rest = orthonormal_range(_projector_on(antisymmetric))
        units = rest.reshape(-1, self.dim, self.dim) * np.sqrt(self.dim)
        return frozen(np.concatenate([identity, units]))


def characters(matrices: np.ndarray) -> np.ndarray:
    """Traces ``[order]`` of representation matrices ``[order, dim, dim]``."""
    return np.trace(matrices, axis1=1, axis2=2)


def frozen(array: np.ndarray) -> np.ndarray:
    """A read-only copy: groups are shared, so their tables must not be written to."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy


def kronecker(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Tensor product of two representations, ``[order, dim_a·dim_b, dim_a·dim_b]``."""
    size = a.shape[-1] * b.shape[-1]
    return np.einsum("gij,gkl->gikjl", a, b).reshape(len(a), size, size)


def orthonormal_range(projector: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the range of an orthogonal projector, chosen deterministically.

    Pivoted Gram–Schmidt on the columns: always the column with the largest remainder, the first
    of equal ones, with a positive pivot. Remainders of group projectors take few discrete values,
    so rounding does not change the choice.

    Args:
        projector: ``[n, n]``, symmetric and idempotent.

    Returns:
        ``[rank, n]``.
    """
    rank = round(float(np.trace(projector)))
    return _pivoted_range(np.diagonal(projector), lambda k: projector[:, k], rank)


def intertwiner_basis(rep_in: np.ndarray, rep_out: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the linear maps W with ρ_out(g) W = W ρ_in(g) for every g.

    It spans the range of the projector W → (1/|G|) Σ_g ρ_out(g) W ρ_in(g)ᵀ, only those columns of
    which are computed that are used.

    Args:
        rep_in: ``[order, dim_in, dim_in]``, orthogonal.
        rep_out: ``[order, dim_out, dim_out]``, orthogonal.

    Returns:
        ``[m, dim_out, dim_in]`` with Σ_kl W_r[k, l] W_s[k, l] = δ_rs.

    Raises:
        InputError: When the matrices are no representations of one group.
    """
    order, d_in, d_out = len(rep_in), rep_in.shape[-1], rep_out.shape[-1]
    count = float(characters(rep_in) @ characters(rep_out)) / order
    if abs(count - round(count)) > TOLERANCE or count < -TOLERANCE:
        raise InputError(
            f"the matrices are no representation of the group: {count:.6g} intertwiners, "
            "which should be a whole number."
        )
    diagonal = np.einsum("gii,gjj->ij", rep_out, rep_in).ravel() / order

    def column(index: int) -> np.ndarray:
        i, j = divmod(index, d_in)
        return np.einsum("go,gi->oi", rep_out[:, :, i], rep_in[:, :, j]).ravel() / order

    return _pivoted_range(diagonal, column, round(count)).reshape(-1, d_out, d_in)


def clebsch_gordan(a: Irrep, b: Irrep, c: Irrep) -> np.ndarray:
    """Equivariant bilinear maps a ⊗ b → c.

    Returns:
        ``[multiplicity · n, dim_c, dim_a, dim_b]`` with n = ``c.commutant_dim``; entry ``r n + s``
        is the s-th matrix of ``c.commutant`` times entry ``r n``. Rows are orthonormal.
    """
    found: list[np.ndarray] = []
    for candidate in intertwiner_basis(kronecker(a.matrices, b.matrices), c.matrices):
        rest = candidate - sum((np.vdot(known, candidate) * known for known in found), 0.0)
        if np.linalg.norm(rest) > TOLERANCE:
            found += list(c.commutant @ (rest / np.linalg.norm(rest)))
    return np.array(found).reshape(-1, c.dim, a.dim, b.dim) * np.sqrt(c.dim)


def generate_irreps(matrices: np.ndarray) -> list[np.ndarray]:
    """All real orthogonal irreps of a finite group of orthogonal matrices.

    By Burnside's theorem every irrep occurs in a tensor power of a faithful representation. So
    start with the trivial irrep, multiply each irrep found with the vector representation, and
    split off what is new (Dresselhaus, Group Theory, chapters 4 and 6, for the projectors). If the
    vector representation is irreducible, it is found first, and as it stands.

    Args:
        matrices: ``[order, d, d]``, the group.

    Returns:
        One array ``[order, dim, dim]`` for each irrep, the trivial one first, by dimension.
    """
    order = len(matrices)
    found = [Irrep.of("trivial", np.ones((order, 1, 1)))]
    missing = order - 1.0  # Σ dim²/n over all irreps is the order of the group
    for irrep in found:  # grows while we go through it
        if missing < 0.5:
            break
        carrier = kronecker(irrep.matrices, matrices)
        new = np.eye(carrier.shape[-1])
        for known in found:
            new -= isotypic_projector(known, carrier)
        basis = orthonormal_range(new)
        for rows in _split(_restricted(carrier, basis)):
            piece = Irrep.of("new", _restricted(carrier, rows @ basis))
            if all(np.abs(piece.character - old.character).max() > TOLERANCE for old in found):
                found.append(piece)
                missing -= piece.dim**2 / piece.commutant_dim
    return [irrep.matrices for irrep in sorted(found, key=lambda irrep: irrep.dim)]


def isotypic_projector(irrep: Irrep, rep: np.ndarray) -> np.ndarray:
    """Projector on all copies of an irrep: (dim / n|G|) Σ_g χ(g) ρ(g), ``[d, d]``."""
    factor = irrep.dim / (irrep.commutant_dim * len(rep))
    return factor * np.einsum("g,gij->ij", irrep.character, rep)


def _split(rep: np.ndarray) -> list[np.ndarray]:
    """Split an orthogonal representation into irreducible ones.

    The averages of the elementary symmetric matrices over the group span all symmetric matrices
    that commute with it. If each is a multiple of 1, the representation is irreducible; if one is
    not, its eigenspaces are invariant.

    Returns:
        Orthonormal rows ``[dim, d]`` for each irreducible piece.
    """
    size = rep.shape[-1]
    for i in range(size):
        for j in range(i, size):
            average = np.einsum("ga,gb->ab", rep[:, :, i], rep[:, :, j]) / len(rep)
            values, vectors = np.linalg.eigh(average + average.T)
            steps = np.flatnonzero(np.diff(values) > TOLERANCE) + 1
            if not len(steps):
                continue
            pieces = []
            for space in reversed(np.split(vectors, steps, axis=1)):
                basis = orthonormal_range(space @ space.T)
                pieces += [rows @ basis for rows in _split(_restricted(rep, basis))]
            return pieces
    return [np.eye(size)] if size else []


def _restricted(rep: np.ndarray, basis: np.ndarray) -> np.ndarray:
    return basis @ rep @ basis.T


def _projector_on(vectors: np.ndarray) -> np.ndarray:
    """Orthogonal projector on the span of the rows."""
    _, sizes, rows = np.linalg.svd(vectors, full_matrices=False)
    rows = rows[sizes > TOLERANCE]
    return rows.T @ rows


def _pivoted_range(
    diagonal: np.ndarray, column: Callable[[int], np.ndarray], rank: int
) -> np.ndarray:
    """Rows of a pivoted Cholesky factor of a projector, of which only ``rank`` columns are read."""
    remainder = np.array(diagonal, dtype=float)
    rows = np.zeros((rank, len(remainder)))
    for r in range(rank):
        pivot = int(np.argmax(remainder > remainder.max() - TOLERANCE))
        row = column(pivot) - rows[:r, pivot] @ rows[:r]
        # Once more, so that rows stay orthogonal to rounding.
        row = row - (rows[:r] @ row) @ rows[:r]
        rows[r] = row / np.linalg.norm(row)
        remainder -= rows[r] ** 2
    return rows
