"""fit, validate, test, predict: Lightning's command line around the networks and the datasets.

A run has a folder (``runs/<model>-<data>-<hash of the options>`` or ``--out``). The same command
goes on with an unfinished run there, and leaves a finished one alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from latticezoo.datasets.driven import pinned
from latticezoo.datasets.module import LatticeData
from latticezoo.simulate.files import atomic_write
from latticezoo.symmetry.errors import InputError
from latticezoo.training.callbacks import AtomicCheckpointIO
from latticezoo.training.fit_arguments import expanded, share_precision
from latticezoo.training.names import data_record
from latticezoo.training.parser_errors import readable
from latticezoo.training.progress import TrainingProgress
from latticezoo.training.runs import RunFolder, fingerprint, is_helper, write_json
from latticezoo.training.threads import suited_threads, work
from latticezoo.training.train import (
    TRAINER_DEFAULTS,
    Session,
    check_fits,
    check_patience,
    epochs,
    fast_determinism,
    plain_interrupts,
    quiet,
    written,
)
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.checkpoints import check_checkpoint, read_checkpoint
from latticezoo.zoo.ensemble import Ensemble
from latticezoo.zoo.loading import load_network

#: Trainer options that do not change the weights, so they do not tell runs apart.
_COSMETIC = (
    "logger",
    "default_root_dir",
    "enable_progress_bar",
    "enable_model_summary",
    "enable_checkpointing",
    "log_every_n_steps",
    "profiler",
    "barebones",
    "detect_anomaly",
)


def score_name(monitor: str | None) -> str:
    """What a run's best score is called; records without a name hold the error."""
    return "loss" if monitor == "val/loss" else "RMSE"


class FinishedRun(Exception):  # noqa: N818 - an answer, not an error
    """The command asks for a run that is finished already."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(str(folder.path))
        self.folder = folder


def run(command: str, arguments: list[str]) -> int:
    """Run one of Lightning's commands.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        arguments: The words after it.

    Returns:
        The exit status.
    """
    with tempfile.TemporaryDirectory() as scratch, quiet(), fast_determinism():
        words = expanded(command, arguments, Path(scratch))
        try:
            LatticeCLI(
                ZooModel,
                LatticeData,
                subclass_mode_model=True,
                subclass_mode_data=True,
                trainer_defaults=TRAINER_DEFAULTS,
                seed_everything_default=0,
                save_config_callback=None,
                auto_configure_optimizers=False,
                parser_kwargs={
                    "prog": "latticezoo",
                    "exit_on_error": False,
                    **{name: {"exit_on_error": False} for name in LightningCLI.subcommands()},
                },
                args=[command, *words],
            )
        except ArgumentError as error:
            raise InputError(readable(command, str(error))) from error
        except FinishedRun as done:
            record = done.folder.record()
            print(
                f"this run is finished ({record['epochs']} epochs, best validation "
                f"{score_name(record.get('monitor'))} {record['best_score']:.4g}); "
                "nothing to do. To train anew, give --out."
            )
            written(done.folder.best, done.folder.metrics)
    return 0


class LatticeCLI(LightningCLI):
    """Lightning's command line with run folders, exact resume and the task linked from the data."""

    folder: RunFolder
    session: Session
    identity: dict[str, Any]

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        self._building = subcommand
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options beside Lightning's, and link the task."""
        parser.link_arguments("data.task", "model.init_args.task", apply_on="instantiate")
        parser.add_argument(
            "--ensemble",
            type=int,
            default=1,
            help="Networks with different weights, trained together; their mean is the prediction "
            "and their spread its uncertainty.",
        )
        if self._building == "fit":
            parser.add_argument(
                "--init",
                type=str | None,
                default=None,
                help="Start from the weights of a pretrained network, card, run folder or "
                "checkpoint, and from its options where no others are given (fine-tuning).",
            )
            parser.add_argument(
                "--patience",
                type=int | None,
                default=None,
                help="End training after this many epochs without a lower validation error.",
            )
            parser.add_argument(
                "--out",
                type=str | None,
                default=None,
                help="Run folder; runs/<model>-<data>-<hash of the options> by default.",
            )
            parser.add_argument(
                "--budget",
                type=float | None,
                default=None,
                help="Training time in seconds instead of trainer.max_epochs, of all members of an "
                "ensemble together: the learning rate follows the clock (not reproducible bit for "
                "bit, as max_epochs is).",
            )
        elif self._building == "predict":
            parser.add_argument(
                "--out", type=str, default="predictions.h5", help="HDF5 file to write."
            )
        else:
            parser.add_argument(
                "--out", type=str | None, default=None, help="JSON file to write the metrics to."
            )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse without Lightning's remark that arguments were given from Python."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """The network comes from the options, never from what a checkpoint says."""

    def _set_seed(self) -> None:
        from lightning_fabric.utilities.seed import seed_everything

        seed = self._get(self.config, "seed_everything")
        if isinstance(seed, bool):
            raise InputError(f"seed_everything is {seed}; it must be a whole number.")
        seed_everything(seed, workers=True, verbose=False)

    def before_instantiate_classes(self) -> None:
        """Decide precision and run folder, before anything expensive is built."""
        config: Namespace = self.config[self.subcommand]
        share_precision(config)
        if self.subcommand != "fit":
            return
        config.trainer.max_epochs = epochs(config.trainer.max_epochs, config.budget)
        plain = json.loads(self.parser.dump(self.config, format="json", skip_unset=False))["fit"]
        trainer = {k: v for k, v in plain["trainer"].items() if k not in _COSMETIC}
        self.identity = {
            "seed": plain["seed_everything"],
            "budget": plain["budget"],
            "model": plain["model"],
            "data": {**plain["data"], "init_args": pinned(plain["data"].get("init_args", {}))},
            "trainer": {k: v for k, v in trainer.items() if v is not None},
            # What is not asked for leaves no trace, so that older runs keep their names.
            **({} if plain["patience"] is None else {"patience": plain["patience"]}),
            **({} if plain["ensemble"] == 1 else {"ensemble": plain["ensemble"]}),
            **({} if plain["init"] is None else {"init": plain["init"]}),
        }
        self._plain = plain
        names = [plain[key]["class_path"].rsplit(".", 1)[1].lower() for key in ("model", "data")]
        default = Path("runs") / f"{names[0]}-{names[1]}-{fingerprint(self.identity)}"
        self.folder = RunFolder(config.out or default)
        if self.folder.finished:
            self.folder.claim(self.identity)
            raise FinishedRun(self.folder)

    def instantiate_classes(self) -> None:
        """Build data, network and trainer, and make sure that the network fits on the lattice."""
        super().instantiate_classes()
        count = self._get(self.config, "ensemble")
        if count != 1:
            assert isinstance(self.model, ZooModel)
            self.model = Ensemble.build({**self.model.config(), "ensemble": count})
        check_fits(self.model, self.datamodule)
        if self.subcommand == "fit":
            self._start_from(self._get(self.config, "init"))
            check_patience(self._get(self.config, "patience"), self.datamodule)

    def _start_from(self, name: str | None) -> None:
        """Take the weights, and the standardization that belongs to them, of another network."""
        if name is None:
            return
        assert isinstance(self.model, ZooModel)
        source = load_network(name)
        if source.task != self.model.task:
            raise InputError(
                f"{name} was trained for the task {source.task.name!r} with its fields and "
                f"symmetries; the data have the task {self.model.task.name!r}, which is another."
            )
        theirs = {key: tuple(value.shape) for key, value in source.state_dict().items()}
        if theirs != {key: tuple(value.shape) for key, value in self.model.state_dict().items()}:
            raise InputError(
                f"the weights of {name} do not fit: the network to train is another, or has other "
                "options; leave --model out to take those of the weights."
            )
        self.model.load_state_dict(source.state_dict())

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the run's callbacks, atomic checkpoints and TensorBoard."""
        given = self._get(self.config_init, "trainer")
        plugins = given.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        if self.subcommand != "fit":
            # Measuring takes seconds: no bar beside a terminal, and no log.
            shown = sys.stderr.isatty() and given.get("enable_progress_bar") is not False
            return super().instantiate_trainer(logger=False, enable_progress_bar=shown, **kwargs)
        budget = self._get(self.config, "budget")
        patience = self._get(self.config, "patience")
        self.session = Session.open(self.folder, self.folder.path.name, budget, patience)
        callbacks = given.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        own = self.session.callbacks
        if given.get("enable_progress_bar") is False:
            own = [callback for callback in own if not isinstance(callback, TrainingProgress)]
        kwargs["callbacks"] = [*callbacks, *own]
        kwargs["default_root_dir"] = str(self.folder.path)
        if given.get("logger") in (None, True):
            kwargs["logger"] = self._tensorboard()
        return super().instantiate_trainer(**kwargs)

    def _tensorboard(self) -> Any:
        from pytorch_lightning.loggers import TensorBoardLogger

        options = {}
        if self.session.resumes:
            checkpoint = torch.load(self.folder.last, map_location="cpu", weights_only=True)
            # Drop what a killed process logged after its last whole epoch.
            options["purge_step"] = checkpoint["global_step"]
        return TensorBoardLogger(self.folder.path, name="tensorboard", version="", **options)

    def fit(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Train, or go on with the unfinished run in the folder."""
        assert isinstance(model, ZooModel)
        folder, session = self.folder, self.session
        assert isinstance(datamodule, LatticeData)
        if not is_helper():  # data that refuse shall leave no run folder behind
            datamodule.prepare_data()
            datamodule.setup("fit")
        sites = datamodule.batch_size * datamodule.lattice.n_sites
        with folder.lock(), plain_interrupts(self.trainer), suited_threads(work(model, sites)):
            folder.claim(self.identity)
            folder.update(network=model.config(), data=data_record(datamodule))
            self._write_config()
            if session.resumes:
                ckpt_path = str(folder.last)
                print(f"going on with the unfinished run in {folder.path}")
            if ckpt_path is not None:
                check_checkpoint(model, read_checkpoint(ckpt_path))
            size = sum(p.numel() for p in model.parameters() if p.requires_grad)
            if not is_helper():
                count = self._get(self.config, "ensemble")
                name = (f"ensemble of {count} " if count > 1 else "") + model.registry_name
                print(f"{name}: {size:,} parameters, into {folder.path}", flush=True)
            kwargs["weights_only"] = True
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, **kwargs)
            session.finish()
        if is_helper():
            return
        checkpoint = session.checkpoint
        print(
            f"best validation {score_name(checkpoint.monitor)} {checkpoint.best_score:.4g} "
            f"in epoch {checkpoint.best_epoch + 1} of {len(checkpoint.history)}"
            f"{' (no better one since)' if checkpoint.out_of_patience else ''}, "
            f"{session.clock.seconds:.0f} s of training"
        )
        written(folder.best, folder.last, folder.metrics, folder.config)

    def _write_config(self) -> None:
        import yaml

        if is_helper():
            return
        kept = {k: v for k, v in self._plain.items() if k not in ("config", "ckpt_path")}
        with atomic_write(self.folder.config) as temporary:
            temporary.write_text(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))

    def _measure(
        self,
        command: str,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None,
    ) -> None:
        assert isinstance(model, ZooModel)
        if ckpt_path is None:
            raise InputError(
                f"{command} needs weights: give --run FOLDER, or --ckpt_path FILE with the options."
            )
        _check_one_process(command, self.trainer)
        check_checkpoint(model, read_checkpoint(ckpt_path))
        with plain_interrupts(self.trainer):
            (metrics,) = getattr(self.trainer, command)(
                model, datamodule=datamodule, ckpt_path=ckpt_path, verbose=False, weights_only=True
            )
        for name, value in metrics.items():
            print(f"{name:<28} {value:.6g}")
        out = self._get(self.config, "out") or Path(ckpt_path).parent.parent / f"{command}.json"
        written(write_json(out, {"checkpoint": str(ckpt_path), **metrics}))

    def validate(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure on the validation split."""
        self._measure("validate", model, datamodule, ckpt_path)

    def test(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure on the test split."""
        self._measure("test", model, datamodule, ckpt_path)

    def predict(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        ckpt_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the predictions on the test split."""
        from latticezoo.simulate.hdf5 import store, write_hdf5

        assert isinstance(model, ZooModel)
        if ckpt_path is None:
            raise InputError(
                "predict needs weights: give --run FOLDER, or --ckpt_path FILE with the options."
            )
        _check_one_process("predict", self.trainer)
        check_checkpoint(model, read_checkpoint(ckpt_path))
        with plain_interrupts(self.trainer):
            batches: Any = self.trainer.predict(
                model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True
            )
        assert isinstance(datamodule, LatticeData)
        samples = datamodule.samples("test")
        out = self._get(self.config, "out")
        with write_hdf5(out) as file:
            file.attrs["checkpoint"] = str(ckpt_path)
            file.attrs["lattice"] = str(datamodule.lattice)
            for name, exact in samples.targets.items():
                predicted = torch.cat([batch[name] for batch in batches])
                store(file, f"predicted/{name}", predicted.cpu().numpy())
                store(file, f"exact/{name}", exact.numpy())
            store(file, "kind", samples.kind.numpy())
        written(out)


def _check_one_process(command: str, trainer: Trainer) -> None:
    """Refuse several processes where nothing is trained: they would each write the result."""
    if trainer.world_size > 1:
        raise InputError(
            f"{command} runs in one process, not in {trainer.world_size}; give --trainer.devices 1."
        )
