"""Quantum link spins driven by a network: beside exact runs on 12 × 12, and alone on 24 × 24.

    python benchmarks/quantum_link_runs.py
    python benchmarks/quantum_link_runs.py --replicas 32 --time 100 --large-time 20 --processes 2

The second made the committed JSON, in less than two hours of two cores.

Small: replicas from thermal starts, each with exact fields and with the network's. JSON:
correlation times of E and Re W (over links or plaquettes and replicas), ratios with jackknife
errors, and averages. The times are when the correlation has fallen to 1/e, the integrated time up
to 15/t, and that with the window of Madras and Sokal: correlations at 15/t are 0.2, and what is
beyond, the decay of the longest waves, is what runs of 100/t determine least.
Large: the network on 24 × 24, from a thermal state of the small lattice, repeated and stirred.
Both: the largest |div E|, and the drift of the energy, that which the network conserves and the
exact one along the same run. Picture: the autocorrelation functions.

Steps of 0.1 are too long: spins about a pole then come to be longer than S by more than 1e-6.

--double evaluates the network in float64, where div E is kept to rounding of that type.
--processes shares the replicas of the small runs out; the results are those of one process.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware
from torch import Tensor

from latticezoo.simulate.dynamics.link_dynamics import LinkSpins
from latticezoo.simulate.link_observers import GaussLaw
from latticezoo.simulate.link_states import thermal_link_spins
from latticezoo.simulate.observers import Energy, FunctionObserver, Snapshot
from latticezoo.simulate.run import simulate
from latticezoo.simulate.state import State
from latticezoo.simulate.statistics import autocorrelation, decay_time, integrated_time
from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.symmetry.gauge import plaquettes
from latticezoo.symmetry.lattices import Lattice, square
from latticezoo.training.plots import figure
from latticezoo.zoo.loading import load_network

SYSTEM = QuantumLink()
DT, EVERY, BATH, SEED = 0.05, 4, 0.5, 77
WIDE = 24
TAIL, BLOCKS = 15.0, 24


def electric(snapshot: Snapshot) -> Tensor:
    """E of every link, ``[R, 2N]``."""
    return snapshot.values("E").flatten(1)


def loops(snapshot: Snapshot) -> Tensor:
    """Re W of every plaquette, ``[R, N]``."""
    return plaquettes(snapshot.values("U"), snapshot.lattice).real


@dataclass(frozen=True)
class Series:
    """What was measured along a run, ``[T, R, …]`` by name, and the time that it took."""

    values: dict[str, np.ndarray]
    seconds: float
    steps: int

    @classmethod
    def joined(cls, parts: list[Series]) -> Series:
        """Replicas side by side."""
        values = {
            name: np.concatenate([part.values[name] for part in parts], 1)
            for name in parts[0].values
        }
        return cls(values, sum(part.seconds for part in parts), parts[0].steps)


def run(driver: Any, start: State, span: float, lattice: Lattice, exact_every: int) -> Series:
    """A run with all observers."""

    def exact(snapshot: Snapshot) -> Tensor:
        return SYSTEM.energy(snapshot.state.fields, snapshot.lattice)

    observers = [
        FunctionObserver(EVERY, "E", electric),
        FunctionObserver(EVERY, "W", loops),
        Energy(EVERY),
        GaussLaw(EVERY),
        FunctionObserver(exact_every, "exact_energy", exact),
    ]
    result = simulate(
        driver,
        LinkSpins(DT, length=SYSTEM.length),
        start,
        round(span / DT),
        lattice=lattice,
        observers=observers,
        batch_replicas=True,
    )
    values = {name: np.asarray(found.values) for name, found in result.observers.items()}
    return Series(values, result.seconds, result.steps_done)


def pair(
    model: str, double: bool, lattice: Lattice, numbers: range, span: float
) -> tuple[Series, Series]:
    """The same starts with exact fields and with the network's."""
    torch.set_num_threads(1)
    start = thermal_link_spins(SYSTEM, lattice, BATH, numbers, seed=SEED)
    learned = SYSTEM.learned(loaded(model, double))
    return run(SYSTEM, start, span, lattice, EVERY), run(learned, start, span, lattice, 20)


def loaded(model: str, double: bool) -> Any:
    """The network, ready to use."""
    network = load_network(model).eval()
    return network.double() if double else network


def kept(result: Series, lattice: Lattice) -> dict[str, float]:
    """Largest |div E|, drifts of the energies per site, and the cost of a step."""
    own, exact = (result.values[name] for name in ("energy", "exact_energy"))
    return {
        "div_E": float(result.values["gauss_violation"].max()),
        "own_energy_drift_per_site": float(np.abs(own - own[0]).max()) / lattice.n_sites,
        "exact_energy_drift_per_site": float(np.abs(exact - exact[0]).max()) / lattice.n_sites,
        "exact_energy_end_per_site": float((exact[-1] - exact[0]).mean()) / lattice.n_sites,
        "seconds_per_step": result.seconds / result.steps,
    }


def times(values: np.ndarray) -> dict[str, float]:
    """Correlation times of ``[T, R, n]`` in 1/t, by three measures."""
    unit = EVERY * DT
    end = round(TAIL / unit)
    return {
        "decay": unit * decay_time(values),
        f"integrated_to_{TAIL:g}": unit * integrated_time(values, until=end),
        "integrated": unit * integrated_time(values),
    }


def compared(exact: np.ndarray, learned: np.ndarray) -> dict[str, dict[str, float]]:
    """Times of both ``[T, R, n]``, their ratios with jackknife errors over blocks of replicas."""
    one, two = times(exact), times(learned)
    rows = np.arange(exact.shape[1])
    blocks = np.array_split(rows, min(len(rows), BLOCKS)) if len(rows) > 1 else []
    left = [
        (times(np.delete(exact, block, 1)), times(np.delete(learned, block, 1))) for block in blocks
    ]
    found = {}
    for name in one:
        ratios = np.array([those[name] / these[name] for these, those in left])
        spread = ((ratios - ratios.mean()) ** 2).mean() if blocks else math.nan
        found[name] = {
            "exact": one[name],
            "learned": two[name],
            "ratio": two[name] / one[name],
            "ratio_error": math.sqrt((len(blocks) - 1) * spread) if blocks else math.nan,
        }
    found["average"] = {"exact": float(exact.mean()), "learned": float(learned.mean())}
    found["deviation"] = {"exact": float(exact.std()), "learned": float(learned.std())}
    return found


def draw(path: Path, exact: Series, learned: Series) -> None:
    """Autocorrelation functions of E and W, exact and learned."""
    with figure(path, ncols=2, figsize=(8, 3.2)) as (_, axes):
        for ax, name in zip(axes[0], ("E", "W"), strict=True):
            for label, result, style in (("exact", exact, "-"), ("network", learned, "--")):
                curve = autocorrelation(result.values[name])
                part = curve[: min(len(curve) // 2, round(TAIL / (EVERY * DT)))]
                ax.plot(EVERY * DT * np.arange(len(part)), part, style, label=label)
            ax.axhline(0, color="0.6", lw=0.8)
            ax.set(xlabel="time t (1/t)", ylabel=f"$C_{name}(t) / C_{name}(0)$")
        axes[0, 0].legend()


def main() -> None:
    """Run, print, and write JSON and picture beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="wilson_gnn.quantum_link", help="pretrained name, run or checkpoint")
    add("--lattice", type=int, default=12, help="side of the small lattice, a divisor of 24")
    add("--replicas", type=int, default=6)
    add("--time", type=float, default=60.0, help="of the runs on the small lattice, 1/t")
    add("--large-time", type=float, default=25.0, help="of the run on 24 × 24, 1/t")
    add("--double", action="store_true", help="evaluate the network in float64")
    add("--processes", type=int, default=1, help="share the small runs out to so many")
    given = parser.parse_args()
    if min(given.time, given.large_time) <= TAIL:
        parser.error(f"runs must be longer than {TAIL:g}/t, up to which correlations are summed")
    if given.lattice < 4 or WIDE % given.lattice:
        parser.error(f"--lattice {given.lattice} is not a divisor of {WIDE} from 4")
    torch.set_num_threads(1)
    lattice = square(given.lattice)
    begin = time.perf_counter()
    parts = [range(n, given.replicas, given.processes) for n in range(given.processes)]
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        tasks = [
            pool.submit(pair, given.model, given.double, lattice, part, given.time)
            for part in parts
        ]
        ran = [task.result() for task in tasks]
    exact_run, learned_run = (Series.joined(list(runs)) for runs in zip(*ran, strict=True))
    found: dict[str, Any] = {
        "model": Path(given.model).name,
        "network_dtype": "float64" if given.double else "float32",
        "system": SYSTEM.parameters,
        "dt": DT,
        "bath_temperature": BATH,
        "small": {
            "lattice": str(lattice),
            "replicas": given.replicas,
            "time": given.time,
            "autocorrelation_times": {
                name: compared(exact_run.values[name], learned_run.values[name])
                for name in ("E", "W")
            },
            "exact": kept(exact_run, lattice),
            "learned": kept(learned_run, lattice),
        },
    }
    print(json.dumps(found["small"], indent=1), time.perf_counter() - begin)
    wide = square(WIDE)
    first = thermal_link_spins(SYSTEM, wide, BATH, range(1), seed=SEED, block=given.lattice)
    learned = SYSTEM.learned(loaded(given.model, given.double))
    large_run = run(learned, first, given.large_time, wide, 100)
    found["large"] = {
        "lattice": str(wide),
        "time": given.large_time,
        "learned": kept(large_run, wide),
        "autocorrelation_times": {name: times(large_run.values[name]) for name in ("E", "W")},
    }
    found["hardware"] = hardware()
    print(json.dumps(found["large"], indent=1), time.perf_counter() - begin)
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(found, indent=2) + "\n")
    draw(Path(__file__).with_suffix(".png"), exact_run, learned_run)
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
