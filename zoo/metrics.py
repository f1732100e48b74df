"""Errors that are exact over an epoch, however the samples fall into batches and processes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class RootMeanSquare(Metric):
    """Root of the mean square of all numbers seen, not the mean of the batches' roots.

    Sums in float64. Without any number the result is NaN.
    """

    full_state_update = False
    higher_is_better = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, errors: Tensor) -> None:
        """Add errors of any shape."""
        self.total += errors.detach().abs().double().square().sum()
        self.count += errors.numel()

    def compute(self) -> Tensor:
        """The root of the mean square."""
        return (self.total / self.count).sqrt()


class SecondMoments(Metric):
    """Mean products of the numbers of a sample with each other, ``[C, C]``, in float64.

    Args:
        width: Numbers C of a sample.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        zeros = torch.zeros(width, width, dtype=torch.float64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add samples ``[…, C]``."""
        rows = values.detach().double().flatten(0, -2)
        self.total += rows.T @ rows
        self.count += len(rows)

    def compute(self) -> Tensor:
        """The means."""
        return self.total / self.count
