"""The same thermal quenches with exact and with learned forces: do the correlations agree?

    python benchmarks/quench_agreement.py                          # 16 x 16, 16 replicas, t = 40

Every replica starts alike and feels the same noise under both forces. Writes the largest
difference of the correlation functions at three times, in units of the ensemble's standard error,
as JSON with the hardware, and the pictures beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from hardware import hardware

from latticezoo.training.analysis import correlations
from latticezoo.training.pictures import simulation_pictures, three_times
from latticezoo.training.simulate_command import Plan


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", default="gcn.holstein_weak", help="pretrained name, run folder or checkpoint")
    add("--lattice", default="square(16, 16)")
    add("--replicas", type=int, default=16)
    add("--steps", type=int, default=400)
    add("--seed", type=int, default=1)
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    plan = Plan.make(
        {
            "model": given.model,
            "lattice": given.lattice,
            "replicas": given.replicas,
            "steps": given.steps,
            "seed": given.seed,
            "frame_every": 10,
        }
    )
    exact = replace(plan.system, workers=2)
    runs, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for label, force_field in (("exact", exact), (plan.label, None)):
            start = time.perf_counter()
            runs[label] = plan.simulate(Path(folder) / label, force_field)
            seconds[label] = round(time.perf_counter() - start, 1)
    samples = [run.observers["local_order"] for run in runs.values()]
    times = samples[0].times / plan.time_unit
    chosen = three_times(times)
    one, other = (correlations(series.values[chosen], plan.lattice) for series in samples)
    difference = np.abs(one.mean - other.mean)[:, 1:]  # C(0) = 1 in both
    order = {
        label: float(np.abs(run.observers["order_parameter"].values[-1]).mean())
        for label, run in runs.items()
    }
    result = {
        "model": given.model,
        "lattice": str(plan.lattice),
        "replicas": given.replicas,
        "steps": given.steps,
        "seed": given.seed,
        "times_tau0": [float(times[index]) for index in chosen],
        "largest_difference": difference.max(1).tolist(),
        "largest_difference_in_errors_of_exact": (difference / one.error[:, 1:]).max(1).tolist(),
        "largest_difference_in_combined_errors": (
            difference / np.hypot(one.error, other.error)[:, 1:]
        )
        .max(1)
        .tolist(),
        "final_mean_absolute_order": order,
        "seconds": seconds,
        "hardware": hardware(),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(given.out)
    folder = given.out.parent / given.out.stem
    folder.mkdir(exist_ok=True)
    for picture in simulation_pictures(folder, plan, runs):
        print(picture)


if __name__ == "__main__":
    main()
