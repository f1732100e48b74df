"""Read a checkpoint of a run: which network it holds, and the network itself."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.training.runs import RunFolder
from latticezoo.zoo.base import ZooModel


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a checkpoint on the CPU, tensors and plain values only.

    Args:
        path: The file, or a run folder, which stands for its best checkpoint.

    Returns:
        The checkpoint, with the network's description under ``["latticezoo"]["network"]``.

    Raises:
        InputError: When there is no such file, or it is damaged, or not one of this library.
    """
    file = Path(path)
    if file.is_dir():
        file = RunFolder(file).best
    if not file.is_file():
        raise InputError(f"there is no checkpoint {file}; give a .ckpt file or a run folder.")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} is damaged or not a checkpoint; train again.") from error
    if not isinstance(checkpoint, dict) or "latticezoo" not in checkpoint:
        raise InputError(f"{file} is not a checkpoint of latticezoo fit or compare.")
    return checkpoint


def load_network(path: str | os.PathLike[str]) -> ZooModel:
    """Build the network of a checkpoint with its weights, in eval mode, on the CPU.

    Args:
        path: The file, or a run folder, which stands for its best checkpoint.

    Returns:
        The network.

    Raises:
        InputError: As :func:`read_checkpoint`, or when the weights do not fit the network.
    """
    checkpoint = read_checkpoint(path)
    network = ZooModel.from_config(checkpoint["latticezoo"]["network"])
    try:
        network.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise InputError(
            f"the weights in {path} do not fit its network {network.config()['model']!r}; "
            "it was written by another version of the library."
        ) from error
    return network.eval()


def check_same_network(path: str | os.PathLike[str], network: ZooModel) -> None:
    """Make sure that a checkpoint was written by a network of the same kind and sizes.

    Raises:
        InputError: Naming what differs.
    """
    checkpoint = read_checkpoint(path)
    there, here = checkpoint["latticezoo"]["network"]["model"], network.config()["model"]
    if there != here:
        raise InputError(f"{path} is a checkpoint of the network {there!r}, not of {here!r}.")
    theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    ours = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name in sorted({*theirs, *ours}):
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"{path} is a checkpoint of {there!r} with other options: weight {name!r} has "
                f"shape {_shape(theirs.get(name))} there and {_shape(ours.get(name))} here."
            )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no place" if shape is None else str(list(shape))
