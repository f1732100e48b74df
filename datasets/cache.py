"""Where datasets are kept, and the files around one that is being made."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latticezoo.datasets.file import read_source
from latticezoo.datasets.labelled import LabelledData, canonical_json
from latticezoo.datasets.registry import Recipe, Unit
from latticezoo.symmetry.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows: there two processes may do the same work twice
    fcntl = None  # type: ignore[assignment]


def cache_folder() -> Path:
    """``LATTICEZOO_CACHE`` if set, otherwise ``latticezoo`` in the user's cache folder."""
    chosen = os.environ.get("LATTICEZOO_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "latticezoo"


def recipe_hash(recipe: Recipe) -> str:
    """Twelve hexadecimal digits that tell datasets with different options apart."""
    text = canonical_json(recipe.source().identity())
    if recipe.revision > 1:
        text += f" revision {recipe.revision}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def default_path(recipe: Recipe) -> Path:
    """The dataset's place in the cache: its name says recipe, lattice and hash of the options."""
    sizes = "x".join(map(str, recipe.geometry.shape))
    name = f"{recipe.name}-{sizes}-{recipe_hash(recipe)}.h5"
    return cache_folder() / "datasets" / name


def is_made(path: Path, recipe: Recipe) -> bool:
    """Whether the file holds the dataset of the recipe.

    Raises:
        InputError: The file is damaged, or holds other data.
    """
    if not path.exists():
        return False
    try:
        found = read_source(path).identity()
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}; delete it to make it anew.") from error
    wanted = recipe.source().identity()
    if found == wanted:
        return True
    raise InputError(
        f"{path} holds another dataset ({_difference(found, wanted)}); "
        "name another path, or delete it."
    )


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first entry in which two identities differ."""
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            return _difference(old, new)
        return f"its {key} is {old!r}, not {new!r}"
    return "it differs"


class Parts:
    """The folder of finished units beside a dataset that is being made.

    Each part is a dataset file of its own, written whole. Its name holds a hash of the recipe, the
    library version and the unit, so that a part of another dataset is never taken for one's own.

    Args:
        target: The dataset file.
        recipe: What it is made by.
    """

    def __init__(self, target: Path, recipe: Recipe) -> None:
        self.target = target
        self.folder = Path(f"{target}.parts")
        source = recipe.source()
        self._key = canonical_json([source.identity(), source.library_version, recipe.revision])

    def path(self, unit: Unit) -> Path:
        """File of a unit's result."""
        text = f"{self._key}{canonical_json([unit.name, unit.first, unit.count])}"
        return self.folder / f"{unit.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.h5"

    def finished(self, unit: Unit) -> LabelledData | None:
        """The result of a unit, or None; a damaged part is removed."""
        path = self.path(unit)
        if not path.exists():
            return None
        try:
            return LabelledData.open(path)
        except InputError:
            path.unlink(missing_ok=True)
            return None

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Remove the folder when it holds no part worth keeping."""
        if not any(self.folder.glob("[!.]*.h5")):
            self.remove()

    def remove_leftovers(self) -> None:
        """Remove half-written files that a killed process left, here and beside the target."""
        for half in self.folder.glob(".*.h5"):
            half.unlink(missing_ok=True)
        stem, suffix = re.escape(f".{self.target.stem}-"), re.escape(self.target.suffix)
        half_target = re.compile(f"{stem}[a-z0-9_]{{8}}{suffix}")
        for found in self.target.parent.glob(".*"):
            if half_target.fullmatch(found.name):
                found.unlink(missing_ok=True)

    @contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the folder against other processes that make the same dataset; wait for them.

        The lock belongs to the process and ends with it, however it dies.

        Args:
            waiting: Called once when another process holds the folder.

        Raises:
            OSError: The folder cannot be written; one sentence.
        """
        told = False
        while True:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stream = (self.folder / ".lock").open("w")
            except OSError as error:
                if isinstance(error, FileNotFoundError) and told:
                    continue  # the other process has finished and removed the folder
                raise _unwritable(self.folder.parent, error) from error
            with stream:
                if _try_lock(stream.fileno(), self.folder / ".lock"):
                    yield
                    return
            if not told:
                waiting()
                told = True
            time.sleep(0.2)


def _try_lock(descriptor: int, path: Path) -> bool:
    """Lock an open file; False when another process holds it or has removed it since."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def check_space(target: Path, n_bytes: int) -> None:
    """Check beforehand that a dataset and its parts fit on the disk.

    Raises:
        OSError: They do not.
    """
    free = shutil.disk_usage(target.parent).free
    if free < 2 * n_bytes:
        raise OSError(
            errno.ENOSPC,
            f"{os.strerror(errno.ENOSPC)}: the dataset needs about {2 * n_bytes / 1e6:.0f} MB, "
            f"but {free / 1e6:.0f} MB are free in {target.parent}",
        )


def _unwritable(folder: Path, error: OSError) -> OSError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OSError(f"cannot write datasets to {folder}: {reason}.")
