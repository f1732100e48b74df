r"""Starting states of spins: unit vectors ``S`` ``[R, N, 3]``, ordered, textured or random.

Every ordered state can be disturbed: ``noise`` adds independent normal vectors of that standard
deviation a component, and normalizes again. Replicas draw from streams of their own, addressed by
(seed, replica). A pattern that does not repeat on a torus is made all the same, with a seam where
it meets itself; the log warns, and names the sizes that hold it.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from latticezoo.simulate.dynamics.schedule import check_positive
from latticezoo.simulate.initial import replica_numbers
from latticezoo.simulate.noise import normal, uniform
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Axis = Sequence[float]
_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
#: Turns by which a pattern may miss itself around the torus, as a rounded wave vector does.
_SEAM = 1e-4
#: Largest side looked at for a size that holds a pattern.
_LARGEST = 200


def random_spins(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    """Directions uniform on the sphere, all independent: infinite temperature.

    Args:
        lattice: The lattice, of N sites.
        replicas: Number of replicas, or the replica numbers.
        seed: Seed of the state, and of the noise of the run unless the dynamics has its own.
        dtype: Precision of the state.
        device: Device of the state.

    Returns:
        State with the field ``S`` ``[R, N, 3]``.
    """
    return _state(np.zeros((lattice.n_sites, 3)), replicas, 1.0, seed, dtype, device)


def ferromagnet(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    axis: Axis = _Z,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    """All spins along an axis. The other arguments are those of :func:`random_spins`."""
    pattern = np.tile(_direction("axis", axis), (lattice.n_sites, 1))
    return _state(pattern, replicas, noise, seed, dtype, device)


def spiral(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    q: Sequence[float],
    plane: Sequence[Axis] = (_X, _Y),
    cone: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    r"""A single wave, flat or conical.

    .. math:: S = \sqrt{1 - c^2}\, (e_1 \cos q r + e_2 \sin q r) + c\, e_1 \times e_2

    Args:
        lattice: The lattice.
        replicas: As for :func:`random_spins`, as are the arguments not named here.
        q: Wave vector, Cartesian, in radians a bond length.
        plane: The vectors e1 and e2; e2 is made perpendicular to e1, both are normalized.
        cone: Component c along e1 × e2, in [−1, 1].
        noise: Standard deviation of the disturbance.
        seed: Seed.
        dtype: Precision.
        device: Device.

    Raises:
        InputError: q has not one component a direction, c is out of range, or the plane is none.
    """
    wave = _finite("q", q, lattice.dim)
    if not -1 <= cone <= 1:
        raise InputError(f"cone is {cone}; it must lie in [-1, 1].")
    first, second = _plane(plane)
    _warn_of_a_seam(lattice, [wave], "the spiral")
    phase = (lattice.positions.numpy() @ wave)[:, None]
    around = np.cos(phase) * first + np.sin(phase) * second
    pattern = math.sqrt(1 - cone**2) * around + cone * np.cross(first, second)
    return _state(pattern, replicas, noise, seed, dtype, device)


def three_sublattice(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    plane: Sequence[Axis] = (_X, _Y),
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    """The 120° order of the triangular lattice; sides that are multiples of 3 hold it.

    The arguments are those of :func:`spiral`; e1 and e2 exchanged give the other chirality.

    Raises:
        InputError: For another lattice.
    """
    _require_triangular(lattice, "the 120° order")
    corner = np.array([4 * math.pi / 3, 0.0])
    _warn_of_a_seam(lattice, [corner], "the 120° order")
    first, second = _plane(plane)
    # Whole thirds of a turn by counting, so that the three directions are exact.
    third = (2 * math.pi / 3) * (_cells(lattice) @ np.array([2, 1]) % 3)[:, None]
    pattern = np.cos(third) * first + np.sin(third) * second
    return _state(pattern, replicas, noise, seed, dtype, device)


def tetrahedral(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    chirality: int = 1,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    """The four-sublattice order of the triangular lattice: spins point to a tetrahedron's corners.

    Every triangle of neighbours, gone round counter-clockwise, has the scalar chirality
    ±4/(3√3), the sign that of ``chirality``. Even sides hold it. The other arguments are those of
    :func:`random_spins`.

    Raises:
        InputError: For another lattice, or a chirality that is not a sign.
    """
    _require_triangular(lattice, "the tetrahedral order")
    _sign("chirality", chirality)
    half = np.array([[math.pi, math.pi / math.sqrt(3)], [0.0, 2 * math.pi / math.sqrt(3)]])
    _warn_of_a_seam(lattice, list(half), "the tetrahedral order")
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / math.sqrt(3)
    parity = _cells(lattice) % 2
    # Sites 0, a1, a2 of an upward triangle are corners 0, 1, 2, whose triple product is positive.
    pattern = chirality * corners[parity @ np.array([1, 2])]
    return _state(pattern, replicas, noise, seed, dtype, device)


def skyrmion_lattice(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    amplitude: float = 1.0,
    magnetization: float = 0.3,
    phase: float = 0.0,
    wave_number: float = math.pi / 3,
    winding: int = 1,
    spread: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    r"""Triple-Q skyrmion lattice on the triangular lattice (Zhang's dissertation, Eq. 3.21).

    With :math:`Q_1 = (q, 0)`, :math:`Q_2, Q_3` turned by ±120°, and :math:`c_n = \cos Q_n r`,
    :math:`s_n = \sin(Q_n r + \phi)`, spins point along

    .. math::
        \big(c_1 - \tfrac12 c_2 - \tfrac12 c_3,\; \tfrac{\sqrt3}{2} (c_2 - c_3),\;
        A\,(s_1 + s_2 + s_3) + M\big)

    A cell of 4π/q × 4π/q sites holds three skyrmions; at q = π/3 sides that are multiples of 12
    hold the lattice. The topological charge a cell is −3 at φ = 0, M > 0, +3 at φ = 0, M < 0, and
    −6 (two a skyrmion) at φ = π/2.

    Args:
        lattice: A triangular lattice.
        replicas: As for :func:`random_spins`, as are the arguments not named here.
        amplitude: A.
        magnetization: M. At φ = 0, M = 0 some spins would vanish.
        phase: φ.
        wave_number: q, in radians a bond length.
        winding: −1 mirrors the spins, which changes the sign of the charge.
        spread: Site by site, A is multiplied by 1 + spread·u, M grows by spread·u' and φ by
            π·spread·u'', with u uniform in [−1, 1].
        noise: Standard deviation of the disturbance.
        seed: Seed.
        dtype: Precision.
        device: Device.

    Raises:
        InputError: For another lattice, a parameter out of range, or spins that vanish.
    """
    _require_triangular(lattice, "the skyrmion lattice")
    check_positive("wave_number", wave_number)
    check_positive("spread", spread, zero=True)
    _sign("winding", winding)
    _finite("amplitude, magnetization, phase", (amplitude, magnetization, phase), 3)
    turns = 2 * math.pi / 3 * np.array([0, 1, -1])
    waves = wave_number * np.stack([np.cos(turns), np.sin(turns)], -1)
    _warn_of_a_seam(lattice, list(waves), "the skyrmion lattice")
    angles = lattice.positions.numpy() @ waves.T
    cosines = np.cos(angles)
    first = cosines @ np.array([1, -0.5, -0.5])
    second = winding * math.sqrt(3) / 2 * (cosines[:, 1] - cosines[:, 2])

    def draw(replica: int) -> Array:
        u = spread * (2 * uniform(seed, replica, 0, (lattice.n_sites, 3), "initial/spread") - 1)
        sines = np.sin(angles + (phase + math.pi * u[:, 2])[:, None]).sum(1)
        third = amplitude * (1 + u[:, 0]) * sines + magnetization + u[:, 1]
        pattern = np.stack([first, second, third], -1)
        lost = int((np.linalg.norm(pattern, axis=1) < 1e-6).sum())
        if lost:
            raise InputError(
                f"a skyrmion lattice of phase {phase:g} and magnetization {magnetization:g} leaves "
                f"{lost} of {lattice.n_sites} spins without a direction; give a magnetization "
                "other than 0, or another phase."
            )
        return pattern / np.linalg.norm(pattern, axis=1, keepdims=True)

    return _state(draw, replicas, noise, seed, dtype, device)


def skyrmion(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    radius: float,
    width: float | None = None,
    centre: Sequence[float] | None = None,
    winding: int = 1,
    helicity: float = 0.0,
    background: int = 1,
    noise: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    r"""One skyrmion in a ferromagnet along ±z.

    At distance ρ and angle φ from the centre the spin is :math:`(\sin\theta \cos\Phi, \sin\theta
    \sin\Phi, \pm\cos\theta)` with :math:`\Phi = w \varphi + h` and the profile of a closed domain
    wall, :math:`\theta = 2 \arctan(\sinh(R/\delta) / \sinh(\rho/\delta))` (Wang, Yuan and Wang,
    Commun. Phys. 1, 31 (2018)): against the background inside the radius R, along it outside. The
    topological charge is −w times the sign of the background.

    Args:
        lattice: A square or triangular lattice.
        replicas: As for :func:`random_spins`, as are the arguments not named here.
        radius: R in bond lengths, where the third component passes through zero.
        width: Width δ of the wall; half the radius by default.
        centre: Cartesian; the middle of the torus by default.
        winding: w, 1 or −1.
        helicity: h; 0 and π for Néel, ±π/2 for Bloch skyrmions.
        background: Sign of the spins far away.
        noise: Standard deviation of the disturbance.
        seed: Seed.
        dtype: Precision.
        device: Device.

    Raises:
        InputError: The lattice is not two-dimensional, or a parameter is out of range.
    """
    if lattice.dim != 2 or lattice.sublattices > 1:
        raise InputError(f"a skyrmion needs a square or triangular lattice, not {lattice}.")
    check_positive("radius", radius)
    width = 0.5 * radius if width is None else check_positive("width", width)
    _sign("winding", winding)
    _sign("background", background)
    periods = np.array(lattice.shape)[:, None] * lattice.vectors
    middle = periods.sum(0) / 2 if centre is None else _finite("centre", centre, 2)
    middle = np.linalg.solve(periods.T, middle) % 1 @ periods
    images = np.array(list(itertools.product((-1, 0, 1), repeat=2))) @ periods
    from_centre = (lattice.positions.numpy() - middle)[:, None] + images
    nearest = np.linalg.norm(from_centre, axis=-1).argmin(1)
    x, y = from_centre[np.arange(len(nearest)), nearest].T
    # Divided by exp(R/δ): no overflow far away, where the ratio is zero to rounding.
    far = np.minimum(np.hypot(x, y) / width, 300 + radius / width) - radius / width
    outside = np.exp(far) - np.exp(-far - 2 * radius / width)
    theta = 2 * np.arctan2(-np.expm1(-2 * radius / width), outside)
    angle = winding * np.arctan2(y, x) + helicity
    pattern = np.stack(
        [np.sin(theta) * np.cos(angle), np.sin(theta) * np.sin(angle), background * np.cos(theta)],
        -1,
    )
    return _state(pattern, replicas, noise, seed, dtype, device)


# ---- inner parts -------------------------------------------------------------------------------


def _state(
    pattern: Array | Callable[[int], Array],
    replicas: int | Sequence[int],
    noise: float,
    seed: int,
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> State:
    """Disturb a pattern ``[N, 3]``, or what draws one for each replica, and normalize it."""
    check_positive("noise", noise, zero=True)
    numbers = replica_numbers(replicas)
    drawn = []
    for replica in numbers:
        spins = pattern(replica) if callable(pattern) else pattern
        if noise > 0:
            spins = spins + noise * normal(seed, replica, 0, spins.shape, "initial/S")
        drawn.append(spins / np.linalg.norm(spins, axis=-1, keepdims=True))
    field = torch.from_numpy(np.stack(drawn)).to(dtype=dtype, device=device)
    return State({"S": field}, replicas=numbers, seed=seed)


def _finite(name: str, values: Sequence[float], count: int) -> Array:
    """So many finite numbers."""
    try:
        given = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        given = np.array(np.nan)
    if given.shape != (count,) or not np.isfinite(given).all():
        raise InputError(f"{name} is {values!r}; it must be {count} finite numbers.")
    return given


def _direction(name: str, values: Axis) -> Array:
    """The unit vector along a vector."""
    vector = _finite(name, values, 3)
    length = float(np.linalg.norm(vector))
    if length == 0:
        raise InputError(f"{name} is {values!r}, which has no direction; give another vector.")
    return vector / length


def _plane(plane: Sequence[Axis]) -> tuple[Array, Array]:
    """Two perpendicular unit vectors."""
    if len(plane) != 2:
        raise InputError(f"plane is {plane!r}; it must be two vectors of three numbers.")
    first, second = (_direction("a vector of the plane", vector) for vector in plane)
    rest = second - (second @ first) * first
    if np.linalg.norm(rest) < 1e-9:
        raise InputError(f"plane is {plane!r}; its two vectors must not be parallel.")
    return first, rest / np.linalg.norm(rest)


def _sign(name: str, value: int) -> None:
    if value not in (1, -1):
        raise InputError(f"{name} is {value!r}; it must be 1 or -1.")


def _require_triangular(lattice: Lattice, what: str) -> None:
    if lattice.family != "triangular":
        raise InputError(f"{what} lives on the triangular lattice, not on {lattice}.")


def _cells(lattice: Lattice) -> NDArray[np.int64]:
    """Cell indices of the sites, ``[N, dim]``."""
    return np.stack(np.unravel_index(np.arange(lattice.n_sites), lattice.shape), -1)


def _warn_of_a_seam(lattice: Lattice, waves: Sequence[Array], what: str) -> None:
    """Warn where a wave does not close around the torus, and name the sides on which it does."""
    turns = np.stack(waves) @ lattice.vectors.T / (2 * math.pi)  # [waves, directions], a site

    def closes(side: int, direction: int) -> bool:
        around = side * turns[:, direction]
        return bool((np.abs(around - np.rint(around)) < _SEAM).all())

    directions = range(lattice.dim)
    if all(closes(lattice.shape[n], n) for n in directions):
        return
    fits = partial(map, lambda side: all(closes(side, n) for n in directions))
    found = next((side for side, fit in enumerate(fits(range(1, _LARGEST)), 1) if fit), None)
    advice = (
        f"no side below {_LARGEST} holds it"
        if found is None
        else f"sides that are multiples of {found} hold it"
    )
    _log.warning("%s does not fit %s and has a seam there; %s.", what, lattice, advice)
