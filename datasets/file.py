"""Dataset files: HDF5 with inputs, exact labels, and all that is needed to make them again.

Layout, for S samples on a lattice of N sites::

    /                     attributes: format, format_version, complete, task, lattice, system,
                          parameters, recipe, options, seed, solver_tolerance, library_version,
                          created_with, contents, content_hash
    /inputs/Q             [S, N, C] float64, attribute "field": the type of the values as JSON
    /labels/density       likewise, also /labels/force
    /labels/energy        [S] for a global scalar, such as a free energy
    /samples/kind         [S] 0 for a random configuration, 1 for a frame of a trajectory
    /samples/trajectory   [S] number of the trajectory, -1 for a random configuration
    /samples/frame        [S] number of the frame in its trajectory, or of the configuration
    /samples/step, time   [S] steps and time (in the recipe's unit) since the trajectory began

A file carries no date and no name of a machine: equal recipes, seeds and versions give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.describe import library_version
from latticezoo.simulate.hdf5 import damaged, read_hdf5, store, write_hdf5
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, check_layout
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

FORMAT = "latticezoo-dataset"
FORMAT_VERSION = 1
RANDOM, TRAJECTORY = 0, 1
KINDS = ("random", "trajectory")

#: Flat tables: path inside the file (``inputs/Q``) to an array with one row a sample.
Arrays = dict[str, np.ndarray]
_INTEGERS = ("kind", "trajectory", "frame", "step")


@dataclass(frozen=True)
class Source:
    """Where data come from: enough to make them again.

    Attributes:
        system: Name of the system, such as ``holstein``.
        parameters: Its physical parameters, plain values.
        recipe: Name of the recipe; empty for data made otherwise.
        options: All options of the recipe, defaults filled in, plain values.
        seed: Seed of all random numbers.
        solver_tolerance: Error that the solver allows itself, relative to the bandwidth.
        library_version: Version that made the data.
        created_with: Versions of the numerical packages.
    """

    system: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    solver_tolerance: float = 0.0
    library_version: str = field(default_factory=library_version)
    created_with: Mapping[str, str] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        """What decides the data, versions aside: as JSON would give it back."""
        return json.loads(
            canonical_json(
                {
                    "format_version": FORMAT_VERSION,
                    "recipe": self.recipe,
                    "options": self.options,
                    "system": self.system,
                    "parameters": self.parameters,
                    "seed": self.seed,
                    "solver_tolerance": self.solver_tolerance,
                }
            )
        )


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Samples of a task with exact labels, in memory.

    Attributes:
        task: The task the data serve. Labels may hold more than its targets.
        lattice: The lattice of all samples.
        fields: Inputs by name, ``[S, N, C]`` float64.
        labels: Exact results by name, ``[S, N, C]``, or ``[S]`` for global scalars.
        types: Field of every label that is no target of the task.
        kind: ``[S]`` int64: 0 random configuration, 1 frame of a trajectory.
        trajectory: ``[S]`` int64, -1 for random configurations.
        frame: ``[S]`` int64.
        step: ``[S]`` int64, steps since the trajectory began.
        time: ``[S]`` float64.
        source: Where they come from.
        content_hash: SHA-256 of the data; filled in by :func:`write_dataset` and :meth:`open`.

    Raises:
        InputError: A part is missing, or the shapes do not fit the lattice, the types or each
            other.
    """

    task: Task
    lattice: Lattice
    fields: Mapping[str, Tensor]
    labels: Mapping[str, Tensor]
    # Columns that are not given are filled in: random configurations, one after the other.
    kind: Tensor = None  # type: ignore[assignment]
    trajectory: Tensor = None  # type: ignore[assignment]
    frame: Tensor = None  # type: ignore[assignment]
    step: Tensor = None  # type: ignore[assignment]
    time: Tensor = None  # type: ignore[assignment]
    types: Mapping[str, Field] = field(default_factory=dict)
    source: Source = field(default_factory=Source)
    content_hash: str = ""

    def __post_init__(self) -> None:
        types = {**self.types, **{target.name: target for target in self.task.targets}}
        object.__setattr__(self, "types", {n: t for n, t in types.items() if n in self.labels})
        for group, names, have in (
            ("input", [f.name for f in self.task.inputs], self.fields),
            ("label", [f.name for f in self.task.targets], self.labels),
        ):
            for name in names:
                if name not in have:
                    raise InputError(
                        f"the data lack the {group} {name!r} of task {self.task.name!r}."
                    )
        for name in self.fields:
            self.task.input(name)  # raises for a field that is no input of the task
        for name in self.labels:
            if name not in types:
                raise InputError(f"the label {name!r} has no type; give its Field in types.")
        for name in ("kind", "trajectory", "frame", "step", "time"):
            object.__setattr__(self, name, self._column(name))
        self._check_shapes()

    def _column(self, name: str) -> Tensor:
        given = getattr(self, name)
        dtype = torch.int64 if name in _INTEGERS else torch.float64
        if given is not None:
            return torch.as_tensor(given, dtype=dtype)
        if name == "frame":
            return torch.arange(len(self))
        return torch.full((len(self),), -1 if name == "trajectory" else 0, dtype=dtype)

    def _check_shapes(self) -> None:
        inputs = {spec.name: spec for spec in self.task.inputs}
        for table, types in ((self.fields, inputs), (self.labels, self.types)):
            for name, values in table.items():
                kind = types[name]
                check_layout(kind, values[:, None] if values.ndim == 1 else values, self.lattice)
        for name, array in self.arrays().items():
            if len(array) != len(self):
                raise InputError(
                    f"the dataset {name} has {len(array)} samples, but there are {len(self)} of "
                    f"{self.task.inputs[0].name!r}; all must agree."
                )

    def __len__(self) -> int:
        return len(self.fields[self.task.inputs[0].name])

    @property
    def targets(self) -> dict[str, Tensor]:
        """The labels that are targets of the task."""
        return {target.name: self.labels[target.name] for target in self.task.targets}

    @property
    def energy(self) -> Tensor | None:
        """Total energy (at T > 0 the free energy) of every sample ``[S]``, if there."""
        return self.labels.get("energy")

    @property
    def groups(self) -> Tensor:
        """``[S]``: samples with equal numbers belong together; each random one is on its own."""
        groups = self.trajectory.clone()
        alone = groups < 0
        first = int(groups.max()) + 1 if len(groups) else 0
        groups[alone] = first + torch.arange(int(alone.sum()))
        return groups

    def with_task(self, task: Task) -> LabelledData:
        """The same data for another task, such as one with other targets among the labels.

        Raises:
            InputError: The data lack what the task needs.
        """
        return replace(self, task=task)

    @classmethod
    def concatenate(cls, parts: Sequence[LabelledData]) -> LabelledData:
        """The samples of several data of one task and lattice, one after the other."""
        tables = [part.arrays() for part in parts]
        joined = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
        first = parts[0]
        return cls.from_arrays(
            joined, task=first.task, lattice=first.lattice, types=first.types, source=first.source
        )

    def arrays(self) -> Arrays:
        """All data as flat arrays, by their path in the file."""
        columns = {
            name: getattr(self, name) for name in ("kind", "trajectory", "frame", "step", "time")
        }
        groups = {"inputs": self.fields, "labels": self.labels, "samples": columns}
        return {
            f"{group}/{name}": values.detach().cpu().numpy()
            for group, table in groups.items()
            for name, values in table.items()
        }

    @classmethod
    def from_arrays(
        cls,
        arrays: Mapping[str, np.ndarray],
        *,
        task: Task,
        lattice: Lattice,
        types: Mapping[str, Field],
        source: Source,
        content_hash: str = "",
    ) -> LabelledData:
        """Inverse of :meth:`arrays`."""
        groups: dict[str, dict[str, Tensor]] = {"inputs": {}, "labels": {}, "samples": {}}
        for path, values in arrays.items():
            group, name = path.split("/", 1)
            groups[group][name] = torch.from_numpy(np.ascontiguousarray(values))
        columns = groups["samples"]
        return cls(
            task=task,
            lattice=lattice,
            fields=groups["inputs"],
            labels=groups["labels"],
            kind=columns.get("kind"),
            trajectory=columns.get("trajectory"),
            frame=columns.get("frame"),
            step=columns.get("step"),
            time=columns.get("time"),
            types=types,
            source=source,
            content_hash=content_hash,
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> LabelledData:
        """Read a file whole, and check it.

        Raises:
            InputError: The file does not exist, is no dataset, is truncated or changed, lacks a
                part, or holds a number that is not finite.
        """
        with read_hdf5(path, "dataset") as file:
            header = _Header.read(path, file)
            arrays = {name: file[name][...] for name in header.contents}
        check_finite(arrays, os.fspath(path))
        data = cls.from_arrays(
            arrays,
            task=header.task,
            lattice=header.lattice,
            types=header.types,
            source=header.source,
            content_hash=header.content_hash,
        )
        if content_hash(data) != header.content_hash:
            raise InputError(
                f"the content of {path} does not match its hash, so it was changed or damaged "
                "after it was made; delete it and make it anew."
            )
        return data


def write_dataset(path: str | os.PathLike[str], data: LabelledData) -> str:
    """Write a dataset file, whole or not at all.

    Args:
        path: Where to; an older file is replaced when the new one is complete.
        data: What to write.

    Returns:
        The content hash.

    Raises:
        InputError: The data hold a number that is not finite.
        OSError: The disk is full or the folder cannot be written; nothing is left over.
    """
    arrays = data.arrays()
    check_finite(arrays, "the data")
    types = {**{f"inputs/{f.name}": f for f in data.task.inputs}}
    types |= {f"labels/{name}": kind for name, kind in data.types.items()}
    digest = content_hash(data)
    source = data.source
    attributes = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "task": canonical_json(data.task.to_dict()),
        "lattice": str(data.lattice),
        "system": source.system,
        "parameters": canonical_json(source.parameters),
        "recipe": source.recipe,
        "options": canonical_json(source.options),
        "seed": source.seed,
        "solver_tolerance": source.solver_tolerance,
        "library_version": source.library_version,
        "created_with": canonical_json(source.created_with),
        "contents": canonical_json(sorted(arrays)),
        "content_hash": digest,
    }
    with write_hdf5(path) as file:
        for name, value in attributes.items():
            file.attrs[name] = _text(value) if isinstance(value, str) else value
        for name in sorted(arrays):
            store(file, name, arrays[name])
            if name in types:
                file[name].attrs["field"] = _text(canonical_json(types[name].to_dict()))
        file.attrs["complete"] = True
    return digest


@dataclass(frozen=True)
class _Header:
    """The attributes of a file."""

    task: Task
    lattice: Lattice
    source: Source
    types: dict[str, Field]
    contents: list[str]
    content_hash: str

    @classmethod
    def read(cls, path: str | os.PathLike[str], file: h5py.File) -> _Header:
        attrs = _plain(file.attrs)
        if attrs.get("format") != FORMAT or not attrs.get("complete", False):
            raise InputError(f"{path} is an HDF5 file, but no finished dataset of this library.")
        if attrs["format_version"] > FORMAT_VERSION:
            raise InputError(
                f"{path} has dataset format {attrs['format_version']}, newer than "
                f"{FORMAT_VERSION}, the newest that this version reads; update the library."
            )
        contents = json.loads(attrs["contents"])
        for name in contents:
            if not isinstance(file.get(name), h5py.Dataset):
                raise InputError(f"the dataset file {path} has no readable dataset {name}.")
        try:
            return cls._parse(file, contents)
        except (InputError, AttributeError) as error:  # text that was damaged
            raise damaged(path, "dataset", error) from error

    @classmethod
    def _parse(cls, file: h5py.File, contents: list[str]) -> _Header:
        attrs = _plain(file.attrs)
        source = Source(
            system=attrs["system"],
            parameters=json.loads(attrs["parameters"]),
            recipe=str(attrs["recipe"]),
            options=json.loads(attrs["options"]),
            seed=int(attrs["seed"]),
            solver_tolerance=float(attrs["solver_tolerance"]),
            library_version=str(attrs["library_version"]),
            created_with=json.loads(attrs["created_with"]),
        )
        types = {
            name.removeprefix("labels/"): Field.from_dict(
                json.loads(_plain(file[name].attrs)["field"])
            )
            for name in contents
            if name.startswith("labels/")
        }
        return cls(
            Task.from_dict(json.loads(attrs["task"])),
            Lattice.parse(attrs["lattice"]),
            source,
            types,
            contents,
            str(attrs["content_hash"]),
        )


def _text(text: str) -> np.ndarray:
    """Text of fixed length for an attribute.

    Text of variable length lies in a part of the file that HDF5 does not checksum, where one
    damaged byte can send the HDF5 library into an endless loop.
    """
    encoded = text.encode()
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, len(encoded))))


def _plain(attributes: h5py.AttributeManager) -> dict[str, Any]:
    """Attributes with text decoded."""
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in attributes.items()
    }


def read_source(path: str | os.PathLike[str]) -> Source:
    """Read where the data of a file come from, without reading the data.

    Raises:
        InputError: The file does not exist, is no dataset, or is damaged.
    """
    with read_hdf5(path, "dataset") as file:
        return _Header.read(path, file).source


def check_finite(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Check that no number is NaN or infinite.

    Raises:
        InputError: Naming the dataset and the first bad sample.
    """
    for name, values in arrays.items():
        if values.dtype.kind not in "fc":
            continue
        finite = np.isfinite(values).reshape(len(values), -1).all(1)
        if not finite.all():
            sample = int(np.argmin(finite))
            raise InputError(
                f"{where} has a value that is not finite in dataset {name}, sample {sample}; "
                "only finite numbers are accepted."
            )


def content_hash(data: LabelledData) -> str:
    """SHA-256 of what the data are: types, lattice, source and numbers, but no versions.

    Numbers are hashed as little-endian bytes in row-major order, datasets in order of their names.
    """
    head = {
        "task": data.task.to_dict(),
        "lattice": str(data.lattice),
        "source": data.source.identity(),
        "types": {name: kind.to_dict() for name, kind in data.types.items()},
    }
    total = hashlib.sha256(canonical_json(head).encode())
    for name, values in sorted(data.arrays().items()):
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        total.update(f"{name}:{little.dtype.str}:{little.shape}".encode())
        total.update(np.ascontiguousarray(little).tobytes())
    return total.hexdigest()


def canonical_json(values: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
