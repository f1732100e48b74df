"""Exact Chebyshev moments of the site blocks, ⟨iα|T_n(x)|iβ⟩, and thermal averages from them.

A Hermitian 2×2 block ρ is written as four real numbers Tr(σ_a ρ): charge and spin
(n, s^x, s^y, s^z).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latticezoo.simulate.electrons.kpm import coefficients, find_mu, thermal_functions
from latticezoo.simulate.electrons.operators import Window, outside
from latticezoo.simulate.electrons.shell_hopping import ShellHopping
from latticezoo.simulate.electrons.spin_products import Product

Array = NDArray[np.float64]

#: Bytes of a block of vectors: it stays in the cache of a CPU, and fills a GPU.
_BLOCK = {"cpu": 3.6e6, "other": 256e6}
_LEAST = 96  # vectors in a block: shorter rows gather slowly


@dataclass(frozen=True)
class Problem:
    """What is asked of the electrons, apart from the spins that they meet.

    Attributes:
        hoppings: One Hamiltonian without spins for every boundary twist.
        temperature: Temperature of the electrons.
        n_electrons: Their fixed number, or None.
        mu: The fixed chemical potential, or None.
        window: Interval that holds the spectrum.
        order: Highest Chebyshev moment.
        n_random: Random vectors in place of exact traces, or None.
        spacing: Distance of the sites that share a random vector.
        seed: Of the random vectors.
    """

    hoppings: tuple[ShellHopping, ...]
    temperature: float
    n_electrons: float | None
    mu: float | None
    window: Window
    order: int
    n_random: int | None
    spacing: int
    seed: int

    @property
    def sites(self) -> int:
        """Number of sites N."""
        return self.hoppings[0].lattice.n_sites

    def series(self, mu: float) -> tuple[Array, Array]:
        """Chebyshev coefficients of the occupation and of the grand potential."""
        fermi, free = thermal_functions(self.temperature, mu)
        return (
            coefficients(fermi, self.order, self.window),
            coefficients(free, self.order, self.window),
        )

    def slope(self, mu: float) -> Array:
        """Chebyshev coefficients of the derivative of the occupation with respect to μ."""
        fermi, _ = thermal_functions(self.temperature, mu)

        def slope(energy: Array) -> Array:
            occupation = fermi(energy)
            return occupation * (1 - occupation) / self.temperature

        return coefficients(slope, self.order, self.window)

    def find_mu(self, totals: Array) -> float:
        """μ from the traces of T_n."""
        if self.mu is not None:
            return self.mu
        assert self.n_electrons is not None
        return find_mu(
            lambda at: float(self.series(at)[0] @ totals),
            self.n_electrons,
            self.window,
            self.temperature,
        )


#: μ, number, charge and spin, Ω, and the standard errors of the last two or None.
Row = tuple[float, float, Array, float, Array | None, float | None]


def together(problem: Problem, blocks: Tensor) -> int:
    """Configurations in one group: on a CPU one, so that its bits do not depend on the others."""
    if blocks.device.type == "cpu":
        return 1
    moments = 32.0 * problem.sites * (problem.order + 1)
    return max(1, min(int(_BLOCK["other"] / (32 * problem.sites * _LEAST)), int(4e9 / moments)))


def columns(problem: Problem, batch: int, device: torch.device, count: int) -> int:
    """Vectors in a block, of ``count`` in all, so that the blocks are of equal size."""
    room = _BLOCK["cpu" if device.type == "cpu" else "other"]
    most = max(_LEAST, int(room / (32 * problem.sites * batch)))
    return math.ceil(count / math.ceil(count / most))


def solve_exactly(problem: Problem, blocks: Tensor) -> list[Row]:
    """What the electrons do, by exact traces: one row a configuration of blocks ``[B, …]``."""
    batch = len(blocks)
    moments = blocks.real.new_zeros(batch, problem.order + 1, problem.sites, 4)
    size = math.ceil(columns(problem, batch, blocks.device, 2 * problem.sites) / 2)
    for hopping in problem.hoppings:
        product = Product(hopping, blocks, problem.window)
        for sites in torch.arange(problem.sites, device=blocks.device).split(size):
            for n, part in enumerate(_block_moments(product, sites, batch, problem)):
                moments[:, n, sites] += part
    moments /= len(problem.hoppings)
    check_growth(moments[..., 0], 2.0, problem.window)
    totals = moments[..., 0].sum(2).cpu().numpy()
    rows: list[Row] = []
    for own, total in zip(moments, totals, strict=True):
        mu = problem.find_mu(total)
        fermi, free = problem.series(mu)
        found = torch.from_numpy(fermi).to(own) @ own.flatten(1)
        values = found.view(problem.sites, 4).cpu().numpy()
        rows.append((mu, float(values[:, 0].sum()), values, float(free @ total), None, None))
    return rows


def _block_moments(
    product: Product, sites: Tensor, batch: int, problem: Problem
) -> Iterator[Tensor]:
    """Tr(σ_a ⟨i|T_n|i⟩) for n = 0 … order, ``[B, sites, 4]`` each."""
    count = len(sites)
    start = product.onsite.new_zeros(problem.sites, batch, 4, 2 * count)
    number = torch.arange(count, device=sites.device)
    start[sites, :, 0, number] = 1
    start[sites, :, 2, count + number] = 1
    work, half = torch.empty_like(start), torch.empty_like(start[..., :count])
    quarter = torch.empty_like(half[:, :, :2])

    def blocks(left: Tensor, right: Tensor) -> Tensor:
        squares = torch.mul(left, right, out=work).sum((0, 2))  # [B, 2 · count]
        up, down = left[..., :count], right[..., count:]
        real = torch.mul(up, down, out=half).sum((0, 2))
        imag = torch.mul(up[:, :, 0::2], down[:, :, 1::2], out=quarter).sum((0, 2))
        imag -= torch.mul(up[:, :, 1::2], down[:, :, 0::2], out=quarter).sum((0, 2))
        one, two = squares[:, :count], squares[:, count:]
        return torch.stack((one + two, 2 * real, -2 * imag, one - two), -1)

    return _doubled(product, start, problem.order, blocks)


def trace_moments(product: Product, start: Tensor, problem: Problem) -> Iterator[Tensor]:
    """⟨v|T_n|v⟩ of each start vector for n = 0 … order, ``[B, R]`` each."""
    work = torch.empty_like(start)

    def squares(left: Tensor, right: Tensor) -> Tensor:
        return torch.mul(left, right, out=work).sum((0, 2))

    return _doubled(product, start, problem.order, squares)


def _doubled(
    product: Product, start: Tensor, order: int, dot: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[Tensor]:
    """Elements of T_0 … T_order between start vectors a and b, two for each product.

    ⟨a|T_2n|b⟩ = 2⟨T_n a|T_n b⟩ − ⟨a|b⟩ and ⟨a|T_{2n−1}|b⟩ = 2⟨T_{n−1} a|T_n b⟩ − ⟨a|T_1|b⟩.
    """
    sites = len(start)
    old = product.buffer(start)
    norm = dot(old[:sites], old[:sites])
    new = product(old)
    first = dot(old[:sites], new[:sites])
    yield norm
    for n in range(1, order // 2 + order % 2 + 1):  # new = T_n v, old = T_{n−1} v
        yield first if n == 1 else 2 * dot(old[:sites], new[:sites]) - first
        if 2 * n <= order:
            yield 2 * dot(new[:sites], new[:sites]) - norm
            if 2 * n < order:
                old, new = new, product(new, old)


def check_growth(moments: Tensor, norm: float, window: Window) -> None:
    """Refuse moments that grow, as they do when a level lies outside the window."""
    if not bool((moments.abs() <= norm * (1 + 1e-6)).all()):  # NaN included
        raise outside(window, "farther than expected: the moments grow")
