"""Tight-binding matrices."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import sparse

from latticezoo.symmetry.lattices import Lattice


@lru_cache(maxsize=32)
def hopping_matrix(lattice: Lattice, t: float = 1.0) -> sparse.csr_array:
    """Nearest-neighbour hopping: h_ij = −t on bonds, zero elsewhere.

    Cached: do not write to it.

    Args:
        lattice: A periodic lattice.
        t: Hopping amplitude.

    Returns:
        ``[N, N]``, float64.

    Raises:
        InputError: When the torus is so small that two bonds join the same two sites.
    """
    lattice.require(1, "nearest-neighbour hopping")
    neighbours = lattice.neighbours(1).numpy()
    n, z = neighbours.shape
    values = np.full(n * z, -float(t))
    starts = np.arange(0, n * z + 1, z)
    matrix = sparse.csr_array((values, neighbours.reshape(-1), starts), shape=(n, n))
    matrix.sort_indices()
    return matrix
