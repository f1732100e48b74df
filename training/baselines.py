"""Cheap predictors that every network has to beat: the training mean, and a ridge on the shells."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from latticezoo.datasets.batches import Samples
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task


class MeanBaseline:
    """Predicts the mean over the training split everywhere: the error is the target's spread.

    A target that a two-element symmetry of the task turns into its negative has the mean zero.

    Args:
        task: Types of the targets.
        train: The training split.
    """

    label = "training mean"

    def __init__(self, task: Task, train: Samples) -> None:
        self.means = {
            field.name: train.targets[field.name].double().flatten(0, 1).mean(0)
            * (not set(task.flips) & set(field.odd))
            for field in task.targets
        }
        self.n_parameters = sum(mean.numel() for mean in self.means.values())

    def __call__(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Targets ``[B, N, C]``."""
        values = next(iter(fields.values()))
        return {
            name: mean.to(values.dtype).expand(*values.shape[:2], -1)
            for name, mean in self.means.items()
        }


class RidgeBaseline:
    r"""A linear map of the sums over the first shells of neighbours.

    .. math:: \hat y_i = b + \sum_{s=0}^{8} w_s \sum_{j \in \text{shell } s(i)} x_j

    with ridge regression for :math:`w`. It is exactly equivariant for scalar fields; when a
    two-element symmetry changes the signs of input and target, there is no constant :math:`b`.

    Args:
        task: One scalar site input and scalar site targets.
        train: The training split.
        strength: Ridge parameter as a share of the mean square of the features.
        shells: Number of shells beside the site itself.

    Raises:
        InputError: When the task is not of that kind.
    """

    label = "linear ridge"

    def __init__(self, task: Task, train: Samples, strength: float = 1e-6, shells: int = 8) -> None:
        scalars = all(
            field.support == "site" and field.point == "A1" and field.internal is None
            for field in (*task.inputs, *task.targets)
        )
        if not scalars or len(task.inputs) > 1 or task.gauge:
            raise InputError(f"the linear ridge serves scalar site fields, not task {task.name!r}.")
        self.input = task.inputs[0].name
        self.shells = shells
        odd = bool(task.flips) and all(set(task.flips) <= set(f.odd) for f in task.targets)
        self.constant = not odd
        features = self._features(train.fields[self.input].double(), train.lattice).flatten(0, 1)
        gram = features.mT @ features / len(features)
        gram += strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        self.weights = {
            field.name: torch.linalg.solve(
                gram, features.mT @ train.targets[field.name].double().flatten(0, 1) / len(features)
            )
            for field in task.targets
        }
        self.n_parameters = sum(weight.numel() for weight in self.weights.values())

    def _features(self, values: Tensor, lattice: Lattice) -> Tensor:
        sums = [values] + [
            lattice.neighbour_sum(values, shell) for shell in range(1, self.shells + 1)
        ]
        if self.constant:
            sums.append(torch.ones_like(values))
        return torch.cat(sums, -1)

    def __call__(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Targets ``[B, N, C]``."""
        values = fields[self.input]
        features = self._features(values, lattice)
        return {name: features @ w.to(values.dtype) for name, w in self.weights.items()}


def baselines(task: Task, train: Samples) -> dict[str, MeanBaseline | RidgeBaseline]:
    """The baselines that serve a task, by label."""
    found: dict[str, MeanBaseline | RidgeBaseline] = {MeanBaseline.label: MeanBaseline(task, train)}
    with contextlib.suppress(InputError):
        found[RidgeBaseline.label] = RidgeBaseline(task, train)
    return found
