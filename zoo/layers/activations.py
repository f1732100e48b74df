"""Pointwise nonlinearities by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from latticezoo.symmetry.errors import unknown

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
}

_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: F.silu(x, inplace=True),
    "relu": torch.relu_,
    "tanh": torch.tanh_,
    "gelu": lambda x: x.copy_(F.gelu(x)),
    "softplus": lambda x: x.copy_(F.softplus(x)),
}

#: Gain √⟨x²⟩/√⟨f(x)²⟩ that keeps the size of a normal input of unit variance.
_GAINS = {"silu": 1.68, "relu": 2.0**0.5, "gelu": 1.53, "softplus": 1.0, "tanh": 1.59}


def activation(name: str, in_place: bool = False) -> Callable[[Tensor], Tensor]:
    """A nonlinearity by name; with ``in_place`` it overwrites its input.

    Raises:
        InputError: For an unknown name.
    """
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return _IN_PLACE[name] if in_place else ACTIVATIONS[name]


def gain(name: str) -> float:
    """Factor on fan-in weights that keeps the size of values from layer to layer.

    Raises:
        InputError: For an unknown name.
    """
    activation(name)
    return _GAINS[name]
