"""What a training run needs beside the network: checkpoints that survive a kill, and a clock.

Resuming is exact on one device: :class:`RunCheckpoint` saves after every epoch, with the states of
all random number generators, and the data order depends on (seed, epoch) alone. A run killed in the
middle of an epoch goes on from the end of the epoch before, and ends with the same weights, bit for
bit, as an undisturbed one. (With ``budget`` it does not: there the schedule follows the clock.)
"""

from __future__ import annotations

import csv
import io
import math
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint

from latticezoo.simulate.files import atomic_write
from latticezoo.training.runs import RunFolder

MONITOR = "val/rmse"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints written beside, then renamed: a kill in the middle keeps the one before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; the old file stays until the new one is whole on disk."""
        # Through memory: on a full disk torch's own writer ends in an internal error.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_write(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())


class Stopwatch(Callback):
    """Counts the seconds spent in training epochs, validation and checkpoints left out.

    Args:
        processor_time: Count the time of the processor, which other programs do not lengthen,
            summed over the threads.

    Attributes:
        seconds: Training time so far, over all sessions of the run.
    """

    def __init__(self, processor_time: bool = False) -> None:
        self._timer = time.process_time if processor_time else time.perf_counter
        self.seconds = 0.0
        self._since: float | None = None

    def start(self) -> None:
        """Let the clock run."""
        self._since = self._timer()

    def stop(self) -> None:
        """Halt the clock; harmless when it stands."""
        if self._since is not None:
            self.seconds += self._timer() - self._since
            self._since = None

    @property
    def now(self) -> float:
        """Training time up to this moment, s."""
        return self.seconds + (0.0 if self._since is None else self._timer() - self._since)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning hook."""
        self.start()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Go on after a validation in the middle of an epoch."""
        if self._since is None:
            self.start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning hook."""
        self.stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning hook."""
        self.stop()

    def state_dict(self) -> dict[str, Any]:
        """Kept in the checkpoint."""
        return {"seconds": self.now}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.seconds = float(state_dict["seconds"])


class Budget(Callback):
    """Ends training after a number of seconds, the learning rate falling as a cosine of the time.

    Every network gets the same time and a schedule that is complete when it ends, however many
    epochs that is. How many steps fit depends on the machine, so a run with a budget is not
    reproducible bit for bit; ``max_epochs`` is the reproducible way.

    The cosine multiplies what the network's own schedule gives, such as its warm-up. It is left
    out where that schedule is not a cosine, or knows its own end.

    Args:
        seconds: Training time, validation left out.
        clock: The run's stopwatch.
    """

    def __init__(self, seconds: float, clock: Stopwatch) -> None:
        self.budget = seconds
        self.clock = clock
        self._lowers = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out whether the network leaves the schedule to the clock."""
        schedule = getattr(pl_module, "options", {}).get("schedule")
        endless = not math.isfinite(trainer.estimated_stepping_batches)
        self._lowers = schedule == "cosine" and endless
        if self._now(trainer) >= self.budget:  # killed between its last step and its end
            trainer.should_stop = True

    def _now(self, trainer: Trainer) -> float:
        """Training time by the clock of the first process, which all of them go by."""
        now = self.clock.now
        return trainer.strategy.broadcast(now) if trainer.world_size > 1 else now

    def _set_learning_rate(self, trainer: Trainer) -> None:
        if not self._lowers:
            return
        factor = 0.5 * (1 + math.cos(math.pi * min(self._now(trainer) / self.budget, 1.0)))
        for config in trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            groups = scheduler.optimizer.param_groups
            for group, rate in zip(groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = factor * rate

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the learning rate of the step to come."""
        self._set_learning_rate(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop when the time is over."""
        if self._now(trainer) >= self.budget:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the learning rate of the moment in the history and the checkpoint."""
        self._set_learning_rate(trainer)


class RunCheckpoint(Checkpoint):
    """Saves the last and the best state after every epoch, and the table of metrics with them.

    Args:
        folder: Where; None keeps only the history in memory.
        clock: The run's stopwatch.
        patience: Training ends after this many epochs without a new lowest value; None for never.

    Attributes:
        monitor: Metric whose lowest value marks the best epoch, the network's ``monitored``.
        history: One mapping an epoch: epoch, step, seconds, learning_rate and all metrics.
        best_score: Lowest value of the metric so far.
        best_epoch: Its epoch.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        clock: Stopwatch,
        patience: int | None = None,
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.patience = patience
        self.monitor: str | None = None
        self.history: list[dict[str, float]] = []
        self.best_score = math.inf
        self.best_epoch = -1
        self._generators: dict[str, Any] | None = None

    @property
    def out_of_patience(self) -> bool:
        """Whether the last best epoch is too long ago."""
        if self.patience is None or not self.history:
            return False
        return self.history[-1]["epoch"] - self.best_epoch >= self.patience

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the metric; end a resumed run at once that had been about to end when killed."""
        self.monitor = self.monitor or str(pl_module.monitored)
        trainer.should_stop = trainer.should_stop or self.out_of_patience

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put the random number generators where the epoch before left them.

        Undisturbed runs do so too: opening the data loader draws numbers, and a resumed run opens
        it at another moment.
        """
        if batch_idx == 0 and self._generators is not None:
            _restore_generators(self._generators)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the metrics and save."""
        metrics = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.endswith("_step")
        }
        self.clock.stop()
        self._generators = _generators()
        self.history.append(
            {
                "epoch": trainer.current_epoch,
                "step": trainer.global_step,
                "seconds": round(self.clock.seconds, 3),
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                **metrics,
            }
        )
        assert self.monitor is not None
        score = metrics.get(self.monitor, math.inf)
        improved = score < self.best_score or self.best_epoch < 0
        if improved:
            self.best_score, self.best_epoch = score, trainer.current_epoch
        if self.folder is not None:
            self._save(trainer, self.folder, improved)
        trainer.should_stop = trainer.should_stop or self.out_of_patience

    def _save(self, trainer: Trainer, folder: RunFolder, improved: bool) -> None:
        # Best before last: killed in between, the run repeats this epoch and arrives at the same.
        # All processes of a parallel run take part in saving; the first one writes.
        trainer.save_checkpoint(folder.best if improved else folder.last)
        if not trainer.is_global_zero:
            return
        if improved:
            _link(folder.best, folder.last)
        # The table is part of the checkpoint, so its file never runs ahead of the weights for good.
        write_table(folder.metrics, self.history)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say in the checkpoint which system the labels came from."""
        data = getattr(trainer, "datamodule", None)
        if data is not None:
            checkpoint["latticezoo_data"] = describe_data(data)

    def state_dict(self) -> dict[str, Any]:
        """Kept in the checkpoint: history, best epoch, random number generators."""
        return {
            "history": self.history,
            "monitor": self.monitor,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "generators": self._generators,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.history = list(state_dict["history"])
        # Runs that began before the metric was noted went by the error of the first target.
        self.monitor = state_dict.get("monitor", MONITOR)
        self.best_score = state_dict["best_score"]
        self.best_epoch = state_dict["best_epoch"]
        self._generators = state_dict["generators"]


def describe_data(data: Any) -> dict[str, Any]:
    """System and lattice of a data module, plain values."""
    system = data.system
    return {
        "system": {"system": system.name, **getattr(system, "parameters", {})},
        "lattice": str(data.lattice),
    }


def write_table(path: str | os.PathLike[str], rows: list[dict[str, float]]) -> Path:
    """Write rows as CSV, columns in order of first appearance; beside, then renamed."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return Path(path)


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source`` (a copy where links are not to be had)."""
    temporary = target.with_name(f".{target.name}-link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        with atomic_write(target) as copy:
            shutil.copyfile(source, copy)
        return
    temporary.replace(target)


def _generators() -> dict[str, Any]:
    """States of all random number generators, in types that ``weights_only`` loading accepts."""
    legacy: Any = np.random.get_state()  # noqa: NPY002 - others draw from it
    name, keys, position, has_gauss, gauss = legacy
    version, internal, gauss_next = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "python": (version, list(internal), gauss_next),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _restore_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"].cpu())
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    saved = states.get("cuda", [])
    if saved and torch.cuda.device_count() == len(saved):
        torch.cuda.set_rng_state_all([state.cpu() for state in saved])
