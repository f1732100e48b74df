"""Deep ensembles: several networks of one kind, their mean, and their spread as an uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, Shell
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.learning import batch_size
from latticezoo.zoo.registry import model_class


class Ensemble(ZooModel):
    r"""Members of one architecture with different random weights (Lakshminarayanan et al. 2017).

    The output is the mean over the members,

    .. math::
        \bar F = \frac{1}{n} \sum_{m=1}^{n} F_m , \qquad
        \sigma^2 = \frac{1}{n-1} \sum_{m=1}^{n} (F_m - \bar F)^2 ,

    so it has every symmetry that they have, and derives from the mean of their energies where they
    derive from energies. :meth:`spread` gives σ. It is small where the members were trained and
    large where they have to guess; it knows nothing of an error that they share.

    All members see the same batches and are trained side by side, each by its own loss and its own
    gradient clipping, as they would be alone. Time and memory are those of all of them together.
    Validation, and with it the best epoch, is that of the mean.

    Args:
        members: At least two networks of the same class, task and options.

    Attributes:
        members: The networks.

    Raises:
        InputError: For fewer than two members, or members that differ.

    Example:
        >>> network = create_model("gcn", task, ensemble=4)  # doctest: +SKIP
        >>> network.spread(fields, lattice)["density"]  # doctest: +SKIP
    """

    members: nn.ModuleList

    def __init__(self, members: Sequence[ZooModel]) -> None:
        check_count(len(members))
        first = members[0]
        if any(member.config() != first.config() for member in members):
            raise InputError("the members of an ensemble must have the same task and options.")
        super().__init__(first.task)
        self.options = dict(first.options)
        self.save_hyperparameters({**first.hparams, "ensemble": len(members)}, logger=False)
        self.registry_name = first.registry_name
        self.members = nn.ModuleList(members)

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> Ensemble:
        """Members with random weights, drawn one after the other.

        Args:
            config: As :meth:`config` gives it.

        Raises:
            InputError: When the number of members is not a whole number of at least 2.
        """
        check_count(config["ensemble"])
        found = model_class(config["model"])
        return cls([found(config["task"], **config["options"]) for _ in range(config["ensemble"])])

    def config(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_config` builds the same ensemble."""
        return {**self._each[0].config(), "ensemble": len(self.members)}

    @property
    def _each(self) -> list[ZooModel]:
        return [cast(ZooModel, member) for member in self.members]

    # ---- evaluation ----------------------------------------------------------------------------

    def predictions(
        self, fields: Mapping[str, Tensor], lattice: Lattice
    ) -> list[dict[str, Tensor]]:
        """What each member predicts, as :meth:`forward` gives the mean."""
        return [member(fields, lattice) for member in self._each]

    def forward(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """The mean of the members' targets.

        Args:
            fields: As for a member.
            lattice: As for a member.

        Returns:
            Targets by name, physical units.
        """
        found = self.predictions(fields, lattice)
        return {name: _stack(found, name).mean(0) for name in found[0]}

    def spread(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Standard deviation over the members, without gradients.

        Args:
            fields: As for a member.
            lattice: As for a member.

        Returns:
            σ of every component of every target, shaped as the target, real, physical units.
        """
        with torch.no_grad():
            found = self.predictions(fields, lattice)
        return {name: _stack(found, name).detach().std(0) for name in found[0]}

    def predict(self, fields: dict[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """Map standardized inputs to standardized targets: the mean of the members."""
        found = [member.predict(fields, lattice) for member in self._each]
        return {name: _stack(found, name).mean(0) for name in found[0]}

    @property
    def energy(self) -> Callable[[Mapping[str, Tensor], Lattice], Tensor]:
        """``energy(fields, lattice)``, ``[batch]``: the mean of the members' energies.

        Raises:
            AttributeError: When the members have none.
        """
        if not callable(getattr(self._each[0], "energy", None)):
            raise AttributeError(f"{self.registry_name} has no energy, nor has an ensemble of it")
        return self._energy

    def _energy(self, fields: Mapping[str, Tensor], lattice: Lattice) -> Tensor:
        members: list[Any] = list(self.members)
        return torch.stack([member.energy(fields, lattice) for member in members]).mean(0)

    @property
    def receptive_radius(self) -> float:
        """That of a member."""
        return self._each[0].receptive_radius

    @property
    def required_shells(self) -> tuple[Shell, ...]:
        """Those of a member."""
        return self._each[0].required_shells

    # ---- training ------------------------------------------------------------------------------

    def set_statistics(self, statistics: Mapping[str, Any]) -> None:
        """Set the standardization, the same in all members."""
        super().set_statistics(statistics)
        for member in self._each:
            member.set_statistics(statistics)

    def calibrate(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Let every member set its further statistics."""
        for member in self._each:
            member.calibrate(batches)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Lightning hook: the sum of the members' losses; their mean is logged."""
        losses = torch.stack([member.training_loss(batch) for member in self._each])
        self.log(
            "train/loss",
            losses.detach().mean(),
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=batch_size(batch),
            sync_dist=True,
        )
        return losses.sum()

    def _clipped_together(self) -> Iterator[list[nn.Parameter]]:
        for member in self._each:
            yield list(member.parameters())


def check_count(count: Any) -> None:
    """Refuse a number of members that makes no ensemble.

    Raises:
        InputError: Naming it.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        raise InputError(f"ensemble is {count!r}; it must be a whole number of at least 2 members.")


def _stack(found: Sequence[Mapping[str, Tensor]], name: str) -> Tensor:
    return torch.stack([outputs[name] for outputs in found])
