"""What transformers and recurrent networks share: training by gradients on noisy series."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.base import flipped
from latticezoo.zoo.metrics import SecondMoments
from latticezoo.zoo.sequence_model import Memory, SequenceModel

#: Options of :class:`NeuralSequenceModel` that presets may leave out.
SEQUENCE_DEFAULTS: dict[str, Any] = {
    "noise": 0.0,
    "horizon": 0,
    "context": 0,
    "learning_rate": 1e-3,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "ema": 0.99,
}


class NeuralSequenceModel(SequenceModel):
    """Next frame = this frame + what the network says, in units of the usual change.

    It serves fields of one value for the whole lattice, all channels together. The network is
    trained on one image of each series under the symmetries of the task, drawn at random, with
    noise on the frames it sees; evaluated it is the mean over all images, which has the symmetry
    exactly.

    A subclass implements :meth:`read` and :meth:`read_next`.

    Args:
        task: What to learn.
        noise: Standard deviation of the noise on the frames in training, in units of the usual
            change between frames. It teaches the network to come back from its own errors, and
            damps what it does: 0.1 in place of 0 took some 5 % off the spread of noisy roll-outs of
            both orders of the chaotic chain.
        horizon: Last frames of a window that are rolled out in training, each step from the
            prediction of the one before; 0 for none. The error of step k counts by 1/k.
        context: Frames of a window that training looks at, the last ones; 0 for all.
    """

    noise_stream: ClassVar[str] = "noise"

    def __init__(
        self,
        task: Task | dict[str, Any],
        *,
        noise: float | None = None,
        horizon: int | None = None,
        context: int | None = None,
        architecture: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        own = {"noise": noise, "horizon": horizon, "context": context}
        super().__init__(task, architecture={**(architecture or {}), **own}, **training)
        if any(field.support != "global" for field in self.task.inputs):
            raise self.refuse("it goes on with values of the whole lattice, not of its sites.")
        if not 0 <= self.options["noise"] < float("inf"):
            raise InputError(f"noise is {self.options['noise']:g}; it must be 0 or more.")
        for name in ("horizon", "context"):
            if not isinstance(self.options[name], int) or self.options[name] < 0:
                raise InputError(f"{name} is {self.options[name]!r} frames; it must be 0 or more.")
        self.widths = {f.name: f.channels(self._family) for f in self.task.inputs}
        self.channels = sum(self.widths.values())
        self.residuals = SecondMoments(self.channels)

    # ---- what a subclass provides --------------------------------------------------------------

    @abstractmethod
    def read(self, values: Tensor, last: int | None = None) -> tuple[Tensor, Memory]:
        """Take in standardized series ``[B, T, C]``.

        Returns:
            The change that follows each of the ``last`` frames, ``[B, last, C]`` in units of the
            usual one, and what to remember.
        """

    @abstractmethod
    def read_next(self, values: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Take in one more frame ``[B, C]``; the change ``[B, C]``, and what to remember."""

    # ---- series --------------------------------------------------------------------------------

    def predict(
        self, fields: dict[str, Tensor], lattice: Lattice, last: int | None = None
    ) -> dict[str, Tensor]:
        values = self.joined(fields)
        recent = values if last is None else values[:, -last:]
        return self.parted(recent + self._change(self.read(values, last)[0]))

    def start(
        self, fields: dict[str, Tensor], lattice: Lattice
    ) -> tuple[dict[str, Tensor], Memory]:
        values = self.joined(fields)
        change, memory = self.read(values, 1)
        return self.parted(values[:, -1] + self._change(change[:, 0])), memory

    def step(
        self, frame: dict[str, Tensor], memory: Memory, lattice: Lattice
    ) -> tuple[dict[str, Tensor], Memory]:
        values = self.joined(frame)
        change, memory = self.read_next(values, memory)
        return self.parted(values + self._change(change)), memory

    def _change(self, outputs: Tensor) -> Tensor:
        mean = torch.cat([self.increments.mean(name) for name in self.widths])
        return mean + outputs * self._spread

    @property
    def _spread(self) -> Tensor:
        return torch.cat([self.increments.scale(name) for name in self.widths])

    # ---- training ------------------------------------------------------------------------------

    def training_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Mean square error of the next frames, in units of the usual change.

        The last ``horizon`` frames are rolled out from what the network said before.
        """
        start = -self.options["context"] if self.options["context"] else None
        fields = {name: self._cast(batch["fields"][name][:, start:]) for name in self.widths}
        targets = {name: self._cast(batch["targets"][name][:, start:]) for name in self.widths}
        true = self.joined(self.input_scaling.normalize(self._one_image(fields, targets)))
        series, goals = true[:, :-1], true[:, 1:]
        noisy = series + self.options["noise"] * self._spread * torch.randn_like(series)
        horizon = min(self.options["horizon"], series.shape[1] - 1)
        washed = noisy[:, : series.shape[1] - horizon]
        change, memory = self.read(washed, self.trained_frames)
        predicted = washed[:, -change.shape[1] :] + self._change(change)
        steps = [predicted]
        frame = predicted[:, -1]
        for _ in range(horizon):
            change, memory = self.read_next(frame, memory)
            frame = frame + self._change(change)
            steps.append(frame[:, None])
        errors = torch.cat(steps, 1)
        errors = (errors - goals[:, -errors.shape[1] :]) / self._spread
        if not horizon:
            return errors.square().mean()
        weights = 1 / torch.arange(2, horizon + 2, device=errors.device)
        free = (errors[:, -horizon:].square().mean((0, 2)) * weights).sum()
        return errors[:, :-horizon].square().mean() + free / horizon

    def _also_measure(
        self, stage: str, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]
    ) -> None:
        if stage == "val":
            errors = {f.name: self._errors(f, outputs, batch) for f in self.task.targets}
            self.residuals.update(self.joined(errors))

    def on_validation_epoch_end(self) -> None:
        """Lightning hook: logs the errors of the epoch, and keeps how much they leave open."""
        # torchmetrics makes a scalar of a table with one entry
        self.set_residual(self.residuals.compute().reshape(self.channels, self.channels))
        self.residuals.reset()
        super().on_validation_epoch_end()

    def _one_image(
        self, fields: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Series with the frame after their end, each under a symmetry drawn at random."""
        whole = {k: torch.cat([v, targets[k][:, -1:]], 1) for k, v in fields.items()}
        images = self._images()
        if len(images) == 1:
            return whole
        first = next(iter(whole.values()))
        drawn = torch.randint(len(images), (len(first), 1, 1), device=first.device)
        found = dict(whole)
        for number, image in enumerate(images[1:], start=1):
            for field in self.task.inputs:
                turned = flipped(field, whole[field.name], image)
                found[field.name] = torch.where(drawn == number, turned, found[field.name])
        return found
