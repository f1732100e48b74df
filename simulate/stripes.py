"""Topology of domains on a torus: clusters that wind around it, walls, frozen stripes.

A quench on a torus does not always end in one of the two ordered states: in about a third of the
runs of the Ising model at T = 0 (Spirin, Krapivsky and Redner, Phys. Rev. E 65, 016119 (2001)) it
freezes into stripes, whose flat walls have no curvature to drive them. Such runs must be counted,
for their L(t) has stopped growing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from latticezoo.symmetry.errors import InputError

Integers = NDArray[np.int64]
Signs = NDArray[np.bool_]


class Clusters(NamedTuple):
    """Clusters of equal sign, joined over the four nearest neighbours.

    Attributes:
        labels: ``[L1, L2]``, 0, 1, ….
        windings: For each cluster the rank of its closed paths around the torus: 0 for none, 1 for
            one direction, 2 for both.
        direction: For a rank of 1 the winding numbers (along the axes, in lowest terms up to
            sign), ``[clusters, 2]``; zero elsewhere.
    """

    labels: Integers
    windings: Integers
    direction: Integers


def clusters(signs: Signs) -> Clusters:
    """Find the clusters of a two-valued field on a torus, and how they wind around it.

    Args:
        signs: ``[L1, L2]``.

    Raises:
        InputError: For an array of another number of axes, and sides below 3.
    """
    signs = np.asarray(signs, dtype=bool)
    if signs.ndim != 2 or min(signs.shape) < 3:
        raise InputError(
            f"a field of shape {list(signs.shape)} was given; it must be [L1, L2] with sides of 3 "
            "or more."
        )
    shape, n = signs.shape, signs.size
    sites = np.arange(n).reshape(shape)
    starts, ends, steps = [], [], []
    for axis in (0, 1):
        step = np.zeros(2, np.int64)
        step[axis] = 1
        same = signs == np.roll(signs, -1, axis)
        starts.append(sites[same])
        ends.append(np.roll(sites, -1, axis)[same])
        steps.append(np.broadcast_to(step, (int(same.sum()), 2)))
    start, end = np.concatenate(starts), np.concatenate(ends)
    step = np.concatenate(steps)
    graph = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(n, n)).tocsr()
    count, labels = connected_components(graph, directed=False)
    height = _heights(graph, labels, count, shape)
    # Around a closed path the steps add up to whole turns of the torus.
    turns = (height[start] + step - height[end]) // np.array(shape)
    wound = np.flatnonzero(turns.any(1))
    windings = np.zeros(count, np.int64)
    direction = np.zeros((count, 2), np.int64)
    owner = labels[start[wound]]
    for cluster in np.unique(owner):
        vectors = np.unique(turns[wound[owner == cluster]], axis=0)
        rank = int(np.linalg.matrix_rank(vectors.astype(np.float64)))
        windings[cluster] = rank
        if rank == 1:
            direction[cluster] = vectors[0] // np.gcd(*np.abs(vectors[0]))  # all are parallel
    return Clusters(labels.reshape(shape).astype(np.int64), windings, direction)


def _heights(graph: object, labels: Integers, count: int, shape: tuple[int, ...]) -> Integers:
    """Displacement of every site from the root of its cluster along a tree, not modulo the torus.

    Computed by doubling: each site adds its ancestor's displacement and jumps to the ancestor's
    ancestor, so that a tree of any depth takes a logarithmic number of passes.
    """
    n = len(labels)
    roots = np.full(count, -1, np.int64)
    roots[labels[::-1]] = np.arange(n)[::-1]
    # One further node joins the roots, so that one search covers all clusters.
    joined = coo_array(
        (np.ones(count, np.int8), (np.full(count, n), roots)), shape=(n + 1, n + 1)
    ).tocsr()
    inner = graph.tocoo()  # type: ignore[attr-defined]
    whole = coo_array((inner.data, (inner.row, inner.col)), shape=(n + 1, n + 1)).tocsr() + joined
    _, parents = breadth_first_order(whole, n, directed=False)
    parents = parents[:n].astype(np.int64)
    parents[roots] = roots
    here = np.stack(np.divmod(np.arange(n), shape[1]), -1)
    height = here - here[parents]
    # The shortest image: a bond across the edge of the array is one step like any other.
    for axis, side in enumerate(shape):
        height[:, axis] = (height[:, axis] + side // 2) % side - side // 2
    while (parents != parents[parents]).any():
        height, parents = height + height[parents], parents[parents]
    return height


def wall_length(signs: Signs) -> int:
    """Number of nearest-neighbour bonds of a torus whose ends differ, of fields ``[L1, L2]``."""
    return int(sum((signs != np.roll(signs, -1, axis)).sum() for axis in (0, 1)))


def without_islands(signs: Signs) -> Signs:
    """Fill clusters that do not wind around the torus, small ones first, with what surrounds them.

    Args:
        signs: ``[L1, L2]``.

    Returns:
        A field of winding clusters alone; uniform where one sign alone winds, or none.
    """
    signs = np.array(signs, dtype=bool)
    while True:
        found = clusters(signs)
        free = found.windings == 0
        if not free.any():
            return signs
        sizes = np.bincount(found.labels.ravel())
        # A cluster is filled when it comes before all that touch it: two neighbours never at once.
        place = np.empty(len(sizes), np.int64)
        place[np.lexsort((sizes, ~free))] = np.arange(len(sizes))
        first = np.full(len(sizes), len(sizes))
        for axis in (0, 1):
            pair = np.stack([found.labels, np.roll(found.labels, -1, axis)]).reshape(2, -1)
            pair = pair[:, pair[0] != pair[1]]
            for one, other in (pair, pair[::-1]):
                np.minimum.at(first, one, place[other])
        signs = signs ^ (free & (place < first))[found.labels]


class DomainState(NamedTuple):
    """What a replica has come to.

    Attributes:
        kind: ``"ordered"``: one sign winds around the torus in both directions and covers all but
            islands of a share below the tolerance; ``"stripes"``: both signs wind in one and the
            same direction, with flat walls along an axis; ``"diagonal"``: the same along another
            direction, where walls shrink slowly; ``"coarsening"``: all else.
        direction: Winding numbers of the stripes, (0, 0) without.
        walls: Number of walls between the stripes.
        wall_length: Unlike bonds without those of islands.
        islands: Share of the sites in islands.
    """

    kind: str
    direction: tuple[int, int]
    walls: int
    wall_length: int
    islands: float


def domain_state(order: NDArray[np.float64], tolerance: float = 0.1) -> DomainState:
    """Classify the local order of one replica.

    Args:
        order: φ ``[L1, L2]``; its sign counts.
        tolerance: Largest share of the sites in islands, and largest excess of the walls over
            straight ones, of a state that counts as frozen or ordered.
    """
    signs = np.asarray(order) > 0
    plain = without_islands(signs)
    islands = float((plain != signs).mean())
    found, length = clusters(plain), wall_length(plain)
    if (found.windings == 1).all():
        along = np.abs(found.direction[0])
        walls = len(found.windings)
        straight = walls * int(along @ np.array(plain.shape))
        settled = islands <= tolerance and length <= (1 + tolerance) * straight
        kind = ("stripes" if along.sum() == 1 else "diagonal") if settled else "coarsening"
        first, second = (int(n) for n in found.direction[0])
        return DomainState(kind, (first, second), walls, length, islands)
    uniform = len(found.windings) == 1 and islands <= tolerance
    return DomainState("ordered" if uniform else "coarsening", (0, 0), 0, length, islands)
