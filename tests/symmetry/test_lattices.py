"""Lattices: shells, neighbours and site permutations hold what geometry says."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, chain, diamond, honeycomb, square, triangular

SMALL = [
    chain(8),
    chain(5),
    square(6),
    square(4, 6),
    square(3, 5),
    triangular(6),
    triangular(4, 6),
    honeycomb(4),
    honeycomb(3, 5),
    diamond(1),
    diamond(2),
    diamond(1, 2, 1),
]
ids = map(str, SMALL)
every_lattice = pytest.mark.parametrize("lattice", SMALL, ids=list(ids))


def shortest(lattice: Lattice, difference: np.ndarray) -> np.ndarray:
    """Minimum image of Cartesian differences on the torus."""
    periods = np.array(lattice.shape)[:, None] * lattice.vectors
    images = [
        difference + np.array(n) @ periods
        for n in itertools.product(range(-2, 3), repeat=lattice.dim)
    ]
    lengths = np.stack([np.linalg.norm(image, axis=-1) for image in images])
    return np.take_along_axis(np.stack(images), lengths.argmin(0)[None, ..., None], 0)[0]


@every_lattice
def test_site_order_is_row_major(lattice):
    positions = lattice.positions.numpy()
    assert positions.shape == (lattice.n_sites, lattice.dim)
    step = lattice.sublattices
    assert np.allclose(positions[0], 0)
    if lattice.shape[-1] > 1:
        assert np.allclose(positions[step] - positions[0], lattice.vectors[-1])


def test_bond_length_is_one():
    for lattice in SMALL:
        assert lattice.shells(count=1)[1].radius == pytest.approx(1.0)


def test_square_shells_are_the_tabulated_orbits():
    """Cumulative number of sites against r² (descriptor sheet, section 3)."""
    table = {0: 1, 1: 5, 2: 9, 4: 13, 5: 21, 8: 25, 9: 29, 10: 37, 13: 45, 16: 49, 17: 57, 18: 61}
    table |= {20: 69, 25: 81, 26: 89, 29: 97, 32: 101, 34: 109, 36: 113, 37: 121, 40: 129}
    table |= {41: 137, 45: 145, 49: 149}
    shells = square(24).shells(cutoff=7.0)
    for r2, sites in table.items():
        assert sum(s.size for s in shells if s.radius**2 < r2 + 0.5) == sites
    at_25 = [s for s in shells if abs(s.radius - 5) < 1e-9]
    assert [s.offsets[0] for s in at_25] == [(5.0, 0.0), (4.0, 3.0)]
    assert sum(s.size for s in square(24).shells(count=8)) == 45


def test_triangular_shells_are_the_tabulated_orbits():
    table = {0: 1, 1: 7, 3: 13, 4: 19, 7: 31, 9: 37, 12: 43, 13: 55, 16: 61, 19: 73, 21: 85, 25: 91}
    shells = triangular(20).shells(cutoff=5.0)
    for r2, sites in table.items():
        assert sum(s.size for s in shells if s.radius**2 < r2 + 0.5) == sites


def test_coordination_of_honeycomb_and_diamond():
    assert [s.size for s in honeycomb(8).shells(count=4)] == [1, 3, 6, 3, 6]
    assert [s.size for s in diamond(4).shells(count=3)] == [1, 4, 12, 12]
    diamond_r2 = [s.radius**2 for s in diamond(4).shells(count=3)]
    assert np.allclose(diamond_r2, [0, 1, 8 / 3, 11 / 3])


def test_planar_shells_run_counter_clockwise():
    for lattice in (square(9), triangular(9), honeycomb(9)):
        for shell in lattice.shells(count=6)[1:]:
            angles = np.arctan2(*shell.vectors.T[::-1]) % (2 * np.pi)
            angles[angles > 2 * np.pi - 1e-9] = 0
            assert (np.diff(angles) > 0).all()


def test_eight_site_shell_has_the_order_of_the_tables():
    shell = square(9).shells(count=4)[4]
    expected = [(2, 1), (1, 2), (-1, 2), (-2, 1), (-2, -1), (-1, -2), (1, -2), (2, -1)]
    assert np.allclose(shell.vectors, expected)


@every_lattice
def test_neighbours_lie_at_the_offsets(lattice):
    positions = lattice.positions.numpy()
    group = lattice.point_group
    frames = np.tile(lattice.frames, lattice.n_cells)
    for shell in lattice.shells(count=2):
        neighbours = lattice.neighbours(shell).numpy()
        expected = np.einsum("nij,kj->nki", group.matrices[frames], shell.vectors)
        miss = positions[neighbours] - positions[:, None] - expected
        assert np.abs(shortest(lattice, miss)).max() < 1e-9


@every_lattice
def test_neighbour_sum_equals_a_plain_gather(lattice):
    values = torch.randn(2, lattice.n_sites, 3, dtype=torch.float64)
    for shell in lattice.shells(count=3):
        plain = values[:, lattice.neighbours(shell)].sum(2)
        assert torch.allclose(lattice.neighbour_sum(values, shell), plain, atol=1e-14)
        mean = lattice.neighbour_mean(values, shell)
        assert torch.allclose(mean * shell.size, plain, atol=1e-14)


@every_lattice
def test_edges_are_symmetric_and_count_each_bond_twice(lattice):
    edges = lattice.edge_index()
    assert edges.shape == (2, lattice.n_sites * lattice.shells(count=1)[1].size)
    forward = sorted(map(tuple, edges.T.tolist()))
    assert forward == sorted(map(tuple, edges.flip(0).T.tolist()))


@every_lattice
def test_permutations_are_isometries_of_the_torus(lattice):
    positions = lattice.positions.numpy()
    group = lattice.point_group
    for point in lattice.operations:
        permutation = lattice.permutation(point).numpy()
        assert sorted(permutation) == list(range(lattice.n_sites))
        moved = positions[permutation] - positions[permutation[0]]
        expected = (positions - positions[0]) @ group.matrices[point].T
        assert np.abs(shortest(lattice, moved - expected)).max() < 1e-9


@every_lattice
def test_translations_shift_every_site_alike(lattice):
    positions = lattice.positions.numpy()
    seen = set()
    for translation in lattice.translations():
        permutation = lattice.permutation(0, translation).numpy()
        seen.add(tuple(permutation))
        shift = positions[permutation] - positions
        assert np.abs(shortest(lattice, shift - shift[0])).max() < 1e-9
    assert len(seen) == lattice.n_translations


@every_lattice
def test_point_operations_compose_up_to_a_translation(lattice):
    table = lattice.point_group.product_table
    shifts = {tuple(lattice.permutation(0, t).tolist()) for t in lattice.translations()}
    for a, b in itertools.product(lattice.operations, repeat=2):
        product = lattice.permutation(a)[lattice.permutation(b)]
        inverse = torch.argsort(lattice.permutation(int(table[a, b])))
        assert tuple(product[inverse].tolist()) in shifts


@every_lattice
def test_an_operation_carries_neighbourhoods_onto_neighbourhoods(lattice):
    """With the frames, the neighbours of the image are the images of the neighbours."""
    for point in lattice.operations:
        permutation = lattice.permutation(point)
        for shell in lattice.shells(count=2)[1:]:
            images = permutation[lattice.neighbours(shell)]
            theirs = lattice.neighbours(shell)[permutation]
            assert torch.equal(images.sort(1).values, theirs.sort(1).values)
            for sublattice in range(lattice.sublattices):
                target, inner = lattice.site_operation(point, sublattice)
                assert int(permutation[sublattice]) % lattice.sublattices == target
                turned = shell.vectors @ lattice.site_group.matrices[inner].T
                order = np.abs(turned[:, None] - shell.vectors[None]).sum(-1).argmin(1)
                assert torch.equal(images[sublattice], theirs[sublattice][order])


@pytest.mark.parametrize(
    ("lattice", "kept"),
    [
        (square(6), 8),
        (square(4, 6), 4),
        (triangular(6), 12),
        (triangular(4, 6), 2),
        (honeycomb(4), 12),
        (diamond(2), 48),
        (diamond(1, 2, 1), 16),
        (chain(7), 2),
    ],
    ids=str,
)
def test_an_unequal_torus_keeps_the_operations_that_map_it_onto_itself(lattice, kept):
    assert len(lattice.operations) == kept


def test_stagger_changes_sign_on_every_bond():
    for lattice in (chain(6), square(4, 6), honeycomb(3), diamond(1)):
        sign = lattice.stagger
        assert torch.equal(
            sign[lattice.neighbours(1)], -sign[:, None].expand(-1, lattice.shells(1)[1].size)
        )


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 7), st.integers(3, 7), st.integers(1, 8))
def test_a_torus_that_is_large_enough_has_distinct_neighbours(first, second, count):
    lattice = square(first, second)
    shells = lattice.shells(count=count)
    table = lattice.neighbourhood(shells)
    distinct = len(set(table[0].tolist())) == table.shape[1]
    if distinct:
        lattice.require(shells)
    else:
        with pytest.raises(InputError, match=r"too small .* needs at least \d+ cells"):
            lattice.require(shells)


def test_text_round_trip():
    for lattice in SMALL:
        assert Lattice.parse(str(lattice)) == lattice
    assert Lattice.parse("diamond(2)") == diamond(2)
    assert Lattice.parse("square( 4,6 )") == square(4, 6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Lattice.parse("squares(4)"), "unknown lattice 'squares'; did you mean square"),
        (lambda: Lattice.parse("square"), "is not a lattice"),
        (lambda: Lattice("square", (4,)), "needs 2 sizes"),
        (lambda: square(0), "at least 1"),
        (lambda: square(5, 4).stagger, "odd period"),
        (lambda: triangular(6).stagger, "no two sublattices"),
        (lambda: honeycomb(4).directions, "link fields need"),
        (lambda: honeycomb(4).shifts(1), "no cell translations"),
        (lambda: square(4).shells(), "either count or cutoff"),
        (lambda: square(4).shells(count=-1), "0 or more"),
        (lambda: square(4).shells(cutoff=float("nan")), "finite distance"),
        (lambda: square(2).require(1, what="the hopping"), "too small for the hopping"),
        (lambda: square(4, 6).permutation(1), "does not map square"),
        (lambda: square(4).neighbours(triangular(4).shells(count=1)[1]), "does not fit"),
    ],
)
def test_bad_input_is_named_in_one_sentence(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
