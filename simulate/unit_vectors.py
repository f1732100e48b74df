"""Spins are unit vectors: their length is checked in one place, and set in one place."""

from __future__ import annotations

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError

#: Largest deviation of |S| from 1 that counts as rounding; float32 spins have some 1e-7.
UNIT_LENGTH = 1e-5


def check_unit_length(spins: Tensor) -> None:
    """Check that vectors ``[…, 3]`` have length 1.

    Raises:
        InputError: With the length that deviates most; NaN deviates from everything.
    """
    # By components: a norm over an axis of three takes several times as long.
    x, y, z = spins.unbind(-1)
    deviations = (x * x + y * y + z * z - 1).abs()
    if bool((deviations <= 2 * UNIT_LENGTH).all()):
        return
    found = float(spins.flatten(0, -2)[deviations.argmax()].norm())
    raise InputError(
        f"a spin has length {found:.6g}; spins must have length 1 (latticezoo.simulate.normalized "
        "gives them that, if only their directions are meant)."
    )


def normalized(spins: Tensor) -> Tensor:
    """Unit vectors along the given ones, ``[…, 3]``.

    Raises:
        InputError: For a vector of length zero, which has no direction, or one that is not finite.
    """
    lengths = torch.linalg.vector_norm(spins, dim=-1, keepdim=True)
    if not bool((lengths > 0).all()) or not bool(lengths.isfinite().all()):
        raise InputError("a spin of length zero, or with NaN, has no direction; give other spins.")
    return spins / lengths
