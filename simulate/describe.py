"""Plain descriptions of objects: what a file says about a run, and what tells two runs apart."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def library_version() -> str:
    """The installed version of the library, "unknown" in a bare source folder."""
    try:
        return importlib.metadata.version("lattice-zoo")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and bytes."""
    array = np.ascontiguousarray(array)
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def describe(thing: Any) -> Any:
    """Describe an object by values that JSON can hold, the same in every process.

    Numbers, text, lists and mappings stand for themselves. Arrays and tensors become their shape
    and SHA-256; modules their class, structure and weights; dataclasses their class and fields;
    functions their name. Any other object is described by its class and public attributes, unless
    it has a method ``describe()`` that returns its own description. Attributes that begin with an
    underscore (caches, pools) do not count.
    """
    return _describe(thing, ())


def _describe(thing: Any, above: tuple[int, ...]) -> Any:
    if thing is None or isinstance(thing, bool | int | str):
        return thing
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else repr(thing)
    if isinstance(thing, complex):
        return repr(thing)
    if isinstance(thing, np.generic):
        return _describe(thing.item(), above)
    if isinstance(thing, torch.dtype | torch.device):
        return str(thing)
    if isinstance(thing, torch.Tensor):
        thing = thing.detach().cpu().resolve_conj().resolve_neg().numpy()
    if isinstance(thing, np.ndarray):
        return {"shape": list(thing.shape), "sha256": digest(thing)}
    if id(thing) in above:  # a cycle: the object is being described further up
        return _name(type(thing))
    above = (*above, id(thing))
    if isinstance(thing, Mapping):
        return {str(key): _describe(value, above) for key, value in sorted(thing.items())}
    if isinstance(thing, list | tuple):
        return [_describe(value, above) for value in thing]
    if isinstance(thing, set | frozenset):
        return sorted((_describe(value, above) for value in thing), key=repr)
    if isinstance(thing, type) or callable(getattr(thing, "__get__", None)):
        return _name(thing)  # a class or a function
    own = getattr(thing, "describe", None)
    if callable(own):
        return _describe(own(), above)
    if isinstance(thing, torch.nn.Module):
        weights = hashlib.sha256()
        for key, value in sorted(thing.state_dict().items()):
            array = value.detach().cpu().resolve_conj().numpy()
            weights.update(f"{key}:{digest(array)}".encode())
        return {
            "class": _name(type(thing)),
            "structure": hashlib.sha256(repr(thing).encode()).hexdigest(),
            "weights": weights.hexdigest(),
        }
    if dataclasses.is_dataclass(thing):
        attributes = {item.name: getattr(thing, item.name) for item in dataclasses.fields(thing)}
    else:
        attributes = dict(getattr(thing, "__dict__", {}))
    plain = {
        name: _describe(value, above)
        for name, value in sorted(attributes.items())
        if not name.startswith("_")
    }
    return {"class": _name(type(thing)), **plain}


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", repr(thing)))


def differences(here: Any, there: Any, path: str = "") -> list[str]:
    """Name the places where two descriptions differ, with both values where they are short."""
    if isinstance(here, dict) and isinstance(there, dict):
        found: list[str] = []
        for key in sorted(here.keys() | there.keys()):
            found += differences(here.get(key), there.get(key), f"{path}.{key}" if path else key)
        return found
    if here == there:
        return []
    short = all(
        value is None or (isinstance(value, bool | int | float | str) and len(str(value)) < 40)
        for value in (here, there)
    )
    return [f"{path} ({there!r} there, {here!r} here)" if short else path]
