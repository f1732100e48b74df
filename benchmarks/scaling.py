"""How work divides among processes: data on Dask, training by DDP, a simulation in slabs.

    python benchmarks/scaling.py                  # one and two processes, under three minutes
    python benchmarks/scaling.py --processes 1 2 4 8

Every process has one thread. Timed is the work alone: workers are there before the data are made,
epochs and steps are counted from the second on. Beside the time on the clock stands that of the
processors, summed over the processes; where other programs keep the cores busy, the clock says
little, which ``load`` shows. Speed-ups are those of the clock, over one process of the same engine;
for data the plain loop of this process stands beside them. Writes scaling.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardware import hardware

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: Exact labels of random 24×24 states, in units of ten.
LABELS = {"lattice": "24", "random": 300, "trajectories": 0}
#: Training: 24×24, batches of sixteen, the compact gcn.
SAMPLES, EPOCHS = 400, 3
#: Simulation: the pretrained gcn on a large square lattice.
SIDE, WARM, STEPS = 256, 2, 8


def data(processes: int, folder: Path) -> dict[str, float]:
    """Make labelled data; ``processes`` 0 stands for the loop without a cluster."""
    from latticezoo.datasets.make import make_dataset

    def make(**where: Any) -> float:
        path = folder / f"data-{processes}.h5"
        start = time.perf_counter()
        make_dataset("holstein_square", path=path, progress=False, **LABELS, **where)
        return time.perf_counter() - start

    if processes == 0:
        before = time.process_time()
        return {"seconds": make(workers=1), "processor_seconds": time.process_time() - before}
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=processes,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address=None,
            local_directory=str(folder / "dask"),
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(processes)
        client.run(imported)
        before = client.run(time.process_time)
        seconds = make(cluster=cluster.scheduler_address)
        after = client.run(time.process_time)
    return {"seconds": seconds, "processor_seconds": sum(after[k] - before[k] for k in after)}


def imported() -> None:
    """Load in a worker what the recipe needs, and solve once."""
    from latticezoo.simulate import preset, random_start
    from latticezoo.symmetry import square

    preset("holstein_weak").forces(random_start(square(8)).fields, square(8))


def training(processes: int, folder: Path) -> dict[str, float]:
    """Train by DDP; seconds an epoch, by the clock of the run."""
    out = folder / f"run-{processes}"
    words = ["fit", "--model", "gcn", "--data", "synthetic", "--data.lattice", "square(24)"]
    words += ["--data.system", "gradients", "--data.random", SAMPLES, "--data.trajectories", 0]
    words += ["--data.batch_size", 16, "--data.path", folder / "synthetic.h5"]
    words += ["--trainer.max_epochs", EPOCHS, "--trainer.accelerator", "cpu", "--out", out]
    if processes > 1:
        words += ["--trainer.strategy", "ddp", "--trainer.devices", processes]
    launch("-m", "latticezoo.training.cli", *words)
    with (out / "metrics.csv").open() as stream:
        clock = [float(row["seconds"]) for row in csv.DictReader(stream)]
    return {"seconds": (clock[-1] - clock[0]) / (len(clock) - 1)}


def slabs(processes: int, folder: Path) -> dict[str, float]:
    """Simulate a lattice in slabs; seconds a step."""
    out = folder / f"slabs-{processes}.json"
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", processes)
    launch(*launcher, __file__, "--slab", out)
    return json.loads(out.read_text())


def slab(out: Path) -> None:
    """What each process of :func:`slabs` does."""
    import torch
    from torch import distributed as dist

    from latticezoo.simulate import Langevin, preset, random_start, run_slabs
    from latticezoo.symmetry import square
    from latticezoo.zoo import load_pretrained

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    system, lattice = preset("holstein_weak"), square(SIDE)
    field = system.learned(load_pretrained("gcn.holstein_weak"))
    bath = Langevin(0.1, temperature=0.1, damping=system.damping, mass=system.mass)
    state = random_start(lattice, amplitude=system.Q0, seed=1)
    state = run_slabs(field, bath, state, WARM, lattice=lattice)
    dist.barrier()
    start, before = time.perf_counter(), time.process_time()
    run_slabs(field, bath, state, STEPS, lattice=lattice)
    dist.barrier()
    seconds = time.perf_counter() - start
    spent = torch.tensor([time.process_time() - before], dtype=torch.float64)
    dist.all_reduce(spent)
    if dist.get_rank() == 0:
        found = {"seconds": seconds / STEPS, "processor_seconds": float(spent) / STEPS}
        out.write_text(json.dumps(found))
    dist.destroy_process_group()


def launch(*words: object) -> None:
    """Run this Python with one thread a process."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")


ENGINES: dict[str, tuple[str, Callable[[int, Path], dict[str, float]]]] = {
    "dask": (f"{LABELS['random']} exact labels on 24×24", data),
    "ddp": (f"one epoch of {SAMPLES} samples on 24×24, compact gcn", training),
    "slabs": (f"one Langevin step on {SIDE}×{SIDE}, gcn.holstein_weak", slabs),
}


def main() -> None:
    """Measure, print, save beside this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--engines", nargs="+", choices=[*ENGINES], default=[*ENGINES])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--slab", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.slab is not None:
        slab(args.slab)
        return
    os.environ.update(ONE_THREAD)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in args.engines:
            work, measure = ENGINES[name]
            counts = [*([0] if name == "dask" else []), *args.processes]
            rows = {}
            for count in counts:
                rows[count] = {
                    **measure(count, Path(scratch)),
                    "load": round(os.getloadavg()[0], 1),
                }
                print(
                    f"{name}, {count or 'no'} process{'es' * (count > 1)}: {rows[count]}",
                    flush=True,
                )
            first = rows[args.processes[0]]["seconds"]
            for row in rows.values():
                row.update({key: round(value, 4) for key, value in row.items()})
                row["speed_up"] = round(first / row["seconds"], 3)
            report[name] = {"work": work, "processes": {str(k): row for k, row in rows.items()}}
    args.out.write_text(json.dumps({**report, "hardware": hardware()}, indent=1) + "\n")
    print(f"wrote:\n  {args.out}")


if __name__ == "__main__":
    main()
