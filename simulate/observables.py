"""Observables of configurations: pure functions of site fields ``[B, N, C]`` on a lattice.

Normalisations are stated with each function. Equations are those of the graph-network force-field
paper on the Holstein model (semiclassical charge-density waves).
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


def local_order(density: Tensor, lattice: Lattice) -> Tensor:
    """Local charge-density-wave order φ_i = (n_i − mean of n over neighbours) · (±1)_i (Eq. 24).

    In a perfect wave n_i = ½ ± δ the order is 2δ everywhere (±: which of the two states).

    Args:
        density: n, or n − ½, ``[B, N, C]``.
        lattice: Bipartite, with even periods.

    Returns:
        ``[B, N, C]``.

    Raises:
        InputError: Where the lattice holds no staggered order.
    """
    _check_sites(density, lattice)
    return (density - lattice.neighbour_mean(density)) * _stagger(lattice, density)


def staggered_order(values: Tensor, lattice: Lattice) -> Tensor:
    """Staggered mean (1/N) Σ_i (±1)_i v_i, ``[B, C]``: δ in a wave n_i = ½ ± δ.

    Args:
        values: ``[B, N, C]``.
        lattice: Bipartite, with even periods.

    Raises:
        InputError: Where the lattice holds no staggered order.
    """
    _check_sites(values, lattice)
    return (values * _stagger(lattice, values)).mean(1)


def wave_vectors(lattice: Lattice) -> Tensor:
    """Wave vectors of the torus in the order of :func:`structure_factor`, ``[*shape, dim]``.

    Each component lies in [−π, π) per unit cell, along the reciprocal vectors: k·r is the sum of
    component times cell index. (π, π) on the square lattice is entry (L1/2, L2/2), stored as −π.
    """
    axes = [2 * math.pi * torch.fft.fftfreq(size, dtype=torch.float64) for size in lattice.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def structure_factor(values: Tensor, lattice: Lattice) -> Tensor:
    """Structure factor S(k) = Σ_c |(1/N) Σ_i v_ic exp(i k·r_i)|² (Eq. 25), with 1/N.

    A perfect wave n_i = ½ ± δ gives S(π, π) = δ² on every lattice size, and S(0) = ¼. The sum over
    all k is the mean square of v. The sum over channels makes it S·S for spins.

    Args:
        values: ``[B, N, C]``.
        lattice: Of one site per cell.

    Returns:
        ``[B, *shape]``; k = 0 is the first entry: see :func:`wave_vectors`.

    Raises:
        InputError: For lattices of more sites per cell.
    """
    return _fourier(values, lattice).abs().square().sum(-1)


def correlation_map(
    values: Tensor, lattice: Lattice, *, average_replicas: bool = False, connected: bool = True
) -> Tensor:
    """Normalised correlation function of every displacement (Eq. 26).

    C(r) = [⟨φ(r0) φ(r0 + r)⟩ − ⟨φ⟩²] / [⟨φ²⟩ − ⟨φ⟩²], averaged over r0; C(0) = 1. Channels are
    summed: φ·φ.

    Args:
        values: φ, ``[B, N, C]``.
        lattice: Of one site per cell.
        average_replicas: Average ⟨φ φ⟩, ⟨φ⟩ and ⟨φ²⟩ over the batch too, before they are combined:
            the average over trajectories. Otherwise each replica has its own.
        connected: Subtract ⟨φ⟩². Without, C(r) = ⟨φ φ⟩ / ⟨φ²⟩.

    Returns:
        ``[B, *shape]``, or ``[1, *shape]`` when averaged; NaN where φ does not fluctuate.
    """
    transformed = _fourier(values, lattice)
    mean = values.mean(1)
    dims = tuple(range(1, 1 + lattice.dim))
    # With 1/N in the transform, the sum over k of S(k) e^{ikr} is the mean over r0.
    products = torch.fft.ifftn(transformed.abs().square().sum(-1), dim=dims).real * lattice.n_cells
    square = values.square().sum(-1).mean(1)
    if average_replicas:
        products, mean, square = (x.mean(0, keepdim=True) for x in (products, mean, square))
    offset = mean.square().sum(-1) if connected else torch.zeros_like(square)
    spread = square - offset
    # A constant φ has spread zero up to rounding: no correlation function.
    rounding = 16 * torch.finfo(spread.dtype).eps * square
    spread = torch.where(spread > rounding, spread, torch.full_like(spread, torch.nan))
    column = (-1,) + (1,) * lattice.dim
    return (products - offset.reshape(column)) / spread.reshape(column)


def along_axes(table: Tensor, lattice: Lattice) -> Tensor:
    """Average a function of the displacement over the symmetric directions ±x, ±y, ….

    Args:
        table: ``[B, *shape]``, as :func:`correlation_map` gives.
        lattice: chain, square, or triangular (±a1, ±a2, ±(a2 − a1)).

    Returns:
        ``[B, R + 1]`` at distances 0, 1, …, R in bond lengths, R half the shortest side.
    """
    reach = min(lattice.shape) // 2
    steps = torch.arange(reach + 1, device=table.device)
    lines = []
    for vector in lattice.link_vectors.tolist():
        for sign in (1, -1):
            index = [
                (sign * n * steps) % size for n, size in zip(vector, lattice.shape, strict=True)
            ]
            lines.append(table[(slice(None), *index)])
    return torch.stack(lines).mean(0)


def radial_average(table: Tensor, lattice: Lattice) -> tuple[Tensor, Tensor]:
    """Average a function of the displacement over all displacements of equal length.

    Args:
        table: ``[B, *shape]``.
        lattice: Of one site per cell.

    Returns:
        Distances ``[R]`` in bond lengths on the torus (shortest image), rising, and the averages
        ``[B, R]``.
    """
    distances, which = _distances(lattice)
    which = which.to(table.device)
    sums = table.new_zeros(len(table), len(distances)).index_add_(1, which, table.flatten(1))
    counts = torch.bincount(which, minlength=len(distances)).to(table.dtype)
    return distances.to(table), sums / counts


def correlation_function(
    values: Tensor, lattice: Lattice, *, average_replicas: bool = False, connected: bool = True
) -> Tensor:
    """C(r) along the lattice axes, averaged over symmetric directions (Eq. 26).

    Arguments as :func:`correlation_map`; returns as :func:`along_axes`.
    """
    table = correlation_map(values, lattice, average_replicas=average_replicas, connected=connected)
    return along_axes(table, lattice)


def correlation_length(correlations: Tensor, level: float = 0.5) -> Tensor:
    """Distance at which C(r) first falls to a level, by linear interpolation: C(L) = ½.

    Args:
        correlations: C at distances 0, 1, 2, …, ``[..., R + 1]``, with C(0) above the level.
        level: ½ for the half-maximum condition.

    Returns:
        ``[...]`` in bond lengths: infinite when C stays above the level within the box, NaN where
        C is.
    """
    if not 0 < level < 1:
        raise InputError(f"the level of a correlation length is {level}; it must be in (0, 1).")
    below = correlations <= level
    first = below.to(torch.int8).argmax(-1, keepdim=True).clamp(min=1)
    after = correlations.gather(-1, first)[..., 0]
    before = correlations.gather(-1, first - 1)[..., 0]
    crossing = (first[..., 0] - 1) + (before - level) / (before - after)
    infinite = torch.full_like(crossing, torch.inf)
    length = torch.where(below.any(-1), crossing, infinite)
    return torch.where(correlations.isnan().any(-1), torch.full_like(length, torch.nan), length)


def kinetic_temperature(momenta: Tensor, mass: float = 1.0) -> Tensor:
    """Kinetic temperature ⟨P²⟩/m, ``[B]``, averaged over sites and channels (k_B = 1).

    Args:
        momenta: ``[B, N, C]``.
        mass: Mass of a site.
    """
    if not mass > 0:
        raise InputError(f"mass is {mass}; it must be positive.")
    return momenta.square().mean((1, 2)) / mass


# ---- inner parts -------------------------------------------------------------------------------


def _check_sites(values: Tensor, lattice: Lattice) -> None:
    if values.ndim != 3 or values.shape[1] != lattice.n_sites:
        raise InputError(
            f"values of shape {list(values.shape)} do not fit {lattice}; give "
            f"[batch, {lattice.n_sites}, channels]."
        )


def _stagger(lattice: Lattice, like: Tensor) -> Tensor:
    return lattice.stagger.to(like)[None, :, None]


def _fourier(values: Tensor, lattice: Lattice) -> Tensor:
    """(1/N) Σ_i v_i exp(i k·r_i), ``[B, *shape, C]``."""
    _check_sites(values, lattice)
    if lattice.sublattices > 1:
        raise InputError(f"Fourier transforms need one site per cell; {lattice} has more.")
    torus = values.reshape(len(values), *lattice.shape, values.shape[-1])
    # ifftn has the sign +i and the factor 1/N of Eq. 25.
    return torch.fft.ifftn(torus, dim=tuple(range(1, 1 + lattice.dim)))


@lru_cache(maxsize=16)
def _distances(lattice: Lattice) -> tuple[Tensor, Tensor]:
    """Distinct distances from a site over the torus, and which of them each cell has."""
    if lattice.sublattices > 1:
        raise InputError(f"distances by cell need one site per cell; {lattice} has more.")
    cells = torch.stack(
        torch.meshgrid(*[torch.arange(size) for size in lattice.shape], indexing="ij"), -1
    ).reshape(-1, lattice.dim)
    images = torch.cartesian_prod(*[torch.tensor([-1, 0, 1])] * lattice.dim)
    images = images.reshape(-1, lattice.dim) * torch.tensor(lattice.shape)
    vectors = (cells[:, None] - images).double() @ torch.from_numpy(lattice.vectors)
    nearest = vectors.square().sum(-1).min(1).values
    squares, which = torch.unique((nearest * 1e6).round().long(), return_inverse=True)
    return (squares.double() / 1e6).sqrt(), which
