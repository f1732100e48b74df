"""How every network learns: standardization, loss, metrics, optimizer, the same for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo.layers.scaling import FieldScaling
from latticezoo.zoo.lightning import LightningModule
from latticezoo.zoo.metrics import RootMeanSquare
from latticezoo.zoo.optimization import GradientClip, make_optimizer

#: Suffixes of the metrics for all samples and for each kind of sample.
KINDS = {"": None, "_random": 0, "_trajectory": 1}


class Learner(LightningModule):
    """What a network needs to be trained and measured on a task.

    Args:
        task: What to learn.
        options: All options, resolved and checked; those of training are read here.

    Attributes:
        task: What it learns.
        options: All options, resolved, plain values.
        input_scaling: Standardization of the inputs.
        target_scaling: Standardization of the targets.
        statistics_set: Whether standardization has been set from data.
        metrics: Root-mean-square errors by stage, target and kind of sample.
    """

    statistics_set: Tensor

    def __init__(self, task: Task, options: dict[str, Any], /) -> None:
        super().__init__()
        self.task = task
        self.options = options
        self._clips: list[GradientClip] = []
        self.input_scaling = FieldScaling(self.task.inputs, self.task)
        self.target_scaling = FieldScaling(self.task.targets, self.task)
        self.register_buffer("statistics_set", torch.tensor(False))
        self.metrics = nn.ModuleDict(
            {
                f"{stage}_{field.name}{suffix}": RootMeanSquare()
                for stage in ("val", "test")
                for field in self.task.targets
                for suffix in KINDS
            }
        )

    @property
    def monitored(self) -> str:
        """Name of the metric whose lowest value marks the best epoch.

        It is the error of the target, or the loss where there are several, for each of them counts:
        by the error of the first alone an epoch was kept that made it better by 0.1 % and the
        energy beside it ten times worse.
        """
        return "val/rmse" if len(self.task.targets) == 1 else "val/loss"

    def calibrate(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Set further statistics from training batches before training; none by default."""

    # ---- standardization -----------------------------------------------------------------------

    def set_statistics(self, statistics: Mapping[str, Any]) -> None:
        """Set the standardization from the training data.

        Means of components that a symmetry changes stay zero, and components of one irrep share a
        scale. Where a target is minus the gradient of an energy, its scale times that of its input
        is one number, the unit of energy, so that the derivative of a standardized energy is the
        standardized target.

        Args:
            statistics: ``{"inputs": {name: {"mean": [C], "std": [C]}}, "targets": …}`` in
                physical units, as data modules give it.

        Raises:
            InputError: When a field is missing or its numbers are not finite.
        """
        for group in ("inputs", "targets"):
            if group not in statistics:
                raise InputError(f"the statistics lack the group {group!r}.")
        pairs = self.task.conservative
        self.input_scaling.set(statistics["inputs"], common=[source for _, source in pairs])
        self.target_scaling.set(statistics["targets"], common=[target for target, _ in pairs])
        if pairs:
            products = [
                self.target_scaling.scale(target)[0] * self.input_scaling.scale(source)[0]
                for target, source in pairs
            ]
            unit = torch.stack(products).log().mean().exp()
            for target, source in pairs:
                scale = self.target_scaling.scale(target)
                scale.copy_(unit / self.input_scaling.scale(source)[0])
        self.statistics_set.fill_(True)

    def on_train_start(self) -> None:
        """Set statistics from the training split, unless a checkpoint brought them."""
        if bool(self.statistics_set):
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(data, "statistics"):
            self.set_statistics(data.statistics())
            self.calibrate(getattr(data, "training_batches", data.train_dataloader)())
        else:
            batches: Any = self.trainer.train_dataloader
            self.set_statistics(batch_statistics(batches, self.task))
            self.calibrate(batches)

    # ---- training ------------------------------------------------------------------------------

    def loss(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]) -> Tensor:
        """Mean square error of the targets in units of their scale, summed over targets."""
        return torch.stack(
            [
                (self._errors(field, outputs, batch) / self.target_scaling.scale(field.name))
                .abs()
                .square()
                .mean()
                for field in self.task.targets
            ]
        ).sum()

    def training_outputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Predictions that the loss of training compares with the targets."""
        return self(batch["fields"], batch["lattice"])

    def evaluation_outputs(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Predictions that validation and test compare with the targets."""
        return self(batch["fields"], batch["lattice"])

    def augmented(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a training step sees of a batch: the batch itself."""
        return batch

    def training_loss(self, batch: Mapping[str, Any]) -> Tensor:
        """Loss of a batch as training sees it."""
        batch = self.augmented(batch)
        return self.loss(self.training_outputs(batch), batch)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Lightning hook: the loss of a batch, logged as ``train/loss``."""
        loss = self.training_loss(batch)
        size = batch_size(batch)
        self.log(
            "train/loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=size,
            sync_dist=True,
        )
        return loss

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Lightning hook: collects errors for ``val/rmse`` and its kinds."""
        self._evaluation_step("val", batch)

    def test_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Lightning hook: collects errors for ``test/rmse`` and its kinds."""
        self._evaluation_step("test", batch)

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Lightning hook: predictions for a batch."""
        return self(batch["fields"], batch["lattice"])

    def on_validation_epoch_end(self) -> None:
        """Lightning hook: logs the errors of the epoch."""
        self._log_errors("val")

    def on_test_epoch_end(self) -> None:
        """Lightning hook: logs the errors of the epoch."""
        self._log_errors("test")

    def _errors(
        self, field: Field, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]
    ) -> Tensor:
        return outputs[field.name] - batch["targets"][field.name]

    def _evaluation_step(self, stage: str, batch: Mapping[str, Any]) -> None:
        outputs = self.evaluation_outputs(batch)
        loss = self.loss(outputs, batch)
        size = batch_size(batch)
        self.log(
            f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=size, sync_dist=True
        )
        kind = batch.get("kind")
        for field in self.task.targets:
            errors = self._errors(field, outputs, batch)
            for suffix, number in KINDS.items():
                if number is None:
                    chosen = errors
                elif kind is not None:
                    chosen = errors[kind == number]
                else:
                    chosen = errors[:0]
                self._metric(stage, field, suffix).update(chosen)
        self._also_measure(stage, outputs, batch)

    def _also_measure(
        self, stage: str, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]
    ) -> None:
        """What else a network wants to know of its errors; nothing by default."""

    def _metric(self, stage: str, field: Field, suffix: str) -> RootMeanSquare:
        metric = self.metrics[f"{stage}_{field.name}{suffix}"]
        assert isinstance(metric, RootMeanSquare)
        return metric

    def _log_errors(self, stage: str) -> None:
        """Log root-mean-square errors per site and component, in physical units.

        The first target gives ``val/rmse``, ``val/rmse_random`` and ``val/rmse_trajectory``, any
        other ``val/<target>/rmse`` and so on; kinds of which there was no sample are left out.
        """
        for field in self.task.targets:
            first = field is self.task.targets[0]
            for suffix in KINDS:
                metric = self._metric(stage, field, suffix)
                value = metric.compute()
                metric.reset()
                if bool(value.isfinite()) or not suffix:
                    where = f"{stage}/" if first else f"{stage}/{field.name}/"
                    self.log(f"{where}rmse{suffix}", value.float(), prog_bar=first and not suffix)

    def configure_optimizers(self) -> Any:
        """Lightning hook: Adam with the chosen schedule."""
        steps = self.trainer.estimated_stepping_batches
        return make_optimizer(self.parameters(), self.options, steps, self.monitored)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Lightning hook: clip by the option ``gradient_clip``, or as the trainer was told to.

        Args:
            optimizer: Whose gradients.
            gradient_clip_val: The trainer's own limit, absolute; it replaces the option.
            gradient_clip_algorithm: The trainer's.
        """
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        if not self.options["gradient_clip"]:
            return
        for number, parameters in enumerate(self._clipped_together()):
            if number == len(self._clips):
                self._clips.append(GradientClip(self.options["gradient_clip"]))
            self._clips[number].clip(parameters)

    def _clipped_together(self) -> Iterator[list[nn.Parameter]]:
        """Sets of parameters that share the norm of a gradient."""
        yield list(self.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning hook: keep what clipping has seen, so that a resumed run is the same."""
        checkpoint["typical_gradients"] = [clip.typical for clip in self._clips]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning hook: go on with it."""
        self._clips = [
            GradientClip(self.options["gradient_clip"], typical)
            for typical in checkpoint.get("typical_gradients", [])
        ]

    def configure_callbacks(self) -> Any:
        """Lightning hook: the moving average of the weights, when it is on.

        As the first of the hooks it also brings the network to double precision where the trainer
        wants it. Lightning does so only after it has copied the network for the average and loaded
        the checkpoint of a resumed run, and both would be rounded.
        """
        if self.trainer.precision == "64-true":
            self.double()
        if not self.options["ema"] or self.trainer.state.fn != "fit":
            return []
        from pytorch_lightning.callbacks import EMAWeightAveraging

        return [EMAWeightAveraging(decay=self.options["ema"])]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, index: int) -> Any:
        """Lightning hook: move the tensors of a batch; a lattice stays as it is."""
        if type(batch) is not dict:
            return super().transfer_batch_to_device(batch, device, index)
        return {name: _to(value, device) for name, value in batch.items()}


def batch_statistics(batches: Iterable[Mapping[str, Any]], task: Task) -> dict[str, Any]:
    """Mean and standard deviation of inputs and targets over some batches.

    Args:
        batches: Batches with ``fields`` and ``targets``.
        task: The fields to look at.

    Returns:
        As :meth:`ZooModel.set_statistics` takes it.
    """
    values: dict[tuple[str, str], list[Tensor]] = {}
    for batch in batches:
        for group, key, fields in (
            ("inputs", "fields", task.inputs),
            ("targets", "targets", task.targets),
        ):
            for field in fields:
                found = batch[key][field.name]
                values.setdefault((group, field.name), []).append(
                    found.reshape(-1, found.shape[-1])
                )
    result: dict[str, Any] = {"inputs": {}, "targets": {}}
    for (group, name), parts in values.items():
        joined = torch.cat(parts)
        joined = joined.to(torch.complex128 if joined.is_complex() else torch.float64)
        result[group][name] = {"mean": joined.mean(0), "std": joined.std(0, correction=0)}
    return result


def batch_size(batch: Mapping[str, Any]) -> int:
    """Number of samples in a batch."""
    return len(next(iter(batch["fields"].values())))


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _to(entry, device) for name, entry in value.items()}
    return value
