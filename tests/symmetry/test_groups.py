"""Finite groups: axioms, Schur's orthogonality, Clebsch–Gordan, names and tables of the field."""

import hashlib
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.groups import CONVENTION_VERSION, FiniteGroup
from latticezoo.symmetry.point_groups import POINT_GROUPS, C, D, O, Oh, Td, point_group

TIGHT = 1e-12
# Digests of element order, irreps and Clebsch–Gordan coefficients. A change makes saved weights
# wrong: raise CONVENTION_VERSION with it.
DIGESTS = {
    "C1": "2e7527b9551c785f",
    "C2": "e6fc5be0484a7aeb",
    "C3": "bc261164763aa1c3",
    "C4": "b3a7fd6cf685ae7b",
    "C6": "ba8ef79278f5d26f",
    "D1": "6aec919c72717987",
    "D2": "c6db9cb55c359ecf",
    "D3": "6cec85408c9a8f54",
    "D4": "a398eeac3717f3db",
    "D6": "d65ca597efb011f3",
    "Td": "facf2ca1143e147d",
    "O": "78cbff8ee9cadeed",
    "Oh": "e77edde5e2dfa672",
}


@pytest.fixture(params=POINT_GROUPS)
def group(request) -> FiniteGroup:
    return point_group(request.param)


def assert_representation(group: FiniteGroup, matrices: np.ndarray) -> None:
    """Homomorphism and orthogonality, for every pair of elements."""
    product = np.einsum("aij,bjk->abik", matrices, matrices)
    np.testing.assert_allclose(product, matrices[group.product_table], atol=TIGHT)
    identity = np.broadcast_to(np.eye(matrices.shape[-1]), matrices.shape)
    np.testing.assert_allclose(matrices @ matrices.transpose(0, 2, 1), identity, atol=TIGHT)


# ---- the group -----------------------------------------------------------------------------------


def test_group_axioms(group):
    table, elements = group.product_table, np.arange(group.order)
    np.testing.assert_array_equal(table[0], elements)
    np.testing.assert_array_equal(table[:, 0], elements)
    np.testing.assert_array_equal(table[elements, group.inverse], 0)
    np.testing.assert_array_equal(table[group.inverse, elements], 0)
    a, b, c = np.ix_(elements, elements, elements)
    np.testing.assert_array_equal(table[table[a, b], c], table[a, table[b, c]])
    np.testing.assert_array_equal(np.sort(table, axis=1), np.tile(elements, (group.order, 1)))


def test_the_product_table_is_that_of_the_matrices(group):
    assert_representation(group, group.matrices)
    for a, b in itertools.product(range(group.order), repeat=2):
        assert group.index(group.matrices[a] @ group.matrices[b]) == group.product_table[a, b]


def test_classes_are_closed_under_conjugation(group):
    members = [k for c in group.conjugacy_classes for k in c]
    assert sorted(members) == list(range(group.order))
    for c in group.conjugacy_classes:
        conjugates = group.product_table[group.product_table[:, c[0]], group.inverse]
        assert set(conjugates.tolist()) == set(c)
    for name, c in zip(group.class_names, group.conjugacy_classes, strict=True):
        assert name.startswith(str(len(c))) or len(c) == 1


def test_element_names_tell_elements_apart(group):
    assert len(set(group.element_names)) == group.order
    assert group.element_names[0] == "E"


# ---- irreps --------------------------------------------------------------------------------------


def test_irreps_are_orthogonal_representations(group):
    for irrep in group.irreps.values():
        assert irrep.matrices.shape == (group.order, irrep.dim, irrep.dim)
        assert_representation(group, irrep.matrices)


def test_matrix_elements_are_orthogonal(group):
    """Schur: ⟨D_ij D_kl⟩ = (1/d) Σ_s (J_s)_ik (J_s)_jl over the matrices J_s that commute with D,
    which is δ_ik δ_jl / d for real type; zero between different irreps."""
    for a, b in itertools.product(group.irreps.values(), repeat=2):
        mean = np.einsum("gij,gkl->ijkl", a.matrices, b.matrices) / group.order
        if a is b:
            expected = np.einsum("sik,sjl->ijkl", a.commutant, a.commutant) / a.dim
        else:
            expected = np.zeros_like(mean)
        np.testing.assert_allclose(mean, expected, atol=TIGHT)


def test_characters_are_orthogonal(group):
    """Rows: ⟨χ_a χ_b⟩ = n δ_ab. Columns: Σ_Γ χ_Γ(g) χ_Γ(h) / n_Γ = |Z(g)|/2 for each of h and h⁻¹
    that is conjugate to g, where n = 1, or 2 for complex type."""
    chi = np.array([irrep.character for irrep in group.irreps.values()])
    norms = np.array([irrep.commutant_dim for irrep in group.irreps.values()])
    np.testing.assert_allclose(chi @ chi.T / group.order, np.diag(norms), atol=TIGHT)

    conjugate = np.zeros((group.order, group.order))
    for c in group.conjugacy_classes:
        conjugate[np.ix_(c, c)] = group.order / len(c)
    expected = (conjugate + conjugate[:, group.inverse]) / 2
    np.testing.assert_allclose(chi.T @ (chi / norms[:, None]), expected, atol=1e-11)


def test_squared_dimensions_add_up_to_the_order(group):
    assert sum(i.dim**2 / i.commutant_dim for i in group.irreps.values()) == group.order
    with_inverses = {
        frozenset(c) | {int(group.inverse[k]) for k in c} for c in group.conjugacy_classes
    }
    assert len(group.irreps) == len(with_inverses)


@pytest.mark.parametrize("name", ["C3", "C4", "C6"])
def test_complex_type_commutes_with_an_imaginary_unit(name):
    kinds = {key: irrep.kind for key, irrep in point_group(name).irreps.items()}
    assert all((kind == "complex") == key.startswith("E") for key, kind in kinds.items())
    for irrep in point_group(name).irreps.values():
        if irrep.kind == "complex":
            one, unit = irrep.commutant
            np.testing.assert_allclose(one, np.eye(2), atol=TIGHT)
            np.testing.assert_allclose(unit @ unit, -np.eye(2), atol=TIGHT)
            np.testing.assert_allclose(unit @ irrep.matrices, irrep.matrices @ unit, atol=TIGHT)


def test_all_irreps_of_the_dihedral_and_cubic_groups_are_of_real_type(group):
    if group.name[0] in "DTO":
        assert {irrep.kind for irrep in group.irreps.values()} == {"real"}


# ---- products ------------------------------------------------------------------------------------


def test_clebsch_gordan_coefficients_intertwine_and_are_complete(group):
    for a, b in itertools.product(group.irreps.values(), repeat=2):
        product = group.tensor_product(a, b)
        assert sum(m * group.irreps[c].dim for c, m in product.items()) == a.dim * b.dim
        rows = []
        for c in group.irreps.values():
            coefficients = group.clebsch_gordan(a.name, b.name, c.name)
            n = c.commutant_dim
            assert len(coefficients) == n * product.get(c.name, 0)
            flat = coefficients.reshape(len(coefficients), c.dim, a.dim * b.dim)
            for matrix in flat:
                np.testing.assert_allclose(matrix @ matrix.T, np.eye(c.dim), atol=TIGHT)
            turned = np.einsum("rkij,gip,gjq->grkpq", coefficients, a.matrices, b.matrices)
            after = np.einsum("gkl,rlpq->grkpq", c.matrices, coefficients)
            np.testing.assert_allclose(turned, after, atol=TIGHT)
            rows.append(flat[::n].reshape(-1, a.dim * b.dim))
        stacked = np.concatenate(rows)
        np.testing.assert_allclose(stacked @ stacked.T, np.eye(a.dim * b.dim), atol=TIGHT)


def test_products_of_complex_irreps():
    assert C(4).tensor_product("E", "E") == {"A": 2, "B": 2}
    assert C(3).tensor_product("E", "E") == {"A": 2, "E": 1}
    assert C(6).tensor_product("E1", "E1") == {"A": 2, "E2": 1}
    assert C(6).tensor_product("E1", "E2") == {"B": 2, "E1": 1}
    # E → E: complex numbers. A ⊗ E → E: as many, though E occurs once.
    assert C(4).intertwiners("E", "E").shape == (2, 2, 2)
    assert C(4).clebsch_gordan("A", "E", "E").shape == (2, 2, 1, 2)
    first, second = C(4).clebsch_gordan("A", "E", "E")[:, :, 0]
    np.testing.assert_allclose(second, C(4).irreps["E"].commutant[1] @ first, atol=TIGHT)


def test_products_of_the_cubic_groups():
    assert O().tensor_product("T1", "T1") == {"A1": 1, "E": 1, "T1": 1, "T2": 1}
    assert O().tensor_product("T1", "T2") == {"A2": 1, "E": 1, "T1": 1, "T2": 1}
    assert Td().tensor_product("T2", "T2") == {"A1": 1, "E": 1, "T1": 1, "T2": 1}
    assert Oh().tensor_product("T1u", "T1u") == {"A1g": 1, "Eg": 1, "T1g": 1, "T2g": 1}
    levi_civita = O().clebsch_gordan("T1", "T1", "T1")[0] * np.sqrt(2)
    assert abs(levi_civita[0, 1, 2]) == pytest.approx(1)
    np.testing.assert_allclose(levi_civita, -levi_civita.transpose(0, 2, 1), atol=TIGHT)


# ---- representations -----------------------------------------------------------------------------


def test_direct_sums_are_laid_out_block_after_block(group):
    last = list(group.irreps)[-1]
    spec = f"2x{last}+{group.trivial}"
    rep = group.representation(spec)
    dim = group.irreps[last].dim
    assert rep.blocks == ((2, last, dim), (1, group.trivial, 1))
    assert rep.dim == 2 * dim + 1
    assert str(rep) == spec
    assert group.representation(spec) is rep
    assert_representation(group, rep.matrices)
    np.testing.assert_array_equal(rep.matrices[:, :dim, :dim], group.irreps[last].matrices)
    np.testing.assert_array_equal(
        rep.matrices[:, dim : 2 * dim, dim : 2 * dim], group.irreps[last].matrices
    )
    np.testing.assert_array_equal(rep.matrices[:, -1, -1], 1)
    assert np.count_nonzero(rep.matrices[:, :dim, dim:]) == 0


def test_cartesian_words():
    for group in (D(1), D(4), Td(), Oh()):
        assert_representation(group, group.representation("pseudovector").matrices)
        np.testing.assert_array_equal(group.representation("vector").matrices, group.matrices)
    assert D(1).decompose("vector") == {"A2": 1}
    assert D(4).decompose("vector + pseudovector") == {"E": 2}
    assert Td().decompose("vector") == {"T2": 1}
    assert Td().decompose("pseudovector") == {"T1": 1}
    assert O().decompose("vector") == {"T1": 1}
    assert Oh().decompose("vector + pseudovector") == {"T1g": 1, "T1u": 1}
    assert C(6).decompose("vector") == {"E1": 1}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_direct_sum_decomposes_back_after_a_change_of_basis(data):
    group = point_group(data.draw(st.sampled_from(POINT_GROUPS)))
    counts = {name: data.draw(st.integers(0, 3), label=name) for name in group.irreps}
    counts = {name: count for name, count in counts.items() if count}
    if not counts:
        return
    rep = group.representation("+".join(f"{m}x{name}" for name, m in counts.items()))
    basis = np.atleast_2d(
        ortho_group.rvs(rep.dim, random_state=data.draw(st.integers(0, 2**31)))
        if rep.dim > 1
        else 1.0
    )
    turned = basis @ rep.matrices @ basis.T
    assert group.decompose(turned) == counts
    assert group.decompose(np.trace(turned, axis1=1, axis2=2)) == counts
    for name, irrep in group.irreps.items():
        maps = group.intertwiners(turned, irrep)
        assert len(maps) == counts.get(name, 0) * irrep.commutant_dim
        assert_intertwines(maps, turned, irrep.matrices)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_intertwiners_are_orthonormal_and_as_many_as_schur_says(data):
    group = point_group(data.draw(st.sampled_from(POINT_GROUPS)))
    names = st.lists(st.sampled_from([*group.irreps, "vector"]), min_size=1, max_size=3)
    rep_in, rep_out = (group.representation("+".join(data.draw(names))) for _ in range(2))
    maps = group.intertwiners(rep_in, rep_out)
    inside, outside = group.decompose(rep_in), group.decompose(rep_out)
    assert len(maps) == sum(
        m * outside.get(name, 0) * group.irreps[name].commutant_dim for name, m in inside.items()
    )
    assert_intertwines(maps, rep_in.matrices, rep_out.matrices)
    overlaps = np.einsum("mij,nij->mn", maps, maps)
    np.testing.assert_allclose(overlaps, np.eye(len(maps)), atol=TIGHT)


def assert_intertwines(maps: np.ndarray, rep_in: np.ndarray, rep_out: np.ndarray) -> None:
    before = np.einsum("mij,gjk->gmik", maps, rep_in)
    after = np.einsum("gij,mjk->gmik", rep_out, maps)
    np.testing.assert_allclose(before, after, atol=1e-11)


def test_the_regular_representation_holds_every_irrep_as_often_as_its_dimension(group):
    regular = np.zeros((group.order,) * 3)
    g, h = np.indices((group.order, group.order))
    regular[g, group.product_table[g, h], h] = 1
    expected = {name: i.dim // i.commutant_dim for name, i in group.irreps.items()}
    assert group.decompose(regular) == expected


# ---- conventions that saved weights depend on ----------------------------------------------------


def test_conventions_have_not_changed(group):
    assert CONVENTION_VERSION == 1
    numbers = [group.matrices, *(irrep.matrices for irrep in group.irreps.values())]
    for names in itertools.product(group.irreps, repeat=3):
        numbers.append(group.clebsch_gordan(*names))
    flat = np.concatenate([array.ravel() for array in numbers])
    text = " ".join(f"{round(x * 1e6)}" for x in flat.tolist())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[group.name]


def test_group_tables_are_read_only(group):
    with pytest.raises(ValueError, match="read-only"):
        group.matrices[0, 0, 0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        group.irreps[group.trivial].matrices[0, 0, 0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        group.representation("vector").matrices[0, 0, 0] = 2.0


def test_groups_survive_the_trip_to_another_process():
    copy = pickle.loads(pickle.dumps(D(6)))
    np.testing.assert_array_equal(copy.irreps["E2"].matrices, D(6).irreps["E2"].matrices)
    assert str(copy) == str(D(6))
    assert D(6).restrict("E1", copy) == {"E1": 1}


def test_a_name_always_gives_the_same_object():
    assert point_group("D4") is D(4)
    assert point_group("Td") is Td()


# ---- bad input -----------------------------------------------------------------------------------


def test_unknown_names_give_the_nearest_ones():
    with pytest.raises(InputError, match=r"unknown point group 'D5'; did you mean .*D6"):
        point_group("D5")
    with pytest.raises(InputError, match="unknown irrep of D4 'B3'; did you mean B"):
        D(4).representation("A1+B3")
    with pytest.raises(InputError, match="unknown irrep of D4 'vectr'; did you mean vector"):
        D(4).representation("vectr")
    with pytest.raises(InputError, match="unknown irrep of Oh 'T1'; did you mean T1"):
        Oh().clebsch_gordan("T1", "T1u", "A1g")


@pytest.mark.parametrize("spec", ["", "A1+", "0xA1", "-1xA1", "2*A1", "A1 & B1", "x"])
def test_text_that_is_no_representation(spec):
    with pytest.raises(InputError, match=r"write a sum of irreps|unknown irrep"):
        D(4).representation(spec)


def test_matrices_that_are_no_group_are_refused():
    turn = D(6).matrices[1]
    with pytest.raises(InputError, match=r"matrices of half are not closed .*: number 1 times"):
        FiniteGroup("half", np.array([np.eye(2), turn, turn @ turn]))
    with pytest.raises(InputError, match="must be orthogonal, but number 1 is not"):
        FiniteGroup("scaled", np.array([np.eye(2), 2 * np.eye(2)]))
    with pytest.raises(InputError, match="must be orthogonal, but number 1 is not"):
        FiniteGroup("nan", np.array([np.eye(2), np.full((2, 2), np.nan)]))
    with pytest.raises(InputError, match="must begin with the identity"):
        FiniteGroup("late", np.array([-np.eye(2), np.eye(2)]))
    with pytest.raises(InputError, match="numbers 0 and 1 are the same"):
        FiniteGroup("twice", np.array([np.eye(2), np.eye(2)]))
    with pytest.raises(InputError, match=r"shape \[order, d, d\], not \[2, 2\]"):
        FiniteGroup("flat", np.eye(2))


def test_irreps_that_do_not_fit_are_refused():
    matrices, signs = C(2).matrices, np.array([1.0, -1.0])[:, None, None]
    with pytest.raises(InputError, match="'B' do not multiply like C2"):
        FiniteGroup("C2", matrices, {"A": signs**2, "B": 2 * signs})
    with pytest.raises(InputError, match="add up to 1, not 2"):
        FiniteGroup("C2", matrices, {"A": signs**2})
    with pytest.raises(InputError, match="'AB' is reducible"):
        FiniteGroup("C2", matrices, {"AB": np.array([np.eye(2), np.diag([1.0, -1.0])])})
    with pytest.raises(InputError, match="'2B' is reducible"):
        FiniteGroup("C2", matrices, {"2B": matrices})


def test_what_is_no_representation_is_not_decomposed():
    with pytest.raises(InputError, match="belong to no representation of D4"):
        D(4).decompose(np.array([1.0, 0, 0, 0, 0, 0, 0, 0]))
    with pytest.raises(InputError, match="belong to no representation of C4"):
        C(4).decompose(np.array([-1.0, -1, -1, -1]))
    with pytest.raises(InputError, match="NaN"):
        D(4).decompose(np.full(8, np.nan))
    with pytest.raises(InputError, match=r"matrices \[8, d, d\], not \[6, 2, 2\]"):
        D(4).decompose(D(3).matrices)
    with pytest.raises(InputError, match="should be a whole number"):
        D(4).intertwiners(D(4).matrices * 1.5, D(4).matrices)


def test_a_matrix_that_is_no_element():
    with pytest.raises(InputError, match="no element of D4"):
        D(4).index(D(3).matrices[1])
    with pytest.raises(InputError, match="no element of D4"):
        D(4).index(np.eye(3))


@pytest.mark.parametrize("n", [0, -3, 2.5, "4", True])
def test_folds_are_whole_numbers(n):
    with pytest.raises(InputError, match="whole number"):
        C(n)
    with pytest.raises(InputError, match="whole number"):
        D(n)
