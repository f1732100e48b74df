"""How far sums of path moments alone go, by their highest order: forces on links, before training.

    python benchmarks/path_series.py    # five minutes

The energy that a network begins at is the linear sum of path moments whose derivatives fit the
forces of 32 states best (latticezoo/zoo/gauge_model.py). JSON: its error on held-out 8 × 8 states
as a share of the rms target, the largest error of one state, and seconds per state on one thread
(processor time, float32) of the whole network, derivatives included. Systems: the field on quantum
link spins along microcanonical runs, and the forces of SU(2) fermions on thermal links at β of both
signs; electrons at T = 0.02.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from hardware import hardware

from latticezoo.datasets.registry import create_data
from latticezoo.zoo import create_model

STATES = 24
CASES: dict[str, dict[str, Any]] = {
    "quantum_link": {
        "model": "wilson_gnn",
        "orders": (7, 9, 13, 23, 31, 63),
        "data": {"name": "quantum_link", "trajectories": 24, "frames": 40, "last_time": 20},
    },
    "su2_forces": {
        "model": "gauge_gnn",
        "orders": (15, 31, 63, 95),
        "data": {
            "name": "gauge_fermions",
            "group": "SU2",
            "lattice": 8,
            "random": 0,
            "thermal": 240,
            "betas": "-4,-2,-1,1,2,4",
            "target": "force",
        },
    },
}


def measure(model: str, order: int, data: Any) -> dict[str, float]:
    """Error and cost of a network that is calibrated and not trained."""
    torch.manual_seed(0)
    network = create_model(model, data.task, polyakov=False, path_moments=order)
    network.set_statistics(data.statistics())
    network.calibrate(data.training_batches())
    held_out = data.samples("val")
    links = held_out.fields["U"]
    some = torch.linspace(0, len(links) - 1, min(STATES, len(links))).long()
    (name,) = (field.name for field in data.task.targets)
    exact = held_out.targets[name][some]
    begin = time.process_time()
    found = network({"U": links[some]}, data.lattice)[name].detach()
    seconds = (time.process_time() - begin) / len(some)
    errors = (found - exact).abs().square().flatten(1).mean(1)
    scale = exact.abs().square().mean()
    return {
        "share": float((errors.mean() / scale).sqrt()),
        "worst_state": float((errors.max() / scale).sqrt()),
        "seconds_per_state": seconds,
    }


def main() -> None:
    """Measure all and write the JSON beside this file."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for case, given in CASES.items():
        options = dict(given["data"])
        data = create_data(options.pop("name"), **options)
        data.prepare_data()
        data.setup()
        found[case] = {"lattice": str(data.lattice), "data": given["data"], "orders": {}}
        for order in given["orders"]:
            found[case]["orders"][order] = measure(given["model"], order, data)
            print(case, order, found[case]["orders"][order], flush=True)
    found["hardware"] = hardware()
    out = Path(__file__).with_suffix(".json")
    out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
