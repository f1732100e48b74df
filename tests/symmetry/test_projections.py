"""The projection on irreps: block form, multiplicities and rows of the tables, fixed choices."""

import math

import numpy as np
import pytest

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.point_groups import point_group
from latticezoo.symmetry.projections import projection
from latticezoo.symmetry.references import reference_bispectrum, reference_directions

JAHN_TELLER = "2xA1+B1"
S = math.sqrt(3) / 2


def shells_of(family, cutoff):
    return Lattice(family, (1,) * Lattice.dimension(family)).shells(cutoff=cutoff)


# ---- the projection ------------------------------------------------------------------------------

PROJECTIONS = [
    ("chain", 4.0, "A1", None),
    ("chain", 3.0, "A1+A2+vector", None),
    ("square", 5.0, "A1", None),
    ("square", 4.0, JAHN_TELLER, None),
    ("square", 3.0, "vector+pseudovector+E", None),
    ("triangular", 3.7, "A1", None),
    ("triangular", 2.7, "A2+B1+E1+vector", None),
    ("honeycomb", 3.1, "A1", None),
    ("honeycomb", 2.0, "A2+E+vector", None),
    ("diamond", 2.6, "A1", None),
    ("diamond", 1.7, "E+T1+vector", None),
    ("square", 3.7, "A+B+E+vector", "C4"),
    ("square", 3.7, "A", "C2"),
    ("square", 3.7, "A1+B2", "D2"),
    ("triangular", 3.0, "A+E1+E2", "C6"),
]


@pytest.mark.parametrize(("family", "cutoff", "field", "group"), PROJECTIONS)
def test_projection_block_diagonalises(family, cutoff, field, group):
    """B Bᵀ = 1 and B T(g) Bᵀ = ⊕ D^Γ(g) with the tabulated matrices, for every element."""
    found = projection(family, shells_of(family, cutoff), field, group)
    b, t = found.matrix, found.field_matrices()
    size = sum(s.size for s in found.shells) * found.group.representation(field).dim
    assert sum(i.multiplicity * i.dim for i in found.irreps) == size
    assert b.shape == (size, size)
    assert np.allclose(b @ b.T, np.eye(size), atol=1e-12)
    assert np.allclose(b @ t @ b.T, found.block_matrices(), atol=1e-12)


def test_field_matrices_are_a_representation():
    found = projection("triangular", 3, "A1+vector")
    t, table = found.field_matrices(), found.group.product_table
    for a in range(found.group.order):
        assert np.allclose(t[a] @ t, t[table[a]], atol=1e-12)


def test_multiplicities_of_the_tables():
    """Descriptor sheet, sections 3 and 4."""
    d4, d6 = ("A1", "A2", "B1", "B2", "E"), ("A1", "A2", "B1", "B2", "E1", "E2")
    tables = [
        ("square", math.sqrt(13), "A1", d4, (9, 3, 6, 5, 11)),
        ("square", 7.0, "A1", d4, (25, 13, 20, 17, 37)),
        ("square", 7.0, JAHN_TELLER, d4, (70, 43, 65, 47, 111)),
        ("square", 1.0, "vector", d4, (1, 1, 1, 1, 3)),
        ("triangular", 5.0, "A1", d6, (12, 4, 9, 6, 15, 15)),
    ]
    for family, cutoff, field, names, numbers in tables:
        found = projection(family, shells_of(family, cutoff), field).multiplicities
        assert found == dict(zip(names, numbers, strict=True))


def signs(text):
    return [{"+": 1.0, "-": -1.0}[x] for x in text]


D4_ROWS = {
    (1, 0): {"A1": ["++++"], "B1": ["+-+-"], "E": [([1, 0, -1, 0], [0, 1, 0, -1])]},
    (1, 1): {"A1": ["++++"], "B2": ["+-+-"], "E": [("+--+", "++--")]},
    (2, 1): {
        "A1": ["++++++++"],
        "A2": ["+-+-+-+-"],
        "B1": ["+--++--+"],
        "B2": ["++--++--"],
        "E": [
            ([1, 0, 0, -1, -1, 0, 0, 1], [0, 1, 1, 0, 0, -1, -1, 0]),
            ([0, 1, -1, 0, 0, -1, 1, 0], [1, 0, 0, 1, -1, 0, 0, -1]),
        ],
    },
}
D6_ROWS = {
    (1, 0): {
        "A1": ["++++++"],
        "B1": ["+-+-+-"],
        "E1": [([1, 0.5, -0.5, -1, -0.5, 0.5], [0, S, S, 0, -S, -S])],
        "E2": [([1, -0.5, -0.5, 1, -0.5, -0.5], [0, S, -S, 0, S, -S])],
    },
    (1, 1): {
        "A1": ["++++++"],
        "B2": ["+-+-+-"],
        "E1": [([S, 0, -S, -S, 0, S], [0.5, 1, 0.5, -0.5, -1, -0.5])],
        "E2": [([0.5, -1, 0.5, 0.5, -1, 0.5], [S, 0, -S, S, 0, -S])],
    },
    (2, 1): {
        "A1": ["++++++++++++"],
        "A2": ["+-+-+-+-+-+-"],
        "B1": ["+--++--++--+"],
        "B2": ["++--++--++--"],
        "E1": [
            (
                [1, 0.5, 0.5, -0.5, -0.5, -1, -1, -0.5, -0.5, 0.5, 0.5, 1],
                [0, S, S, S, S, 0, 0, -S, -S, -S, -S, 0],
            ),
            (
                [0, S, -S, S, -S, 0, 0, -S, S, -S, S, 0],
                [1, -0.5, 0.5, 0.5, -0.5, 1, -1, 0.5, -0.5, -0.5, 0.5, -1],
            ),
        ],
        "E2": [
            (
                [1, -0.5, -0.5, -0.5, -0.5, 1, 1, -0.5, -0.5, -0.5, -0.5, 1],
                [0, S, S, -S, -S, 0, 0, S, S, -S, -S, 0],
            ),
            (
                [0, S, -S, -S, S, 0, 0, S, -S, -S, S, 0],
                [1, 0.5, -0.5, 0.5, -0.5, -1, 1, 0.5, -0.5, 0.5, -0.5, -1],
            ),
        ],
    },
}


def as_rows(entry):
    lines = entry if isinstance(entry, tuple) else (entry,)
    return np.array([signs(line) if isinstance(line, str) else line for line in lines], float)


def check_rows(family, field, place, table):
    """The rows of the sheet are combinations of our copies, the same for every partner."""
    # The orbits are named by n1 a1 + n2 a2; the first neighbours come as named there.
    vectors = Lattice(family, (1, 1)).vectors
    radius = float(np.linalg.norm(np.array(place) @ vectors))
    shell = next(s for s in shells_of(family, 4.0) if abs(s.radius - radius) < 1e-9)
    found = projection(family, [shell], field)
    assert found.multiplicities == {name: len(rows) for name, rows in table.items()}
    for irrep in found.irreps:
        expected = np.array([as_rows(entry) for entry in table[irrep.name]])
        expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
        mixing = np.einsum("rdn,sdn->drs", expected, irrep.rows)
        assert np.allclose(mixing, mixing[:1], atol=1e-12)
        assert np.allclose(np.einsum("rs,sdn->rdn", mixing[0], irrep.rows), expected, atol=1e-12)
        assert np.allclose(mixing[0] @ mixing[0].T, np.eye(len(expected)), atol=1e-12)


@pytest.mark.parametrize("place", D4_ROWS)
def test_rows_of_the_square_lattice(place):
    check_rows("square", "A1", place, D4_ROWS[place])


@pytest.mark.parametrize("place", D6_ROWS)
def test_rows_of_the_triangular_lattice(place):
    check_rows("triangular", "A1", place, D6_ROWS[place])


def test_rows_of_a_b1_field_and_of_a_planar_vector():
    first = {"A1": ["+-+-"], "B1": ["++++"], "E": [([1, 0, -1, 0], [0, -1, 0, 1])]}
    check_rows("square", "B1", (1, 0), first)
    second = {"A2": ["+-+-"], "B1": ["++++"], "E": [("+--+", "--++")]}
    check_rows("square", "B1", (1, 1), second)
    # Ax Ay Bx By Cx Cy Dx Dy
    vector = {
        "A1": [[1, 0, 0, 1, -1, 0, 0, -1]],
        "A2": [[0, 1, -1, 0, 0, -1, 1, 0]],
        "B1": [[1, 0, 0, -1, -1, 0, 0, 1]],
        "B2": [[0, 1, 1, 0, 0, -1, -1, 0]],
        "E": [
            ([1, 0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0, 1]),
            ([0, 0, 1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1, 0, 0]),
        ],
    }
    check_rows("square", "vector", (1, 0), vector)


def test_basis_inside_copies_is_fixed():
    """The choice that saved networks depend on: the tabulated rows themselves, in their order."""
    shell = shells_of("square", math.sqrt(5))[-1]
    e = projection("square", [shell], "A1").irrep("E").rows
    expected = np.array([as_rows(entry) for entry in D4_ROWS[2, 1]["E"]]) / 2
    assert np.allclose(e, expected, atol=1e-12)
    shell = shells_of("triangular", math.sqrt(7))[-1]
    for name in ("E1", "E2"):
        rows = projection("triangular", [shell], "A1").irrep(name).rows
        expected = np.array([as_rows(entry) for entry in D6_ROWS[2, 1][name]]) / math.sqrt(6)
        assert np.allclose(rows, expected, atol=1e-12)


# ---- invariants of the references ----------------------------------------------------------------


def evaluate(product, vectors):
    result = product.tensor
    for name in reversed(product.irreps):
        result = result @ vectors[name]
    return result


def test_reference_bispectra_of_d4_and_d6():
    """The three and the five of the descriptor sheet."""
    rng = np.random.default_rng(0)
    a2, b1, b2 = rng.normal(size=(3, 1))
    e, h = rng.normal(size=(2, 2))
    d4 = point_group("D4")
    found = [
        evaluate(p, {"A2": a2, "B1": b1, "B2": b2, "E": e})
        for p in reference_bispectrum(d4, list(d4.irreps))
    ]
    expected = [a2 * b1 * b2, b1 * (e[0] ** 2 - e[1] ** 2), 2 * b2 * e[0] * e[1]]
    assert np.allclose(np.array(found).ravel(), np.array(expected).ravel())
    d6 = point_group("D6")
    found = [
        evaluate(p, {"A2": a2, "B1": b1, "B2": b2, "E1": e, "E2": h})
        for p in reference_bispectrum(d6, list(d6.irreps))
    ]
    expected = [
        (a2 * b1 * b2)[0],
        (b1 * (e[0] * h[0] - e[1] * h[1]))[0],
        (b2 * (e[0] * h[1] + e[1] * h[0]))[0],
        (e[0] ** 2 - e[1] ** 2) * h[0] + 2 * e[0] * e[1] * h[1],
        h[0] ** 3 - 3 * h[0] * h[1] ** 2,
    ]
    assert np.allclose(np.array(found, dtype=float), expected)


@pytest.mark.parametrize("name", ["D1", "D2", "D3", "D4", "D6", "Td", "O", "Oh", "C4", "C6"])
def test_reference_products_are_invariant_and_independent(name):
    group = point_group(name)
    rng = np.random.default_rng(1)
    samples = [
        {key: rng.normal(size=irrep.dim) for key, irrep in group.irreps.items()} for _ in range(60)
    ]
    products = reference_bispectrum(group, list(group.irreps))
    table = np.array([[evaluate(p, s) for p in products] for s in samples]).reshape(60, -1)
    if products:
        assert np.linalg.matrix_rank(table) == len(products)
    vector_products = {
        key: reference_directions(group, key, list(group.irreps)) for key in group.irreps
    }
    for g in range(group.order):
        turned = {key: irrep.matrices[g] @ samples[0][key] for key, irrep in group.irreps.items()}
        for product in products:
            assert np.allclose(evaluate(product, turned), evaluate(product, samples[0]))
        for key, directions in vector_products.items():
            assert len(directions) == group.irreps[key].dim - 1
            for product in directions:
                expected = group.irreps[key].matrices[g] @ evaluate(product, samples[0])
                assert np.allclose(evaluate(product, turned), expected)


def test_cubic_invariants_are_all_of_them():
    """Their number is that of A1 in the symmetric cube of the non-trivial irreps (Molien)."""
    for name, count in (("D3", 1), ("D4", 3), ("D6", 5), ("Td", 7), ("D1", 0), ("C4", 2)):
        group = point_group(name)
        kept = [i for key, i in group.irreps.items() if key != group.trivial]

        def character(matrices, kept=kept):
            return sum(np.trace(i.matrices[matrices]) for i in kept)

        total = 0.0
        for g in range(group.order):
            g2 = group.product_table[g, g]
            g3 = group.product_table[g2, g]
            chi, chi2, chi3 = character(g), character(g2), character(g3)
            total += (chi**3 + 3 * chi * chi2 + 2 * chi3) / 6
        assert len(reference_bispectrum(group, list(group.irreps))) == count
        assert round(total / group.order) == count


def test_bad_names_are_one_sentence():
    with pytest.raises(InputError, match="C6 is not a subgroup of D4"):
        projection("square", 8, "A", "C6")
    with pytest.raises(InputError, match="Td is not a subgroup of D4"):
        projection("square", 8, "A1", "Td")
    with pytest.raises(InputError, match="unknown irrep of D4 'B3'"):
        projection("square", 8, "B3")
    with pytest.raises(InputError, match="unknown irrep of this neighbourhood 'A2'"):
        projection("square", 1).irrep("A2")
