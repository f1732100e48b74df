r"""Site blocks of a polynomial of a hopping matrix, :math:`[p(h)]_{ii}`, and their derivatives.

h is a real symmetric matrix of d orbitals on every site of a torus, with a block of its own on
every site and one matrix per offset between them, its spectrum inside (−1, 1), and

.. math:: p(h) = \sum_n c_n T_n(h).

The power :math:`h^n` sums over all paths of n hops, so a block of p(h) sums over the closed paths
through its site. Two ways lead to them:

* On a small torus h is diagonalized. The derivative is that of Daleckii and Krein,
  :math:`\mathrm{d}p = v\,(\Phi \circ v^T \mathrm{d}h\, v)\,v^T` with the divided differences
  :math:`\Phi_{kl} = (p_k - p_l)/(\lambda_k - \lambda_l)`, finite where levels meet, unlike the
  derivatives of eigenvectors.
* On a large one the columns of :math:`T_n(h)` are built by the three-term recursion, each within a
  distance of its site, with orders up to half of the highest: :math:`T_{2m} = 2T_m^2 - 1`,
  :math:`T_{2m+1} = 2T_{m+1}T_m - T_1` (A. Weiße et al., Rev. Mod. Phys. 78, 275 (2006)). Time grows
  as the number of sites (S. Goedecker, Rev. Mod. Phys. 71, 1085 (1999)).

Paths that leave the distance are cut. A torus that is smaller than the neighbourhood is taken
whole, with the paths around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from latticezoo.symmetry.lattices import Lattice

#: Sites whose columns are built at once; their window stays in the cache for the usual sizes.
_SITES = 64
#: Levels nearer than this are taken as one in the divided differences.
_MERGED = 1e-7


def site_blocks(
    onsite: Tensor,
    hopping: Tensor,
    offsets: Sequence[tuple[int, ...]],
    lattice: Lattice,
    coefficients: Tensor,
    reach: int,
) -> Tensor:
    """Blocks of a polynomial of h.

    Args:
        onsite: Blocks of h on the sites, symmetric, ``[B, N, d, d]``.
        hopping: Blocks ⟨i|h|i + δ⟩, ``[K, d, d]``; that of −δ is the transpose of that of δ.
        offsets: δ in whole cells, K of them.
        lattice: A torus with one site per cell.
        coefficients: c_n ``[M + 1]``, M ≥ 2.
        reach: Distance in bond lengths within which paths stay. On a torus with a side of less than
            ``2 reach + 1`` sites all paths count.

    Returns:
        ``[B, N, d, d]``, in the type of ``onsite``.
    """
    if wraps(lattice, reach):
        h = torus_matrix(onsite, hopping, offsets, lattice)
        blocks: Tensor = _TorusBlocks.apply(h, coefficients, onsite.shape[-1])
        return blocks
    index, inside = window(lattice, reach, offsets)
    index, inside = index.to(onsite.device), inside.to(onsite)
    parts = [
        _window_blocks(
            onsite, hopping, offsets, index[..., start : start + _SITES], inside, coefficients
        )
        for start in range(0, lattice.n_sites, _SITES)
    ]
    return torch.cat(parts, 1)


def wraps(lattice: Lattice, reach: int) -> bool:
    """Whether the torus is smaller than the neighbourhood."""
    return min(lattice.shape) < 2 * reach + 1


def torus_matrix(
    onsite: Tensor, hopping: Tensor, offsets: Sequence[tuple[int, ...]], lattice: Lattice
) -> Tensor:
    """h of the whole torus, ``[B, N d, N d]``, rows (site, orbital)."""
    batch, sites, d, _ = onsite.shape
    here = torch.arange(sites, device=onsite.device)
    place, axes = here.view(lattice.shape), tuple(range(lattice.dim))
    there = [
        torch.roll(place, tuple(-step for step in offset), axes).reshape(-1) for offset in offsets
    ]
    rows, columns = here.repeat(1 + len(offsets)), torch.cat([here, *there])
    between = hopping[:, None].expand(-1, sites, -1, -1).flatten(0, 1)
    values = torch.cat([onsite, between.expand(batch, -1, -1, -1)], 1)
    sample = torch.arange(batch, device=onsite.device)[:, None]
    # Accumulated: on a side of two sites both neighbours are one.
    h = onsite.new_zeros(batch, sites, sites, d, d)
    h = h.index_put((sample, rows, columns), values, accumulate=True)
    return h.transpose(2, 3).reshape(batch, sites * d, sites * d)


class _TorusBlocks(torch.autograd.Function):
    """Blocks by diagonalization, in float64."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, coefficients: Tensor, d: int) -> Tensor:
        levels, states = torch.linalg.eigh(h.double())
        weights = chebyshev(levels, len(coefficients)) @ coefficients.double()
        ctx.save_for_backward(levels, states, coefficients)
        ctx.d, ctx.dtype = d, h.dtype
        rows = states.unflatten(1, (-1, d))
        return ((rows * weights[:, None, None]) @ rows.mT).to(h.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        levels, states, coefficients = ctx.saved_tensors
        c = coefficients.double()
        given = gradient.double()
        given = (given + given.mT) / 2
        between = states.mT @ (given @ states.unflatten(1, (-1, ctx.d))).flatten(1, 2)
        functions = chebyshev(levels, len(c))
        for_c = torch.einsum("bkn,bkk->n", functions, between).to(coefficients)
        values = functions @ c
        angle = torch.arccos(levels)
        order = torch.arange(len(c), dtype=levels.dtype, device=levels.device)
        slope = (torch.sin(angle[..., None] * order) * (order * c)).sum(-1) / torch.sin(angle)
        gap = levels[:, :, None] - levels[:, None, :]
        near = gap.abs() < _MERGED
        divided = (values[:, :, None] - values[:, None, :]) / torch.where(near, 1.0, gap)
        mean_slope = (slope[:, :, None] + slope[:, None, :]) / 2
        divided = torch.where(near, mean_slope, divided)
        for_h = states @ (divided * between) @ states.mT
        return for_h.to(ctx.dtype), for_c, None


def chebyshev(x: Tensor, count: int) -> Tensor:
    """T_0 … T_{count − 1} of numbers in (−1, 1), along a new last axis."""
    order = torch.arange(count, dtype=x.dtype, device=x.device)
    return torch.cos(torch.arccos(x)[..., None] * order)


def _window_blocks(
    onsite: Tensor,
    hopping: Tensor,
    offsets: Sequence[tuple[int, ...]],
    index: Tensor,
    inside: Tensor,
    coefficients: Tensor,
) -> Tensor:
    """Blocks of some sites, by columns of T_n(h) within their windows.

    From here on values are ``[d (row), d (column), window …, B, sites]``: shifts move whole blocks
    of memory, and the site of a row lies at a displacement from that of its column.
    """
    batch, _, d, _ = onsite.shape
    shape, axes = inside.shape, tuple(range(2, 2 + inside.dim()))
    potential = onsite[:, index].movedim((-2, -1), (0, 1)).movedim(2, -2)
    mask = inside[..., None, None]
    potential = potential * mask

    amplitudes = torch.cat(tuple(hopping), 1)  # [d, K d]

    def step(column: Tensor) -> Tensor:
        """h times the columns."""
        moved = [
            torch.roll(column, tuple(-way for way in offset), axes).flatten(1) for offset in offsets
        ]
        total = (amplitudes @ torch.cat(moved)).view_as(column)
        for row in range(d):
            total = total.addcmul(potential[:, row, None], column[row])
        return total * mask

    def product(one: Tensor, two: Tensor) -> Tensor:
        """Blocks at the start of the columns, ``[d, d, B, sites]``."""
        return torch.einsum("rawbs,rcwbs->acbs", one.flatten(2, -3), two.flatten(2, -3))

    start: tuple[Any, ...] = tuple(0 for _ in shape)
    first_row: tuple[Any, ...] = (slice(None), slice(None), *start)
    before = onsite.new_zeros(d, d, *shape, batch, index.shape[-1])
    for orbital in range(d):
        before[(orbital, orbital, *start)] = 1.0
    column = step(before)
    one, first = (
        before[first_row],
        column[first_row],
    )
    total = coefficients[0] * one + coefficients[1] * first
    for order in range(2, len(coefficients)):
        if order % 2 == 0:
            total = total + coefficients[order] * (2 * product(column, column) - one)
        else:
            before, column = column, 2 * step(column) - before
            total = total + coefficients[order] * (2 * product(column, before) - first)
    return total.movedim((0, 1), (-2, -1))


@lru_cache(maxsize=8)
def _window(
    lattice: Lattice, reach: int, offsets: tuple[tuple[int, ...], ...]
) -> tuple[Tensor, Tensor]:
    margin = max(abs(step) for offset in offsets for step in offset)
    vectors = torch.tensor(lattice.vectors, dtype=torch.float64)
    half = [int(reach * float(row.norm()) + 1e-9) for row in torch.linalg.inv(vectors).T]
    steps = [
        (torch.arange(size + margin) + (size - 1) // 2) % (size + margin) - (size - 1) // 2
        for size in (2 * n + 1 for n in half)
    ]
    grid = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1)
    inside = (grid.double() @ vectors).norm(dim=-1) <= reach + 1e-9
    cells = torch.arange(lattice.n_sites).view(lattice.shape)
    here = torch.stack(
        torch.meshgrid(*(torch.arange(size) for size in lattice.shape), indexing="ij"), -1
    ).flatten(0, -2)
    there = (grid[..., None, :] + here) % torch.tensor(lattice.shape)
    return cells[tuple(there.unbind(-1))], inside


def window(
    lattice: Lattice, reach: int, offsets: Sequence[tuple[int, ...]]
) -> tuple[Tensor, Tensor]:
    """Sites at the displacements from every site, and which displacements are within reach.

    Returns:
        Sites ``[window …, N]``, and ``[window …]``. Displacements beyond reach are there so that no
        hop leads from one side of the window to the other.
    """
    return _window(lattice, reach, tuple(tuple(offset) for offset in offsets))
