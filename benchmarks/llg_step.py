"""Speed of LLG dynamics with analytic exchange, in cell evaluations a second.

    python benchmarks/llg_step.py            # 64² to 1024², two precisions, one and two threads
    python benchmarks/llg_step.py --quick

The measure is that of micromagnetic codes (Vansteenkiste et al., AIP Advances 4, 107133 (2014)):
cells times evaluations of the torque a second; both schemes take two evaluations a step. Timed are
the step alone (``step``), with the checks, copies and bookkeeping of ``simulate`` (``simulate``),
and the effective field alone (``field``), each by the clock on the wall and by the processor time
of the process, which other users of the machine lengthen much less; medians of five stretches. With
several threads only the wall counts, and only on a machine that is otherwise idle: threads that
wait for each other on busy cores lose a scheduler's time slice each time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hardware import hardware
from torch import Tensor

from latticezoo.simulate import spin_states
from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.observers import FunctionObserver
from latticezoo.simulate.run import simulate
from latticezoo.simulate.systems import create_system
from latticezoo.symmetry.lattices import square

EVALUATIONS = 2  # a step
STRETCHES = 5


class Clock:
    """Time on the wall and of the process since the last look."""

    def __init__(self) -> None:
        self.last = (time.perf_counter(), time.process_time())

    def look(self) -> tuple[float, float]:
        now = (time.perf_counter(), time.process_time())
        passed = (now[0] - self.last[0], now[1] - self.last[1])
        self.last = now
        return passed


def rates(
    run: Callable[[int], tuple[float, float]], cells: int, threads: int, budget: float
) -> dict[str, int]:
    """Cell evaluations a second.

    Args:
        run: Does so many steps and gives the seconds they took, by both clocks.
        cells: Number of cells.
        threads: Threads that share the work.
        budget: Seconds of processor time for all stretches together.
    """
    once = max(run(2)[1] / 2, 1e-5)
    steps = max(2, int(budget / STRETCHES / once))
    times = [run(steps) for _ in range(STRETCHES)]
    work = EVALUATIONS * cells * steps
    found = {"wall": round(work / statistics.median(wall for wall, _ in times))}
    if threads == 1:
        found["processor"] = round(work / statistics.median(busy for _, busy in times))
    return found


def measure(
    size: int, dtype: torch.dtype, threads: int, temperature: float, budget: float
) -> dict[str, Any]:
    """Rates at one size, precision and number of threads."""
    torch.set_num_threads(threads)
    lattice, system = square(size), create_system("heisenberg_square")
    dynamics = LLG(0.05, temperature, 0.1)
    start = spin_states.random_spins(lattice, seed=1, dtype=dtype)

    def field(fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"S": system.pair_field(fields["S"], lattice)}  # type: ignore[attr-defined]

    def steps(count: int) -> tuple[float, float]:
        state = dynamics.start(replace(start, forces=field(start.fields)))
        clock = Clock()
        for _ in range(count):
            state = dynamics.step(state, field)
        return clock.look()

    def whole(count: int) -> tuple[float, float]:
        clock, passed = Clock(), []

        def tick(snapshot: Any) -> Tensor:
            passed.append(clock.look())
            return snapshot.state.fields["S"][:, 0, 0]

        observer = FunctionObserver(count, "tick", tick)  # at the first and at the last step
        simulate(
            system, dynamics, start, count, lattice=lattice, observers=[observer], progress=False
        )
        return passed[-1]

    def fields_alone(count: int) -> tuple[float, float]:
        clock = Clock()
        for _ in range(EVALUATIONS * count):
            field(start.fields)
        return clock.look()

    timed = {"step": steps, "simulate": whole, "field": fields_alone}
    with torch.no_grad():
        found = {name: rates(run, lattice.n_sites, threads, budget) for name, run in timed.items()}
    return {
        "lattice": str(lattice),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "temperature": temperature,
        **found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--budget", type=float, default=0.6, help="seconds a number (default: 0.6)")
    parser.add_argument("--quick", action="store_true", help="one size: checks that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    sizes, budget = ([64], 0.1) if options.quick else (options.sizes, options.budget)
    before = os.getloadavg()[0]
    results = []
    for threads in options.threads:
        for size in sizes:
            for dtype in (torch.float32, torch.float64):
                results.append(measure(size, dtype, threads, 0.0, budget))
    results.append(measure(sizes[-1], torch.float32, 1, 0.1, budget))
    for row in results:
        print(json.dumps(row))
    found = {
        "benchmark": "llg_step",
        "quick": options.quick,
        "unit": "cells times field evaluations a second; two evaluations a step",
        "model": "nearest-neighbour exchange on the square lattice, midpoint scheme, damping 0.1",
        "hardware": hardware(),
        "load_average": {"before": before, "after": os.getloadavg()[0]},
        "results": results,
    }
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(options.output)


if __name__ == "__main__":
    main()
