"""Explicit Runge–Kutta steps of fourth and fifth order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

Values = dict[str, Tensor]

#: Weights of the earlier rates in the place of each later one, and in the result.
_CLASSICAL = ((1 / 2,), (0, 1 / 2), (0, 0, 1), (1 / 6, 1 / 3, 1 / 3, 1 / 6))
_DORMAND_PRINCE = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)


def rk4_step(rate: Callable[[Values], Values], values: Values, dt: float) -> Values:
    """Values a time ``dt`` later, with an error of order dt⁵: the classical scheme, four rates.

    Args:
        rate: Time derivatives by name at given values.
        values: Tensors by name, real or complex; they are not changed.
        dt: Time step.
    """
    return _step(_CLASSICAL, rate, values, dt)


def rk5_step(rate: Callable[[Values], Values], values: Values, dt: float) -> Values:
    """Values a time ``dt`` later, with an error of order dt⁶, from six rates.

    The fifth-order weights of J. R. Dormand, P. J. Prince, J. Comput. Appl. Math. 6, 19 (1980).

    Args:
        rate: Time derivatives by name at given values.
        values: Tensors by name, real or complex; they are not changed.
        dt: Time step.
    """
    return _step(_DORMAND_PRINCE, rate, values, dt)


def _step(
    tableau: Sequence[Sequence[float]],
    rate: Callable[[Values], Values],
    values: Values,
    dt: float,
) -> Values:
    slopes = [rate(values)]
    for weights in tableau:
        moved = dict(values)
        for weight, slope in zip(weights, slopes, strict=True):
            if weight:
                moved = {name: value + (dt * weight) * slope[name] for name, value in moved.items()}
        if weights is not tableau[-1]:
            slopes.append(rate(moved))
    return moved
