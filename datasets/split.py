"""Which samples train a network and which judge it: split by trajectory, never by frame.

Frames of one trajectory resemble each other. A network that has seen one of them looks better on
its neighbours than it is, so all frames of a trajectory go to the same side.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from latticezoo.datasets.labelled import DRIVEN, TRAJECTORY
from latticezoo.simulate.noise import generator
from latticezoo.symmetry.errors import InputError

SPLITS = ("train", "val", "test")
#: Share of the trajectories for validation, and for the test, unless another is asked for.
HELD_OUT = 0.1


def split_by_group(
    groups: Tensor, kind: Tensor, *, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, Tensor]:
    """Split samples so that equal groups stay together, each kind in the same proportions.

    Of ``n`` groups of a kind, ``round(fraction · n)`` are held out, but at least one of three or
    more. What remains is for training.

    Args:
        groups: ``[S]`` int64, equal for samples that belong together.
        kind: ``[S]`` int64; all samples of a group are of one kind. 2 stands for trajectories that
            a network drove. Where there are such, exact ones (1) are few and there to check them:
            two or more have one in the test, one is for training.
        val_fraction: Share of the groups for validation, 0 to 1.
        test_fraction: Share of the groups for the test, 0 to 1.
        seed: The split is a function of the groups, the fractions and this.

    Returns:
        Sample indices by ``train``, ``val``, ``test``, each rising.

    Raises:
        InputError: A fraction is outside 0 to 1, both add up to more than 1, or too few groups are
            there to give every side one.
    """
    check_fractions(val_fraction, test_fraction)
    group_of, kind_of = groups.numpy(), kind.numpy()
    side = np.zeros(len(group_of), dtype=np.int64)
    few_exact = bool((kind_of == DRIVEN).any())
    for one_kind in np.unique(kind_of):
        members = np.unique(group_of[kind_of == one_kind])
        order = generator(seed, int(one_kind), stream="split").permutation(members)
        n_val, n_test = _held_out(len(members), val_fraction, test_fraction)
        pair = few_exact and one_kind == TRAJECTORY and len(members) == 2
        if pair and test_fraction > 0 and not n_test:
            n_val, n_test = 0, 1
        side[np.isin(group_of, order[:n_val])] = 1
        side[np.isin(group_of, order[n_val : n_val + n_test])] = 2
    fractions = (1 - val_fraction - test_fraction, val_fraction, test_fraction)
    result = {}
    for index, (name, fraction) in enumerate(zip(SPLITS, fractions, strict=True)):
        chosen = np.flatnonzero(side == index)
        if fraction > 1e-12 and not len(chosen):
            raise InputError(
                f"the data hold {len(np.unique(group_of))} independent trajectories and random "
                f"configurations, too few for a {name} split; make more, or set its fraction to 0."
            )
        result[name] = torch.from_numpy(chosen)
    return result


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Check the shares of a split.

    Raises:
        InputError: A fraction is outside 0 to 1, or both add up to more than 1.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction <= 1:
            raise InputError(f"{name} is {fraction!r}; it must lie between 0 and 1.")
    if val_fraction + test_fraction > 1 + 1e-12:
        raise InputError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction} add up to more than 1."
        )


def _held_out(n: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Numbers of groups for validation and test."""
    counts = [math.floor(fraction * n + 0.5) for fraction in (val_fraction, test_fraction)]
    if n >= 3:
        least = [int(fraction > 0) for fraction in (val_fraction, test_fraction)]
        counts = [max(*pair) for pair in zip(counts, least, strict=True)]
    room = n - int(val_fraction + test_fraction < 1 - 1e-12)
    while sum(counts) > max(room, 0):
        counts[counts.index(max(counts))] -= 1
    return counts[0], counts[1]
