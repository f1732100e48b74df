"""Clusters and stripes on a torus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latticezoo.simulate.stripes import clusters, domain_state, wall_length, without_islands
from latticezoo.symmetry.errors import InputError

L = 24
X, Y = np.meshgrid(np.arange(L), np.arange(L), indexing="ij")


def disc(x, y, radius):
    dx, dy = (X - x + L // 2) % L - L // 2, (Y - y + L // 2) % L - L // 2
    return dx**2 + dy**2 <= radius**2


def order(signs):
    return np.where(signs, 1.0, -1.0)


def searched(signs):
    """Clusters and their windings, by walking from site to site on the unrolled torus."""
    sides, labels, ranks = signs.shape, -np.ones(signs.shape, int), []
    for start in np.ndindex(*sides):
        if labels[start] >= 0:
            continue
        place, todo, turns = {start: np.array(start)}, [start], []
        labels[start] = len(ranks)
        while todo:
            site = todo.pop()
            for step in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                there = place[site] + step
                folded = tuple(int(n) for n in there % sides)
                if signs[folded] != signs[start]:
                    continue
                if folded in place:
                    turns.append((there - place[folded]) // sides)
                else:
                    place[folded] = there
                    labels[folded] = len(ranks)
                    todo.append(folded)
        ranks.append(int(np.linalg.matrix_rank(np.array(turns))) if turns else 0)
    return labels, ranks


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.3, 0.5, 0.6, 0.7]),
    sides=st.sampled_from([(3, 3), (5, 7), (8, 4), (12, 12)]),
)
def test_clusters_are_those_of_a_plain_search(seed, share, sides):
    signs = np.random.default_rng(seed).random(sides) < share
    found = clusters(signs)
    labels, ranks = searched(signs)
    pairs = {(int(a), int(b)) for a, b in zip(found.labels.ravel(), labels.ravel(), strict=True)}
    assert len(pairs) == len(ranks) == len(found.windings)
    assert all(found.windings[a] == ranks[b] for a, b in pairs)
    plain = without_islands(signs)
    assert (clusters(plain).windings > 0).all()
    assert wall_length(plain) <= wall_length(signs)
    winding = (found.windings > 0)[found.labels]
    assert (plain == signs)[winding].all()


@pytest.mark.parametrize(
    ("signs", "direction", "walls", "steps"),
    [
        (X < 10, (0, 1), 2, 0),
        (Y % 12 < 5, (1, 0), 4, 0),
        ((X + (Y > 11)) % L < 10, (0, 1), 2, 4),  # each wall steps there and back
    ],
)
def test_flat_stripes_are_frozen(signs, direction, walls, steps):
    found = domain_state(order(signs))
    assert found.kind == "stripes"
    assert tuple(np.abs(found.direction)) == direction
    assert found.walls == walls
    assert found.wall_length == walls * L + steps


def test_islands_do_not_hide_stripes():
    """A thermal island, and an island within an island, belong to what surrounds them."""
    signs = (X < 10) ^ disc(4, 4, 2) ^ disc(4, 4, 0) ^ disc(17, 12, 1)
    found = domain_state(order(signs))
    assert found.kind == "stripes"
    assert found.wall_length == 2 * L
    assert found.islands == pytest.approx((12 + 5) / L**2)
    assert (without_islands(signs) == (X < 10)).all()


def test_islands_that_touch_at_their_corners():
    """Four single sites around a fifth: no cluster lies inside one other alone."""
    signs = np.zeros((L, L), bool)
    signs[[5, 7, 6, 6], [6, 6, 5, 7]] = True
    assert len(clusters(signs).windings) == 6
    assert not without_islands(signs).any()


def test_diagonal_stripes_and_rough_ones():
    diagonal = domain_state(order((X + Y) % L < 11))
    assert diagonal.kind == "diagonal"
    assert sorted(np.abs(diagonal.direction)) == [1, 1]
    assert diagonal.wall_length == 4 * L
    rough = domain_state(order(X + 5 * np.sin(2 * np.pi * Y / L) < 12) * order(X > 3))
    assert rough.kind == "coarsening"
    large_hole = domain_state(order((X < 14) ^ disc(7, 7, 5)))
    assert large_hole.kind == "coarsening"
    assert large_hole.islands > 0.1


def test_ordered_and_coarsening():
    assert domain_state(np.ones((L, L))).kind == "ordered"
    assert domain_state(order(disc(3, 20, 2))).kind == "ordered"
    half = domain_state(order(disc(3, 20, 8)))
    assert half.kind == "coarsening"
    assert half.islands == pytest.approx(disc(3, 20, 8).mean())
    noise = np.random.default_rng(0).standard_normal((64, 64))
    assert domain_state(noise).kind == "coarsening"


def test_windings_of_a_spiral():
    """A stripe that goes twice along one axis and once along the other."""
    signs = (X + 2 * Y) % L < 12
    found = clusters(signs)
    assert found.windings.tolist() == [1, 1]
    assert [sorted(np.abs(row)) for row in found.direction] == [[1, 2], [1, 2]]


def test_bad_fields():
    with pytest.raises(InputError, match=r"shape \[8\]"):
        clusters(np.ones(8, bool))
    with pytest.raises(InputError, match="sides of 3"):
        clusters(np.ones((2, 8), bool))
