"""Make datasets on a Dask cluster: its workers do the units, this process writes the parts.

The workers need the library, in the same versions, and no common file system: results come back
over the network. A unit whose worker dies is done again by another. On a machine of one's own,
``local`` starts worker processes; under SLURM, a scheduler and workers are started by the batch
job::

    #SBATCH --ntasks=65 --cpus-per-task=1
    srun --ntasks=1 --exact dask scheduler --scheduler-file scheduler.json &
    srun --ntasks=64 --exact dask worker --nthreads 1 --scheduler-file scheduler.json &
    latticezoo data make holstein_square --lattice 40 --cluster scheduler.json
"""

from __future__ import annotations

import gc
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from latticezoo.datasets.cache import Parts
from latticezoo.datasets.file import write_dataset
from latticezoo.datasets.labelled import LabelledData
from latticezoo.datasets.registry import Recipe, Unit
from latticezoo.symmetry.errors import InputError

_log = logging.getLogger(__name__)
#: Units of one worker process run one after the other: the number of threads is the process's.
_one_at_a_time = threading.Lock()
#: Seconds that a scheduler has to answer.
PATIENCE = 30.0


def run_on_cluster(
    recipe: Recipe,
    units: list[Unit],
    parts: Parts,
    cluster: str,
    workers: int,
    report: Callable[[int], None],
) -> None:
    """Do units on a cluster, the costly ones first.

    Args:
        recipe: The recipe.
        units: The units to do.
        parts: Where their results go.
        cluster: Address of a Dask scheduler such as ``tcp://host:8786``, its scheduler file
            (``*.json``), or ``local`` for processes on this machine.
        workers: Number of processes of a local cluster.
        report: Told the exact solutions done, after every unit.

    Raises:
        InputError: Dask is not installed, the workers hold other versions, or what a unit raised.
        OSError: No scheduler answers.
        ChildProcessError: Several workers died over the same unit.
    """
    with _client(cluster, workers) as client:
        from distributed import KilledWorker, as_completed

        if not client.scheduler_info()["workers"]:
            _log.warning("the cluster %s has no worker yet; waiting for one.", cluster)
        waiting = sorted(units, key=lambda unit: -unit.cost)
        # Not pure: a result that is still in the cluster's memory was made for another call.
        asked = {client.submit(do_unit, recipe, unit, pure=False): unit for unit in waiting}
        try:
            for future, data in as_completed(list(asked), loop=client.loop, with_results=True):
                _check_versions(data, recipe)
                unit = asked.pop(future)
                write_dataset(parts.path(unit), data)
                report(unit.cost)
        except KilledWorker as error:
            raise ChildProcessError(
                "several workers of the cluster died over the same unit, perhaps for want of "
                "memory; the same command goes on from the finished parts."
            ) from error
        finally:
            client.cancel(list(asked))


def do_unit(recipe: Recipe, unit: Unit) -> LabelledData:
    """What a worker does: one unit, with one thread."""
    from latticezoo.datasets.make import one_thread

    with _one_at_a_time, one_thread():
        return recipe.run(unit, lambda solved: None)


@contextmanager
def _client(cluster: str, workers: int) -> Iterator[Any]:
    """A client of the cluster; a local one is started here and ends with the block."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError(
            f"making data on the cluster {cluster!r} needs Dask; "
            "install it with pip install 'lattice-zoo[dask]'."
        ) from None
    with ExitStack() as stack:
        if cluster == "local":
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            where: dict[str, Any] = {
                "address": stack.enter_context(
                    LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        memory_limit=None,
                        silence_logs=logging.ERROR,
                        dashboard_address=None,
                        local_directory=folder,
                    )
                )
            }
        elif cluster.endswith(".json"):
            _await_file(Path(cluster))
            where = {"scheduler_file": cluster}
        else:
            where = {"address": cluster}
        reason = None
        try:
            client = stack.enter_context(Client(**where, set_as_default=False, timeout=PATIENCE))
        except (OSError, ValueError) as error:
            reason = str(error)
        if reason is not None:
            # A client that failed stops its loop when it is collected. Were that to happen while
            # another one starts its own, they would wait for the same lock for ever.
            gc.collect()
            raise OSError(f"no Dask scheduler answers at {cluster}: {reason}")
        yield client


def _await_file(path: Path) -> None:
    """Wait for the file that a scheduler writes when it starts; Dask itself would wait for ever.

    Raises:
        OSError: It does not come.
    """
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            raise OSError(f"no Dask scheduler has written {path}; there is no such file.")
        time.sleep(0.1)


def _check_versions(data: LabelledData, recipe: Recipe) -> None:
    """Refuse what a worker with other versions made.

    Raises:
        InputError: The versions differ.
    """
    here, there = recipe.source(), data.source
    for found, wanted in (
        ({"lattice-zoo": there.library_version}, {"lattice-zoo": here.library_version}),
        (there.created_with, here.created_with),
    ):
        if found != wanted:
            raise InputError(
                f"a worker of the cluster has {dict(found)}, but here it is {dict(wanted)}; "
                "install the same versions."
            )
