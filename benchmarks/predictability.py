"""How far ahead the order of the chaotic chain can be told from its own past, by whatever network.

    python benchmarks/predictability.py

Networks that go on frame by frame feed on their own errors. A regression of δ_n a time τ ahead, for
each τ anew, does not: it gives the mean of what can follow, which no prediction has a smaller root
mean square error than. Here the mean is linear in the 1500 nodes of a reservoir that is driven by
one order parameter or by both (and in these themselves), fit by ridge regression to 20, 40 and 80
seeds, and measured on held-out ones (the test split of the data module). JSON: errors over the
spread by τ, on held-out seeds and on those of the fit, and the time at which the held-out error
reaches half the spread, in frames and in Lyapunov times. Where the errors of fit and held-out seeds
are close and more seeds change little, it is not data that are missing: what such a reservoir keeps
of the past does not tell more.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware
from torch import Tensor

from latticezoo.datasets import create_data
from latticezoo.simulate.climate import valid_time
from latticezoo.zoo.layers.reservoir import Reservoir
from latticezoo.zoo.layers.ridge import RidgeRegression

AHEAD = (5, 10, 14, 16, 18, 20, 22, 24, 26, 30)
SEEDS = (20, 40, 80)
WASHOUT, EVERY, RIDGE = 200, 2, 1e-6


def features(series: Tensor, nodes: int) -> Tensor:
    """Hidden states and inputs ``[K, T, nodes + C]`` of standardized series ``[K, T, C]``."""
    reservoir = Reservoir(
        series.shape[-1], nodes, radius=0.9, leak=0.5, input_scale=0.5, density=0.02
    ).double()
    with torch.no_grad():
        states, _ = reservoir(reservoir.start(len(series)), series.transpose(0, 1).contiguous())
    return torch.cat([states.transpose(0, 1), series], -1)


def samples(states: Tensor, order: Tensor, ahead: int) -> tuple[Tensor, Tensor]:
    """Features ``[M, F]`` and what the order is a time later ``[M, 1]``."""
    last = order.shape[1] - ahead
    now = states[:, WASHOUT:last:EVERY].flatten(0, 1)
    return now, order[:, WASHOUT + ahead :: EVERY].reshape(-1, 1)[: len(now)]


def errors(fit: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]) -> dict[str, list[float]]:
    """Root-mean-square errors by time ahead, on held-out seeds and on those of the fit."""
    found: dict[str, list[float]] = {"held_out": [], "fit": []}
    for ahead in AHEAD:
        ridge = RidgeRegression(fit[0].shape[-1], 1)
        parts = {"fit": samples(*fit, ahead), "held_out": samples(*held, ahead)}
        ridge.add(*parts["fit"])
        weights = ridge.solve(RIDGE)
        for name, (now, later) in parts.items():
            found[name].append(float((now @ weights - later).square().mean().sqrt()))
    return found


def crossing(values: list[float]) -> float:
    """Frames until the error reaches half the spread, between the times by straight lines."""
    frames = np.arange(1, AHEAD[-1] + 1)
    return valid_time(torch.from_numpy(np.interp(frames, (0, *AHEAD), (0.0, *values))))


def main() -> None:
    """Measure, print, and write the JSON beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1500)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for order in ("delta_n", "delta_n,delta_Q"):
        data: Any = create_data("chaotic_holstein", order=order)
        data.prepare_data()
        data.setup()
        runs = {split: data.runs(split) for split in ("train", "test")}
        spread = {name: float(v.square().mean().sqrt()) for name, v in runs["train"].items()}
        joined = {
            split: torch.cat([values / spread[name] for name, values in series.items()], -1)
            for split, series in runs.items()
        }
        states = {split: features(series, given.nodes) for split, series in joined.items()}
        pairs = {split: (states[split], joined[split][..., 0]) for split in runs}
        for seeds in SEEDS:
            fit = (pairs["train"][0][:seeds], pairs["train"][1][:seeds])
            found = errors(fit, pairs["test"])
            frames = crossing(found["held_out"])
            row = {
                "order": order,
                "seeds": seeds,
                "held_out_seeds": len(joined["test"]),
                **found,
                "valid_frames": frames,
                "valid_lyapunov": frames * data.frame_time / data.lyapunov_time,
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    found = {
        "frames_ahead": AHEAD,
        "nodes": given.nodes,
        "ridge": RIDGE,
        "rows": rows,
        "hardware": hardware(),
    }
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
