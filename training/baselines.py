"""Cheap predictors that every network has to beat: the training mean, and linear regressions.

The inputs of the regressions are sums over the shells, and for gauge links the smallest loops.

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
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.gauge import trace, wilson_loop
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
        self.means, self.tails = {}, {}
        for field in task.targets:
            # Of complex targets, which local transformations turn, the mean is zero (below).
            values = train.targets[field.name].real.double()
            lead = 1 if field.support == "global" else 2
            mean = values.flatten(0, lead - 1).mean(0)
            if field.support == "link":  # of all directions, which the symmetry exchanges
                mean = mean.mean() * (not field.oriented and field.internal is None)
            self.means[field.name] = mean * (not set(task.flips) & set(field.odd))
            self.tails[field.name] = (lead, values.shape[2:] if lead == 2 else values.shape[1:])
        self.n_parameters = sum(mean.numel() for mean in self.means.values())

    def __call__(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Targets, in the layout of their fields."""
        values = next(iter(fields.values()))
        return {
            name: mean.to(values.real.dtype).expand(
                *values.shape[: self.tails[name][0]], *self.tails[name][1]
            )
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


#: Sides of the loops of the linear regression: along the link, then across it.
LOOPS = ((1, 1), (2, 1), (1, 2), (2, 2))


class LoopBaseline:
    r"""A linear map of the traced 1×1, 1×2 and 2×2 loops of gauge links.

    Of a link it takes the loops that run through it, summed by shape, 1×2 loops with the link on
    their long and on their short side apart: real parts for numbers, imaginary parts for currents.
    A site has the mean over its four links, the whole lattice the mean over all. So it is invariant
    under local transformations, and has D4 and charge conjugation.

    Args:
        task: From links to numbers of links, sites or the lattice, or currents.
        train: The training split.
        strength: Ridge parameter as a share of the mean square of the features.

    Raises:
        InputError: When the task is not of that kind.
    """

    label = "linear in loops"

    def __init__(self, task: Task, train: Samples, strength: float = 1e-6) -> None:
        links = [field.name for field in task.inputs if field.internal == "link"]
        plain = all(
            field.internal is None
            and field.support != "plaquette"
            and all(part.lstrip("0123456789x") == "A1" for part in field.point.split("+"))
            for field in task.targets
        )
        if task.gauge is None or task.family != "square" or len(links) != 1 or not plain:
            raise InputError(
                "the linear regression on loops serves numbers and currents of links on the square "
                f"lattice, not task {task.name!r}."
            )
        self.input, self.targets = links[0], task.targets
        features = self._features(train.fields[self.input], train.lattice)
        self.weights = {}
        for field in task.targets:
            given = _at(field, features, train.lattice).double()
            width = given.shape[-1]
            target = train.targets[field.name].double()
            target = target.reshape(-1, 1 if field.support == "link" else target.shape[-1])
            given = given.reshape(-1, width)
            gram = given.mT @ given / len(given)
            gram += strength * gram.diagonal().mean() * torch.eye(width, dtype=gram.dtype)
            self.weights[field.name] = torch.linalg.solve(gram, given.mT @ target / len(given))
        self.n_parameters = sum(weight.numel() for weight in self.weights.values())

    @staticmethod
    def _features(links: Tensor, lattice: Lattice) -> Tensor:
        """Loops through every link along it, ``[B, N, 2, 4]``, complex."""
        found = []
        for along, across in ((1, 2), (2, 1)):
            by_shape = []
            for length, height in LOOPS:
                total = torch.zeros_like(trace(links[:, :, 0]))
                for side in (across, -across):
                    way = (side,) * height + (-along,) * length + (-side,) * height
                    for before in range(length):  # links of the same side behind it
                        path = (along,) * (length - before) + way + (along,) * before
                        total = total + trace(wilson_loop(links, lattice, path))
                by_shape.append(total)
            found.append(torch.stack(by_shape, -1))
        values = torch.stack(found, 2)
        return values if values.is_complex() else torch.complex(values, torch.zeros_like(values))

    def __call__(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Targets, in the layout of their fields."""
        features = self._features(fields[self.input], lattice)
        found = {}
        for field in self.targets:
            given = _at(field, features, lattice)
            values = given @ self.weights[field.name].to(given.dtype)
            found[field.name] = values[..., 0] if field.support == "link" else values
        return found


def _at(field: Field, features: Tensor, lattice: Lattice) -> Tensor:
    """Loops where a target lives: ``[…, 4]`` imaginary parts of currents, ``[…, 5]`` otherwise."""
    if field.support == "link" and field.oriented:
        return features.imag
    values = features.real
    if field.support == "global":
        values = values.mean((1, 2))
    elif field.support == "site":
        arriving = [
            torch.empty_like(values[:, :, way]).index_copy(
                1, lattice.link_target[:, way].to(values.device), values[:, :, way]
            )
            for way in (0, 1)
        ]
        values = 0.25 * (values.sum(2) + arriving[0] + arriving[1])
    return torch.cat([values, torch.ones_like(values[..., :1])], -1)


def _held(lattice: Lattice, shells: int) -> int:
    """Number of shells, at most as many as given, that consist of different sites."""
    while shells:
        with contextlib.suppress(InputError):
            lattice.require(lattice.shells(count=shells))
            return shells
        shells -= 1
    return 0


Baseline = MeanBaseline | RidgeBaseline | LoopBaseline


def baselines(task: Task, train: Samples) -> dict[str, Baseline]:
    """The baselines that serve a task, by label."""
    found: dict[str, Baseline] = {MeanBaseline.label: MeanBaseline(task, train)}
    for cls in (RidgeBaseline, LoopBaseline):
        with contextlib.suppress(InputError):
            found[cls.label] = cls(task, train)
    return found
