"""Random vectors for the site blocks of a function of the Hamiltonian, with standard errors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.electrons.spin_moments import (
    Array,
    Problem,
    Row,
    check_growth,
    columns,
    trace_moments,
)
from latticezoo.simulate.electrons.spin_products import Product


class _Probes:
    """Random vectors for one hopping: a column for each repeat, class of sites and spin."""

    def __init__(self, problem: Problem, twist: int, device: torch.device) -> None:
        lattice = problem.hoppings[0].lattice
        assert problem.n_random is not None
        self.sites, self.spins = lattice.n_sites, 2
        cells = np.indices(lattice.shape).reshape(lattice.dim, -1) % problem.spacing
        classes = np.ravel_multi_index(tuple(cells), (problem.spacing,) * lattice.dim)
        self.classes = torch.from_numpy(classes).to(device)
        self.count = problem.spacing**lattice.dim
        generator = torch.Generator().manual_seed(problem.seed)
        shape = (len(problem.hoppings), problem.n_random, self.sites)
        turns = torch.rand(shape, dtype=torch.float64, generator=generator)[twist]
        self.angles = (2 * math.pi * turns).to(device)  # [repeats, N]

    def start(self, repeats: Sequence[int], batch: int) -> Tensor:
        """``[N, B, 4, repeats · classes · 2]``."""
        angles = self.angles[list(repeats)]  # [r, N]
        vectors = angles.new_zeros(self.sites, batch, 4, len(angles), self.count, 2)
        rows = torch.arange(self.sites, device=angles.device)
        for spin in range(2):
            for part, values in enumerate((angles.cos(), angles.sin())):
                place = vectors[:, :, 2 * spin + part, :, :, spin]  # [N, B, r, classes]
                place[rows, :, :, self.classes] = values.T[:, None]
        return vectors.flatten(3)

    def read(self, vectors: Tensor, repeats: Sequence[int]) -> Tensor:
        """Charge and spin from f(h) v, ``[r, B, N, 4]``."""
        angles = self.angles[list(repeats)].T[:, None, :, None]  # [N, 1, r, 1]
        split = vectors[: self.sites].unflatten(3, (-1, self.count, 2))
        rows = torch.arange(self.sites, device=vectors.device)
        own = split[rows, :, :, :, self.classes]  # [N, B, 4, r, 2]
        cos, sin = angles.cos(), angles.sin()

        def turned(spin: int) -> tuple[Tensor, Tensor]:
            real, imag = own[:, :, 2 * spin], own[:, :, 2 * spin + 1]  # [N, B, r, 2]
            return real * cos + imag * sin, imag * cos - real * sin

        (up, up_imag), (down, down_imag) = turned(0), turned(1)
        parts = (
            up[..., 0] + down[..., 1],
            up[..., 1] + down[..., 0],
            down_imag[..., 0] - up_imag[..., 1],
            up[..., 0] - down[..., 1],
        )
        return torch.stack(parts, -1).permute(2, 1, 0, 3)


def sample(problem: Problem, blocks: Tensor) -> list[Row]:
    """What the electrons do, by random vectors: one row a configuration of blocks ``[B, …]``."""
    batch, repeats = len(blocks), int(problem.n_random or 0)
    per_repeat = 2 * problem.spacing ** problem.hoppings[0].lattice.dim
    block = columns(problem, batch, blocks.device, repeats * per_repeat)
    groups = [
        list(part)
        for part in np.array_split(
            np.arange(repeats), max(1, math.ceil(repeats / max(1, block // per_repeat)))
        )
    ]
    parts = [
        (Product(hopping, blocks, problem.window), _Probes(problem, twist, blocks.device))
        for twist, hopping in enumerate(problem.hoppings)
    ]
    share = 1 / len(parts)
    totals = blocks.real.new_zeros(problem.order + 1, batch, repeats)
    for product, probes in parts:
        for group in groups:
            for n, moment in enumerate(trace_moments(product, probes.start(group, batch), problem)):
                totals[n][:, group] += share * moment.unflatten(1, (len(group), -1)).sum(2)
    check_growth(totals, 2.0 * problem.sites, problem.window)
    traces = totals.movedim(1, 0).cpu().numpy()  # [B, order + 1, repeats]
    potentials = [problem.find_mu(trace.mean(1)) for trace in traces]
    wanted = [np.stack([problem.series(mu)[0] for mu in potentials], 1)]  # [order + 1, B]
    if problem.mu is None:
        wanted.append(np.stack([problem.slope(mu) for mu in potentials], 1))
    weights = [torch.from_numpy(series).to(totals) for series in wanted]
    found = [blocks.real.new_zeros(repeats, batch, problem.sites, 4) for _ in weights]
    for product, probes in parts:
        for group in groups:
            sums = _accumulated(product, probes.start(group, batch), weights)
            for values, total in zip(found, sums, strict=True):
                values[group] += share * probes.read(total, group)
    samples = [values.transpose(0, 1).cpu().numpy() for values in found]
    return [
        _estimate(problem, mu, trace, [values[row] for values in samples])
        for row, (mu, trace) in enumerate(zip(potentials, traces, strict=True))
    ]


def _estimate(problem: Problem, mu: float, trace: Array, samples: list[Array]) -> Row:
    """Means over the repeats and their standard errors, the noise of μ included."""
    fermi, free = problem.series(mu)
    numbers, grands, values = fermi @ trace, free @ trace, samples[0]
    count = len(values)
    mean, number, grand = values.mean(0), float(numbers.mean()), float(grands.mean())
    if count < 2:
        return mu, number, mean, grand, np.full_like(mean, np.nan), math.nan
    # A repeat with too many electrons lowers μ: to first order each one acts through both.
    if problem.mu is None:
        response = samples[1].mean(0) / float((problem.slope(mu) @ trace).mean())
        values = values - response * (numbers - number)[:, None, None]
    root = math.sqrt(count)
    spread = values.std(0, ddof=1) / root
    return mu, number, mean, grand, spread, float(grands.std(ddof=1)) / root


def _accumulated(product: Product, start: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Σ_n c_n T_n v for each series c ``[order + 1, B]``."""
    old = product.buffer(start)
    sums = [start * series[0][:, None, None] for series in weights]
    new = product(old)
    for n in range(1, len(weights[0])):
        for total, series in zip(sums, weights, strict=True):
            total.addcmul_(new[: len(start)], series[n][:, None, None])
        if n + 1 < len(weights[0]):
            old, new = new, product(new, old)
    return sums
