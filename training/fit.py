"""fit, validate, test, predict: Lightning's command line around the networks and the datasets.

A run has a folder (``runs/<model>-<data>-<hash of the options>`` or ``--out``). The same command
goes on with an unfinished run there, and leaves a finished one alone.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from latticezoo.datasets.module import LatticeData
from latticezoo.simulate.files import atomic_write
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.training.callbacks import AtomicCheckpointIO
from latticezoo.training.names import data_record, read_config, resolve_arguments
from latticezoo.training.runs import RunFolder, fingerprint, is_helper, write_json
from latticezoo.training.threads import suited_threads, work
from latticezoo.training.train import (
    TRAINER_DEFAULTS,
    Session,
    check_fits,
    epochs,
    fast_determinism,
    plain_interrupts,
    quiet,
    written,
)
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.checkpoints import check_checkpoint, read_checkpoint

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
        words = resolve_arguments(_from_run(command, arguments, Path(scratch)), Path(scratch))
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
                f"this run is finished ({record['epochs']} epochs, best validation RMSE "
                f"{record['best_score']:.4g}); nothing to do. To train anew, give --out."
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
        if self._building == "fit":
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
                help="Training time in seconds instead of trainer.max_epochs: the learning rate "
                "follows the clock (not reproducible bit for bit, as max_epochs is).",
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
        """Decide the run folder, before anything expensive is built."""
        if self.subcommand != "fit":
            return
        config: Namespace = self.config["fit"]
        config.trainer.max_epochs = epochs(config.trainer.max_epochs, config.budget)
        plain = json.loads(self.parser.dump(self.config, format="json", skip_unset=False))["fit"]
        trainer = {k: v for k, v in plain["trainer"].items() if k not in _COSMETIC}
        self.identity = {
            "seed": plain["seed_everything"],
            "budget": plain["budget"],
            "model": plain["model"],
            "data": plain["data"],
            "trainer": {k: v for k, v in trainer.items() if v is not None},
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
        check_fits(self.model, self.datamodule)

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
        self.session = Session.open(self.folder, self.folder.path.name, budget)
        callbacks = given.get("callbacks") or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        kwargs["callbacks"] = [*callbacks, *self.session.callbacks]
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
                name = model.config()["model"]
                print(f"{name}: {size:,} parameters, into {folder.path}", flush=True)
            kwargs["weights_only"] = True
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, **kwargs)
            session.finish()
        if is_helper():
            return
        checkpoint = session.checkpoint
        print(
            f"best validation RMSE {checkpoint.best_score:.4g} in epoch "
            f"{checkpoint.best_epoch + 1} of {len(checkpoint.history)}, "
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


def _from_run(command: str, arguments: list[str], scratch: Path) -> list[str]:
    """Put the options and the best checkpoint of a run for ``--run FOLDER``."""
    words, folder, has_checkpoint = [], None, False
    rest = iter(arguments)
    for word in rest:
        option, equals, value = word.partition("=")
        if option == "--run" and command != "fit":
            folder = RunFolder(value if equals else next(rest, ""))
            continue
        has_checkpoint |= option == "--ckpt_path"
        words.append(word)
    if folder is None:
        return words
    if not folder.config.is_file() or not folder.best.is_file():
        raise InputError(f"{folder.path} is not the folder of a trained run.")
    stored = read_config(str(folder.config))
    trainer = {k: v for k, v in stored["trainer"].items() if k in ("accelerator", "precision")}
    config = {key: stored[key] for key in ("seed_everything", "model", "data")}
    file = scratch / "run.json"
    file.write_text(json.dumps({**config, "trainer": trainer}))
    checkpoint = [] if has_checkpoint else [f"--ckpt_path={folder.best}"]
    return [f"--config={file}", *checkpoint, *words]


def readable(command: str, message: str) -> str:
    """Shorten an error of the argument parser to one sentence.

    Args:
        command: The command whose arguments were parsed.
        message: What the parser says, on many lines.

    Returns:
        The sentence, with the nearest names where a name is unknown.
    """
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    key = _last(r'Parser key "([\w.]+)"', message)
    refused = _last(r"Option '([^']+)' is not accepted", message)
    holder = _last(r"Problem with given class_path '([\w.]+)'", message)
    if refused:
        return str(unknown(f"option of {_short(holder) or command}", refused, _options(holder)))
    wrong = re.findall(r"Expected an? (.+?)\. Got value: (.+)", message)
    if wrong:
        kind, value = wrong[0]
        choices = re.fullmatch(r"typing\.Literal\[(.+)\]", kind)
        kind = f"one of {choices[1]}" if choices else re.sub(r"<class '([\w.]+)'>", r"\1", kind)
        owner = f" of {_short(holder)}" if holder and key else ""
        return f"{key or 'an option'}{owner} is {value!r}, but it must be of the kind {kind}."
    refused_value = _last(r"Given value: (.+)", message)
    if key and refused_value:
        kinds = dict.fromkeys(re.findall(r"Expected an? <class '([\w.]+)'>", message))
        kinds.pop("NoneType", None)
        wanted = f"it must be of the kind {' or '.join(kinds)}" if kinds else "it is not accepted"
        return f"{key} is {refused_value!r}, but {wanted}; latticezoo {command} --help tells more."
    missing = re.search(r"following arguments are required: ([\w.]+)", message)
    if missing:
        name = missing[1].removeprefix(f"{command}.")
        example = {"model": " gcn", "data": " holstein"}.get(name, "")
        return f"{command} needs --{name}{example}; latticezoo {command} --help tells more."
    foreign = _last(r"does not accept option '([^']+)'", message)
    if foreign:
        known = ("model", "data", "trainer", "seed_everything", "out", "budget", "ckpt_path")
        return str(unknown(f"option of {command}", foreign.split(".")[0], known))
    unrecognized = _last(r"unrecognized arguments: (\S+)", message)
    if unrecognized:
        return f"unknown argument {unrecognized!r}; latticezoo {command} --help lists all."
    import_error = _last(r"(?:Unexpected import error|No module named) (.+)", message)
    if import_error:
        return f"cannot import {import_error}; give a registered name or an import path."
    text = " ".join(lines[:2] if key and len(lines) > 1 else lines[:1])
    return f"{command}: {text.rstrip('.')}."


def _last(pattern: str, text: str) -> str | None:
    found = re.findall(pattern, text)
    return found[-1] if found else None


def _short(path: str | None) -> str | None:
    return path.rsplit(".", 1)[1] if path and "." in path else path


def _options(class_path: str | None) -> list[str]:
    """Names of the options of a class, its bases included."""
    import importlib
    import inspect

    if not class_path:
        return ["model", "data", "trainer"]
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    names = {
        parameter.name
        for base in cls.__mro__
        if "__init__" in vars(base) and base.__module__.startswith(module.split(".")[0])
        for parameter in inspect.signature(base).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return sorted(names - {"task"})
