r"""Linear regression with a penalty from one pass over the data.

.. math::
    w = \Big( \sum_m f_m f_m^T + \beta M D \Big)^{-1} \sum_m f_m y_m^T

for M samples with F features f and targets y. Only the sums are kept, F² numbers, in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError


class RidgeRegression:
    """Sums over samples, from which the weights follow for any penalty.

    Args:
        features: Number of features F.
        targets: Number of targets C.
        constant: Whether the last feature is the constant one, which is not penalized (D is the
            identity otherwise).

    Attributes:
        gram: Σ f fᵀ ``[F, F]``, float64.
        moment: Σ f yᵀ ``[F, C]``, float64.
        square: Σ y yᵀ ``[C, C]``, float64.
        count: Number of samples.
    """

    def __init__(self, features: int, targets: int, constant: bool = False) -> None:
        self.constant = constant
        self.gram = torch.zeros(features, features, dtype=torch.float64)
        self.moment = torch.zeros(features, targets, dtype=torch.float64)
        self.square = torch.zeros(targets, targets, dtype=torch.float64)
        self.count = 0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Take in samples, in blocks of any size.

        Args:
            features: ``[M, F]``, any device and floating-point type.
            targets: ``[M, C]``.
        """
        rows, goals = features.detach().double(), targets.detach().double()
        self.gram = self.gram.to(rows.device).add_(_square(rows))
        self.moment = self.moment.to(rows.device).addmm_(rows.T, goals)
        self.square = self.square.to(rows.device).addmm_(goals.T, goals)
        self.count += len(rows)

    def gather(self) -> RidgeRegression:
        """The sums over all processes of a distributed run; this one's own where there is one."""
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return self
        total = RidgeRegression(len(self.gram), len(self.square), self.constant)
        count = torch.tensor([float(self.count)], dtype=torch.float64, device=self.gram.device)
        total.gram, total.moment, total.square = (
            table.clone() for table in (self.gram, self.moment, self.square)
        )
        for table in (total.gram, total.moment, total.square, count):
            distributed.all_reduce(table)
        total.count = round(float(count))
        return total

    def solve(self, penalty: float) -> Tensor:
        """The weights ``[F, C]``, float64.

        Args:
            penalty: β, in units of the mean square of a feature.

        Raises:
            InputError: When there are no samples, they are not finite, or the penalty is too small
                for the features to be told apart.
        """
        if not 0 < penalty < math.inf:
            raise InputError(f"ridge is {penalty:g}; it must be positive.")
        if not self.count:
            raise InputError("there are no samples to fit a read-out to.")
        if not bool(self.gram.isfinite().all() and self.moment.isfinite().all()):
            raise InputError("the series hold NaN or infinite values; only finite ones can be fit.")
        weights = torch.full((len(self.gram),), penalty, dtype=torch.float64)
        if self.constant:
            weights[-1] = 0.0
        matrix = self.gram / self.count + torch.diag(weights.to(self.gram.device))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if bool(failed):
            raise InputError(
                f"ridge is {penalty:g}, which is too small to tell {len(self.gram)} features of "
                f"{self.count} samples apart; take a larger one."
            )
        return torch.cholesky_solve(self.moment / self.count, factor)

    def residual(self, weights: Tensor) -> Tensor:
        """Mean of r rᵀ, r = y − wᵀf, over the samples taken in, ``[C, C]``, from the sums alone."""
        mixed = weights.T @ self.moment
        explained = mixed + mixed.T - weights.T @ self.gram @ weights
        return (self.square - explained) / self.count


def _square(rows: Tensor) -> Tensor:
    """Fᵀ F; numpy sees that both factors are one matrix and does half the work, torch does not."""
    if rows.is_cuda:
        return rows.T @ rows
    table = rows.numpy()
    return torch.from_numpy(table.T @ table)
