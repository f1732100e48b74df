"""HDF5 files that are written whole, checked on reading, and complain in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from latticezoo.simulate.files import atomic_write
from latticezoo.symmetry.errors import InputError

# Format 1.10 of HDF5: all metadata carry checksums, and any HDF5 since 2016 reads it.
_LIBVER = ("v110", "v110")


class _Sink:
    """A file for HDF5 to write to, in which a write never fails.

    After a failed write (a full disk, above all) the HDF5 library cannot close the file any more
    and may crash the process much later. So the first error is kept here, what follows is
    dropped, and the library closes in peace.
    """

    def __init__(self, stream: RawIOBase) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: memoryview) -> int:
        try:
            done = 0
            while self.error is None and done < len(data):
                done += self.stream.write(data[done:]) or 0
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int) -> int:
        try:
            if self.error is None:
                self.stream.truncate(size)
        except OSError as error:
            self.error = error
        return size

    def readinto(self, buffer: memoryview) -> int:
        return self.stream.readinto(buffer) or 0

    def read(self, size: int = -1) -> bytes:
        return self.stream.read(size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.stream.seek(offset, whence)

    def tell(self) -> int:
        return self.stream.tell()

    def flush(self) -> None:
        self.stream.flush()


@contextmanager
def write_hdf5(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """Give a new HDF5 file that takes its place at ``path`` only when the block succeeds.

    Raises:
        OSError: The disk is full or the folder cannot be written; it names the file, and nothing is
            left over.
    """
    try:
        with atomic_write(path) as temporary, temporary.open("w+b", buffering=0) as stream:
            sink = _Sink(stream)
            with h5py.File(sink, "w", libver=_LIBVER) as file:
                yield file
            if sink.error:
                raise sink.error
    except OSError as error:
        if error.errno:  # say which file it was, not the temporary one beside it
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error
        raise OSError(f"could not write {os.fspath(path)}: {_short(error)}") from error


@contextmanager
def read_hdf5(path: str | os.PathLike[str], what: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; turn what goes wrong inside the block into one sentence.

    Args:
        path: The file.
        what: What it should be, such as "trajectory", for the sentence.

    Raises:
        InputError: The file does not exist, is truncated, is damaged or lacks a part.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no {what} at {path}.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise damaged(path, what, error) from error


def damaged(path: str | os.PathLike[str], what: str, error: Exception) -> InputError:
    """The sentence for a file that cannot be read to its end."""
    return InputError(f"{os.fspath(path)} is no whole {what} file: {_short(error)}.")


def _short(error: Exception) -> str:
    """The first line of an HDF5 message, without its full stop."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return text.strip().split("\n")[0].rstrip(".")


def create(group: h5py.Group, name: str, like: np.ndarray, rows: int) -> h5py.Dataset:
    """A checksummed dataset of ``rows`` rows like the rows of ``like``, to be filled in order.

    Chunks hold about a quarter of a megabyte: whole rows when rows are small, single replicas when
    a row is larger than 8 MB.
    """
    row = max(1, like[:1].nbytes)
    chunk: tuple[int, ...] = (max(1, min(rows, (1 << 18) // row)), *like.shape[1:])
    if row > 1 << 23 and like.ndim > 2:
        chunk = (1, 1, *like.shape[2:])
    if 0 in chunk or rows == 0:
        return group.create_dataset(name, shape=(rows, *like.shape[1:]), dtype=like.dtype)
    return group.create_dataset(
        name, shape=(rows, *like.shape[1:]), dtype=like.dtype, chunks=chunk, fletcher32=True
    )


def store(group: h5py.Group, name: str, values: Any) -> None:
    """Write one array, checksummed where HDF5 can (not for scalars and empty arrays)."""
    array = np.asarray(values)
    if array.ndim == 0 or array.size == 0:
        group.create_dataset(name, data=array)
    else:
        create(group, name, array, len(array))[...] = array
