"""Fermions on gauge links for a batch of configurations, as tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.electrons.diagonalize import one_thread
from latticezoo.simulate.electrons.link_fermions import (
    LinkGeometry,
    LinkSolution,
    Wanted,
    solve_links,
)
from latticezoo.simulate.workers import pool
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


class LinkElectrons(NamedTuple):
    """Fermions in equilibrium; float64 or complex128, on the device of the links.

    Attributes:
        energy: Grand potential Ω ``[B]``.
        band_energy: ⟨H⟩ ``[B]``, without −μN.
        entropy: ``[B]``.
        density: n_i ``[B, N]``, summed over colours.
        correlator: K_l ``[B, N, D]`` or ``[B, N, D, 2, 2]``, entry (b, a) = ⟨ψ_ia† ψ_jb⟩.
        levels: ``[B, M]``, rising.
        flip_costs: ``[B, N, D]``, when asked for.
        local_density: A_i(ω) ``[B, N, K]``, when asked for.
        density_matrix: ρ_ab = ⟨ψ_b† ψ_a⟩ ``[B, M, M]``.
    """

    energy: Tensor
    band_energy: Tensor
    entropy: Tensor
    density: Tensor
    correlator: Tensor
    levels: Tensor
    flip_costs: Tensor | None
    local_density: Tensor | None
    density_matrix: Tensor


def solve_batch(
    links: Tensor,
    potential: Tensor | None,
    lattice: Lattice,
    *,
    t: float,
    temperature: float,
    mu: float,
    antiperiodic: tuple[bool, bool],
    wanted: Wanted,
    workers: int,
) -> LinkElectrons:
    """Diagonalize a batch.

    Args:
        links: ``[B, N, D]`` or ``[B, N, D, 2, 2]``, of any modulus.
        potential: Of the sites, ``[B, N]``, or None.
        lattice: The lattice.
        t: Hopping.
        temperature: T ≥ 0.
        mu: Chemical potential.
        antiperiodic: Whether fermions change sign around the sides.
        wanted: What else to compute.
        workers: Processes that share the batch.

    Raises:
        InputError: On a torus with a side of 1; at T = 0 for a level at μ.
    """
    values = links.detach().cpu().resolve_conj().numpy()
    values = values.astype(np.complex128 if np.iscomplexobj(values) else np.float64, copy=False)
    sites = [None] * len(values) if potential is None else list(potential.detach().cpu().numpy())
    items = list(zip(values, sites, strict=True))
    common = (link_geometry(lattice, t, antiperiodic), temperature, mu, wanted)
    if workers > 1 and len(items) > 1:
        solutions: list[LinkSolution] = pool().map(solve_links, items, common, count=workers)
    else:
        with one_thread():
            solutions = solve_links(items, *common)

    def column(read: Any) -> Tensor:
        return torch.from_numpy(np.array([read(s) for s in solutions])).to(links.device)

    return LinkElectrons(
        energy=column(lambda s: s.filling.grand_potential),
        band_energy=column(lambda s: s.filling.band_energy),
        entropy=column(lambda s: s.filling.entropy),
        density=column(lambda s: s.density),
        correlator=column(lambda s: s.correlator),
        levels=column(lambda s: s.levels),
        flip_costs=column(lambda s: s.flip_costs) if wanted.flip_costs else None,
        local_density=column(lambda s: s.local_density) if wanted.energies else None,
        density_matrix=column(lambda s: s.density_matrix),
    )


@lru_cache(maxsize=64)
def link_geometry(lattice: Lattice, t: float, antiperiodic: tuple[bool, bool]) -> LinkGeometry:
    """Where the links lead, with signs across antiperiodic boundaries.

    Raises:
        InputError: On a torus with a side of 1, whose links return to their site.
    """
    if min(lattice.shape) < 2:
        raise InputError(f"{lattice} is too small for links; give sides of at least 2.")
    targets = lattice.link_target.cpu().numpy()
    signs = np.ones(targets.shape)
    for way, flips in enumerate(antiperiodic):
        if flips:
            last = np.indices(lattice.shape)[way].ravel() == lattice.shape[way] - 1
            signs[last, way] = -1
    return LinkGeometry(targets, signs, t)
