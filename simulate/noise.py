"""Random numbers by counter: a function of (seed, replica, step, stream) and of nothing else.

A stateful generator shared by the replicas gives numbers that depend on how many replicas run
together and on where a run was interrupted. Here every draw is addressed instead: numpy's Philox
4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) is keyed by (seed,
replica), and its counter starts at (0, 0, stream, step). Replica 5 of a batch of eight and replica
5 run alone therefore see the same noise, and a run that goes on from step 1000 needs no generator
state, only the number 1000.

The numbers are made on the CPU in float64 and then moved, so that every device sees the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latticezoo.symmetry.errors import InputError

_WORD = 1 << 64


def _word(name: str, value: int) -> int:
    number = int(value)
    if number != value or not 0 <= number < _WORD:
        raise InputError(f"{name} is {value!r}; it must be a whole number from 0 to 2^64 - 1.")
    return number


def generator(seed: int, replica: int, step: int = 0, stream: str = "noise") -> np.random.Generator:
    """The generator that belongs to one replica at one step.

    Args:
        seed: Seed of the run, 0 to 2^64 - 1.
        replica: Number of the replica, not its place in the batch.
        step: Step the numbers belong to.
        stream: What the numbers are for. Different names give independent numbers, so that the
            starting state and the noise of step 0, or two fields, never share any.

    Raises:
        InputError: A number is negative, fractional or too large.
    """
    key = np.array([_word("seed", seed), _word("replica", replica)], dtype=np.uint64)
    label = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    # Philox counts up in the first word; 2^64 blocks per (stream, step) never run into the next.
    counter = np.array([0, 0, label, _word("step", step)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def normal(
    seed: int, replica: int, step: int, shape: Sequence[int], stream: str = "noise"
) -> NDArray[np.float64]:
    """Standard normal numbers of one replica at one step, float64, of the given shape."""
    return generator(seed, replica, step, stream).standard_normal(tuple(shape))


def uniform(
    seed: int, replica: int, step: int, shape: Sequence[int], stream: str = "noise"
) -> NDArray[np.float64]:
    """Numbers uniform in [0, 1) of one replica at one step, float64, of the given shape."""
    return generator(seed, replica, step, stream).random(tuple(shape))


def normal_like(
    values: Tensor,
    seed: int,
    replicas: Sequence[int],
    step: int,
    stream: str = "noise",
    sites: tuple[int, int] | None = None,
) -> Tensor:
    """Standard normal numbers for a batch of replicas.

    Args:
        values: Tensor ``[R, ...]`` whose shape, dtype and device the numbers take.
        seed: Seed of the run.
        replicas: The R replica numbers, in the order of the batch.
        step: Step the numbers belong to.
        stream: What the numbers are for.
        sites: (first, all) when the second axis holds a part of the sites alone: the numbers are
            those that these sites have within all of them. All are drawn, for how many words of
            the counter a normal number takes is known only once it is drawn.

    Returns:
        Tensor like ``values``; row r depends on (seed, replicas[r], step, stream) alone.
    """
    drawn = np.empty(tuple(values.shape), dtype=np.float64)
    count, *channels = values.shape[1:]
    first, whole = sites or (0, count)
    for row, replica in enumerate(replicas):
        drawn[row] = normal(seed, replica, step, (whole, *channels), stream)[first : first + count]
    return torch.from_numpy(drawn).to(device=values.device, dtype=values.dtype)
