"""Polynomials in one reference vector per irrep: invariants and vectors made of them.

They tie the references of different irrep types together: the reference bispectrum of a descriptor
and the further directions along which its fullest level measures a copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.irreps import orthonormal_range

_INDEPENDENT = 1e-3


@dataclass(frozen=True, eq=False)
class Product:
    """A polynomial in the references: Σ C · a₁ · a₂ · … over the irreps named.

    Attributes:
        irreps: One per factor; names may repeat.
        tensor: Coefficients ``[d₁, d₂, …]`` of an invariant, ``[d, d₁, d₂, …]`` of a vector.
    """

    irreps: tuple[str, ...]
    tensor: np.ndarray


def reference_bispectrum(group: FiniteGroup, names: Sequence[str]) -> tuple[Product, ...]:
    """All independent cubic invariants of one reference per irrep, the trivial one left out.

    Args:
        group: The group of the site.
        names: Irreps that have a reference.

    Returns:
        The products. For D4 the three b1 (ex² − ey²), 2 b2 ex ey, a2 b1 b2; for D6 the five of the
        descriptor sheet; for D3 the cubic ex³ − 3 ex ey²; none for D1.
    """
    present = [name for name in group.irreps if name in names and name != group.trivial]
    return tuple(
        Product(triple, tensor)
        for triple in itertools.combinations_with_replacement(present, 3)
        for tensor in invariant_tensors(group, triple)
    )


def reference_directions(
    group: FiniteGroup, name: str, names: Sequence[str]
) -> tuple[Product, ...]:
    """Vectors of one irrep made of the references, independent of its own reference.

    Args:
        group: The group of the site.
        name: The irrep, of dimension d.
        names: Irreps that have a reference, the trivial one included or not.

    Returns:
        Up to d − 1 products of lowest degree, fewer when the references cannot make more.
    """
    present = [key for key in group.irreps if key in names and key != group.trivial]
    # Numbers without any relation among them stand for a generic field.
    generic = {
        key: np.sin(1.0 + 7.3 * number + np.arange(group.irreps[key].dim))
        for number, key in enumerate(group.irreps)
    }
    found: list[Product] = []
    span = [generic[name] / np.linalg.norm(generic[name])]
    for degree in (1, 2, 3):
        for factors in itertools.combinations_with_replacement(present, degree):
            for tensor in invariant_tensors(group, (name, *factors), fixed=1):
                vector = tensor
                for key in reversed(factors):
                    vector = vector @ generic[key]
                rest = vector - np.array(span).T @ (np.array(span) @ vector)
                full = len(span) == len(vector)
                if not full and np.linalg.norm(rest) > _INDEPENDENT * np.linalg.norm(vector):
                    span.append(rest / np.linalg.norm(rest))
                    found.append(Product(factors, tensor))
    return tuple(found)


def invariant_tensors(group: FiniteGroup, names: Sequence[str], fixed: int = 0) -> np.ndarray:
    """Invariant tensors with one axis per irrep: Clebsch–Gordan coefficients of any order.

    Args:
        group: The group.
        names: Irrep of every axis.
        fixed: Number of leading axes that are left alone; over the others the tensors are made
            symmetric wherever an irrep repeats, which is all that counts when every irrep has
            one vector.

    Returns:
        ``[n, d₁, d₂, …]``, independent, each with a largest entry of modulus 1.
    """
    matrices = [group.irreps[name].matrices for name in names]
    dims = tuple(m.shape[-1] for m in matrices)
    product = matrices[0]
    for m in matrices[1:]:
        product = np.einsum("gab,gcd->gacbd", product, m).reshape(
            group.order, product.shape[1] * m.shape[1], -1
        )
    projector = product.mean(0)
    axes = range(len(names))
    orders = [
        (*range(fixed), *rest)
        for rest in itertools.permutations(axes[fixed:])
        if all(names[new] == names[old] for new, old in zip(axes[fixed:], rest, strict=True))
    ]
    symmetric = sum(projector.reshape(*dims, -1).transpose(*order, -1) for order in orders)
    found = orthonormal_range(np.asarray(symmetric).reshape(projector.shape) / len(orders))
    largest = np.abs(found).max(1, keepdims=True) if len(found) else 1.0
    return (found / largest).reshape(-1, *dims)
