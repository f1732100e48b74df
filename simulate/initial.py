"""Starting states. Each replica draws from a stream of its own, addressed by (seed, replica)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latticezoo.simulate.dynamics.schedule import check_positive, check_temperature
from latticezoo.simulate.noise import normal, uniform
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


def replica_numbers(replicas: int | Sequence[int]) -> tuple[int, ...]:
    """The replica numbers meant: a count R means 0, …, R − 1; a sequence means itself."""
    if not isinstance(replicas, int):
        return tuple(replicas)
    if replicas < 1:
        raise InputError(f"replicas is {replicas}; there must be at least one.")
    return tuple(range(replicas))


def _stack(
    draw: Callable[[int], NDArray[np.float64]],
    replicas: Sequence[int],
    dtype: torch.dtype,
    device: torch.device | str | None,
) -> Tensor:
    drawn = torch.from_numpy(np.stack([draw(replica) for replica in replicas]))
    return drawn.to(dtype=dtype, device=device)


def random(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    amplitude: float | Sequence[float] = 1.0,
    seed: int = 0,
    distribution: str = "uniform",
    field: str = "Q",
    channels: int | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    """A disordered state at rest: the start of a thermal quench.

    Args:
        lattice: The lattice, of N sites.
        replicas: Number of replicas, or the replica numbers.
        amplitude: Half width of the uniform distribution on [−amplitude, amplitude], or the
            standard deviation of the normal one; one number, or one for each channel.
        seed: Seed of the state, and of the noise of the run unless the dynamics has its own.
        distribution: "uniform" or "normal".
        field: Name of the field.
        channels: Components C a site; None: as many as there are amplitudes.
        dtype: Precision of the state.
        device: Device of the state.

    Returns:
        State with the field ``[R, N, C]`` and no momenta (zero).
    """
    scales = np.atleast_1d(amplitude)
    for value in scales.tolist():
        check_positive("amplitude", value, zero=True)
    channels = len(scales) if channels is None else channels
    if len(scales) not in (1, channels):
        raise InputError(
            f"{len(scales)} amplitudes are given for {channels} channels; give one for each."
        )
    if distribution not in ("uniform", "normal"):
        raise InputError(f"distribution is {distribution!r}; it must be 'uniform' or 'normal'.")
    shape = (lattice.n_sites, channels)

    def draw(replica: int) -> NDArray[np.float64]:
        stream = f"initial/{field}"
        if distribution == "normal":
            return scales * normal(seed, replica, 0, shape, stream)
        return scales * (2 * uniform(seed, replica, 0, shape, stream) - 1)

    numbers = replica_numbers(replicas)
    return State({field: _stack(draw, numbers, dtype, device)}, replicas=numbers, seed=seed)


def staggered(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    amplitude: float = 1.0,
    noise: float = 0.0,
    seed: int = 0,
    field: str = "Q",
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    """The checkerboard ±amplitude, plus uniform noise in [−noise, noise], at rest.

    The arguments are those of :func:`random`; the field has one channel.

    Raises:
        InputError: The lattice has no two sublattices, or an odd period.
    """
    check_positive("noise", noise, zero=True)
    pattern = amplitude * lattice.stagger.to(torch.float64).numpy()[:, None]

    def draw(replica: int) -> NDArray[np.float64]:
        numbers = uniform(seed, replica, 0, pattern.shape, f"initial/{field}")
        return pattern + noise * (2 * numbers - 1)

    numbers = replica_numbers(replicas)
    return State({field: _stack(draw, numbers, dtype, device)}, replicas=numbers, seed=seed)


def thermal(
    lattice: Lattice,
    replicas: int | Sequence[int] = 1,
    *,
    temperature: float,
    stiffness: float = 1.0,
    mass: float = 1.0,
    seed: int = 0,
    field: str = "Q",
    channels: int = 1,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> State:
    """Independent oscillators at a temperature: a hot start.

    Displacements are normal with variance temperature / stiffness, momenta with variance
    mass · temperature. The other arguments are those of :func:`random`.
    """
    check_temperature(temperature)
    check_positive("stiffness", stiffness)
    check_positive("mass", mass)
    numbers = replica_numbers(replicas)
    shape = (lattice.n_sites, channels)

    def gaussian(spread: float, stream: str) -> Tensor:
        return _stack(
            lambda replica: spread * normal(seed, replica, 0, shape, stream), numbers, dtype, device
        )

    return State(
        {field: gaussian(math.sqrt(temperature / stiffness), f"initial/{field}")},
        {field: gaussian(math.sqrt(temperature * mass), f"initial/momenta/{field}")},
        replicas=numbers,
        seed=seed,
    )
