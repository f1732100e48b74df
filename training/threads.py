"""How many threads the numerical libraries shall use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

#: Multiply-adds in one call below which threads cost more than they give. Measured: a graph network
#: of width 48 on batches of eight 12×12 lattices (5e7) takes 15 ms a training step with one thread;
#: with two it takes about as long on an idle machine of two cores, and 60–110 ms on a busy one.
ENOUGH_WORK = 1e9


def work(network: nn.Module, sites: int) -> float:
    """Multiply-adds of one forward pass over so many sites, about: one a parameter and site."""
    return float(sum(p.numel() for p in network.parameters())) * sites


@contextmanager
def suited_threads(amount: float) -> Iterator[None]:
    """One thread for small work, all that torch was given for large work.

    Whoever sets ``OMP_NUM_THREADS`` has decided already. The number depends on the work alone, so
    that the same run gives the same bits again.

    Args:
        amount: Multiply-adds of one call.
    """
    before = torch.get_num_threads()
    if amount < ENOUGH_WORK and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
