"""What a run records: tables of rows, kept in memory and written in whole part files.

A table is a set of columns of equal length; a row is one sample. The frames of a trajectory are
the table "" (columns ``steps``, ``times``, ``fields/Q``, …), an observer's samples the table
``observers/<name>``. Rows gather in memory. At every checkpoint those not yet on disk go into a
part file of their own, which is renamed into place whole, and the checkpoint lists the parts and
their numbers of rows. A kill at any moment therefore costs the rows since the last checkpoint at
most, and what lies about from after it is recognized, because it is not in the list.

At the end the rows of all parts are copied into the trajectory, and the trajectory, as the first
entry of the list, replaces the parts: a longer run can go on from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from latticezoo.simulate.hdf5 import create, read_hdf5, store, write_hdf5
from latticezoo.symmetry.errors import InputError

Row = dict[str, np.ndarray]
_BLOCK_BYTES = 1 << 26


@dataclass(frozen=True)
class Part:
    """A file that holds rows of the run: name in the folder ("" for the trajectory), rows each."""

    file: str
    rows: dict[str, int]


def _is_dataset(item: object) -> bool:
    return isinstance(item, h5py.Dataset)


class Recorder:
    """Rows of one run.

    Args:
        folder: Folder for part files; None keeps every row in memory.
        trajectory: The final file, which is also the first part of a run that goes on.
    """

    def __init__(self, folder: Path | None, trajectory: Path | None) -> None:
        self.folder = folder
        self.trajectory = trajectory
        self.parts: list[Part] = []
        self._pending: dict[str, list[Row]] = {}
        self._pending_bytes = 0
        self._number = 0

    # ---------------------------------------------------------------- rows
    def append(self, table: str, row: Row) -> None:
        """Add one row; the arrays are kept, not copied."""
        self._pending.setdefault(table, []).append(row)
        self._pending_bytes += sum(array.nbytes for array in row.values())

    @property
    def full(self) -> bool:
        """True when the rows in memory should go to disk before they fill it."""
        return self.folder is not None and self._pending_bytes > _BLOCK_BYTES

    def rows(self, table: str) -> int:
        """Number of rows of a table so far."""
        return sum(part.rows.get(table, 0) for part in self.parts) + len(
            self._pending.get(table, [])
        )

    def tables(self) -> list[str]:
        """Names of the tables that have rows."""
        names = {name for part in self.parts for name, count in part.rows.items() if count}
        return sorted(names | {name for name, rows in self._pending.items() if rows})

    def column(self, table: str, name: str) -> np.ndarray:
        """All rows of one column, from disk and memory, in one array."""
        return np.concatenate(list(self._blocks(table, name)))

    def _blocks(self, table: str, name: str) -> Iterator[np.ndarray]:
        """The rows of one column in order, in blocks that fit into memory."""
        for part in self.parts:
            count = part.rows.get(table, 0)
            if not count:
                continue
            with read_hdf5(self._path(part), "record of the run") as file:
                dataset = file[f"{table}/{name}"]
                if len(dataset) < count:
                    raise InputError(
                        f"{self._path(part)} holds {len(dataset)} rows of {table or 'frames'}, but "
                        f"the checkpoint counts {count}; it belongs to another run."
                    )
                size = max(1, _BLOCK_BYTES // max(1, dataset[:1].nbytes))
                for start in range(0, count, size):
                    yield dataset[start : min(start + size, count)]
        rows = self._pending.get(table, [])
        if rows:
            yield np.stack([row[name] for row in rows])

    def _columns(self, table: str) -> list[str]:
        if self._pending.get(table):
            return sorted(self._pending[table][0])
        part = next(part for part in self.parts if part.rows.get(table))
        with read_hdf5(self._path(part), "record of the run") as file:
            if table:
                return sorted(name for name, item in file[table].items() if _is_dataset(item))
            names = [name for name in ("steps", "times") if name in file]
            for quantity in ("fields", "momenta", "forces"):
                names += [f"{quantity}/{name}" for name in file.get(quantity, {})]
            return sorted(names)

    # ---------------------------------------------------------------- files
    def _path(self, part: Part) -> Path:
        if not part.file:
            assert self.trajectory is not None
            return self.trajectory
        assert self.folder is not None
        return self.folder / part.file

    def restore(self, parts: list[Part]) -> None:
        """Take over the parts that a checkpoint lists and forget all others.

        Raises:
            InputError: A listed part is gone.
        """
        for part in parts:
            if not part.file and self.trajectory is None:
                raise InputError(
                    "the checkpoint belongs to a run that wrote a trajectory; name the trajectory."
                )
            if not self._path(part).is_file():
                raise InputError(
                    f"the checkpoint goes on from {self._path(part)}, which is gone; delete the "
                    "checkpoint to start afresh."
                )
        self.adopt(parts)
        self.clean()

    def adopt(self, parts: list[Part]) -> None:
        """Make these parts the rows of the run and drop the rows in memory; no file is touched."""
        self.parts = list(parts)
        self._pending.clear()
        self._pending_bytes = 0
        self._number = max((int(part.file[:-3]) + 1 for part in parts if part.file), default=0)

    def clean(self) -> None:
        """Remove part files that are not in the list, such as those of a killed run."""
        if self.folder is None or not self.folder.is_dir():
            return
        known = {part.file for part in self.parts}
        for path in self.folder.glob("*.h5"):
            if path.name not in known:
                path.unlink()
        for path in self.folder.glob(".*-*.h5"):  # left by a kill inside atomic_write
            path.unlink()

    def flush(self) -> None:
        """Write the rows in memory as one part file, and only then drop them from memory."""
        rows = {table: len(found) for table, found in self._pending.items() if found}
        if self.folder is None or not rows:
            return
        part = Part(f"{self._number:08d}.h5", rows)
        with write_hdf5(self.folder / part.file) as file:
            for table in rows:
                group = file.require_group(table) if table else file
                for name in self._columns(table):
                    store(group, name, np.stack([row[name] for row in self._pending[table]]))
        self._number += 1
        self.parts.append(part)
        self._pending.clear()
        self._pending_bytes = 0

    def copy_to(self, file: h5py.File) -> None:
        """Copy every row of every table into an open file."""
        for table in self.tables():
            group = file.require_group(table) if table else file
            for name in self._columns(table):
                dataset, start = None, 0
                for block in self._blocks(table, name):
                    if dataset is None:
                        dataset = create(group, name, block, self.rows(table))
                    dataset[start : start + len(block)] = block
                    start += len(block)

    def consolidated(self) -> list[Part]:
        """The list of parts once the trajectory holds every row."""
        return [Part("", {table: self.rows(table) for table in self.tables()})]

    def remove(self) -> None:
        """Remove the folder of part files with all that is in it."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
