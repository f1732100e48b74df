"""Observables of spin configurations: pure functions of unit vectors ``[B, N, 3]`` on a lattice.

Triangles: to the site r belong the two triangles of its cell, (r, r + a1, r + a2) and
(r + a1, r + a1 + a2, r + a2), both gone round counter-clockwise. On the triangular lattice these
are the triangles of nearest neighbours that point up and down; on the square lattice they are the
halves of a plaquette.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from latticezoo.simulate.dynamics.schedule import check_positive
from latticezoo.simulate.observables import structure_factor, wave_vectors
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

Waves = Sequence[Sequence[float]]


class TorqueError(NamedTuple):
    """How predicted fields differ from exact ones, site by site ``[B, N]``.

    Attributes:
        magnitude: Length of the predicted minus length of the exact field.
        angle: Angle between the two in radians; NaN where one vanishes.
    """

    magnitude: Tensor
    angle: Tensor


# ---- texture -----------------------------------------------------------------------------------


def scalar_chirality(spins: Tensor, lattice: Lattice) -> Tensor:
    """S_1 · (S_2 × S_3) of every triangle, ``[B, N, 2]``.

    Args:
        spins: ``[B, N, 3]``.
        lattice: Square or triangular.

    Raises:
        InputError: For another lattice or shape.
    """
    return torch.stack([_triple(*corners) for corners in _triangles(spins, lattice)], -1)


def solid_angles(spins: Tensor, lattice: Lattice) -> Tensor:
    r"""Signed solid angle that the spins of every triangle span, ``[B, N, 2]``, in (−2π, 2π].

    .. math::
        \Omega = 2 \arctan \frac{S_1 \cdot (S_2 \times S_3)}
            {1 + S_1 \cdot S_2 + S_2 \cdot S_3 + S_3 \cdot S_1}

    (Berg and Lüscher, Nucl. Phys. B 190, 412 (1981)). Arguments as :func:`scalar_chirality`.
    """
    angles = []
    for first, second, third in _triangles(spins, lattice):
        base = 1 + _dot(first, second) + _dot(second, third) + _dot(third, first)
        angles.append(2 * torch.atan2(_triple(first, second, third), base))
    return torch.stack(angles, -1)


def topological_charge(spins: Tensor, lattice: Lattice) -> Tensor:
    """How often the spins wrap the sphere, ``[B]``: the sum of solid angles over 4π.

    A whole number up to rounding, for the torus has no boundary. Arguments as
    :func:`scalar_chirality`.
    """
    return solid_angles(spins, lattice).sum((1, 2)) / (4 * math.pi)


def winding(spins: Tensor, lattice: Lattice) -> Tensor:
    """Turns that the in-plane components make around every triangle, ``[B, N, 2]``: −1, 0 or 1.

    The sum over the triangles inside a closed path of bonds is the winding number along the path:
    that of a skyrmion whose core lies inside. Over the torus the sum is zero. Arguments as
    :func:`scalar_chirality`.
    """
    turns = []
    for corners in _triangles(spins, lattice):
        angles = [torch.atan2(corner[..., 1], corner[..., 0]) for corner in corners]
        # The remainder is odd under exchange but for exactly opposite spins: both ends of a bond
        # are met in either direction, and the sum over the torus is zero.
        around = sum(
            _wrapped(late - early)
            for early, late in zip(angles, angles[1:] + angles[:1], strict=True)
        )
        assert isinstance(around, Tensor)
        turns.append((around / (2 * math.pi)).round())
    return torch.stack(turns, -1)


# ---- order in wave-vector space ------------------------------------------------------------------


def spin_structure_factor(spins: Tensor, lattice: Lattice) -> Tensor:
    """S(q) = |Σ_i S_i exp(i q·r_i)|² / N summed over components, ``[B, *shape]``.

    Independent random spins give 1 on average, a spiral N/2 at ±q; the sum over q is N. The order
    of q is that of :func:`~latticezoo.simulate.observables.wave_vectors`.

    Args:
        spins: ``[B, N, 3]``.
        lattice: Of one site per cell.
    """
    return lattice.n_sites * structure_factor(spins, lattice)


def six_peaks(wave_number: float = math.pi / 3) -> tuple[tuple[float, float], ...]:
    """The wave vectors ±Q_1, ±Q_2, ±Q_3 at angles 0°, 60°, …: ``[6][2]``, Cartesian."""
    check_positive("wave_number", wave_number)
    turns = [math.pi / 3 * number for number in range(6)]
    return tuple((wave_number * math.cos(t), wave_number * math.sin(t)) for t in turns)


def peak_order(factor: Tensor, lattice: Lattice, peaks: Waves, window: float = 0.1) -> Tensor:
    """Mean of S(q) within a distance of the peaks, averaged over the peaks, ``[B]``.

    Args:
        factor: S(q), ``[B, *shape]``, as :func:`spin_structure_factor` gives.
        lattice: Its lattice.
        peaks: Wave vectors, Cartesian, in radians a bond length.
        window: The distance, inclusive.

    Raises:
        InputError: No wave vector of the torus lies that near to one of the peaks.
    """
    distances = _to_peaks(lattice, _plain(peaks, lattice)).to(factor.device)
    inside = (distances <= window + 1e-9).to(factor)  # [P, *shape]
    counts = inside.flatten(1).sum(1)
    if bool((counts == 0).any()):
        number = int((counts == 0).nonzero()[0])
        nearest = float(distances[number].min())
        raise InputError(
            f"no wave vector of {lattice} lies within {window:g} of the peak "
            f"{tuple(round(float(x), 4) for x in peaks[number])}; the nearest is {nearest:.3g} "
            "away: take a larger window, or sides that hold the order."
        )
    return ((factor.flatten(1) @ inside.flatten(1).T) / counts).mean(1)


def peak_length(factor: Tensor, lattice: Lattice, peaks: Waves) -> Tensor:
    r"""Correlation length of an order that peaks at some wave vectors, ``[B]``, in bond lengths.

    .. math:: L^{-1} = \sum_q S(q) \min_p |q - q_p| \Big/ \sum_q S(q)

    over all q but 0, where S(q) is the square of the mean spin, which a field makes. Infinite
    for perfect order. Arguments as :func:`peak_order`.
    """
    distances = _to_peaks(lattice, _plain(peaks, lattice)).amin(0).to(factor).flatten()
    values = factor.flatten(1)[:, 1:]
    return values.sum(1) / (values @ distances[1:])


# ---- predicted fields ----------------------------------------------------------------------------


def torque_error(predicted: Tensor, exact: Tensor) -> TorqueError:
    """Errors of predicted perpendicular fields in magnitude and angle.

    Torques S × H have the lengths of the perpendicular fields and the angles between them.

    Args:
        predicted: ``[B, N, 3]``, perpendicular to the spins.
        exact: Likewise.
    """
    if predicted.shape != exact.shape or exact.shape[-1:] != (3,):
        raise InputError(
            f"predicted fields of shape {list(predicted.shape)} and exact ones of shape "
            f"{list(exact.shape)} do not fit; both must be [batch, sites, 3]."
        )
    lengths = predicted.norm(dim=-1), exact.norm(dim=-1)
    angle = torch.atan2(torch.linalg.cross(predicted, exact).norm(dim=-1), _dot(predicted, exact))
    known = (lengths[0] > 0) & (lengths[1] > 0)
    return TorqueError(lengths[0] - lengths[1], torch.where(known, angle, torch.nan))


def effective_receptive_field(
    model: Callable[[dict[str, Tensor], Lattice], Mapping[str, Tensor]],
    fields: Mapping[str, Tensor],
    lattice: Lattice,
    *,
    target: str = "perpendicular_field",
    source: str = "S",
    sites: Sequence[int] = (0,),
) -> Tensor:
    r"""Σ_ab |∂T_i^a / ∂S_j^b| by the displacement from i to j, averaged over inputs and sites i.

    Args:
        model: Differentiable, ``model(fields, lattice) -> predictions``.
        fields: Inputs ``[B, N, C]`` to average over.
        lattice: Of one site per cell.
        target: The prediction to differentiate, ``[B, N, C']``.
        source: The input to differentiate by.
        sites: The sites i.

    Returns:
        ``[*shape]``; entry 0 is the derivative by the site's own input. To average it over
        equal distances: :func:`~latticezoo.simulate.observables.radial_average`.

    Raises:
        InputError: For lattices of more sites per cell, or no sites.
    """
    if lattice.sublattices > 1:
        raise InputError(f"displacements need one site per cell; {lattice} has more.")
    if not sites:
        raise InputError("no sites are given for the receptive field; give at least one.")
    dims = tuple(range(lattice.dim))
    total = torch.zeros(lattice.shape, dtype=torch.float64)
    with torch.inference_mode(False), torch.enable_grad():
        inputs = {name: values.detach().clone() for name, values in fields.items()}
        values = inputs[source].requires_grad_()
        outputs = model(inputs, lattice)[target]
        wanted = list(itertools.product(sites, range(outputs.shape[-1])))
        for number, (site, component) in enumerate(wanted, 1):
            (slope,) = torch.autograd.grad(
                outputs[:, site, component].sum(), values, retain_graph=number < len(wanted)
            )
            by_site = slope.abs().sum(-1).mean(0).double().cpu().reshape(lattice.shape)
            cell = torch.unravel_index(torch.tensor(site), lattice.shape)
            total += by_site.roll([-int(n) for n in cell], dims)
    return total / len(sites)


# ---- inner parts -------------------------------------------------------------------------------


def _triangles(spins: Tensor, lattice: Lattice) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    """Corners of the two triangles of every cell, each ``[B, N, 3]``."""
    if lattice.dim != 2 or lattice.sublattices > 1:
        raise InputError(f"triangles of spins need a square or triangular lattice, not {lattice}.")
    if spins.ndim != 3 or spins.shape[1:] != (lattice.n_sites, 3):
        raise InputError(
            f"spins of shape {list(spins.shape)} do not fit {lattice}; give "
            f"[batch, {lattice.n_sites}, 3]."
        )
    torus = spins.reshape(len(spins), *lattice.shape, 3)
    first, second = torus.roll(-1, 1), torus.roll(-1, 2)
    both = first.roll(-1, 2)
    here, first, second, both = (x.reshape(spins.shape) for x in (torus, first, second, both))
    return (here, first, second), (first, both, second)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1)


def _triple(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return _dot(a, torch.linalg.cross(b, c))


def _wrapped(angle: Tensor) -> Tensor:
    """An angle difference in [−π, π]."""
    return angle - 2 * math.pi * (angle / (2 * math.pi)).round()


def _plain(peaks: Waves, lattice: Lattice) -> tuple[tuple[float, ...], ...]:
    plain = tuple(tuple(float(x) for x in peak) for peak in peaks)
    if not plain or any(len(peak) != lattice.dim for peak in plain):
        raise InputError(
            f"peaks are {peaks!r}; they must be wave vectors of {lattice.dim} components, at least "
            "one."
        )
    return plain


@lru_cache(maxsize=16)
def _to_peaks(lattice: Lattice, peaks: tuple[tuple[float, ...], ...]) -> Tensor:
    """Distances of all wave vectors of the torus to each peak, periodic, ``[P, *shape]``."""
    if lattice.sublattices > 1:
        raise InputError(f"wave vectors need one site per cell; {lattice} has more.")
    vectors = torch.from_numpy(lattice.vectors)
    centres = torch.tensor(peaks, dtype=torch.float64) @ vectors.T  # q·a
    away = _wrapped(wave_vectors(lattice) - centres.reshape(-1, *[1] * lattice.dim, lattice.dim))
    nearest = torch.full(away.shape[:-1], torch.inf, dtype=torch.float64)
    for image in itertools.product((-1, 0, 1), repeat=lattice.dim):
        moved = away + 2 * math.pi * torch.tensor(image, dtype=torch.float64)
        nearest = torch.minimum(
            nearest, torch.linalg.solve(vectors, moved[..., None])[..., 0].norm(dim=-1)
        )
    return nearest
