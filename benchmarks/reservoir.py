"""Echo state networks on Mackey–Glass (delay 17) and Lorenz, beside reservoirpy.

    pip install --no-deps --target /tmp/reservoirpy reservoirpy==0.4.2   # not for the package
    PYTHONPATH=/tmp/reservoirpy python benchmarks/reservoir.py

Both are given the same series (standardized, float64), sizes and options: 500 nodes, density 5 %,
uniform input weights and biases, the same spectral radius, leak and penalty of the read-out. What
is random in them is not the same, so each is made with --seeds seeds, and mean and standard
deviation over the seeds are reported.

* one step: root-mean-square error of the next value over the spread, on 2000 held-out values;
* valid time: steps of a free run until the error reaches 0.4 of the spread, mean over 20 starts;
* NRMSE at 84 steps of a free run (Mackey–Glass; Jaeger and Haas, Science 304, 78, 2004), root mean
  square over the starts;
* training: states and read-out, processor time of one thread, the best over the seeds; for ours
  inside Lightning's trainer and without; a step of a free run of one series, and of the 20 starts
  for each of them (ours go in one batch). Making the reservoir is not counted.

Mackey–Glass: dx/dt = 0.2 x(t−17)/(1 + x(t−17)^10) − 0.1 x, sampled at 1. Lorenz: σ = 10, ρ = 28,
β = 8/3, sampled at 0.02, all three components. Writes benchmarks/reservoir.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from hardware import hardware
from torch import Tensor

from latticezoo.simulate.dynamics.runge_kutta import rk4_step
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.sequence_model import unbounded
from latticezoo.zoo.testing import Batches, short_trainer

NODES, DENSITY, WASHOUT, TRAINED, HELD = 500, 0.05, 300, 3000, 2000
STARTS, AHEAD, THRESHOLD = 20, 1000, 0.4
#: Options of both; times in samples.
SYSTEMS: dict[str, dict[str, Any]] = {
    "mackey_glass": {"radius": 0.9, "leak": 0.5, "input_scale": 0.5, "bias": 0.2, "ridge": 1e-9},
    "lorenz": {"radius": 0.6, "leak": 0.7, "input_scale": 0.1, "bias": 0.5, "ridge": 1e-9},
}
PLACE = chain(4)  # a global series lives on any lattice


# ---- series --------------------------------------------------------------------------------------


def mackey_glass(samples: int, delay: float = 17.0, parts: int = 10) -> Tensor:
    """Samples ``[T, 1]`` at unit distance after a transient; Runge–Kutta steps of 1/parts."""
    back, step = round(delay * parts), 1 / parts
    values = [1.2] * (back + 1)

    def rate(x: float, past: float) -> float:
        return 0.2 * past / (1 + past**10) - 0.1 * x

    for _ in range((samples + 500) * parts):
        x, old, new = values[-1], values[-1 - back], values[-back]
        middle = (old + new) / 2
        first = rate(x, old)
        second = rate(x + step / 2 * first, middle)
        third = rate(x + step / 2 * second, middle)
        fourth = rate(x + step * third, new)
        values.append(x + step / 6 * (first + 2 * second + 2 * third + fourth))
    return torch.tensor(values[-samples * parts :: parts], dtype=torch.float64)[:, None]


def lorenz(samples: int, spacing: float = 0.02, parts: int = 4) -> Tensor:
    """Samples ``[T, 3]`` after a transient."""

    def rate(values: dict[str, Tensor]) -> dict[str, Tensor]:
        x, y, z = values["s"].unbind()
        return {"s": torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])}

    state, found = {"s": torch.tensor([1.0, 1.0, 20.0], dtype=torch.float64)}, []
    for number in range((samples + 500) * parts):
        state = rk4_step(rate, state, spacing / parts)
        if number % parts == 0:
            found.append(state["s"])
    return torch.stack(found[-samples:])


# ---- the two -------------------------------------------------------------------------------------


class Ours:
    """echo_state of this library."""

    def __init__(self, channels: int, options: dict[str, Any], seed: int) -> None:
        field = Field("state", support="global", point=f"{channels}xA1")
        self.network = create_model(
            "echo_state",
            Task("benchmark", (field,), (field,), "chain"),
            nodes=NODES,
            density=DENSITY,
            washout=WASHOUT,
            seed=seed,
            **options,
        ).double()
        unit = {"state": {"mean": torch.zeros(channels), "std": torch.ones(channels)}}
        self.network.set_statistics({"inputs": unit, "targets": unit})

    def batch(self, series: Tensor) -> dict[str, Any]:
        """One window with its targets."""
        fields = {"state": series[None, :-1]}
        return {"fields": fields, "targets": {"state": series[None, 1:]}, "lattice": PLACE}

    def train(self, series: Tensor) -> dict[str, float]:
        """Fit, and the seconds that it takes with and without a trainer."""
        batch, network = self.batch(series), self.network
        with TemporaryDirectory() as folder:
            trainer = short_trainer(Path(folder), max_epochs=1, num_sanity_val_steps=0)
            begin = time.process_time()
            trainer.fit(network, Batches([batch]))
            inside = time.process_time() - begin
        begin = time.process_time()
        network.on_train_epoch_start()
        network.training_step(batch, 0)
        network._solve()
        return {"train": time.process_time() - begin, "train_in_trainer": inside}

    def one_step(self, series: Tensor) -> Tensor:
        """Predictions after each value."""
        with torch.no_grad():
            return self.network({"state": series[None]}, PLACE)["state"][0]

    def free(self, starts: Tensor, steps: int) -> Tensor:
        """Free runs ``[starts, steps, C]`` after ``[starts, washout, C]``."""
        with unbounded(self.network):  # one that runs away shall not end the others
            return self.network.roll_out({"state": starts}, PLACE, steps)["state"]


class Theirs:
    """Reservoir and Ridge of reservoirpy."""

    def __init__(self, channels: int, options: dict[str, Any], seed: int) -> None:
        from reservoirpy.mat_gen import uniform
        from reservoirpy.nodes import Reservoir, Ridge

        self.reservoir = Reservoir(
            NODES,
            lr=options["leak"],
            sr=options["radius"],
            input_scaling=options["input_scale"],
            input_connectivity=1.0,
            rc_connectivity=DENSITY,
            Win=uniform,
            bias=uniform(low=-options["bias"], high=options["bias"]),
            seed=seed,
        )
        # Its penalty is for the sum over samples, ours for their mean.
        self.ridge = Ridge(ridge=options["ridge"] * (TRAINED - WASHOUT))
        self.model = self.reservoir >> self.ridge

    def train(self, series: Tensor) -> dict[str, float]:
        """Fit, and the seconds that it takes."""
        values = series.numpy()
        self.model.initialize(values[:2], values[:2])
        begin = time.process_time()
        self.model.fit(values[:-1], values[1:], warmup=WASHOUT)
        return {"train": time.process_time() - begin}

    def one_step(self, series: Tensor) -> Tensor:
        """Predictions after each value."""
        self.model.reset()
        return torch.from_numpy(self.model.run(series.numpy()))

    def free(self, starts: Tensor, steps: int) -> Tensor:
        """Free runs ``[starts, steps, C]`` after ``[starts, washout, C]``."""
        runs = []
        for start in starts.numpy():
            self.model.reset()
            value, found = self.model.run(start)[-1], []
            for _ in range(steps):
                found.append(value)
                value = self.model.step(value)
            runs.append(np.stack(found))
        return torch.from_numpy(np.stack(runs))


# ---- scores --------------------------------------------------------------------------------------


def scores(make: Callable[..., Any], series: Tensor, options: dict[str, Any], seed: int) -> Any:
    """All numbers of one seed; the series is standardized."""
    machine = make(series.shape[1], options, seed)
    seconds = machine.train(series[: TRAINED + 1])
    tail = series[TRAINED - WASHOUT : TRAINED + HELD + 1]
    error = machine.one_step(tail[:-1])[WASHOUT:] - tail[WASHOUT + 1 :]
    gap = (len(series) - TRAINED - AHEAD - WASHOUT) // STARTS
    places = TRAINED + gap * torch.arange(STARTS)
    rows = places[:, None] + torch.arange(WASHOUT + AHEAD)
    truth = series[rows]
    begin = time.process_time()
    machine.free(truth[:1, :WASHOUT], AHEAD)
    seconds["free_step"] = (time.process_time() - begin) / AHEAD
    begin = time.process_time()
    free = machine.free(truth[:, :WASHOUT], AHEAD)
    seconds["free_step_of_each_start"] = (time.process_time() - begin) / AHEAD / STARTS
    wrong = (free - truth[:, WASHOUT:]).square().mean(-1).sqrt()  # [starts, steps], in spreads
    over = torch.nan_to_num(wrong, nan=1e9) > THRESHOLD
    first = torch.where(over.any(1), over.int().argmax(1), AHEAD)
    return {
        "one_step_nrmse": float(error.square().mean().sqrt()),
        "valid_steps": float(first.double().mean()),
        "nrmse_84": float(wrong[:, 83].square().mean().sqrt()),
        "seconds": seconds,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds; of times the best."""
    found: dict[str, Any] = {}
    for name in ("one_step_nrmse", "valid_steps", "nrmse_84"):
        values = np.array([row[name] for row in rows])
        found[name] = {
            "mean": float(f"{values.mean():.4g}"),
            "std": float(f"{values.std(ddof=1):.2g}") if len(values) > 1 else None,
        }
    for name in rows[0]["seconds"]:
        found[f"{name}_ms"] = round(1e3 * min(row["seconds"][name] for row in rows), 4)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--only", choices=("ours", "reservoirpy"), help="leave the other out")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    import reservoirpy

    torch.set_num_threads(1)
    makers = {"ours": Ours, "reservoirpy": Theirs}
    result: dict[str, Any] = {
        "nodes": NODES,
        "density": DENSITY,
        "washout": WASHOUT,
        "trained": TRAINED,
        "seeds": given.seeds,
        "reservoirpy": reservoirpy.__version__,
        "systems": {},
    }
    for name in given.systems.split(","):
        length = TRAINED + WASHOUT + AHEAD + HELD + 1
        series = {"mackey_glass": mackey_glass, "lorenz": lorenz}[name](length)
        part = series[:TRAINED]
        series = (series - part.mean(0)) / part.std(0)
        entry: dict[str, Any] = {"options": SYSTEMS[name]}
        for who, make in makers.items():
            if given.only not in (None, who):
                continue
            rows = [scores(make, series, SYSTEMS[name], seed) for seed in range(given.seeds)]
            entry[who] = summary(rows)
            print(name, who, json.dumps(entry[who]))
        result["systems"][name] = entry
    result["hardware"] = hardware()
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
