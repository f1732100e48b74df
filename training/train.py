"""One training run: the same for ``latticezoo fit`` and for every member of ``compare``."""

from __future__ import annotations

import logging
import math
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.utils.deterministic
from lightning_fabric.utilities.seed import seed_everything
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng

from latticezoo.datasets.module import LatticeData
from latticezoo.symmetry.errors import InputError
from latticezoo.training.callbacks import (
    AtomicCheckpointIO,
    Budget,
    RunCheckpoint,
    Stopwatch,
)
from latticezoo.training.names import data_record
from latticezoo.training.progress import TrainingProgress
from latticezoo.training.runs import RunFolder, hardware
from latticezoo.training.threads import suited_threads, work
from latticezoo.zoo.base import ZooModel

#: Trainer options of every run. No sanity check: it would draw random numbers before a fresh run
#: but not before a resumed one.
TRAINER_DEFAULTS: dict[str, Any] = {
    "deterministic": True,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 10,
}
DEFAULT_EPOCHS = 100


@dataclass
class Session:
    """The callbacks of one run, and what they found.

    Attributes:
        folder: Where the run is kept.
        budget: Training time in seconds, or None.
        clock: Training time so far.
        checkpoint: Keeps the state and the history.
        callbacks: All of them, for the trainer.
    """

    folder: RunFolder
    budget: float | None
    clock: Stopwatch
    checkpoint: RunCheckpoint
    callbacks: list[Callback]

    @classmethod
    def open(
        cls,
        folder: RunFolder,
        label: str,
        budget: float | None = None,
        patience: int | None = None,
        processor_time: bool = False,
    ) -> Session:
        """Make the callbacks.

        Args:
            folder: Where the run is kept.
            label: Shown beside the progress bar.
            budget: Training time in seconds.
            patience: Epochs without improvement after which training ends.
            processor_time: Whether training time is that of the processor.

        Raises:
            InputError: When the budget is not positive.
        """
        check_budget(budget)
        clock = Stopwatch(processor_time)
        checkpoint = RunCheckpoint(folder, clock, patience)
        callbacks: list[Callback] = [clock, checkpoint, TrainingProgress(label, clock, budget)]
        if budget is not None:
            callbacks.append(Budget(budget, clock))
        return cls(folder, budget, clock, checkpoint, callbacks)

    @property
    def resumes(self) -> bool:
        """Whether the folder holds an unfinished run to go on with."""
        return self.folder.last.exists()

    def finish(self) -> None:
        """Mark the run as finished."""
        self.folder.update(
            state="finished",
            epochs=len(self.checkpoint.history),
            best_epoch=self.checkpoint.best_epoch,
            monitor=self.checkpoint.monitor,
            best_score=self.checkpoint.best_score,
            training_seconds=round(self.clock.seconds, 3),
            stopped_early=self.checkpoint.out_of_patience,
            hardware=hardware(),
        )


def train(
    network: ZooModel,
    data: LatticeData,
    folder: RunFolder,
    identity: Mapping[str, Any],
    *,
    label: str,
    seed: int,
    max_epochs: int | None = None,
    budget: float | None = None,
    patience: int | None = None,
    accelerator: str = "auto",
    processor_time: bool = False,
) -> dict[str, Any]:
    """Train a network, or go on with its unfinished run; a finished run is left as it is.

    Args:
        network: The network, fresh.
        data: The data.
        folder: Where the run is kept.
        identity: The options that decide the result, plain values.
        label: Shown beside the progress bar.
        seed: Of the random numbers drawn in training.
        max_epochs: Number of passes over the training split.
        budget: Training time in seconds, instead of ``max_epochs``; of an ensemble, that of all its
            members together.
        patience: Epochs without a lower validation error after which training ends before that.
        accelerator: As Lightning's.
        processor_time: Whether training time is that of the processor.

    Returns:
        The run's record, with ``training_seconds``.

    Raises:
        InputError: When the folder holds another run.
    """
    if folder.finished:
        folder.claim(identity)
        return folder.record()
    session = Session.open(folder, label, budget, patience, processor_time)
    threads = suited_threads(work(network, data.batch_size * data.lattice.n_sites))
    with folder.lock(), quiet(), isolate_rng(), fast_determinism(), threads:
        folder.claim(identity)
        folder.update(network=network.config(), data=data_record(data))
        seed_everything(seed, workers=True, verbose=False)
        trainer = Trainer(
            **TRAINER_DEFAULTS,
            accelerator=accelerator,
            devices=1,
            precision=precision(data),
            max_epochs=epochs(max_epochs, budget),
            callbacks=session.callbacks,
            plugins=[AtomicCheckpointIO()],
            logger=False,
            default_root_dir=folder.path,
        )
        with plain_interrupts(trainer):
            trainer.fit(
                network,
                datamodule=data,
                ckpt_path=folder.last if session.resumes else None,
                weights_only=True,
            )
        session.finish()
    return folder.record()


def check_budget(budget: float | None) -> None:
    """Refuse a training time that is not a positive number of seconds."""
    if budget is not None and not (math.isfinite(budget) and budget > 0):
        raise InputError(f"budget is {budget:g} seconds; it must be above 0.")


def precision(data: LatticeData) -> Literal["64-true", "32-true"]:
    """Training is done in the floating-point type of the data."""
    return "64-true" if data.dtype == torch.float64 else "32-true"


def check_patience(patience: int | None, data: LatticeData) -> None:
    """Refuse a patience that is no number of epochs, or for which nothing is measured.

    Raises:
        InputError: Naming what is wrong.
    """
    if patience is None:
        return
    if patience < 1:
        raise InputError(f"patience is {patience}; it must be at least 1 epoch.")
    if data.val_fraction == 0:
        raise InputError("patience needs a validation split, but val_fraction is 0.")


def check_fits(network: Any, data: Any) -> None:
    """Make sure that the lattice of the data holds the network's neighbourhood, before training.

    Raises:
        InputError: When it is too small.
    """
    data.lattice.require(network.required_shells, network.registry_name)


def epochs(max_epochs: int | None, budget: float | None) -> int:
    """Number of epochs for the trainer: no limit under a budget unless one was asked for."""
    if max_epochs is not None:
        return max_epochs
    return DEFAULT_EPOCHS if budget is None else -1


@contextmanager
def plain_interrupts(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C come out as KeyboardInterrupt; Lightning would turn it into exit status 1."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as leave:
        if isinstance(leave.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


@contextmanager
def fast_determinism() -> Iterator[None]:
    """Put torch's switches for deterministic algorithms back afterwards.

    Filling fresh memory with NaN, which comes with them, finds bugs but costs time: not here.
    """
    before = torch.are_deterministic_algorithms_enabled()
    switches: Any = torch.utils.deterministic
    filling = switches.fill_uninitialized_memory
    switches.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        switches.fill_uninitialized_memory = filling


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's remarks about devices, workers and other tools away from the terminal."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            warnings.filterwarnings(
                "ignore", category=DeprecationWarning, module="pytorch_lightning|jsonargparse"
            )
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*overridden `transfer_batch_to_device`.*")
            warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def written(*paths: str | Path) -> None:
    """Print the paths that a command wrote, one a line."""
    print("wrote:")
    for path in paths:
        print(f"  {path}")
