"""Our D4, D6, O and Oh against an independent library, escnn: same irreps up to a change of basis.

escnn has no T_d: its rotations are held against those of escnn's full octahedral group.
"""

import sys
import warnings

import numpy as np
import pytest

from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.point_groups import C, D, O, Oh, Td

if sys.version_info >= (3, 13):  # escnn needs numpy 1, which has no wheels there
    pytest.importorskip("escnn")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # py3nj is missing, which only spherical harmonics need
    import escnn.group as theirs

# escnn computes the irreps of O from spherical harmonics; they are good to about 1e-7.
TOLERANCE = 1e-6


def matched(group: FiniteGroup, other, vector) -> list:
    """For each of our elements the one of escnn with the same matrix."""
    matrices = np.array([vector(element) for element in other.elements])
    found = []
    for matrix in group.matrices:
        distance = np.abs(matrices - matrix).max(axis=(1, 2))
        assert np.sum(distance < TOLERANCE) == 1
        found.append(other.elements[int(distance.argmin())])
    return found


def assert_same_irreps(group: FiniteGroup, other, elements: list) -> dict[str, str]:
    """Each irrep of escnn is one of ours, turned by one orthogonal matrix; all are reached."""
    names = {}
    for irrep in other.irreps():
        their = np.array([irrep(element) for element in elements])
        ((name, count),) = group.decompose(np.trace(their, axis1=1, axis2=2).round(5)).items()
        assert count == 1
        ours = group.irreps[name]
        assert irrep.size == ours.dim
        assert irrep.sum_of_squares_constituents == ours.commutant_dim
        # Only good to escnn's accuracy, hence by averaging instead of group.intertwiners.
        seeds = np.random.default_rng(0).normal(size=(ours.dim, ours.dim))
        basis = np.einsum("gij,jk,glk->il", their, seeds, ours.matrices) / group.order
        basis /= np.linalg.norm(basis) / np.sqrt(ours.dim)
        np.testing.assert_allclose(basis @ basis.T, np.eye(ours.dim), atol=TOLERANCE)
        np.testing.assert_allclose(their, basis @ ours.matrices @ basis.T, atol=TOLERANCE)
        names[irrep.name] = name
    assert sorted(names.values()) == sorted(group.irreps)
    return names


@pytest.mark.parametrize("n", [3, 4, 6])
def test_dihedral_groups(n):
    """escnn mirrors about the x axis first; D3 has its mirrors at 90°, so turn escnn's by that."""
    other = theirs.dihedral_group(n)
    frame = np.array([[0, -1], [1, 0]]) if n == 3 else np.eye(2)
    elements = matched(D(n), other, lambda g: frame @ other.irrep(1, 1)(g) @ frame.T)
    assert_same_irreps(D(n), other, elements)


@pytest.mark.parametrize("n", [3, 4, 6])
def test_cyclic_groups(n):
    other = theirs.cyclic_group(n)
    elements = matched(C(n), other, lambda g: other.irrep(1)(g))
    assert_same_irreps(C(n), other, elements)


def test_octahedral_group():
    other = theirs.octa_group()
    names = assert_same_irreps(O(), other, matched(O(), other, lambda g: g.to("MAT")))
    assert names["irrep_1"] == "T1"


def test_full_octahedral_group_and_its_tetrahedral_subgroup():
    """The elements of escnn's Oh are a parity and a rotation. T_d, which escnn does not build, is
    the half of it that maps a tetrahedron onto itself; there the vector is T2."""
    other, rotations = theirs.full_octa_group(), theirs.octa_group()

    def matrix(element) -> np.ndarray:
        inverted, quaternion = element.value
        turn = rotations.element(quaternion, "Q").to("MAT")
        return -turn if inverted else turn

    elements = matched(Oh(), other, matrix)
    names = assert_same_irreps(Oh(), other, elements)
    vector = next(irrep for irrep in other.irreps() if names[irrep.name] == "T1u")
    tetrahedral = np.array([vector(elements[Oh().index(m)]) for m in Td().matrices])
    assert Td().decompose(np.trace(tetrahedral, axis1=1, axis2=2).round(5)) == {"T2": 1}
