"""Dataset files: HDF5 with inputs, exact labels, and all that is needed to make them again.

Layout, for S samples on a lattice of N sites::

    /                     attributes: format, format_version, complete, task, lattice, system,
                          parameters, recipe, options, seed, solver_tolerance, library_version,
                          created_with, contents, content_hash; where a network drove
                          trajectories also driver, driver_sha256
    /inputs/Q             [S, N, C] float64, attribute "field": the type of the values as JSON
    /labels/density       likewise, also /labels/force
    /labels/energy        [S] for a global scalar, such as a free energy
    /samples/kind         [S] 0 for a random configuration, 1 for a frame of a trajectory
    /samples/trajectory   [S] number of the trajectory, -1 for a random configuration
    /samples/frame        [S] number of the frame in its trajectory, or of the configuration
    /samples/driven       [S] 1 for a frame of a trajectory that a network drove, otherwise 0; only
                          where there are such
    /samples/step, time   [S] steps and time (in the recipe's unit) since the trajectory began

A file carries no date and no name of a machine: equal recipes, seeds and versions give equal bytes.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from latticezoo.datasets.labelled import (
    FORMAT_VERSION,
    KINDS,
    RANDOM,
    TRAJECTORY,
    LabelledData,
    Source,
    canonical_json,
    check_finite,
    content_hash,
)
from latticezoo.simulate.hdf5 import damaged, read_hdf5, store, write_hdf5
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "KINDS",
    "RANDOM",
    "TRAJECTORY",
    "LabelledData",
    "Source",
    "read_dataset",
    "read_source",
    "write_dataset",
]

FORMAT = "latticezoo-dataset"


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
    types = {f"inputs/{f.name}": f for f in data.task.inputs}
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
    if source.driver:
        attributes["driver"], attributes["driver_sha256"] = source.driver
    with write_hdf5(path) as file:
        for name, value in attributes.items():
            file.attrs[name] = _text(value) if isinstance(value, str) else value
        for name in sorted(arrays):
            store(file, name, arrays[name])
            if name in types:
                file[name].attrs["field"] = _text(canonical_json(types[name].to_dict()))
        file.attrs["complete"] = True
    return digest


def read_dataset(path: str | os.PathLike[str]) -> LabelledData:
    """Read a file whole, and check it.

    Raises:
        InputError: The file does not exist, is no dataset, is truncated or changed, lacks a
            part, or holds a number that is not finite.
    """
    with read_hdf5(path, "dataset") as file:
        header = _Header.read(path, file)
        arrays = {name: file[name][...] for name in header.contents}
        check_finite(arrays, os.fspath(path))
        data = LabelledData.from_arrays(
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
