"""Rotations in three dimensions: irreps strings, Wigner matrices, quaternions.

The basis of every irrep is that of e3nn. Its l = 1 components are Cartesian, in the order
(x, y, z): D¹(R) = R. (The order (y, z, x) of the spherical harmonics m = −1, 0, 1 belongs to
conventions with z as the polar axis; e3nn takes y, so that nothing needs reordering.)
"""

from __future__ import annotations

import re
from functools import lru_cache

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError


@lru_cache
def parse_irreps(kind: object) -> tuple[tuple[int, int], ...]:
    """Read an irreps string in e3nn's notation.

    Args:
        kind: Such as ``"2x0e + 1x1o"``; the copies may be left out where there is one.

    Returns:
        (copies, l) of every term, in order. Parity is dropped: rotations do not see it.

    Raises:
        InputError: When it is not an irreps string.
    """
    terms = []
    for term in kind.split("+") if isinstance(kind, str) else [""]:
        match = re.fullmatch(r"(?:(\d+)x)?(\d+)[eo]", term.strip())
        if match is None or match[1] == "0":
            raise InputError(
                f"unknown kind of values {kind!r}; under SO3 it is an irreps string such as "
                "'1x1e' or '2x0e+1x2e'."
            )
        terms.append((int(match[1] or 1), int(match[2])))
    return tuple(terms)


def wigner_matrix(degree: int, rotation: Tensor) -> Tensor:
    """Matrix D^l(R) of a rotation on the irrep l, in e3nn's real basis (l = 1: R itself).

    Built from R by coupling, D^{l+1} = (2l + 3) C (D^l ⊗ R) C with the 3j symbols
    C(l, 1, l + 1): a polynomial in R, differentiable and good to rounding everywhere. The route
    over Euler angles loses half the digits near the identity.

    Args:
        degree: l ≥ 0.
        rotation: ``[..., 3, 3]``.

    Returns:
        ``[..., 2l + 1, 2l + 1]``.
    """
    if degree == 0:
        return torch.ones_like(rotation[..., :1, :1])
    matrix = rotation
    for lower in range(1, degree):
        coupling = _coupling(lower).to(rotation)
        half = torch.einsum("ijm,...ia,...jb->...abm", coupling, matrix, rotation)
        matrix = (2 * lower + 3) * torch.einsum("...abm,abn->...mn", half, coupling)
    return matrix


@lru_cache
def _coupling(degree: int) -> Tensor:
    """The 3j symbols (l, 1, l + 1) in float64, ``[2l + 1, 3, 2l + 3]``."""
    from e3nn import o3  # here because it takes over a second to import

    with torch.inference_mode(False):  # the cached tensor must serve autograd later
        return o3.wigner_3j(degree, 1, degree + 1, dtype=torch.float64, device="cpu")


def quaternion_rotation(w: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Rotation matrix ``[..., 3, 3]`` of the unit quaternion w + xi + yj + zk, each ``[...]``."""
    rows = [
        [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
