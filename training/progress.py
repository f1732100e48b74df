"""How far a training run is."""

from __future__ import annotations

import math
import sys
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar

from latticezoo.training.callbacks import MONITOR, Stopwatch


class TrainingProgress(ProgressBar):
    """One bar over the whole training on a terminal; a line at every tenth of it elsewhere.

    Args:
        label: What is trained.
        clock: The run's stopwatch.
        budget: Seconds of training, when the run is bounded by time.
        monitor: Metric shown beside the bar.
    """

    def __init__(
        self,
        label: str,
        clock: Stopwatch,
        budget: float | None = None,
        monitor: str = MONITOR,
    ) -> None:
        super().__init__()
        self.label = label
        self.clock = clock
        self.budget = budget
        self.monitor = monitor
        self._enabled = True
        self._bar: Any = None
        self._shown = -1

    def disable(self) -> None:
        """Show nothing."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def _fraction(self, trainer: Trainer) -> float:
        if self.budget:
            return min(self.clock.now / self.budget, 1.0)
        steps = trainer.estimated_stepping_batches
        return min(trainer.global_step / steps, 1.0) if math.isfinite(steps) and steps else 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        fraction = self._fraction(trainer)
        self._shown = int(10 * fraction)
        if self._enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=100,
                initial=round(100 * fraction, 1),
                desc=self.label,
                bar_format="{l_bar}{bar}| {elapsed} < {remaining}{postfix}",
                leave=True,
            )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(max(0.0, round(100 * self._fraction(trainer), 1) - self._bar.n))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the latest validation error."""
        value = trainer.callback_metrics.get(self.monitor)
        note = f"epoch {trainer.current_epoch + 1}" + (
            f", {self.monitor} {float(value):.4g}" if value is not None else ""
        )
        if self._bar is not None:
            self._bar.set_postfix_str(note)
            return
        tenth = int(10 * self._fraction(trainer))
        if self._enabled and tenth > self._shown:
            self._shown = tenth
            print(f"{self.label}: {10 * tenth} %, {note}", file=sys.stderr, flush=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Close the bar, after an interruption too."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
