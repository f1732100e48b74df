"""Check settings read from YAML: unknown keys and wrong kinds of values are named in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from latticezoo.symmetry.errors import InputError, unknown

_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "names and values",
}


def section(values: Any, where: str, known: Mapping[str, type]) -> dict[str, Any]:
    """Check the keys and the kinds of values of one section.

    Args:
        values: What was read; None stands for an empty section.
        where: Name of the section, for the sentence.
        known: Accepted keys with the kind of their values (int, float, str, dict, or object for
            anything).

    Returns:
        The values, whole numbers as floats where a float is asked for.

    Raises:
        InputError: For an unknown key (with the nearest one) or a value of another kind.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is {values!r}; it must hold names and values.")
    checked = {}
    for key, value in values.items():
        if key not in known:
            raise unknown(f"key of {where}", key, known)
        checked[str(key)] = convert(value, known[key], f"{key} of {where}")
    return checked


def convert(value: Any, kind: type, what: str) -> Any:
    """Pass a value of the right kind on.

    Raises:
        InputError: When it is of another kind.
    """
    if value is None or kind is object:
        return value
    if kind is float and isinstance(value, str):  # YAML 1.1 takes 1e-3 for text
        try:
            return float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise InputError(f"{what} is {value!r}; it must be {_KINDS.get(kind, kind.__name__)}.")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Put values over others, section by section."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def bath_temperature(given: Any) -> Any:
    """A temperature, or a ramp given as pairs (step, temperature); None stays None.

    Raises:
        InputError: For anything else, or a value out of range.
    """
    from latticezoo.simulate.dynamics.schedule import Ramp

    if not isinstance(given, list | tuple):
        return convert(given, float, "temperature")
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given):
        raise InputError(
            f"temperature is {given!r}; it must be a number, or a ramp of pairs [step, "
            "temperature]."
        )
    points = [
        (convert(step, int, "a step of the ramp"), convert(value, float, "temperature of the ramp"))
        for step, value in given
    ]
    return Ramp(tuple(points))
