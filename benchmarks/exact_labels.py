"""Exact labels per second against a bare pool of one-thread eigensolvers.

    python benchmarks/exact_labels.py                # 12 x 12, 24 x 24, 40 x 40
    python benchmarks/exact_labels.py --quick

Ours: ``Holstein.labels`` of a batch over worker processes: build h, diagonalize, find μ, density,
force, free energy, and send everything back. The rival: as many processes that hold their matrices
already and do nothing but ``scipy.linalg.eigh(driver="evd")`` on a copy, the result thrown away.
The two take turns; the ratio is the median over the turns. Writes JSON with the hardware.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from hardware import hardware

from latticezoo.simulate.electrons.hopping import hopping_matrix
from latticezoo.simulate.systems.holstein import preset
from latticezoo.symmetry.lattices import square

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_matrices: list[np.ndarray] = []


def prepare(h: np.ndarray, diagonals: np.ndarray) -> None:
    """In a worker of the rival: build its matrices, before the clock starts."""
    _matrices.extend(np.asfortranarray(h + np.diag(diagonal)) for diagonal in diagonals)
    scipy.linalg.eigh(_matrices[0], driver="evd", check_finite=False)


def diagonalize(rows: range) -> None:
    """In a worker of the rival: the bare work."""
    for row in rows:
        h = _matrices[row].copy(order="F")
        scipy.linalg.eigh(h, driver="evd", overwrite_a=True, check_finite=False)


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


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
    h = hopping_matrix(lattice).toarray()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(workers, prepare, (h, diagonals)) as pool:
        pool.map(diagonalize, shares, chunksize=1)
        system.labels({"Q": Q}, lattice)
        for _ in range(turns):
            bare.append(seconds(lambda: pool.map(diagonalize, shares, chunksize=1)))
            ours.append(seconds(lambda: system.labels({"Q": Q}, lattice)))
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
        "results": [measure(*case, workers=workers) for case in cases],
    }
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["results"], indent=2))
    print(options.output)


if __name__ == "__main__":
    main()
