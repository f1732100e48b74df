"""Free fermions that hop along gauge links: levels, link correlators, flip costs, by LAPACK.

Plain numpy without torch: this is what worker processes import. One configuration at a time, so
that a result cannot depend on what else is computed beside it.

.. math::
    h = -t \\sum_{l = (i \\to j)} ( \\psi_i^\\dagger s_l U_l \\psi_j + \\mathrm{h.c.} )
        + \\sum_i v_i \\psi_i^\\dagger \\psi_i

with U a number or a 2 × 2 matrix in the colours, of any modulus, and s_l = −1 where a link crosses
an antiperiodic boundary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.special import expit

from latticezoo.simulate.electrons.fermi import RESOLUTION, Filling, fill
from latticezoo.simulate.electrons.lapack import eigh_in_place
from latticezoo.symmetry.errors import InputError

Array = NDArray[Any]

#: Largest error of the occupation of a level in the sum over poles of the Fermi function.
POLE_ERROR = 1e-13


@dataclass(frozen=True, eq=False)
class LinkGeometry:
    """Where links lead.

    Attributes:
        targets: Site at the end of each link, ``[N, D]`` int64.
        signs: s_l, ``[N, D]``: −1 for links across an antiperiodic boundary, otherwise 1.
        t: Hopping.
    """

    targets: Array
    signs: Array
    t: float


@dataclass(frozen=True)
class Wanted:
    """What to compute beside energies, correlators and densities.

    Attributes:
        flip_costs: Change of Ω when the sign of a link changes; Abelian links, T > 0.
        energies: Where to take the local density of states, ``[K]``, or None.
        broadening: Half width at half maximum of its Lorentzians.
    """

    flip_costs: bool = False
    energies: tuple[float, ...] | None = None
    broadening: float = 0.1


@dataclass(frozen=True)
class LinkSolution:
    """One configuration.

    Attributes:
        filling: Energies and occupations.
        levels: In rising order, ``[M]``; M = N for numbers, 2N for matrices.
        density: ⟨ψ_i†ψ_i⟩, summed over colours, ``[N]``.
        correlator: K_l = s_l ⟨ψ_i† ψ_j⟩ of links i → j: ``[N, D]``; of matrices ``[N, D, 2, 2]``
            with entry (b, a) = s_l ⟨ψ_ia† ψ_jb⟩, so that Tr(U_l K_l) is invariant.
        flip_costs: ``[N, D]``, when asked for.
        local_density: A_i(ω) ``[N, K]``, per site, when asked for.
        density_matrix: ρ_ab = ⟨ψ_b† ψ_a⟩ ``[M, M]``.
    """

    filling: Filling
    levels: Array
    density: Array
    correlator: Array
    flip_costs: Array | None
    local_density: Array | None
    density_matrix: Array


def hopping_matrix(links: Array, potential: Array | None, geometry: LinkGeometry) -> Array:
    """h, dense.

    Args:
        links: ``[N, D]``, real or complex, or ``[N, D, 2, 2]``.
        potential: v ``[N]``, or None.
        geometry: Where the links lead.

    Returns:
        ``[M, M]``, row c·i + a for colour a of site i, column-major.
    """
    sites, directions = geometry.targets.shape
    blocks = links.reshape(sites, directions, *(links.shape[2:] or (1, 1)))
    colours = blocks.shape[-1]
    h = np.zeros((sites, sites, colours, colours), links.dtype)
    here = np.arange(sites)
    for way in range(directions):  # within one direction no two links share a start
        amplitude = -geometry.t * geometry.signs[:, way, None, None] * blocks[:, way]
        h[here, geometry.targets[:, way]] += amplitude
        h[geometry.targets[:, way], here] += amplitude.conj().swapaxes(1, 2)
    matrix = h.transpose(0, 2, 1, 3).reshape(sites * colours, sites * colours)
    if potential is not None:
        matrix[np.diag_indices(len(matrix))] += np.repeat(potential, colours)
    return np.asfortranarray(matrix)


def solve_links(
    items: Sequence[tuple[Array, Array | None]],
    geometry: LinkGeometry,
    temperature: float,
    mu: float,
    wanted: Wanted,
) -> list[LinkSolution]:
    """Diagonalize and fill up to a chemical potential.

    Args:
        items: Links and site potentials, as :func:`hopping_matrix` takes them.
        geometry: Where the links lead.
        temperature: T ≥ 0.
        mu: Chemical potential.
        wanted: What else to compute.

    Raises:
        InputError: At T = 0, for a level at the chemical potential: the correlators, and with
            them the forces, then depend on how it is filled.
    """
    return [_solve(*item, geometry, temperature, mu, wanted) for item in items]


def _solve(
    links: Array,
    potential: Array | None,
    geometry: LinkGeometry,
    temperature: float,
    mu: float,
    wanted: Wanted,
) -> LinkSolution:
    levels, vectors = eigh_in_place(hopping_matrix(links, potential, geometry))
    if temperature == 0:
        _check_gap(levels, mu)
    filling = fill(levels, temperature, None, mu)
    density_matrix = (vectors * filling.occupations) @ vectors.conj().T
    sites = len(geometry.targets)
    colours = len(levels) // sites
    density = density_matrix.diagonal().real.reshape(sites, colours).sum(1)
    correlator = link_correlator(density_matrix, geometry)
    costs = local = None
    if wanted.flip_costs:
        costs = _flip_costs(links, levels, vectors, geometry, temperature, mu)
    if wanted.energies is not None:
        weights = (np.abs(vectors) ** 2).reshape(sites, colours, -1).sum(1)
        distance = np.asarray(wanted.energies) - levels[:, None]
        width = wanted.broadening
        local = weights @ (width / math.pi / (distance**2 + width**2))
    return LinkSolution(filling, levels, density, correlator, costs, local, density_matrix)


def link_correlator(density_matrix: Array, geometry: LinkGeometry) -> Array:
    """K of a density matrix ``[M, M]``: see :class:`LinkSolution`."""
    sites, directions = geometry.targets.shape
    colours = len(density_matrix) // sites
    blocks = density_matrix.reshape(sites, colours, sites, colours)
    found = blocks[geometry.targets, :, np.arange(sites)[:, None], :]
    found = geometry.signs[..., None, None] * found
    return found if colours > 1 else found.reshape(sites, directions)


def _check_gap(levels: Array, mu: float) -> None:
    width = RESOLUTION * max(abs(levels[0]), abs(levels[-1]))
    count = int((np.abs(levels - mu) <= width).sum())
    if count:
        raise InputError(
            f"{count} of {len(levels)} levels lie at the chemical potential {mu:g}, so that at "
            "temperature 0 link correlators are not defined; give a temperature above 0, or "
            "antiperiodic boundaries around that one side which holds the most factors of 2 "
            "(zero flux: periodic boundaries leave such levels on every torus with an even side)."
        )


# ---- flip costs ------------------------------------------------------------------------------


def _flip_costs(
    links: Array,
    levels: Array,
    vectors: Array,
    geometry: LinkGeometry,
    temperature: float,
    mu: float,
) -> Array:
    r"""Ω(−U_l) − Ω(U_l) of every link, from one diagonalization.

    A flip changes h in the two sites of the link alone, by V = δ |i⟩⟨j| + h.c. with δ = 2 t s U, so
    that with the resolvent G(z) = 1/(z − h)

    .. math::
        \Delta\Omega = -2T \sum_p R_p \ln \lvert \det(1 - G(\mu + i\omega_p) V) \rvert, \qquad
        \det(1 - G V) = (1 - \delta G_{ji})(1 - \delta^* G_{ij})
                        - \lvert\delta\rvert^2 G_{ii} G_{jj}

    over the poles of the Fermi function. On a torus with sides of 2, where a pair of sites shares
    two links, this holds too: V is the change of the matrix element.
    """
    delta = 2 * geometry.t * geometry.signs * links
    reach = float(np.abs(levels - mu).max() + 2 * np.abs(delta).max()) / temperature
    frequencies, residues = fermi_poles(reach)
    frequencies = temperature * frequencies
    resolvent = 1 / (mu + 1j * frequencies - levels[:, None])  # [M, P]
    own = (np.abs(vectors) ** 2) @ resolvent
    costs = np.empty(geometry.targets.shape)
    for way in range(costs.shape[1]):
        ends = geometry.targets[:, way]
        pair = vectors * vectors[ends].conj()
        forth = pair @ resolvent  # G_ij
        back = pair.conj() @ resolvent if np.iscomplexobj(pair) else forth
        d = delta[:, way, None]
        determinant = (1 - d * back) * (1 - d.conj() * forth) - np.abs(d) ** 2 * own * own[ends]
        costs[:, way] = -2 * temperature * (np.log(np.abs(determinant)) @ residues)
    return costs


def fermi_poles(reach: float) -> tuple[Array, Array]:
    r"""Poles y_p > 0 and residues R_p of the Fermi function on the imaginary axis.

    .. math::
        \frac{1}{e^x + 1} \approx \frac12 - \sum_p R_p \frac{2x}{x^2 + y_p^2}

    from the continued fraction (T. Ozaki, Phys. Rev. B 75, 035123 (2007)): with few poles it is
    exact to rounding on an interval; with Matsubara frequencies, R = 1, it would never be.

    Args:
        reach: Half the interval: as many poles are taken as make the error at most
            :data:`POLE_ERROR` for |x| ≤ reach.

    Returns:
        y and R, ``[P]`` each.
    """
    return _fermi_poles(math.ceil(math.log2(max(reach, 4.0))))


@lru_cache
def _fermi_poles(octave: int) -> tuple[Array, Array]:
    x = np.concatenate([[0.0], np.geomspace(1e-3, 2.0**octave, 400)])
    count = 16
    while True:
        n = np.arange(1, 2 * count)
        values, vectors = eigh_tridiagonal(
            np.zeros(2 * count), 1 / (2 * np.sqrt((2.0 * n - 1) * (2 * n + 1)))
        )
        positive = values > 0
        y = 1 / values[positive]
        residues = 0.25 * vectors[0, positive] ** 2 * y**2
        found = 0.5 - (2 * x[:, None] / (x[:, None] ** 2 + y**2)) @ residues
        if np.abs(found - expit(-x)).max() <= POLE_ERROR:
            return y, residues
        count *= 2
