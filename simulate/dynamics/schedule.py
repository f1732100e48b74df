"""Temperature as a function of the step: quenches, ramps and plateaus."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from latticezoo.symmetry.errors import InputError


@dataclass(frozen=True)
class Ramp:
    """Temperature that goes in straight lines between points, and is constant outside of them.

    ``Ramp(((0, 1.0), (5000, 0.05)))`` cools from 1 to 0.05 in 5000 steps and stays there. Steps
    are those of the state, counted from its step 0, so that a run in two parts follows the same
    schedule as a run in one.

    Args:
        points: Pairs (step, temperature), steps rising, temperatures in units of t.

    Raises:
        InputError: No points, steps that do not rise, or a negative temperature.
    """

    points: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        points = tuple((int(step), float(value)) for step, value in self.points)
        object.__setattr__(self, "points", points)
        steps = [step for step, _ in points]
        if not points or any(late <= early for early, late in itertools.pairwise(steps)):
            raise InputError(
                f"the steps of the temperature ramp are {steps}; they must rise, and there must be "
                "at least one."
            )
        for _, value in points:
            check_temperature(value)

    def at(self, step: int) -> float:
        """Temperature of the step that begins at ``step``."""
        first, last = self.points[0], self.points[-1]
        if step <= first[0]:
            return first[1]
        if step >= last[0]:
            return last[1]
        for (early, hot), (late, cold) in itertools.pairwise(self.points):
            if step < late:
                return hot + (cold - hot) * ((step - early) / (late - early))
        raise AssertionError("unreachable: the steps rise")


def check_temperature(value: float) -> float:
    """Pass a temperature on, or raise InputError when it is negative or not finite."""
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"temperature is {value!r}; it must be 0 or more (0 switches noise off).")
    return float(value)


def check_positive(name: str, value: float, *, zero: bool = False) -> float:
    """Pass a parameter on, or raise InputError unless it is finite and > 0 (``zero``: >= 0)."""
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InputError(f"{name} is {value!r}; it must be {'0 or more' if zero else 'above 0'}.")
    return float(value)


def temperature_at(temperature: float | Ramp, step: int) -> float:
    """Temperature at a step, of a constant or of a ramp."""
    return temperature.at(step) if isinstance(temperature, Ramp) else temperature
