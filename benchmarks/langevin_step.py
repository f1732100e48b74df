"""Cost of a Langevin step on a large lattice, and where it goes.

    python benchmarks/langevin_step.py                     # 200 x 200, compact gcn
    python benchmarks/langevin_step.py --quick --force analytic

Times the whole step as ``simulate`` does it (integrator, noise, checks, force), the force call
alone, and the noise alone; median over the steps. Writes JSON with the hardware.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from hardware import hardware
from torch import Tensor

from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.noise import normal_like
from latticezoo.simulate.observers import FunctionObserver
from latticezoo.simulate.run import simulate
from latticezoo.symmetry.lattices import Lattice, square


class Analytic:
    """Elastic lattice with a bounded local force: no network, so the engine's own cost shows."""

    batch_invariant = True

    def forces(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        Q = fields["Q"]
        return {"Q": 0.5 * torch.tanh(2 * Q) - Q - 0.18 * lattice.neighbour_sum(Q)}


def force_field(name: str, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    """The force field, and what to say about it."""
    if name == "analytic":
        return Analytic(), {"force": "analytic"}
    from latticezoo.simulate.systems.holstein import preset
    from latticezoo.zoo.registry import create_model

    system = preset("holstein_weak")
    torch.manual_seed(0)
    model = create_model(name, system.task()).to(dtype).eval()
    count = sum(weight.numel() for weight in model.parameters())
    return system.learned(model), {"force": name, "parameters": count, "dtype": str(dtype)}


def milliseconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of a call."""
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def measure(
    name: str, size: int, replicas: int, repeats: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Times in milliseconds a step of all replicas."""
    lattice = square(size)
    field, about = force_field(name, dtype)
    state = initial.random(lattice, replicas, amplitude=1.0, seed=1)
    fields = dict(state.fields)
    clock: list[float] = []

    def tick(snapshot: Any) -> Tensor:
        clock.append(time.perf_counter())
        return snapshot.state.fields["Q"][:, 0, 0]

    simulate(
        field,
        Langevin(0.1, 0.1, 0.2, seed=1),
        state,
        repeats + 1,
        lattice=lattice,
        observers=[FunctionObserver(1, "tick", tick)],
        batch_replicas=True,
        progress=False,
    )
    steps = [late - early for early, late in itertools.pairwise(clock[1:])]
    step = 1e3 * statistics.median(steps)
    with torch.no_grad():
        force = milliseconds(lambda: field.forces(fields, lattice), repeats)
    noise = milliseconds(lambda: normal_like(fields["Q"], 1, state.replicas, 0), repeats)
    return about | {
        "lattice": str(lattice),
        "replicas": replicas,
        "ms_per_step": round(step, 3),
        "ms_force": round(force, 3),
        "ms_noise": round(noise, 3),
        "share_of_force": round(force / step, 3),
        "site_steps_per_second": round(1e3 * replicas * lattice.n_sites / step),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--force", default="gcn", help="a zoo model, or 'analytic' (default: gcn)")
    parser.add_argument("--size", type=int, default=200, help="linear size (default: 200)")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--double", action="store_true", help="float64 weights")
    parser.add_argument("--threads", type=int, help="torch threads (default: torch's choice)")
    parser.add_argument("--quick", action="store_true", help="few steps: checks that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    repeats = 3 if options.quick else 30
    dtype = torch.float64 if options.double else torch.float32
    names = dict.fromkeys([options.force, "analytic"])
    found = {
        "benchmark": "langevin_step",
        "quick": options.quick,
        "hardware": hardware(),
        "results": [
            measure(name, options.size, options.replicas, repeats, dtype) for name in names
        ],
    }
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["results"], indent=2))
    print(options.output)


if __name__ == "__main__":
    main()
