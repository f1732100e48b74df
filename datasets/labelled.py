"""Samples of a task with exact labels, in memory, and where they come from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.describe import library_version
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, check_layout
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

RANDOM, TRAJECTORY = 0, 1
KINDS = ("random", "trajectory")
#: Stratum of the frames of trajectories that a network drove; the others' is their kind.
DRIVEN = 2
#: Version of the description of data; it counts in the content hash.
FORMAT_VERSION = 1

#: Flat tables: path inside a file (``inputs/Q``) to an array with one row a sample.
Arrays = dict[str, np.ndarray]
_COLUMNS = ("kind", "trajectory", "frame", "step", "time")
_INTEGERS = ("kind", "trajectory", "frame", "step", "driven")


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

    @property
    def driver(self) -> tuple[str, str] | None:
        """Name of the network that drove trajectories, and the SHA-256 of its weights."""
        sha256 = self.options.get("driver_sha256")
        return (str(self.options.get("driver")), str(sha256)) if sha256 else None

    def identity(self) -> dict[str, Any]:
        """What decides the data, versions aside: as JSON would give it back.

        Of a driver only the weights decide, not where they lie.
        """
        options = dict(self.options)
        if self.driver:
            options.pop("driver", None)
        return json.loads(
            canonical_json(
                {
                    "format_version": FORMAT_VERSION,
                    "recipe": self.recipe,
                    "options": options,
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
        driven: ``[S]`` int64: 1 for frames of a trajectory that a network drove, otherwise 0.
        source: Where they come from.
        content_hash: SHA-256 of the data; filled in by :meth:`open`.

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
    driven: Tensor = None  # type: ignore[assignment]
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
        for name in (*_COLUMNS, "driven"):
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

    @property
    def strata(self) -> Tensor:
        """``[S]``: what a split deals out separately: the kind, or 2 for driven trajectories."""
        return torch.where(self.driven > 0, DRIVEN, self.kind)

    def with_task(self, task: Task) -> LabelledData:
        """The same data for another task, such as one with other targets among the labels.

        Raises:
            InputError: The data lack what the task needs.
        """
        return replace(self, task=task)

    @classmethod
    def concatenate(cls, parts: Sequence[LabelledData]) -> LabelledData:
        """The samples of several data of one task and lattice, one after the other."""
        driven = any(part.has_driven for part in parts)
        tables = [part.arrays(driven) for part in parts]
        joined = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
        first = parts[0]
        return cls.from_arrays(
            joined, task=first.task, lattice=first.lattice, types=first.types, source=first.source
        )

    @property
    def has_driven(self) -> bool:
        """Whether a network drove trajectories, so that a file tells them from exact ones."""
        return self.source.driver is not None or bool(self.driven.any())

    def arrays(self, driven: bool | None = None) -> Arrays:
        """All data as flat arrays, by their path in the file.

        Args:
            driven: Whether the column ``driven`` is among them; by default where a network drove
                trajectories, so that other data keep the hash they had before there were drivers.
        """
        shown = self.has_driven if driven is None else driven
        columns = {name: getattr(self, name) for name in (*_COLUMNS, *(["driven"] * shown))}
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
            kind=columns["kind"],
            trajectory=columns["trajectory"],
            frame=columns["frame"],
            step=columns["step"],
            time=columns["time"],
            driven=columns.get("driven"),  # type: ignore[arg-type]
            types=types,
            source=source,
            content_hash=content_hash,
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> LabelledData:
        """Read a file whole, and check it: :func:`latticezoo.datasets.file.read_dataset`."""
        from latticezoo.datasets.file import read_dataset

        return read_dataset(path)


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
