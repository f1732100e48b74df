"""The classical Runge–Kutta step of fourth order."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Values = dict[str, Tensor]


def rk4_step(rate: Callable[[Values], Values], values: Values, dt: float) -> Values:
    """Values a time ``dt`` later, with an error of order dt⁵.

    Args:
        rate: Time derivatives by name at given values.
        values: Tensors by name, real or complex; they are not changed.
        dt: Time step.
    """

    def moved(slopes: Values, time: float) -> Values:
        return {name: value + time * slopes[name] for name, value in values.items()}

    first = rate(values)
    second = rate(moved(first, dt / 2))
    third = rate(moved(second, dt / 2))
    fourth = rate(moved(third, dt))
    return {
        name: value + (dt / 6) * (first[name] + 2 * second[name] + 2 * third[name] + fourth[name])
        for name, value in values.items()
    }
