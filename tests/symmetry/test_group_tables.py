"""Names, character tables, irreps and products of the point groups, against those of the field."""

import itertools

import numpy as np
import pytest

from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.point_groups import POINT_GROUPS, C, D, O, Oh, Td, point_group

TIGHT = 1e-12
CLASSES = {
    "C1": "E",
    "C2": "E C2",
    "C3": "E C3 C3^2",
    "C4": "E C4 C2 C4^3",
    "C6": "E C6 C3 C2 C3^2 C6^5",
    "D1": "E σ",
    "D2": "E C2 C2' C2''",
    "D3": "E 2C3 3C2'",
    "D4": "E 2C4 C2 2C2' 2C2''",
    "D6": "E 2C6 2C3 C2 3C2' 3C2''",
    "Td": "E 8C3 3C2 6S4 6σd",
    "O": "E 8C3 6C2' 6C4 3C2",
    "Oh": "E 8C3 6C2' 6C4 3C2 i 6S4 8S6 3σh 6σd",
}
# Characters over the classes above (Dresselhaus, Group Theory, appendix A; the planar groups as in
# Zhang, sections 2.3.1 and 3.3.2). Conjugate pairs are one real irrep.
_O = {
    "A1": [1, 1, 1, 1, 1],
    "A2": [1, 1, -1, -1, 1],
    "E": [2, -1, 0, 0, 2],
    "T1": [3, 0, -1, 1, -1],
    "T2": [3, 0, 1, -1, -1],
}
_OH_IMPROPER = [0, 3, 1, 4, 2]  # i S4 S6 σh σd are −1 times E C4 C3 C2 C2'
CHARACTERS = {
    "C1": {"A": [1]},
    "C2": {"A": [1, 1], "B": [1, -1]},
    "C3": {"A": [1, 1, 1], "E": [2, -1, -1]},
    "C4": {"A": [1, 1, 1, 1], "B": [1, -1, 1, -1], "E": [2, 0, -2, 0]},
    "C6": {
        "A": [1, 1, 1, 1, 1, 1],
        "B": [1, -1, 1, -1, 1, -1],
        "E1": [2, 1, -1, -2, -1, 1],
        "E2": [2, -1, -1, 2, -1, -1],
    },
    "D1": {"A1": [1, 1], "A2": [1, -1]},
    "D2": {"A1": [1, 1, 1, 1], "A2": [1, 1, -1, -1], "B1": [1, -1, 1, -1], "B2": [1, -1, -1, 1]},
    "D3": {"A1": [1, 1, 1], "A2": [1, 1, -1], "E": [2, -1, 0]},
    "D4": {
        "A1": [1, 1, 1, 1, 1],
        "A2": [1, 1, 1, -1, -1],
        "B1": [1, -1, 1, 1, -1],
        "B2": [1, -1, 1, -1, 1],
        "E": [2, 0, -2, 0, 0],
    },
    "D6": {
        "A1": [1, 1, 1, 1, 1, 1],
        "A2": [1, 1, 1, 1, -1, -1],
        "B1": [1, -1, 1, -1, 1, -1],
        "B2": [1, -1, 1, -1, -1, 1],
        "E1": [2, 1, -1, -2, 0, 0],
        "E2": [2, -1, -1, 2, 0, 0],
    },
    "Td": {
        "A1": [1, 1, 1, 1, 1],
        "A2": [1, 1, 1, -1, -1],
        "E": [2, -1, 2, 0, 0],
        "T1": [3, 0, -1, 1, -1],
        "T2": [3, 0, -1, -1, 1],
    },
    "O": _O,
    "Oh": {
        f"{name}{parity}": [*row, *(sign * row[k] for k in _OH_IMPROPER)]
        for parity, sign in (("g", 1), ("u", -1))
        for name, row in _O.items()
    },
}


@pytest.fixture(params=POINT_GROUPS)
def group(request) -> FiniteGroup:
    return point_group(request.param)


def test_character_tables_are_those_of_the_textbook(group):
    table = group.character_table
    assert table.class_names == tuple(CLASSES[group.name].split())
    assert list(table.irrep_names) == list(CHARACTERS[group.name])
    expected = np.array(list(CHARACTERS[group.name].values()))
    np.testing.assert_allclose(table.values, expected, atol=TIGHT)
    assert group.trivial == table.irrep_names[0]


def test_a_group_prints_its_character_table():
    assert str(D(4)).splitlines() == [
        "D4 │ E  2C4  C2  2C2'  2C2'' │",
        "───┼─────────────────────────┼───────",
        "A1 │ 1    1   1     1      1 │",
        "A2 │ 1    1   1    -1     -1 │ Rz",
        "B1 │ 1   -1   1     1     -1 │",
        "B2 │ 1   -1   1    -1      1 │",
        "E  │ 2    0  -2     0      0 │ (x, y)",
    ]
    assert str(C(3)).splitlines() == [
        "C3 │ E  C3  C3^2 │",
        "───┼─────────────┼───────",
        "A  │ 1   1     1 │",
        "E* │ 2  -1    -1 │ (x, y)",
        "* complex type: two conjugate irreps of half the dimension",
    ]
    assert "0.618" in str(C(5))
    assert repr(D(4)) == "FiniteGroup('D4', order 8)"


@pytest.mark.parametrize(
    ("name", "element", "image"),
    [
        ("O", "C4[001]", (-2, 1, 3)),
        ("O", "C4[00-1]", (2, -1, 3)),
        ("O", "C3[111]", (3, 1, 2)),
        ("O", "C2[110]", (2, 1, -3)),
        ("Td", "S4[001]", (-2, 1, -3)),
        ("Td", "σ[110]", (-2, -1, 3)),
        ("Oh", "S6[111]", (-2, -3, -1)),
        ("Oh", "i", (-1, -2, -3)),
    ],
)
def test_element_names_say_what_the_element_does(name, element, image):
    """Counter-clockwise about the direction; S turns, then reflects; σ has the given normal."""
    group = point_group(name)
    matrix = group.matrices[group.element_names.index(element)]
    np.testing.assert_allclose(matrix @ [1, 2, 3], image, atol=TIGHT)


def test_planar_element_names():
    assert D(4).element_names == (
        *("E", "C4", "C2", "C4^3"),
        *("C2'(0°)", "C2'(45°)", "C2'(90°)", "C2'(135°)"),
    )
    along_bond = D(3).element_names.index("C2'(90°)")
    np.testing.assert_allclose(D(3).matrices[along_bond] @ [0, 1], [0, 1], atol=TIGHT)
    assert D(1).element_names == ("E", "σ")
    np.testing.assert_array_equal(D(1).matrices, [[[1]], [[-1]]])


# ---- irreps --------------------------------------------------------------------------------------


def test_vectors_are_the_irreps_that_the_descriptors_count_on():
    np.testing.assert_array_equal(D(4).irreps["E"].matrices, D(4).matrices)
    np.testing.assert_array_equal(D(6).irreps["E1"].matrices, D(6).matrices)
    np.testing.assert_array_equal(D(3).irreps["E"].matrices, D(3).matrices)
    np.testing.assert_array_equal(Td().irreps["T2"].matrices, Td().matrices)
    np.testing.assert_array_equal(O().irreps["T1"].matrices, O().matrices)
    np.testing.assert_array_equal(Oh().irreps["T1u"].matrices, Oh().matrices)


@pytest.mark.parametrize("name", ["D3", "D4", "D6"])
def test_dihedral_irreps_are_rotations_and_mirrors_by_multiples_of_the_angle(name):
    """E_l: rotation by lw, and the mirror at the angle w/2 becomes that at lw/2."""
    group = point_group(name)
    for key, irrep in group.irreps.items():
        if irrep.dim == 2:
            times = int(key[1:] or 1)
            for matrix, (first, second) in zip(irrep.matrices, group.matrices, strict=True):
                angle = times * np.arctan2(second[0], first[0])
                c, s = np.cos(angle), np.sin(angle)
                rotation = np.linalg.det([first, second]) > 0
                expected = [[c, -s], [s, c]] if rotation else [[c, s], [s, -c]]
                np.testing.assert_allclose(matrix, expected, atol=TIGHT)


# Functions of position that transform as each irrep: f(g r) = D(g) f(r).
def _polar(harmonic):
    return lambda x, y: harmonic(np.arctan2(y, x))


FUNCTIONS = {
    "D1": {"A1": lambda x: [x**2], "A2": lambda x: [x]},
    "D2": {"A2": lambda x, y: [x * y], "B1": lambda x, y: [x], "B2": lambda x, y: [y]},
    "D3": {"E": lambda x, y: [x, y], "A2": lambda x, y: [x**3 - 3 * x * y**2]},
    "D4": {
        "A2": lambda x, y: [x * y * (x**2 - y**2)],
        "B1": lambda x, y: [x**2 - y**2],
        "B2": lambda x, y: [x * y],
        "E": lambda x, y: [x, y],
    },
    "D6": {
        "A2": _polar(lambda t: [np.sin(6 * t)]),
        "B1": _polar(lambda t: [np.cos(3 * t)]),
        "B2": _polar(lambda t: [np.sin(3 * t)]),
        "E1": _polar(lambda t: [np.cos(t), np.sin(t)]),
        "E2": _polar(lambda t: [np.cos(2 * t), np.sin(2 * t)]),
    },
    "C6": {
        "B": _polar(lambda t: [np.cos(3 * t)]),
        "E1": _polar(lambda t: [np.cos(t), np.sin(t)]),
        "E2": _polar(lambda t: [np.cos(2 * t), np.sin(2 * t)]),
    },
    "Td": {
        "A1": lambda x, y, z: [x * y * z],
        "A2": lambda x, y, z: [(x**2 - y**2) * (y**2 - z**2) * (z**2 - x**2)],
        "E": lambda x, y, z: [2 * z**2 - x**2 - y**2, np.sqrt(3) * (x**2 - y**2)],
        "T1": lambda x, y, z: [x * (y**2 - z**2), y * (z**2 - x**2), z * (x**2 - y**2)],
        "T2": lambda x, y, z: [x, y, z],
    },
    "O": {
        "A2": lambda x, y, z: [x * y * z],
        "E": lambda x, y, z: [2 * z**2 - x**2 - y**2, np.sqrt(3) * (x**2 - y**2)],
        "T1": lambda x, y, z: [x, y, z],
        "T2": lambda x, y, z: [y * z, z * x, x * y],
    },
    "Oh": {
        "Eg": lambda x, y, z: [2 * z**2 - x**2 - y**2, np.sqrt(3) * (x**2 - y**2)],
        "T2g": lambda x, y, z: [y * z, z * x, x * y],
        "A2u": lambda x, y, z: [x * y * z],
        "T1u": lambda x, y, z: [x, y, z],
        "T2u": lambda x, y, z: [x * (y**2 - z**2), y * (z**2 - x**2), z * (x**2 - y**2)],
    },
}


@pytest.mark.parametrize(
    ("name", "irrep"), [(name, irrep) for name, table in FUNCTIONS.items() for irrep in table]
)
def test_basis_functions(name, irrep):
    group, function = point_group(name), FUNCTIONS[name][irrep]
    point = np.array([0.91, 0.37, 0.62])[: group.dim]
    here = np.array(function(*point))
    assert np.abs(here).min() > 1e-3
    for g, matrix in enumerate(group.matrices):
        there = np.array(function(*(matrix @ point)))
        np.testing.assert_allclose(there, group.irreps[irrep].matrices[g] @ here, atol=1e-11)


# ---- products ------------------------------------------------------------------------------------

# Products as in the physics sheet of the descriptors: c from a and b.
_DOT = ("A1", lambda a, b: [a[0] * b[0] + a[1] * b[1]])
_CROSS = ("A2", lambda a, b: [a[0] * b[1] - a[1] * b[0]])
_TURNED = lambda s, b: [-s[0] * b[1], s[0] * b[0]]  # noqa: E731
_MIRRORED = lambda s, b: [s[0] * b[0], -s[0] * b[1]]  # noqa: E731
_SWAPPED = lambda s, b: [s[0] * b[1], s[0] * b[0]]  # noqa: E731
_TIMES = lambda a, b: [a[0] * b[0]]  # noqa: E731
_DIFFERENCE = lambda a, b: [a[0] * b[0] - a[1] * b[1]]  # noqa: E731
_MIXED = lambda a, b: [a[0] * b[1] + a[1] * b[0]]  # noqa: E731
PRODUCTS = [
    ("D4", "E", "E", *_DOT),
    ("D4", "E", "E", *_CROSS),
    ("D4", "E", "E", "B1", _DIFFERENCE),
    ("D4", "E", "E", "B2", _MIXED),
    ("D4", "A2", "E", "E", _TURNED),
    ("D4", "B1", "E", "E", _MIRRORED),
    ("D4", "B2", "E", "E", _SWAPPED),
    ("D4", "A2", "B1", "B2", _TIMES),
    ("D4", "A2", "B2", "B1", _TIMES),
    ("D4", "B1", "B2", "A2", _TIMES),
    ("D6", "E1", "E1", *_DOT),
    ("D6", "E1", "E1", *_CROSS),
    ("D6", "E1", "E1", "E2", lambda a, b: _DIFFERENCE(a, b) + _MIXED(a, b)),
    ("D6", "E2", "E2", *_DOT),
    ("D6", "E2", "E2", *_CROSS),
    ("D6", "E2", "E2", "E2", lambda a, b: _DIFFERENCE(a, b) + [-x for x in _MIXED(a, b)]),
    ("D6", "E1", "E2", "B1", _DIFFERENCE),
    ("D6", "E1", "E2", "B2", _MIXED),
    ("D6", "E1", "E2", "E1", lambda a, b: _DOT[1](a, b) + _CROSS[1](a, b)),
    ("D6", "A2", "E1", "E1", _TURNED),
    ("D6", "A2", "E2", "E2", _TURNED),
    ("D6", "B1", "E1", "E2", _MIRRORED),
    ("D6", "B1", "E2", "E1", _MIRRORED),
    ("D6", "B2", "E1", "E2", _SWAPPED),
    ("D6", "B2", "E2", "E1", _SWAPPED),
    ("D6", "A2", "B1", "B2", _TIMES),
    ("D6", "A2", "B2", "B1", _TIMES),
    ("D6", "B1", "B2", "A2", _TIMES),
]


@pytest.mark.parametrize(
    ("name", "a", "b", "c", "formula"), PRODUCTS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_tabulated_products_are_the_clebsch_gordan_coefficients(name, a, b, c, formula):
    group = point_group(name)
    dims = [group.irreps[key].dim for key in (a, b, c)]
    tensor = np.zeros((dims[2], dims[0], dims[1]))
    for i, j in itertools.product(range(dims[0]), range(dims[1])):
        tensor[:, i, j] = formula(np.eye(dims[0])[i], np.eye(dims[1])[j])
    turned = np.einsum("kij,gip,gjq->gkpq", tensor, *(group.irreps[x].matrices for x in (a, b)))
    after = np.einsum("gkl,lpq->gkpq", group.irreps[c].matrices, tensor)
    np.testing.assert_allclose(turned, after, atol=TIGHT)
    (ours,) = group.clebsch_gordan(a, b, c)
    overlap = np.vdot(ours, tensor) / np.linalg.norm(ours) / np.linalg.norm(tensor)
    assert abs(overlap) == pytest.approx(1)
