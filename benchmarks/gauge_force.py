"""Time of one field on link spins: by diagonalization, and learned.

    python benchmarks/gauge_force.py                       # half a minute
    python benchmarks/gauge_force.py --model wilson_gnn.quantum_link    # the committed JSON

Random link spins of the quantum link model; one state, one thread, processor time (which other work
on the machine blurs less than wall-clock time), the shortest of a few calls. JSON: seconds by side
of the lattice, and the exponent of seconds ∝ sites^x from the three largest sides. The time of a
network does not depend on its weights; without --model they are untrained.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hardware import hardware

from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.symmetry.lattices import Lattice, square
from latticezoo.zoo import create_model
from latticezoo.zoo.loading import load_network

EXACT, LEARNED = (8, 12, 16, 24, 32), (8, 16, 24, 32, 64, 128, 256)
SYSTEM = QuantumLink()


def link_spins(lattice: Lattice) -> dict[str, torch.Tensor]:
    """One state with directions uniform on the sphere."""
    draw = torch.Generator().manual_seed(0)
    shape = (1, lattice.n_sites, 2)
    height = 2 * torch.rand(shape, generator=draw, dtype=torch.float64) - 1
    phase = 2 * math.pi * torch.rand(shape, generator=draw, dtype=torch.float64)
    return {"U": torch.polar(torch.sqrt(1 - height**2), phase), "E": height}


def seconds(call: Callable[[], Any], enough: float = 0.5) -> float:
    """Shortest processor time of one call, of at least two."""
    times: list[float] = []
    while len(times) < 2 or (sum(times) < enough and len(times) < 20):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def exponent(times: dict[int, float]) -> float:
    """x of seconds ∝ sites^x, by least squares over the three largest sides."""
    sides = sorted(times)[-3:]
    x = torch.tensor([2 * math.log(side) for side in sides])
    y = torch.tensor([math.log(times[side]) for side in sides])
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def main() -> None:
    """Measure, print, and write the JSON beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="pretrained name, run folder or checkpoint")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.model:
        network = load_network(given.model).eval()
    else:
        network = create_model("wilson_gnn", SYSTEM.task(), polyakov=False).eval()
    drivers = {"diagonalization": (SYSTEM, EXACT), "learned": (SYSTEM.learned(network), LEARNED)}
    found: dict[str, Any] = {"model": Path(given.model).name if given.model else "untrained"}
    for name, (driver, sides) in drivers.items():
        times = {}
        for side in sides:
            lattice = square(side)
            fields = link_spins(lattice)
            times[side] = seconds(lambda d=driver, f=fields, on=lattice: d.forces(f, on))
            print(name, side, times[side], flush=True)
        found[name] = {"seconds": times, "exponent": exponent(times)}
    common = set(EXACT) & set(LEARNED)
    found["ratio"] = {
        side: found["diagonalization"]["seconds"][side] / found["learned"]["seconds"][side]
        for side in sorted(common)
    }
    found["hardware"] = hardware()
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
