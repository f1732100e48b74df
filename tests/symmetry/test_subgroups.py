"""Subgroups, their names and generated irreps, branching rules, orbits and stabilizers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.groups import FiniteGroup
from latticezoo.symmetry.point_groups import POINT_GROUPS, C, D, O, Oh, Td, point_group

TIGHT = 1e-12


@pytest.fixture(params=POINT_GROUPS)
def group(request) -> FiniteGroup:
    return point_group(request.param)


def assert_complete_irreps(group: FiniteGroup) -> None:
    """Homomorphisms, orthogonal characters, and as many as the order allows."""
    for irrep in group.irreps.values():
        product = np.einsum("aij,bjk->abik", irrep.matrices, irrep.matrices)
        np.testing.assert_allclose(product, irrep.matrices[group.product_table], atol=TIGHT)
    chi = np.array([irrep.character for irrep in group.irreps.values()])
    norms = [irrep.commutant_dim for irrep in group.irreps.values()]
    np.testing.assert_allclose(chi @ chi.T / group.order, np.diag(norms), atol=1e-11)
    assert sum(i.dim**2 / i.commutant_dim for i in group.irreps.values()) == group.order


# ---- which subgroups -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "classes"),
    [
        ("C1", 1, 1),
        ("C6", 4, 4),
        ("D1", 2, 2),
        ("D2", 5, 5),
        ("D3", 6, 4),
        ("D4", 10, 8),
        ("D6", 16, 10),
        ("Td", 30, 11),
        ("O", 30, 11),
        ("Oh", 98, 33),
    ],
)
def test_numbers_of_subgroups(name, number, classes):
    """Known counts: S4 = Td = O has 30 subgroups in 11 classes, Oh 98 in 33."""
    group = point_group(name)
    everything = group.subgroups(up_to_conjugacy=False)
    assert len(everything) == number
    assert len({tuple(sub.embedding) for sub in everything}) == number
    assert len(group.subgroups()) == classes


def test_subgroups_of_td_have_their_schoenflies_symbols():
    names = [sub.name for sub in Td().subgroups()]
    assert names == ["C1", "Cs", "C2", "C3", "C2v", "D2", "S4", "C3v", "D2d", "T", "Td"]


def test_subgroups_of_oh_are_the_25_point_groups_without_sixfold_axes():
    names = {sub.name for sub in Oh().subgroups()}
    assert names == {
        *("C1", "Ci", "C2", "Cs", "C2h", "D2", "C2v", "D2h"),
        *("C4", "S4", "C4h", "D4", "C4v", "D2d", "D4h"),
        *("C3", "S6", "D3", "C3v", "D3d"),
        *("T", "Th", "O", "Td", "Oh"),
    }


def test_subgroups_are_groups_with_complete_irreps(group):
    for sub in group.subgroups():
        assert group.order % sub.order == 0
        np.testing.assert_array_equal(sub.matrices, group.matrices[sub.embedding])
        np.testing.assert_array_equal(
            sub.embedding[sub.product_table],
            group.product_table[np.ix_(sub.embedding, sub.embedding)],
        )
        assert sub.element_names == tuple(group.element_names[k] for k in sub.embedding)
        assert not any(name.startswith("Γ") for name in sub.irreps)
        assert_complete_irreps(sub)


# ---- generated irreps and their names ------------------------------------------------------------


def test_generated_irreps_have_the_names_and_characters_of_the_tables(group):
    """The tables are written down; the rules of Mulliken are programmed. They agree."""
    generated = FiniteGroup(None, group.matrices)
    assert generated.name == group.name or group.name == "D1"
    assert generated.conjugacy_classes == group.conjugacy_classes
    assert list(generated.irreps) == list(group.irreps)
    for name, irrep in generated.irreps.items():
        table = group.irreps[name]
        np.testing.assert_allclose(irrep.character, table.character, atol=TIGHT)
        assert irrep.kind == table.kind
        (maps, *_) = group.intertwiners(irrep, table)
        maps = maps * np.sqrt(irrep.dim)
        np.testing.assert_allclose(maps @ maps.T, np.eye(irrep.dim), atol=TIGHT)


@pytest.mark.parametrize("name", ["D3", "D4", "D6", "C3", "C4", "C6"])
def test_planar_irreps_are_generated_as_they_are_tabulated(name):
    """So a subgroup of D6 in standard orientation has the very matrices of the table."""
    for key, irrep in FiniteGroup(None, point_group(name).matrices).irreps.items():
        np.testing.assert_allclose(
            irrep.matrices, point_group(name).irreps[key].matrices, atol=TIGHT
        )


def test_generated_irreps_are_the_same_every_time():
    first, second = (FiniteGroup(None, Oh().matrices) for _ in range(2))
    for name, irrep in first.irreps.items():
        np.testing.assert_array_equal(irrep.matrices, second.irreps[name].matrices)


def turn(n: int, axis=(0, 0, 1)) -> np.ndarray:
    """Rotation by 2π/n."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = 2 * np.pi / n
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def closure(*generators: np.ndarray) -> np.ndarray:
    found = [np.eye(len(generators[0]))]
    for element in found:
        for g in generators:
            product = element @ g
            if all(np.abs(product - other).max() > 1e-6 for other in found):
                found.append(product)
    return np.array(found)


INVERSION = -np.eye(3)
FLAT = np.diag([1.0, 1, -1])  # σh
UPRIGHT = np.diag([1.0, -1, 1])  # σv
FLIP = turn(2, (1, 0, 0))  # C2'
SPACE_GROUPS = {
    "Cs": ([FLAT], "A' A''"),
    "Ci": ([INVERSION], "Ag Au"),
    "C5": ([turn(5)], "A E1 E2"),
    "C2v": ([turn(2), UPRIGHT], "A1 A2 B1 B2"),
    "C3v": ([turn(3), UPRIGHT], "A1 A2 E"),
    "C4v": ([turn(4), UPRIGHT], "A1 A2 B1 B2 E"),
    "C5v": ([turn(5), UPRIGHT], "A1 A2 E1 E2"),
    "C6v": ([turn(6), UPRIGHT], "A1 A2 B1 B2 E1 E2"),
    "C2h": ([turn(2), FLAT], "Ag Bg Au Bu"),
    "C3h": ([turn(3), FLAT], "A' E' A'' E''"),
    "C4h": ([turn(4), FLAT], "Ag Bg Eg Au Bu Eu"),
    "C6h": ([turn(6), FLAT], "Ag Bg E1g E2g Au Bu E1u E2u"),
    "S4": ([turn(4) @ FLAT], "A B E"),
    "S6": ([turn(6) @ FLAT], "Ag Eg Au Eu"),
    "S8": ([turn(8) @ FLAT], "A B E1 E2 E3"),
    "D2": ([turn(2), FLIP], "A B1 B2 B3"),
    "D3": ([turn(3), FLIP], "A1 A2 E"),
    "D4": ([turn(4), FLIP], "A1 A2 B1 B2 E"),
    "D5": ([turn(5), FLIP], "A1 A2 E1 E2"),
    "D2h": ([turn(2), FLIP, INVERSION], "Ag B1g B2g B3g Au B1u B2u B3u"),
    "D3h": ([turn(3), FLIP, FLAT], "A1' A2' E' A1'' A2'' E''"),
    "D4h": ([turn(4), FLIP, FLAT], "A1g A2g B1g B2g Eg A1u A2u B1u B2u Eu"),
    "D6h": ([turn(6), FLIP, FLAT], "A1g A2g B1g B2g E1g E2g A1u A2u B1u B2u E1u E2u"),
    "D2d": ([turn(4) @ FLAT, FLIP], "A1 A2 B1 B2 E"),
    "D3d": ([turn(3), FLIP, INVERSION], "A1g A2g Eg A1u A2u Eu"),
    "D4d": ([turn(8) @ FLAT, FLIP], "A1 A2 B1 B2 E1 E2 E3"),
    "T": ([turn(2), turn(3, (1, 1, 1))], "A E T"),
    "Th": ([turn(2), turn(3, (1, 1, 1)), INVERSION], "Ag Eg Tg Au Eu Tu"),
    "Td": ([turn(4) @ FLAT, turn(3, (1, 1, 1))], "A1 A2 E T1 T2"),
    "O": ([turn(4), turn(3, (1, 1, 1))], "A1 A2 E T1 T2"),
    # The rules do not tell T1 and T2 of the icosahedron apart.
    "I": ([turn(3, (1, 1, 1)), turn(5, (0, 1, (1 + 5**0.5) / 2))], "Γ1 Γ2 Γ3 Γ4 Γ5"),
}


@pytest.mark.parametrize("name", SPACE_GROUPS)
def test_point_groups_of_space_are_recognized(name):
    generators, irreps = SPACE_GROUPS[name]
    group = FiniteGroup(None, closure(*generators))
    assert group.name == name
    assert list(group.irreps) == irreps.split()
    assert_complete_irreps(group)
    assert len(set(group.class_names)) == len(group.class_names)
    assert len(set(group.element_names)) == group.order


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("C4v", "E 2C4 C2 2σv 2σd"),
        ("D2d", "E 2S4 C2 2C2' 2σd"),
        ("D2h", "E C2 C2' C2'' i σh σv σv'"),
        ("D3d", "E 2C3 3C2' i 2S6 3σd"),
        ("D4h", "E 2C4 C2 2C2' 2C2'' i 2S4 σh 2σv 2σd"),
        ("S4", "E S4 C2 S4^3"),
        ("T", "E 4C3 4C3' 3C2"),
    ],
)
def test_class_names_of_further_point_groups(name, classes):
    assert FiniteGroup(None, closure(*SPACE_GROUPS[name][0])).class_names == tuple(classes.split())


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(SPACE_GROUPS)), st.integers(0, 2**31))
def test_names_do_not_depend_on_the_orientation(name, seed):
    generators, irreps = SPACE_GROUPS[name]
    frame = ortho_group.rvs(3, random_state=seed)
    group = FiniteGroup(None, closure(*(frame @ g @ frame.T for g in generators)))
    assert group.name == name
    assert list(group.irreps) == irreps.split()
    standard = FiniteGroup(None, closure(*generators))
    assert sorted(map(len, group.conjugacy_classes)) == sorted(map(len, standard.conjugacy_classes))


def test_a_group_in_four_dimensions_may_have_a_quaternionic_irrep():
    """The unit quaternions ±1, ±i, ±j, ±k acting on all quaternions from the left."""
    i = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]])
    j = np.array([[0.0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]])
    group = FiniteGroup(None, closure(i, j))
    assert group.order == 8
    kinds = sorted((irrep.dim, irrep.kind) for irrep in group.irreps.values())
    assert kinds == [(1, "real")] * 4 + [(4, "quaternionic")]
    assert_complete_irreps(group)
    last = list(group.irreps)[-1]
    assert len(group.intertwiners(last, last)) == 4
    assert group.decompose("vector") == {last: 1}
    units = group.irreps[last].commutant
    np.testing.assert_allclose(units @ units.transpose(0, 2, 1), [np.eye(4)] * 4, atol=TIGHT)
    assert "Γ5" in str(group)


# ---- branching rules -----------------------------------------------------------------------------

# Textbook subduction tables (such as Altmann and Herzig, Point-Group Theory Tables). Where a group
# has several subgroups of a name, they are numbered in the order of subgroups().
BRANCHING = {
    ("D4", "C4", 0): {"A1": "A", "A2": "A", "B1": "B", "B2": "B", "E": "E"},
    ("D4", "D2", 0): {"A1": "A1", "A2": "A2", "B1": "A1", "B2": "A2", "E": "B1 B2"},
    ("D4", "D2", 1): {"A1": "A1", "A2": "A2", "B1": "A2", "B2": "A1", "E": "B1 B2"},
    ("D4", "C2", 0): {"A1": "A", "A2": "A", "B1": "A", "B2": "A", "E": "B B"},
    ("D6", "C6", 0): {"A1": "A", "A2": "A", "B1": "B", "B2": "B", "E1": "E1", "E2": "E2"},
    ("D6", "D3", 0): {"A1": "A1", "A2": "A2", "B1": "A1", "B2": "A2", "E1": "E", "E2": "E"},
    ("D6", "D3", 1): {"A1": "A1", "A2": "A2", "B1": "A2", "B2": "A1", "E1": "E", "E2": "E"},
    ("D6", "D2", 0): {
        **{"A1": "A1", "A2": "A2", "B1": "B1", "B2": "B2"},
        **{"E1": "B1 B2", "E2": "A1 A2"},
    },
    ("Td", "T", 0): {"A1": "A", "A2": "A", "E": "E", "T1": "T", "T2": "T"},
    ("Td", "D2d", 0): {"A1": "A1", "A2": "B1", "E": "A1 B1", "T1": "A2 E", "T2": "B2 E"},
    ("Td", "C3v", 0): {"A1": "A1", "A2": "A2", "E": "E", "T1": "A2 E", "T2": "A1 E"},
    ("Td", "C2v", 0): {"A1": "A1", "A2": "A2", "E": "A1 A2", "T1": "A2 B1 B2", "T2": "A1 B1 B2"},
    ("Td", "S4", 0): {"A1": "A", "A2": "B", "E": "A B", "T1": "A E", "T2": "B E"},
    ("Td", "D2", 0): {"A1": "A", "A2": "A", "E": "A A", "T1": "B1 B2 B3", "T2": "B1 B2 B3"},
    ("O", "D4", 0): {"A1": "A1", "A2": "B1", "E": "A1 B1", "T1": "A2 E", "T2": "B2 E"},
    ("O", "D3", 0): {"A1": "A1", "A2": "A2", "E": "E", "T1": "A2 E", "T2": "A1 E"},
    ("O", "C4", 0): {"A1": "A", "A2": "B", "E": "A B", "T1": "A E", "T2": "B E"},
    ("O", "C3", 0): {"A1": "A", "A2": "A", "E": "E", "T1": "A E", "T2": "A E"},
    ("O", "D2", 0): {"A1": "A", "A2": "A", "E": "A A", "T1": "B1 B2 B3", "T2": "B1 B2 B3"},
    ("O", "D2", 1): {"A1": "A", "A2": "B1", "E": "A B1", "T1": "B1 B2 B3", "T2": "A B2 B3"},
    ("Oh", "Td", 0): {
        **{"A1g": "A1", "A2g": "A2", "Eg": "E", "T1g": "T1", "T2g": "T2"},
        **{"A1u": "A2", "A2u": "A1", "Eu": "E", "T1u": "T2", "T2u": "T1"},
    },
    ("Oh", "O", 0): {
        f"{name}{parity}": name for parity in "gu" for name in ("A1", "A2", "E", "T1", "T2")
    },
    ("Oh", "D4h", 0): {
        f"{name}{parity}": " ".join(part + parity for part in parts.split())
        for parity in "gu"
        for name, parts in {
            "A1": "A1",
            "A2": "B1",
            "E": "A1 B1",
            "T1": "A2 E",
            "T2": "B2 E",
        }.items()
    },
}


@pytest.mark.parametrize(("name", "sub", "which"), BRANCHING)
def test_branching_rules(name, sub, which):
    group = point_group(name)
    subgroup = [s for s in group.subgroups() if s.name == sub][which]
    for irrep, expected in BRANCHING[name, sub, which].items():
        found = group.restrict(irrep, subgroup)
        assert " ".join(k for k, m in found.items() for _ in range(m)) == expected, irrep


def test_conjugate_subgroups_branch_alike(group):
    """Their names are chosen by what they are in the group, not by their orientation."""
    rules: dict = {}
    for sub in group.subgroups(up_to_conjugacy=False):
        moved = group.product_table[:, sub.embedding]
        conjugates = np.sort(group.product_table[moved, group.inverse[:, None]], axis=1)
        representative = min(map(tuple, conjugates.tolist()))
        rule = {name: group.restrict(name, sub) for name in group.irreps}
        assert rules.setdefault(representative, (sub.name, rule)) == (sub.name, rule)


def test_restriction_keeps_dimensions_and_goes_through_chains():
    group = Oh()
    for middle in group.subgroups():
        for name, irrep in group.irreps.items():
            found = group.restrict(name, middle)
            assert sum(m * middle.irreps[k].dim for k, m in found.items()) == irrep.dim
    # Oh → Td → C3v in two steps is Oh → C3v in one.
    middle = next(sub for sub in group.subgroups() if sub.name == "Td")
    small = next(sub for sub in middle.subgroups() if sub.name == "C3v")
    direct = group.subgroup(middle.embedding[small.embedding])
    for name in group.irreps:
        total = np.zeros(small.order)
        for part, count in group.restrict(name, middle).items():
            total += count * middle.irreps[part].character[small.embedding]
        assert small.decompose(total) == group.restrict(name, direct)


def test_restriction_to_a_group_of_its_own():
    assert D(6).restrict("E2", D(2)) == {"A1": 1, "A2": 1}
    assert D(6).restrict("B1", D(3)) == {"A2": 1}  # the mirrors of D3 are the C2'' of D6
    assert D(6).restrict("E1", C(6)) == {"E1": 1}
    assert D(4).restrict("vector", D(2)) == {"B1": 1, "B2": 1}
    assert Oh().restrict("T1u+A2u", Td()) == {"A1": 1, "T2": 1}
    with pytest.raises(InputError, match="D3 is no subgroup of D4"):
        D(4).restrict("E", D(3))
    with pytest.raises(InputError, match="D4 is no subgroup of O"):
        O().restrict("E", D(4))


# ---- orbits and stabilizers ----------------------------------------------------------------------

# Decompositions of a scalar field on the orbit of a site (physics sheet of the descriptors).
_ROOT3 = 3**0.5
ORBITS = [
    ("D4", (3, 0), {"A1": 1, "B1": 1, "E": 1}),
    ("D4", (2, 2), {"A1": 1, "B2": 1, "E": 1}),
    ("D4", (2, 1), {"A1": 1, "A2": 1, "B1": 1, "B2": 1, "E": 2}),
    ("D6", (1, 0), {"A1": 1, "B1": 1, "E1": 1, "E2": 1}),
    ("D6", (1.5, _ROOT3 / 2), {"A1": 1, "B2": 1, "E1": 1, "E2": 1}),
    ("D6", (2.5, _ROOT3 / 2), {"A1": 1, "A2": 1, "B1": 1, "B2": 1, "E1": 2, "E2": 2}),
    ("D3", (0, 1), {"A1": 1, "E": 1}),
    ("Td", (1, 1, 1), {"A1": 1, "T2": 1}),
    ("O", (1, 0, 0), {"A1": 1, "E": 1, "T1": 1}),
    ("Oh", (1, 0, 0), {"A1g": 1, "Eg": 1, "T1u": 1}),
    ("D4", (0, 0), {"A1": 1}),
]


@pytest.mark.parametrize(("name", "site", "expected"), ORBITS)
def test_orbits_stabilizers_and_frobenius_reciprocity(name, site, expected):
    """|orbit| |stabilizer| = |G|; an irrep occurs on the orbit as often as the stabilizer's trivial
    irrep occurs in it; and the sheet's decompositions."""
    group, site = point_group(name), np.array(site, dtype=float)
    stabilizer = group.stabilizer(site)
    np.testing.assert_allclose(stabilizer.matrices @ site, [site] * stabilizer.order, atol=TIGHT)
    cosets = group.cosets(stabilizer)
    assert len(cosets) * stabilizer.order == group.order
    assert cosets[0] == tuple(stabilizer.embedding)
    assert sorted(k for coset in cosets for k in coset) == list(range(group.order))
    orbit = np.array([group.matrices[coset[0]] @ site for coset in cosets])
    assert len(np.unique(orbit.round(9) + 0.0, axis=0)) == len(cosets)
    for coset, point in zip(cosets, orbit, strict=True):
        moved = group.matrices[list(coset)] @ site
        np.testing.assert_allclose(moved, [point] * len(coset), atol=TIGHT)

    images = np.einsum("gij,kj->gki", group.matrices, orbit)
    permutation = (np.abs(images[:, :, None] - orbit).max(-1) < 1e-9).astype(float)
    found = group.decompose(permutation.transpose(0, 2, 1))
    assert found == expected
    for irrep in group.irreps:
        trivial = group.restrict(irrep, stabilizer).get(stabilizer.trivial, 0)
        assert trivial == found.get(irrep, 0)


def test_generated_subgroups():
    group = D(6)
    assert group.generated([]).name == "C1"
    assert group.generated([2]).name == "C3"
    assert group.generated([1]).name == "C6"
    assert group.generated([3, 6], name="bond").name == "bond"
    assert group.generated([1, 6]).order == 12


def test_elements_that_are_no_subgroup_are_refused():
    with pytest.raises(InputError, match=r"not closed under multiplication: C4 times C4 is C2\."):
        D(4).subgroup([0, 1])
    with pytest.raises(InputError, match="not closed"):
        D(4).subgroup([2])
    with pytest.raises(InputError, match="whose elements are 0 to 7"):
        D(4).subgroup([0, 8])
    with pytest.raises(InputError, match="whose elements are 0 to 7"):
        D(4).subgroup([])
