"""Invariants of spins: decomposition as published, exactness, smoothness, what they tell apart."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from latticezoo.symmetry.elements import Element
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, transform
from latticezoo.symmetry.internal import internal_group
from latticezoo.symmetry.lattices import Lattice, chain, diamond, honeycomb, square, triangular
from latticezoo.symmetry.point_groups import point_group
from latticezoo.symmetry.spin_invariants import SpinInvariants

SPIN = Field("S", internal="1x1e", odd=("time_reversal",))


def spins(lattice, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, lattice.n_sites, 3, dtype=torch.float64, generator=generator)
    return F.normalize(values, dim=-1)


def multiplicities(invariants, kind):
    return {c.name: len(c.rows) for c in invariants.copies if c.kind == kind}


# ---- the decomposition ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("radii", "bonds", "pairs"),
    [  # itinerant-magnet sheet, sections 4 and 8
        ((2.0, 2.0, 1.0), 18, 36),
        ((3.0, 3.0, 1.0), 36, 84),
        ((6.0, 6.0, 1.0), 126, 336),
        ((6.0, 6.0, 3**0.5), 126, 636),
        ((6.0, 6.0, 2.0), 126, 933),
    ],
)
def test_numbers_of_bonds_and_chiralities(radii, bonds, pairs):
    assert SpinInvariants("triangular", *radii).n_variables == bonds + 2 * pairs


def test_first_shells_decompose_as_published():
    """Zhang's dissertation, Eqs. 3.14–3.17: shells of 6 and 12 bonds, triangles about a site."""
    first = {"A1": 1, "B1": 1, "E1": 1, "E2": 1}
    second = {"A1": 1, "B2": 1, "E1": 1, "E2": 1}
    regular = {"A1": 1, "A2": 1, "B1": 1, "B2": 1, "E1": 2, "E2": 2}
    totals = []
    for radius in (1.0, 3**0.5, 2.0, 7**0.5):
        found = SpinInvariants("triangular", radius, 0.0)
        totals.append(multiplicities(found, "bond"))
        assert multiplicities(found, "chirality") == {}
    steps = [totals[0]] + [
        {name: n - before.get(name, 0) for name, n in after.items() if n > before.get(name, 0)}
        for before, after in itertools.pairwise(totals)
    ]
    assert steps == [first, second, first, regular]
    triangles = SpinInvariants("triangular", 1.0, 1.0, 1.0)
    assert multiplicities(triangles, "chirality") == {"A2": 1, "B1": 1, "E1": 1, "E2": 1}
    published = SpinInvariants("triangular", 6.0, 6.0, 2.0)
    assert sum(multiplicities(published, "bond").values()) == 84 + 622
    assert sum(multiplicities(published, "chirality").values()) == 622


@pytest.mark.parametrize("family", ["triangular", "square", "honeycomb", "chain", "diamond"])
def test_the_decomposition_is_complete_and_orthogonal(family):
    found = SpinInvariants(family, 2.0, 2.0, 1.7)
    rows = torch.cat(
        [torch.from_numpy(copies.rows).reshape(-1, found.n_variables) for copies in found.copies]
    )
    assert rows.shape == (found.n_variables, found.n_variables)
    assert float((rows @ rows.T - torch.eye(len(rows))).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("family", "size", "group"), [("triangular", 6, "D6"), ("square", 5, "D4")]
)
def test_copies_turn_by_the_tabulated_matrices(family, size, group):
    lattice, table = Lattice(family, (size, size)), point_group(group)
    found = SpinInvariants(family, 2.0, 1.0, 1.5).double()
    S = spins(lattice)
    before = found.coefficients(S, lattice)
    for point in range(table.order):
        element = Element(lattice, point)
        after = found.coefficients(transform(SPIN, S, element), lattice)
        for (kind, name), values in before.items():
            matrix = torch.tensor(table.irreps[name].matrices[point])
            turned = values @ matrix.T
            moved = after[kind, name][:, element.permutation]
            torch.testing.assert_close(moved, turned, rtol=0, atol=1e-13)


def test_variables_are_what_they_are_called():
    lattice = square(5)
    found, S = SpinInvariants("square", 1.0, 1.0, 1.5).double(), spins(square(5))
    values = found.variables(S, lattice)[:, 0]
    around = S[:, lattice.neighbours(1)[0]]
    pairs = [(m, n) for m, n in itertools.combinations(range(4), 2) if not opposite(m, n)]
    expected = [*(S[:, 0, None] * around).sum(-1).T]
    expected += [(around[:, m] * around[:, n]).sum(-1) for m, n in pairs]
    expected += [torch.linalg.det(torch.stack([S[:, 0], around[:, m], around[:, n]], 1))
                 for m, n in pairs]  # fmt: skip
    torch.testing.assert_close(values, torch.stack(expected, dim=-1))


def opposite(m, n):
    shell = square(5).shells(count=1)[1]
    return bool((shell.vectors[m] + shell.vectors[n] == 0).all())


# ---- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lattice", "radii"),
    [
        (triangular(7), (3.0, 3.0, 1.0)),
        (square(7), (3.0, 2.0, 1.5)),
        (square(5, 6), (2.0, 2.0, 2.0)),
        (honeycomb(4), (2.0, 1.8, 1.8)),
        (diamond(2), (1.0, 1.0, 1.7)),
        (chain(8), (3.0, 2.0, 2.0)),
    ],
    ids=str,
)
def test_nothing_changes_under_any_element(lattice, radii):
    """All point operations, some translations, random rotations of all spins, time reversal."""
    found, S = SpinInvariants(lattice.family, *radii).double(), spins(lattice)
    before = found(S, lattice)
    assert before.shape == (2, lattice.n_sites, found.n_features)
    generator = torch.Generator().manual_seed(1)
    rotations = internal_group("SO3")
    translations = list(lattice.translations())
    for number, point in enumerate(lattice.operations):
        element = Element(
            lattice,
            point,
            translations[(5 * number) % len(translations)],
            frozenset(["time_reversal"]) if number % 2 else frozenset(),
            rotations.random(generator=generator, dtype=torch.float64),
            internal_group=rotations,
        )
        after = found(transform(SPIN, S, element), lattice)[:, element.permutation]
        torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    torch.testing.assert_close(found(-S, lattice), before, rtol=0, atol=1e-12)


def test_bonds_are_even_and_chiralities_odd_under_time_reversal():
    lattice = triangular(5)
    found, S = SpinInvariants("triangular", 2.0, 2.0, 1.0).double(), spins(lattice)
    one, two = found.coefficients(S, lattice), found.coefficients(-S, lattice)
    for (kind, name), values in one.items():
        sign = 1 if kind == "bond" else -1
        torch.testing.assert_close(two[kind, name], sign * values)


# ---- smoothness and completeness -----------------------------------------------------------------


def test_derivatives_exist_where_everything_is_ordered():
    """A ferromagnet: all chiralities and all irreps but the trivial one vanish."""
    lattice = triangular(5)
    found = SpinInvariants("triangular", 1.0, 1.0, 1.0).double()
    S = torch.zeros(1, 25, 3, dtype=torch.float64)
    S[..., 2] = 1.0
    S.requires_grad_()
    first = torch.autograd.grad(found(S, lattice).sum(), S, create_graph=True)[0]
    second = torch.autograd.grad((first**2).sum(), S)[0]
    assert bool(first.isfinite().all())
    assert bool(second.isfinite().all())
    T = spins(square(3), 1).requires_grad_()
    small = SpinInvariants("square", 1.0, 1.0, 1.5).double()
    assert torch.autograd.gradcheck(lambda x: small(x, square(3))[:, :1], T)
    assert torch.autograd.gradgradcheck(lambda x: small(x, square(3))[:, :1, ::7], T)


def test_features_tell_apart_what_bonds_of_the_site_do_not():
    """Same b_ij, other b_mn; and the relative sense of two triangles, which is even in time."""
    lattice = triangular(7)
    bonds = SpinInvariants("triangular", 1.0, 0.0).double()
    everything = SpinInvariants("triangular", 1.0, 1.0, 1.0).double()
    S = spins(lattice, 1)
    axis = S[0, 0]
    turned = S.clone()
    neighbour = int(lattice.neighbours(1)[0, 0])
    v = turned[0, neighbour]
    turned[0, neighbour] = 2 * (v @ axis) * axis - v  # half a turn about the spin of the site
    difference = (bonds(turned, lattice) - bonds(S, lattice))[0, 0].abs().max()
    assert float(difference) < 1e-14
    assert float((everything(turned, lattice) - everything(S, lattice))[0, 0].abs().max()) > 0.1
    # A mirror image of all spins changes the sign of every chirality, and nothing else.
    mirrored = S * torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(everything(mirrored, lattice), everything(S, lattice))


def test_names_tell_features_apart():
    found = SpinInvariants("triangular", 2.0, 1.0, 1.0)
    assert len(set(found.feature_names)) == found.n_features
    assert found.feature_names[0] == "bond A1 of (1, 0): value"
    assert "features=" in found.extra_repr()


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("radii", "sentence"),
    [
        ((0.9,), "bond_radius must be a distance of at least 1, not 0.9"),
        ((1.0, -1.0), "pair_radius must be a distance of at least 0"),
        ((1.0, 1.0, float("nan")), "pair_distance must be a distance of at least 0, not nan"),
        ((1.0, 1.0, 1.0, 0.0), "smooth must be a positive number"),
    ],
)
def test_wrong_sizes_are_refused(radii, sentence):
    with pytest.raises(InputError, match=sentence):
        SpinInvariants("triangular", *radii)


def test_a_torus_or_values_that_do_not_fit_are_refused():
    found = SpinInvariants("triangular", 3.0, 2.0, 1.0).double()
    with pytest.raises(InputError, match=r"triangular\(6, 6\) is too small .* at least 7 cells"):
        found(spins(triangular(6)), triangular(6))
    with pytest.raises(InputError, match="serve the triangular lattice, not square"):
        found(spins(square(8)), square(8))
    with pytest.raises(InputError, match=r"have shape \[batch, 49, 3\]"):
        found(spins(triangular(7))[..., :2], triangular(7))
