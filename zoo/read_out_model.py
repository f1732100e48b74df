"""The base of sequence models whose only learned part is a linear read-out, fit in one pass."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from latticezoo.symmetry.lattices import Lattice
from latticezoo.zoo.layers.ridge import RidgeRegression
from latticezoo.zoo.sequence_model import Memory, SequenceModel


class ReadOutModel(SequenceModel):
    r"""Next frame = this frame + :math:`w^T f`, with fixed features f of the past.

    The weights w minimize the square error over the training data with a penalty; the sums for it
    are gathered in one epoch, after which training ends. Every frame counts once, by the last
    ``scored`` frames of each window.

    A subclass implements :meth:`features`, :meth:`begin_features` and :meth:`next_features`
    between standardized values, and calls :meth:`set_read_out` at the end of its constructor. The
    option ``ridge`` is the penalty, in units of the mean square of a feature.

    Attributes:
        read_out: Weights w ``[F, C]``.
    """

    read_out: nn.Parameter

    def set_read_out(self, features: int, channels: int, constant: bool = False) -> None:
        """Declare the read-out.

        Args:
            features: Number of features F.
            channels: Channels C of all fields together.
            constant: Whether the last feature is the constant one, which is not penalized.

        Raises:
            InputError: For several fields that are not all global, or a moving average of the
                weights.
        """
        fields = self.task.targets
        if len(fields) > 1 and any(field.support != "global" for field in fields):
            raise self.refuse("it goes on with a single field, or with several global ones.")
        if self.options["ema"]:
            raise self.refuse("its weights are fit at once; leave out ema.")
        self.read_out = nn.Parameter(torch.zeros(features, channels))
        self._shape = (features, channels, constant)
        self._sums = RidgeRegression(*self._shape)

    @abstractmethod
    def features(self, series: Tensor, lattice: Lattice, last: int | None = None) -> Tensor:
        """Features ``[B, T or last, …, F]`` of the past up to each frame of ``[B, T, …, C]``."""

    @abstractmethod
    def begin_features(self, series: Tensor, lattice: Lattice) -> tuple[Tensor, Memory]:
        """Features ``[B, …, F]`` after a series, and what :meth:`next_features` needs."""

    @abstractmethod
    def next_features(
        self, frame: Tensor, memory: Memory, lattice: Lattice
    ) -> tuple[Tensor, Memory]:
        """Features after one more frame ``[B, …, C]``, and the memory after it."""

    def predict(
        self, fields: dict[str, Tensor], lattice: Lattice, last: int | None = None
    ) -> dict[str, Tensor]:
        series = self.joined(fields)
        recent = series if last is None else series[:, -last:]
        return self.parted(recent + self.features(series, lattice, last) @ self.read_out)

    def start(
        self, fields: dict[str, Tensor], lattice: Lattice
    ) -> tuple[dict[str, Tensor], Memory]:
        series = self.joined(fields)
        features, memory = self.begin_features(series, lattice)
        return self.parted(series[:, -1] + features @ self.read_out), memory

    def step(
        self, frame: dict[str, Tensor], memory: Memory, lattice: Lattice
    ) -> tuple[dict[str, Tensor], Memory]:
        values = self.joined(frame)
        features, memory = self.next_features(values, memory, lattice)
        return self.parted(values + features @ self.read_out), memory

    # ---- training ------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Lightning hook: begin the sums anew."""
        self._sums = RidgeRegression(*self._shape)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Lightning hook: take a batch into the sums.

        The loss that it returns has no gradient, so that the optimizer changes nothing.
        """
        lattice, last = batch["lattice"], batch.get("scored")
        with torch.no_grad():
            series = self.joined(self._standardized(batch["fields"], lattice))
            goals = self.joined(self._standardized(batch["targets"], lattice))
            features = self.features(series, lattice, last)
            recent = slice(None) if last is None else slice(-last, None)
            changes = (goals - series)[:, recent]
            self._sums.add(features.flatten(0, -2), changes.flatten(0, -2))
        return 0.0 * self.read_out.sum()

    def _solve(self) -> None:
        sums = self._sums.gather()
        weights = sums.solve(self.options["ridge"])
        scale = torch.cat([self.target_scaling.scale(field.name) for field in self.task.targets])
        with torch.no_grad():
            self.read_out.copy_(weights)
        self.set_residual(sums.residual(weights) * scale[:, None] * scale)

    def on_validation_start(self) -> None:
        """Lightning hook: what is validated is the fit."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._solve()

    def on_train_epoch_end(self) -> None:
        """Lightning hook: one pass is all."""
        self._solve()
        self.trainer.should_stop = True
