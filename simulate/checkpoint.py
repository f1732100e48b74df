"""Checkpoints: all that a run needs to go on as if it had never stopped.

A checkpoint is one HDF5 file, replaced whole each time: the state with its forces, the list of part
files written so far, the sums of running averages, the number of threads, and a description of the
run, by which another run's checkpoint is recognized. Nothing in it is executed on loading.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.describe import differences, digest, library_version
from latticezoo.simulate.dynamics.schedule import check_positive
from latticezoo.simulate.hdf5 import read_hdf5, store, write_hdf5
from latticezoo.simulate.records import Part
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError

FORMAT = "latticezoo-checkpoint"
FORMAT_VERSION = 1
#: Tables of tensors that a state has.
_TABLES = ("fields", "momenta", "forces", "memory")


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often to save a run.

    A run whose checkpoint exists goes on from it; delete the file to start afresh. Next to it lies
    the folder ``<path>.parts`` with what was recorded so far.

    Args:
        path: The checkpoint file.
        every_steps: Save at each step that is a multiple of this; None for never.
        every_seconds: Save when this much time has passed since the last; None for never.
        signals: Save on SIGTERM and Ctrl-C too.

    Raises:
        InputError: An interval is out of range.
    """

    path: str | os.PathLike[str]
    every_steps: int | None = None
    every_seconds: float | None = 600.0
    signals: bool = True

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise InputError(
                f"a checkpoint every {self.every_steps!r} steps was asked for; give 1 or more."
            )
        if self.every_seconds is not None:
            check_positive("every_seconds", self.every_seconds, zero=True)

    def due(self, step: int, seconds: float) -> bool:
        """Whether to save at this step, ``seconds`` after the last time."""
        return (self.every_steps is not None and step % self.every_steps == 0) or (
            self.every_seconds is not None and seconds >= self.every_seconds
        )


@dataclass(frozen=True)
class Saved:
    """Content of a checkpoint."""

    plan: dict[str, Any]
    state: State
    parts: list[Part]
    sums: dict[str, dict[str, np.ndarray]]
    threads: int
    library_version: str = ""


def save(path: str | os.PathLike[str], saved: Saved) -> None:
    """Write a checkpoint in place of the older one.

    Raises:
        OSError: It cannot be written; the older one stays.
    """
    state = saved.state
    head = {
        "plan": saved.plan,
        "step": state.step,
        "dt": state.dt,
        "origin": list(state.origin),
        "seed": state.seed,
        "replicas": list(state.replicas),
        "sites": state.sites,
        "parts": [[part.file, part.rows] for part in saved.parts],
        "threads": saved.threads,
        "library_version": library_version(),
    }
    arrays = {
        f"{kind}/{name}": values.detach().cpu().numpy()
        for kind in _TABLES
        for name, values in getattr(state, kind).items()
    }
    for name, columns in saved.sums.items():
        arrays.update({f"sums/{name}/{column}": array for column, array in columns.items()})
    text = json.dumps(head, sort_keys=True)
    with write_hdf5(path) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["sha256"] = np.bytes_(_seal(text, arrays))
        # A dataset, not an attribute: attributes are limited to 64 kB.
        file.create_dataset("head", data=np.bytes_(text.encode()))
        for name, array in arrays.items():
            store(file, name, array)


def load(path: str | os.PathLike[str], device: torch.device | str | None = None) -> Saved:
    """Read a checkpoint.

    Raises:
        InputError: The file is missing, truncated, changed, or no checkpoint.
    """
    with read_hdf5(path, "checkpoint") as file:
        if file.attrs.get("format") != FORMAT.encode():
            raise InputError(f"{Path(path)} is not a checkpoint of a simulation.")
        if file.attrs["format_version"] != FORMAT_VERSION:
            raise InputError(
                f"{Path(path)} has checkpoint format {file.attrs['format_version']}, but this "
                f"version reads {FORMAT_VERSION}; finish the run with the version that began it."
            )
        text = file["head"][()].decode()
        arrays: dict[str, np.ndarray] = {}

        def collect(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and name != "head":
                arrays[name] = item[()]

        file.visititems(collect)
        if file.attrs["sha256"] != _seal(text, arrays).encode():
            raise InputError(f"{Path(path)} was changed or damaged; its checksum does not fit.")
    head = json.loads(text)
    tensors: dict[str, dict[str, Tensor]] = {kind: {} for kind in _TABLES}
    sums: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        kind, rest = name.split("/", 1)
        if kind == "sums":
            observer, column = rest.rsplit("/", 1)
            sums.setdefault(observer, {})[column] = array
        else:
            tensors[kind][rest] = torch.from_numpy(array).to(device)
    state = State(
        **tensors,
        replicas=tuple(head["replicas"]),
        seed=head["seed"],
        step=head["step"],
        dt=head["dt"],
        origin=(head["origin"][0], head["origin"][1]),
        sites=tuple(head["sites"]) if head.get("sites") else None,
    )
    parts = [Part(name, rows) for name, rows in head["parts"]]
    return Saved(head["plan"], state, parts, sums, head["threads"], head["library_version"])


def check_plan(path: str | os.PathLike[str], here: Mapping[str, Any], there: Any) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        InputError: The descriptions differ; the sentence names the first differences.
    """
    found = differences(dict(here), there)
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise InputError(
            f"the checkpoint {os.fspath(path)} belongs to another run, which differs in "
            f"{', '.join(found[:3])}{more}; delete it to start afresh or name another path."
        )


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove temporary files that a kill in the middle of writing ``path`` left beside it."""
    path = Path(path)
    pattern = re.compile(
        re.escape(f".{path.stem}-") + r"[a-z0-9_]{8}" + re.escape(path.suffix) + r"\Z"
    )
    if path.parent.is_dir():
        for found in path.parent.iterdir():
            if pattern.match(found.name):
                found.unlink(missing_ok=True)


def _seal(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    seal = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        seal.update(f"{name}:{digest(arrays[name])}".encode())
    return seal.hexdigest()
