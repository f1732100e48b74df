"""Read Lightning checkpoints of zoo networks, and refuse those that do not fit."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.groups import CONVENTION_VERSION

#: What torch.load raises for files that are cut off, changed or something else altogether.
_DAMAGED = (RuntimeError, OSError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile)

if TYPE_CHECKING:
    from latticezoo.zoo.base import ZooModel


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a checkpoint on the CPU: tensors and plain values, never code.

    Returns:
        The checkpoint, with the network's description under ``["latticezoo"]["network"]``.

    Raises:
        InputError: When there is no such file, or it is damaged, or not one of a zoo network.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"there is no checkpoint {str(file)!r}.")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        raise InputError(f"{str(file)!r} is damaged or not a checkpoint.") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"{str(file)!r} is not a checkpoint of a network.")
    _description(checkpoint)
    return checkpoint


def check_checkpoint(network: ZooModel, checkpoint: Mapping[str, Any]) -> None:
    """Make sure that a checkpoint holds the weights of this very network.

    Raises:
        InputError: Naming what differs.
    """
    saved, own = _description(checkpoint), network.config()
    if saved["model"] != own["model"]:
        raise InputError(
            f"the checkpoint holds the model {saved['model']!r}, not {own['model']!r}."
        )
    counts = saved.get("ensemble", 1), own.get("ensemble", 1)
    if counts[0] != counts[1]:
        held, wanted = (f"an ensemble of {n}" if n > 1 else "a single network" for n in counts)
        raise InputError(f"the checkpoint holds {held}, not {wanted}.")
    if saved["task"] != own["task"]:
        ours, theirs = own["task"]["name"], saved["task"]["name"]
        detail = "with other fields or symmetries" if ours == theirs else f"not {ours!r}"
        raise InputError(f"the checkpoint was trained for the task {theirs!r}, {detail}.")
    version = checkpoint["latticezoo"].get("convention_version", CONVENTION_VERSION)
    if version != CONVENTION_VERSION:
        raise InputError(
            f"the checkpoint uses version {version} of the representation conventions, but this "
            f"library uses version {CONVENTION_VERSION}."
        )
    theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    ours = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if theirs != ours:
        changed = [
            f"{name}={saved['options'].get(name)}"
            for name, value in own["options"].items()
            if saved["options"].get(name) != value
        ]
        told = f" (it has {', '.join(changed)})" if changed else ""
        raise InputError(
            f"the weights in the checkpoint do not fit this {own['model']}: it was built with "
            f"other options{told}."
        )


def _description(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    try:
        description = checkpoint["latticezoo"]["network"]
        if {"model", "task", "options"} <= set(description):
            return description
    except (KeyError, TypeError):
        pass
    raise InputError("the checkpoint does not say which network of the zoo it holds.")
