"""Trajectory files: HDF5 with the frames, the observers' samples and what is needed to read them.

Layout::

    /                          attributes: format, format_version, library_version, complete,
                               metadata (JSON: force field, dynamics, lattice, seed, replicas, …)
    /replicas                  [R] replica numbers
    /steps, /times             [frames]
    /fields/Q                  [frames, R, N, C]; likewise /momenta/Q and /forces/Q when asked for
    /observers/<name>/steps    [samples], also times
    /observers/<name>/values   [samples, R, …]
    /observers/<name>/axes/…   what the further axes of the values mean
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from latticezoo.simulate.describe import library_version
from latticezoo.simulate.hdf5 import damaged, read_hdf5, store, write_hdf5
from latticezoo.simulate.records import Recorder, Row
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError, unknown

FORMAT = "latticezoo-trajectory"
FORMAT_VERSION = 1
QUANTITIES = ("fields", "momenta", "forces")


@dataclass(frozen=True)
class Trajectory:
    """What to write of a run, and where.

    Args:
        path: The HDF5 file. It appears whole at the end of the run.
        every: A frame is written at each step that is a multiple of this.
        quantities: Any of "fields", "momenta", "forces".
        dtype: "float32" halves the file; None keeps the precision of the state.

    Raises:
        InputError: ``every`` is not positive, or a name is not known.
    """

    path: str | os.PathLike[str]
    every: int = 1
    quantities: tuple[str, ...] = ("fields",)
    dtype: str | None = None

    def __post_init__(self) -> None:
        check_every(self.every, "the trajectory")
        chosen = (self.quantities,) if isinstance(self.quantities, str) else self.quantities
        object.__setattr__(self, "quantities", tuple(chosen))
        for name in self.quantities:
            if name not in QUANTITIES:
                raise unknown("trajectory quantity", name, QUANTITIES)
        if self.dtype not in (None, "float32", "float64"):
            raise InputError(
                f"the trajectory's dtype is {self.dtype!r}; it must be 'float32' or 'float64'."
            )

    def describe(self) -> dict[str, Any]:
        """What identifies the run: not the path."""
        return {"every": self.every, "quantities": list(self.quantities), "dtype": self.dtype}

    def row(self, state: State) -> Row:
        """One frame."""
        row: Row = {"steps": np.int64(state.step), "times": np.float64(state.time)}  # type: ignore[dict-item]
        for quantity in self.quantities:
            table: Mapping[str, Tensor] = getattr(state, quantity)
            for name, values in table.items():
                array = values.detach().cpu().resolve_conj().numpy()
                row[f"{quantity}/{name}"] = array.astype(self._type_of(array), copy=False)
        return row

    def _type_of(self, array: np.ndarray) -> np.dtype:
        """Type to write an array in: complex numbers stay complex."""
        kind = np.dtype(self.dtype) if self.dtype else array.dtype
        return np.result_type(kind, np.complex64) if np.iscomplexobj(array) else kind


def check_every(every: int, what: str) -> None:
    """Raise InputError unless a sampling interval is a whole number of at least one step."""
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        raise InputError(f"{what} is sampled every {every!r} steps; it must be 1 or more.")


@dataclass(frozen=True)
class Series:
    """The samples of one observer.

    Attributes:
        steps: Steps of the samples, ``[samples]``.
        times: Their times.
        values: ``[samples, R, …]``.
        axes: Coordinates of the further axes of the values, such as distances or wave vectors.
    """

    steps: np.ndarray
    times: np.ndarray
    values: np.ndarray
    axes: dict[str, np.ndarray] = field(default_factory=dict)


def write_trajectory(
    path: str | os.PathLike[str],
    recorder: Recorder,
    metadata: Mapping[str, Any],
    replicas: tuple[int, ...],
    summaries: Mapping[str, Row],
    axes: Mapping[str, Mapping[str, np.ndarray]],
) -> None:
    """Write the rows of a finished run as one file.

    Args:
        path: Where to.
        recorder: Holds the rows.
        metadata: Plain values for the metadata attribute.
        replicas: Replica numbers.
        summaries: Observers that give one row at the end: columns by observer name.
        axes: Coordinates by observer name.

    Raises:
        OSError: The file cannot be written; an older one stays as it was.
    """
    with write_hdf5(path) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["library_version"] = np.bytes_(library_version())
        # Text of fixed length lies in the checksummed header; HDF5 keeps other text unchecked.
        file.attrs["metadata"] = np.bytes_(json.dumps(metadata, sort_keys=True).encode())
        store(file, "replicas", np.array(replicas, dtype=np.int64))
        recorder.copy_to(file)
        for name, row in summaries.items():
            for column, values in row.items():
                store(file.require_group(f"observers/{name}"), column, values)
        for name, table in axes.items():
            for axis, values in table.items():
                store(file.require_group(f"observers/{name}/axes"), axis, values)
        file.attrs["complete"] = True


class TrajectoryFile:
    """An open trajectory. Frames stay on disk until they are asked for.

    Attributes:
        metadata: What the run was: force field, dynamics, lattice, seed, replicas, observers.
        replicas: Replica numbers ``[R]``.
        steps: Steps of the frames.
        times: Times of the frames.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.metadata: dict[str, Any] = json.loads(file.attrs["metadata"].decode())
        self.replicas: np.ndarray = file["replicas"][...]
        frames = "steps" in list(file)  # a list of links: "in file" takes damage for absence
        self.steps: np.ndarray = file["steps"][...] if frames else np.zeros(0, np.int64)
        self.times: np.ndarray = file["times"][...] if frames else np.zeros(0)

    @property
    def lattice(self) -> str:
        """Spec of the lattice, such as "square(16, 16)"."""
        return str(self.metadata["lattice"])

    @property
    def fields(self) -> dict[str, h5py.Dataset]:
        """Frames of the fields by name, ``[frames, R, N, C]``: index them to read."""
        return self.quantity("fields")

    @property
    def observers(self) -> dict[str, Series]:
        """Samples of the observers by name."""
        if "observers" not in list(self._file):
            return {}
        groups = self._file["observers"]
        return {name: _series(groups[name]) for name in list(groups)}

    def quantity(self, name: str) -> dict[str, h5py.Dataset]:
        """Frames of "fields", "momenta" or "forces" by field name.

        Raises:
            InputError: The trajectory does not hold this quantity.
        """
        there = [quantity for quantity in QUANTITIES if quantity in list(self._file)]
        if name not in there:
            raise unknown("trajectory quantity", name, there)
        group = self._file[name]
        return {field: group[field] for field in list(group)}


def _series(group: h5py.Group) -> Series:
    axes = {}
    if "axes" in list(group):
        axes = {axis: group["axes"][axis][...] for axis in list(group["axes"])}
    return Series(group["steps"][...], group["times"][...], group["values"][...], axes)


@contextmanager
def open_trajectory(path: str | os.PathLike[str]) -> Iterator[TrajectoryFile]:
    """Open a trajectory for reading.

    Example::

        with open_trajectory("quench.h5") as trajectory:
            last = trajectory.fields["Q"][-1]            # [R, N, C]
            length = trajectory.observers["correlation_length"].values

    Raises:
        InputError: The file is missing, truncated, damaged, or no trajectory.
    """
    with read_hdf5(path, "trajectory") as file:
        if file.attrs.get("format") != FORMAT.encode() or not file.attrs.get("complete", False):
            raise InputError(f"{Path(path)} is not a finished trajectory of this library.")
        if file.attrs["format_version"] > FORMAT_VERSION:
            raise InputError(
                f"{Path(path)} has trajectory format {file.attrs['format_version']}, newer than "
                f"{FORMAT_VERSION}, the newest that this version reads; update the library."
            )
        TrajectoryFile(file)
    with h5py.File(path, "r") as file:
        try:
            yield TrajectoryFile(file)
        except (OSError, KeyError, RuntimeError) as error:
            # HDF5 speaks of damage when a frame is asked for; all its messages hold this word.
            # Other errors in the block are the caller's.
            if "synchronously" in str(error):
                raise damaged(path, "trajectory", error) from error
            raise
