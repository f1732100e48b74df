"""The fixed number of particles: find the uniform shift of an input that gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from latticezoo.symmetry.tasks import Conservation

Values = dict[str, Tensor]

#: The solution stops for a sample once its mean is this close, in units of the compressibility.
TOLERANCE = 3e-4
#: Evaluations of the network after the first.
ATTEMPTS = 8
#: Compressibilities well below this share of the rough one are not divided by: in a gap the number
#: of particles says nothing about the potential, and what is left of the mean is the network's
#: error.
_RIDGE = 0.03
#: Largest change of the potential, in units in which the compressibility is counted.
_LARGEST = 4.0


class Solution(NamedTuple):
    """A shift and what the network gives at it.

    Attributes:
        potential: μ ``[B]``.
        outputs: Targets, ``[B, N, C]``, with the number of particles of the task.
    """

    potential: Tensor
    outputs: Values


def shifted(fields: Mapping[str, Tensor], rule: Conservation, potential: Tensor) -> Values:
    """Fields with the input shifted uniformly, as the potential μ ``[B]`` would do it."""
    values = fields[rule.input]
    offset = torch.zeros_like(values)
    offset[..., rule.input_channel] = (rule.per_potential * potential).to(values)[:, None]
    return {**fields, rule.input: values + offset}


def compensated(outputs: Mapping[str, Tensor], rule: Conservation, potential: Tensor) -> Values:
    """Targets at the unshifted input from those at the shifted one."""
    if rule.slope == 0:
        return dict(outputs)
    values = outputs[rule.target]
    offset = torch.zeros_like(values)
    change = rule.slope * rule.per_potential * potential
    offset[..., rule.target_channel] = change.to(values)[:, None]
    return {**outputs, rule.target: values + offset}


def solve(
    evaluate: Callable[[Values], Values],
    fields: Mapping[str, Tensor],
    rule: Conservation,
    *,
    unrolled: bool = False,
) -> Solution:
    """Targets at the fixed number of particles, from a network that is local at fixed potential.

    A secant search for each sample by itself, so that no result depends on the batch it is in. All
    steps are odd in the excess of particles and see the sites through means alone: what the
    network has of symmetry, it keeps.

    What is left of the excess, below the tolerance or in a gap, is taken from all sites alike: the
    number of particles is exact, and small displacements have the response at fixed number.

    Args:
        evaluate: Inputs to targets, physical units.
        fields: Inputs ``[B, N, C]``.
        rule: What is conserved.
        unrolled: Make all attempts for all samples, those that are done left as they are: the same
            solution without a look at the numbers, as an export of the computation needs it.
    """

    def attempt(given: Mapping[str, Tensor], potential: Tensor) -> tuple[Tensor, Values]:
        moved = shifted(given, rule, potential)
        found = evaluate(moved)
        mean = found[rule.target][..., rule.target_channel].double().mean(1)
        density = mean + rule.slope * moved[rule.input][..., rule.input_channel].double().mean(1)
        return (density - rule.mean) / rule.compressibility, found

    values = fields[rule.input]
    potential = values.new_zeros(len(values), dtype=torch.float64)
    excess, outputs = attempt(fields, potential)
    # The number of particles rises with the potential, so two signs make a bracket.
    low, high = torch.full_like(potential, -torch.inf), torch.full_like(potential, torch.inf)
    trial, found, slope = potential.clone(), excess.clone(), torch.ones_like(potential)
    for _ in range(ATTEMPTS):
        rows: Any = slice(None)
        if not unrolled:
            rows = (excess.abs() > TOLERANCE).nonzero()[:, 0]
            if not len(rows):
                break
        x, f, s = trial[rows], found[rows], slope[rows]
        low[rows] = torch.where(f < 0, x, low[rows])
        high[rows] = torch.where(f < 0, high[rows], x)
        left, right = low[rows], high[rows]
        # A secant step where that stays inside the bracket, half the bracket where not.
        secant = x - f * s / (s.square() + _RIDGE**2)
        middle = torch.where(left.isfinite() & right.isfinite(), (left + right) / 2, secant)
        following = torch.where((secant > left) & (secant < right), secant, middle)
        following = following.clamp(-_LARGEST, _LARGEST)
        value, targets = attempt({k: v[rows] for k, v in fields.items()}, following)
        change = following - x
        slope[rows] = ((value - f) * change / (change.square() + 1e-12)).clamp_min(_RIDGE)
        trial[rows], found[rows] = following, value
        before = excess[rows].abs()
        better = (value.abs() < before) & (before > TOLERANCE)
        potential[rows] = torch.where(better, following, potential[rows])
        excess[rows] = torch.where(better, value, excess[rows])
        for name, target in outputs.items():
            chosen = better.view(-1, *[1] * (target.dim() - 1))
            target[rows] = torch.where(chosen, targets[name], target[rows])
    outputs = compensated(outputs, rule, potential)
    values = outputs[rule.target].clone()
    values[..., rule.target_channel] -= (rule.compressibility * excess).to(values)[:, None]
    return Solution(potential, {**outputs, rule.target: values})
