"""Speed of the pure gauge samplers in link updates a second, and their plaquettes.

    python benchmarks/gauge_sampler.py

A sweep of Z2 draws every link once; one of U(1) and SU(2) draws it once by heat bath and reflects
it once, which counts as one update here. Speed is given by the clock on the wall and by the
processor time of the process, which other users of the machine lengthen much less; medians of three
stretches. Plaquettes on 12 × 12 are held against the exact mean of the finite torus, with errors
from blocks, and with the integrated autocorrelation time of the mean plaquette in sweeps. For Z2,
whose starts are exact draws and whose sweeps hardly move at large β, the blocks are replicas.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from hardware import hardware

from latticezoo.simulate.gauge_sampling import GaugeSampler, mean_plaquette
from latticezoo.simulate.statistics import blocked_error, integrated_time
from latticezoo.symmetry.lattices import square

GROUPS = ("Z2", "U1", "SU2")
STRETCHES = 3


def speed(group: str, size: int, replicas: int, sweeps: int) -> dict[str, Any]:
    """Link updates a second."""
    lattice, sampler = square(size), GaugeSampler(group, 2.0)
    links = sampler.start(lattice, range(replicas))
    links = sampler.run(links, lattice, 2).links
    walls, cpus = [], []
    for stretch in range(STRETCHES):
        wall, cpu = time.perf_counter(), time.process_time()
        links = sampler.run(links, lattice, sweeps, first=2 + stretch * sweeps).links
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    updates = 2 * lattice.n_sites * replicas * sweeps
    return {
        "group": group,
        "lattice": str(lattice),
        "replicas": replicas,
        "updates_per_wall_second": round(updates / statistics.median(walls)),
        "updates_per_processor_second": round(updates / statistics.median(cpus)),
    }


def accuracy(group: str, beta: float) -> dict[str, Any]:
    """Mean plaquette on 12 × 12 against the exact one."""
    lattice, sampler = square(12), GaugeSampler(group, beta, seed=1)
    replicas, first, sweeps = (10000, 1, 2) if group == "Z2" else (32, 30, 120)
    links = sampler.start(lattice, range(replicas))
    links = sampler.run(links, lattice, first).links
    found = sampler.run(links, lattice, sweeps, first=first).plaquettes
    error = blocked_error(found, sweeps if group == "Z2" else None)
    exact = mean_plaquette(group, beta, lattice.n_sites)
    return {
        "group": group,
        "beta": beta,
        "plaquette": float(found.mean()),
        "blocked_error": error,
        "exact": exact,
        "exact_infinite": mean_plaquette(group, beta),
        "standard_errors_off": float((found.mean() - exact) / error),
        "autocorrelation_sweeps": None if group == "Z2" else integrated_time(found),
    }


def main() -> None:
    """Measure and write the JSON."""
    torch.set_num_threads(1)
    report = {
        "hardware": hardware(),
        "speed": [
            speed(group, *shape)
            for group in GROUPS
            for shape in ((16, 16, 12), (64, 1, 12), (256, 1, 2))
        ],
        "accuracy": [accuracy(group, beta) for group in GROUPS for beta in (1.0, 2.0, 4.0)],
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
