"""The fixed number of particles: find the uniform shift of an input that gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from latticezoo.symmetry.tasks import Conservation

Values = dict[str, Tensor]

#: The solution stops for a sample once its mean is this close, in units of the compressibility.
TOLERANCE = 1e-4
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
    evaluate: Callable[[Values], Values], fields: Mapping[str, Tensor], rule: Conservation
) -> Solution:
    """Targets at the fixed number of particles, from a network that is local at fixed potential.

    A secant search for each sample by itself, so that no result depends on the batch it is in. All
    steps are odd in the excess of particles and see the sites through means alone: what the
    network has of symmetry, it keeps.

    Args:
        evaluate: Inputs to targets, physical units.
        fields: Inputs ``[B, N, C]``.
        rule: What is conserved.
    """
    base = fields[rule.input][..., rule.input_channel].double().mean(1)

    def attempt(potential: Tensor) -> tuple[Tensor, Values]:
        found = evaluate(shifted(fields, rule, potential))
        mean = found[rule.target][..., rule.target_channel].double().mean(1)
        density = mean + rule.slope * (base + rule.per_potential * potential)
        return (density - rule.mean) / rule.compressibility, found

    potential = torch.zeros_like(base)
    excess, outputs = attempt(potential)
    # The number of particles rises with the potential, so two signs make a bracket.
    low, high = torch.full_like(base, -torch.inf), torch.full_like(base, torch.inf)
    trial, found, slope = potential, excess, torch.ones_like(base)
    for _ in range(ATTEMPTS):
        active = excess.abs() > TOLERANCE
        if not bool(active.any()):
            break
        low = torch.where(found < 0, trial, low)
        high = torch.where(found < 0, high, trial)
        # A secant step where that stays inside the bracket, half the bracket where not.
        secant = trial - found * slope / (slope.square() + _RIDGE**2)
        middle = torch.where(low.isfinite() & high.isfinite(), (low + high) / 2, secant)
        following = torch.where((secant > low) & (secant < high), secant, middle)
        following = torch.where(active, following.clamp(-_LARGEST, _LARGEST), trial)
        value, values = attempt(following)
        change = following - trial
        slope = ((value - found) * change / (change.square() + 1e-12)).clamp_min(_RIDGE)
        trial, found = following, value
        better = active & (value.abs() < excess.abs())
        potential = torch.where(better, trial, potential)
        excess = torch.where(better, value, excess)
        keep = better[:, None, None]
        outputs = {name: torch.where(keep, values[name], outputs[name]) for name in outputs}
    return Solution(potential, compensated(outputs, rule, potential))
