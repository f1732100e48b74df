"""Make a dataset file by a recipe: in parallel, resumable, independent of how it was made.

The work is split into units. Each finished unit is a part file in a folder beside the target; when
all are there they are joined and the folder goes. After a kill, the same call goes on from the
parts. Neither the number of processes nor an interruption changes a bit of the result.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latticezoo.datasets.cache import Parts, check_space, default_path, is_made
from latticezoo.datasets.driver import DriverError
from latticezoo.datasets.file import write_dataset
from latticezoo.datasets.labelled import LabelledData
from latticezoo.datasets.registry import Recipe, Unit, check_count, create_recipe
from latticezoo.symmetry.errors import InputError

_log = logging.getLogger(__name__)
#: Starting a process costs a few seconds of imports: worth it only for longer work than this.
_WORTH_PROCESSES = 8.0


def make_dataset(
    recipe: str | Recipe,
    *,
    path: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    progress: bool = True,
    **options: Any,
) -> Path:
    """Make the dataset of a recipe, unless it is there already.

    Args:
        recipe: Name of the recipe, such as ``"holstein_square"``, or a recipe.
        path: The HDF5 file to write; by default one in the cache folder (``LATTICEZOO_CACHE``)
            named by the recipe and a hash of all options.
        workers: Number of processes, each with one thread; by default one a core, or none beside
            this one when the work takes seconds only.
        cluster: Do the work on a Dask cluster: ``"local"``, the address of a scheduler such as
            ``"tcp://host:8786"``, or its scheduler file; see :mod:`latticezoo.datasets.cluster`.
        progress: Show a bar with an estimate of the time left when stderr is a terminal.
        options: Options of the recipe.

    Returns:
        The path of the finished file.

    Raises:
        InputError: Unknown recipe, bad options, the path holds other data, or a trajectory blew up
            with its driver.
        OSError: The folder cannot be written or the disk is full; finished parts stay.
        KeyboardInterrupt: Ctrl-C; finished parts stay.
    """
    made = recipe if isinstance(recipe, Recipe) else create_recipe(recipe, **options)
    if workers is not None:
        check_count("the number of workers", workers, least=1)
        if cluster not in (None, "local"):
            raise InputError(
                f"the cluster {cluster!r} has its own workers; leave out the number of workers, "
                f"{workers}."
            )
    target = default_path(made) if path is None else Path(path).expanduser()
    if is_made(target, made):
        return target
    parts = Parts(target, made)
    with parts.lock(lambda: _log.warning("another process is making %s; waiting for it.", target)):
        if is_made(target, made):  # the process we waited for has done it
            parts.remove()
            return target
        parts.remove_leftovers()
        try:
            check_space(target, made.size)
            done = _make_parts(made, parts, workers, cluster, progress)
            write_dataset(target, LabelledData.concatenate(done))
        except DriverError:  # the same call would meet it again: the parts are of no use
            parts.remove()
            raise
        except BaseException:
            parts.remove_if_empty()
            raise
        parts.remove()
    return target


def _make_parts(
    recipe: Recipe, parts: Parts, workers: int | None, cluster: str | None, progress: bool
) -> list[LabelledData]:
    """Do the units that are not done yet; give the results of all, in order."""
    units = recipe.units()
    missing = [unit for unit in units if parts.finished(unit) is None]
    with _bar(recipe, units, missing, progress) as report:
        try:
            if missing:
                _work(recipe, missing, parts, workers, cluster, report)
        except KeyboardInterrupt:
            left = sum(not parts.path(unit).exists() for unit in units)
            raise KeyboardInterrupt(
                f"stopped with {len(units) - left} of {len(units)} units done; they are kept in "
                f"{parts.folder}, and the same command goes on from there."
            ) from None
    done = []
    for unit in units:
        data = parts.finished(unit)
        if data is None:
            raise OSError(f"the part {parts.path(unit)} was removed or damaged in the meantime.")
        done.append(data)
    return done


def _work(
    recipe: Recipe,
    missing: list[Unit],
    parts: Parts,
    workers: int | None,
    cluster: str | None,
    report: Callable[[int], None],
) -> None:
    if cluster is not None:
        from latticezoo.datasets.cluster import run_on_cluster

        count = min(workers or cores(), len(missing))
        run_on_cluster(recipe, missing, parts, cluster, count, report)
        return
    if workers is None:
        seconds = sum(unit.cost for unit in missing) * recipe.seconds_per_solve()
        workers = cores() if seconds > _WORTH_PROCESSES else 1
    workers = min(workers, len(missing))
    if workers > 1 and type(recipe).__module__ == "__main__":
        _log.warning("recipe %s is defined in a script, so it runs in one process.", recipe.name)
        workers = 1
    if workers > 1:
        from latticezoo.datasets.processes import run_in_processes

        run_in_processes(recipe, missing, parts, workers, report)
        return
    with one_thread():
        for unit in missing:
            make_part(recipe, unit, parts, report)


def make_part(recipe: Recipe, unit: Unit, parts: Parts, report: Callable[[int], None]) -> None:
    """Do one unit and write its part file."""
    write_dataset(parts.path(unit), recipe.run(unit, report))


def cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for numerical libraries: results do not depend on the number of cores."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _bar(
    recipe: Recipe, units: tuple[Unit, ...], missing: list[Unit], progress: bool
) -> Iterator[Callable[[int], None]]:
    from tqdm import tqdm

    total = sum(unit.cost for unit in units)
    with tqdm(
        total=total,
        initial=total - sum(unit.cost for unit in missing),
        desc=f"{recipe.name}, {recipe.samples} samples",
        unit="solve",
        disable=None if progress else True,  # None: shown when stderr is a terminal
        mininterval=0.5,
        dynamic_ncols=True,
    ) as bar:
        yield bar.update
