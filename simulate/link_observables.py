"""What is measured of gauge links and their electric fields: divergences, charges, loops."""

from __future__ import annotations

import torch
from torch import Tensor

from latticezoo.symmetry.gauge import rectangle, trace, wilson_loop
from latticezoo.symmetry.internal import SU2
from latticezoo.symmetry.lattices import Lattice


def divergence(electric: Tensor, links: Tensor, lattice: Lattice) -> Tensor:
    """Σ_out E − Σ_in E at every site; electric fields of SU(2) arrive as U† E U.

    Args:
        electric: ``[R, N, D]``, or adjoint components ``[R, N, D, 3]`` at the start of the links.
        links: ``[R, N, D]`` or ``[R, N, D, 2, 2]``.
        lattice: The lattice.

    Returns:
        ``[R, N]`` or ``[R, N, 3]``.
    """
    arriving = electric
    if links.dim() == 5:
        arriving = SU2.components(links.mH @ SU2.matrix(electric).to(links.dtype) @ links)
    total = electric.sum(2)
    for way in range(lattice.directions):
        ends = lattice.link_target[:, way].to(electric.device)
        total = total.index_add(1, ends, -arriving[:, :, way])
    return total


def charge(density_matrix: Tensor) -> Tensor:
    """Charge of the fermions, beyond the static background of half filling.

    Args:
        density_matrix: ρ_ab = ⟨ψ_b†ψ_a⟩ as ``[R, N, N]``, or with colours ``[R, N, 2, N, 2]``.

    Returns:
        n_i − ½ ``[R, N]``, or ⟨ψ_i† T^a ψ_i⟩ ``[R, N, 3]``.
    """
    if density_matrix.dim() == 3:
        return density_matrix.diagonal(dim1=1, dim2=2).real - 0.5
    blocks = density_matrix.diagonal(dim1=1, dim2=3).movedim(-1, 1)
    # Tr(T^a ρ_ii) with T^a = σ^a/2.
    return SU2.components(blocks) / 2


def gauss_violation(
    electric: Tensor, links: Tensor, lattice: Lattice, density_matrix: Tensor | None = None
) -> Tensor:
    """Largest |charge − div E| over sites and colours, ``[R]``.

    Args:
        electric: As in :func:`divergence`.
        links: As in :func:`divergence`.
        lattice: The lattice.
        density_matrix: As in :func:`charge`; None where there is no charge, as in equilibrium at
            half filling.
    """
    found = -divergence(electric, links, lattice)
    if density_matrix is not None:
        found = found + charge(density_matrix)
    return found.abs().flatten(1).amax(1)


def loop_means(links: Tensor, lattice: Lattice, width: int = 1, height: int = 1) -> Tensor:
    """Mean of Re Tr W/d over all loops of a size, ``[R]``."""
    loops = trace(wilson_loop(links, lattice, rectangle(width, height))).real
    return loops.mean(1) / (2 if links.dim() == 5 else 1)


def electric_energy(electric: Tensor, g2: float) -> Tensor:
    """(g²/2) Σ E², ``[R]``."""
    return 0.5 * g2 * torch.stack([row.clone().square().sum() for row in electric])
