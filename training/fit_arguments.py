"""What the words after fit, validate, test and predict stand for, before Lightning reads them."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import Namespace

from latticezoo.symmetry.errors import InputError
from latticezoo.training.names import read_config, resolve_arguments
from latticezoo.training.runs import RunFolder
from latticezoo.zoo.loading import load_network


def expanded(command: str, arguments: list[str], scratch: Path) -> list[str]:
    """Words with ``--run``, ``--init`` and short names replaced by what they stand for.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        arguments: The words after it.
        scratch: A folder for configurations that words then name.

    Raises:
        InputError: For a folder that is no trained run, or an unknown name.
    """
    words = _from_init(command, _from_run(command, arguments, scratch), scratch)
    return resolve_arguments(words, scratch)


def share_precision(config: Namespace) -> None:
    """Make a float64 run of one in which either the trainer or the data say so.

    Without it data in float32 would be rounded before they are used in float64, or the other way
    round. A precision that is given beside ``dtype: float64`` stays what it is.
    """
    data = config.get("data")
    options = data.get("init_args") if data is not None else None
    if options is None or "dtype" not in options:
        return
    if str(config.trainer.precision) in ("64", "64-true"):
        options.dtype = "float64"
    elif config.trainer.precision is None and options.dtype == "float64":
        config.trainer.precision = "64-true"


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
    kept = ("seed_everything", "model", "data", "ensemble")
    config = {key: stored[key] for key in kept if key in stored}
    file = scratch / "run.json"
    file.write_text(json.dumps({**config, "trainer": trainer}))
    checkpoint = [] if has_checkpoint else [f"--ckpt_path={folder.best}"]
    return [f"--config={file}", *checkpoint, *words]


def _from_init(command: str, arguments: list[str], scratch: Path) -> list[str]:
    """Put the network and the options of ``--init WEIGHTS`` where no other is named."""
    name, named = None, False
    for number, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option == "--init":
            name = value if equals else "".join(arguments[number + 1 : number + 2])
        named |= option in ("--model", "--config", "-c")
    if command != "fit" or not name or named:
        return arguments
    config = load_network(name).config()
    count = config.get("ensemble", 1)
    file = scratch / "init.json"
    file.write_text(
        json.dumps(
            {
                "model": {"class_path": config["model"], "init_args": config["options"]},
                **({} if count == 1 else {"ensemble": count}),
            }
        )
    )
    return [f"--config={file}", *arguments]
