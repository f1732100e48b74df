"""Cheap predictors that every network has to beat: the training mean, and a ridge on the shells.

On spins the ridge is the exchange between pairs, one constant for each shell (for electrons that
carry it, the interaction of Ruderman, Kittel, Kasuya and Yosida).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from latticezoo.datasets.batches import Samples
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

#: Shells beside the site itself that the ridge sums over, of scalars and of spins.
SHELLS, SPIN_SHELLS = 8, 18


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

    .. math:: \hat y_i = b + \sum_s w_s \sum_{j \in \text{shell } s(i)} x_j

    with ridge regression for :math:`w`. It is exactly equivariant for fields without a point-group
    representation: on irreps of SO(3) every component has the same weights, and where the target is
    tangent to unit vectors, of each sum only what is perpendicular to them is taken. When a
    two-element symmetry changes the signs of input and target, or they turn with the spins, there
    is no constant :math:`b`.

    Args:
        task: One site input and site targets of the same internal type.
        train: The training split.
        strength: Ridge parameter as a share of the mean square of the features.
        shells: Number of shells beside the site itself; fewer on a lattice that does not hold them.

    Raises:
        InputError: When the task is not of that kind.
    """

    label = "linear ridge"

    def __init__(
        self, task: Task, train: Samples, strength: float = 1e-6, shells: int | None = None
    ) -> None:
        fields = (*task.inputs, *task.targets)
        plain = all(field.support == "site" and field.point == "A1" for field in fields)
        kinds = {(field.internal, field.conjugated) for field in fields}
        turns = task.inputs[0].internal is not None
        if not plain or len(kinds) > 1 or len(task.inputs) > 1 or task.gauge:
            raise InputError(
                "the linear ridge serves site fields of one internal type without point "
                f"representation, not task {task.name!r}."
            )
        self.input = task.inputs[0].name
        self.tangent = frozenset(target for target, _ in task.tangent)
        odd = bool(task.flips) and all(set(task.flips) <= set(f.odd) for f in task.targets)
        self.constant = not (odd or turns)
        wanted = shells if shells is not None else (SPIN_SHELLS if turns else SHELLS)
        self.shells = _held(train.lattice, wanted)
        values = train.fields[self.input].double()
        sums = self._sums(values, train.lattice)
        self.weights = {}
        for field in task.targets:
            features = self._features(sums, values, field.name).flatten(0, -2)
            gram = features.mT @ features / len(features)
            gram += strength * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
            target = train.targets[field.name].double().reshape(-1, 1)
            self.weights[field.name] = torch.linalg.solve(
                gram, features.mT @ target / len(features)
            )
        self.n_parameters = sum(weight.numel() for weight in self.weights.values())

    def _sums(self, values: Tensor, lattice: Lattice) -> Tensor:
        """Sums over the shells, ``[B, N, C, K]``."""
        sums = [values] + [
            lattice.neighbour_sum(values, shell) for shell in range(1, self.shells + 1)
        ]
        if self.constant:
            sums.append(torch.ones_like(values))
        return torch.stack(sums, -1)

    def _features(self, sums: Tensor, values: Tensor, target: str) -> Tensor:
        if target not in self.tangent:
            return sums
        along = (sums * values[..., None]).sum(-2, keepdim=True)
        return (sums - along * values[..., None])[..., 1:]  # nothing is left of the site itself

    def __call__(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Targets ``[B, N, C]``."""
        values = fields[self.input]
        sums = self._sums(values, lattice)
        return {
            name: (self._features(sums, values, name) @ w.to(values.dtype)).squeeze(-1)
            for name, w in self.weights.items()
        }


def _held(lattice: Lattice, shells: int) -> int:
    """Number of shells, at most as many as given, that consist of different sites."""
    while shells:
        with contextlib.suppress(InputError):
            lattice.require(lattice.shells(count=shells))
            return shells
        shells -= 1
    return 0


def baselines(task: Task, train: Samples) -> dict[str, MeanBaseline | RidgeBaseline]:
    """The baselines that serve a task, by label."""
    found: dict[str, MeanBaseline | RidgeBaseline] = {MeanBaseline.label: MeanBaseline(task, train)}
    with contextlib.suppress(InputError):
        found[RidgeBaseline.label] = RidgeBaseline(task, train)
    return found
