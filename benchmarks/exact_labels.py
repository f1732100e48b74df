"""Exact labels per second against a bare pool of one-thread eigensolvers.

    python benchmarks/exact_labels.py                # 12 x 12, 24 x 24, 40 x 40
    python benchmarks/exact_labels.py --quick

Ours: ``Holstein.labels`` of a batch over worker processes: build h, diagonalize, find μ, density,
force, free energy, and send everything back. The rival: as many processes that hold their matrices
already and do nothing but ``scipy.linalg.eigh(driver="evd")`` on a copy, the result thrown away.
The two take turns; the ratio is the median over the turns. On a machine busy with other things the
ratio of processor times (ours with the parent's share) says more. Writes JSON with the hardware.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from hardware import hardware

from latticezoo.simulate.electrons.hopping import hopping_matrix
from latticezoo.simulate.systems.holstein import preset
from latticezoo.simulate.workers import pool as workers_of_ours
from latticezoo.symmetry.lattices import square

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_matrices: list[np.ndarray] = []


def prepare(h: np.ndarray, diagonals: np.ndarray) -> None:
    """In a worker of the rival: build its matrices, before the clock starts."""
    _matrices.extend(np.asfortranarray(h + np.diag(diagonal)) for diagonal in diagonals)
    scipy.linalg.eigh(_matrices[0], driver="evd", check_finite=False)


def diagonalize(rows: range) -> float:
    """In a worker of the rival: the bare work; returns the processor time it took."""
    began = time.process_time()
    for row in rows:
        h = _matrices[row].copy(order="F")
        scipy.linalg.eigh(h, driver="evd", overwrite_a=True, check_finite=False)
    return time.process_time() - began


def processor_time(pids: list[int]) -> float:
    """Seconds of processor time that this process and others have used (Linux)."""
    ticks = 0
    for pid in pids:
        user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        ticks += int(user) + int(system)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def measure(size: int, per_worker: int, turns: int, workers: int) -> dict[str, Any]:
    """Labels per second of both on one lattice."""
    batch = per_worker * workers
    lattice, system = square(size), replace(preset("holstein_weak"), workers=workers)
    generator = torch.Generator().manual_seed(0)
    Q = torch.randn(batch, lattice.n_sites, 1, dtype=torch.float64, generator=generator)
    diagonals = -system.g * Q[..., 0].numpy()
    parts = 4 * workers
    shares = [range(batch)[start::parts] for start in range(parts)]
    ours, bare = [], []
    our_cpu = bare_cpu = 0.0
    h = hopping_matrix(lattice).toarray()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(workers, prepare, (h, diagonals)) as pool:
        pool.map(diagonalize, shares, chunksize=1)
        system.labels({"Q": Q}, lattice)
        for _ in range(turns):
            began = time.perf_counter()
            bare_cpu += sum(pool.map(diagonalize, shares, chunksize=1))
            bare.append(time.perf_counter() - began)
            began, used = time.perf_counter(), processor_time(workers_of_ours().pids)
            system.labels({"Q": Q}, lattice)
            ours.append(time.perf_counter() - began)
            our_cpu += processor_time(workers_of_ours().pids) - used
    ratios = [b / o for b, o in zip(bare, ours, strict=True)]
    return {
        "lattice": str(lattice),
        "batch": batch,
        "turns": turns,
        "workers": workers,
        "labels_per_second": round(batch / statistics.median(ours), 2),
        "bare_eigh_per_second": round(batch / statistics.median(bare), 2),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_quartiles": [round(x, 3) for x in np.quantile(ratios, [0.25, 0.75])],
        "processor_time_ratio": round(bare_cpu / our_cpu, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, help="processes (default: all cores)")
    parser.add_argument("--quick", action="store_true", help="small and short: checks that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    workers = options.workers or len(os.sched_getaffinity(0))
    for name in _ONE_THREAD:
        os.environ[name] = "1"  # for the processes of both sides
    cases = [(12, 64, 20), (24, 8, 9), (40, 4, 3)]
    if options.quick:
        cases = [(8, 8, 3)]
    found = {
        "benchmark": "exact_labels",
        "quick": options.quick,
        "hardware": hardware(),
        "load_average_before": round(os.getloadavg()[0], 1),
        "results": [measure(*case, workers=workers) for case in cases],
    }
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["results"], indent=2))
    print(options.output)


if __name__ == "__main__":
    main()
