"""Tight-binding matrices."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import sparse

from latticezoo.symmetry.lattices import Lattice

Matrix = tuple[tuple[float, ...], ...]


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
    # A copy: sorting the indices below would otherwise sort the lattice's own table in place.
    neighbours = lattice.neighbours(1).numpy().copy()
    n, z = neighbours.shape
    values = np.full(n * z, -float(t))
    starts = np.arange(0, n * z + 1, z)
    matrix = sparse.csr_array((values, neighbours.reshape(-1), starts), shape=(n, n))
    matrix.sort_indices()
    return matrix


@lru_cache(maxsize=32)
def orbital_hopping(lattice: Lattice, amplitudes: tuple[Matrix, ...]) -> sparse.csr_array:
    """Nearest-neighbour hopping of several orbitals on a site, different by direction.

    H = −Σ_γ Σ_<ij>∥γ Σ_μν t^γ_μν (c_iμ† c_jν + h.c.), with j one link from i along direction γ.
    The states of a site follow each other: state (i, μ) is row i · orbitals + μ. Cached: do not
    write to it.

    Args:
        lattice: A periodic lattice with link directions.
        amplitudes: t^γ, one real square matrix for each link direction.

    Returns:
        ``[N · orbitals, N · orbitals]``, float64.

    Raises:
        InputError: When the torus is so small that two bonds join the same two sites.
    """
    lattice.require(1, "nearest-neighbour hopping")
    starts = np.arange(lattice.n_sites)[:, None]
    ends = lattice.link_target.numpy()
    blocks = np.array(amplitudes)
    orbital = np.arange(blocks.shape[-1])
    n = lattice.n_sites * len(orbital)
    # [sites, directions, orbital here, orbital there]
    here = (starts * len(orbital))[..., None, None] + orbital[:, None]
    there = (ends * len(orbital))[..., None, None] + orbital
    here, there, values = np.broadcast_arrays(here, there, -blocks)
    forward = sparse.coo_array(
        (values.ravel(), (here.ravel(), there.ravel())), shape=(n, n)
    ).tocsr()
    matrix = sparse.csr_array(forward + forward.T)
    matrix.sort_indices()
    return matrix
