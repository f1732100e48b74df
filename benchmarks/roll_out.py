"""Roll-outs of sequence models: frames a second, with and without what they keep of the past.

    python benchmarks/roll_out.py
    python benchmarks/roll_out.py --quick

Without the cache each frame is predicted from the series so far anew, of which only the frames are
looked at that can change the result. Seconds are processor time on one thread; networks have
random weights, on which the speed does not depend.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from hardware import hardware
from torch import Tensor

from latticezoo.datasets.chaotic_holstein import order_task
from latticezoo.symmetry.lattices import chain
from latticezoo.zoo import create_model
from latticezoo.zoo.sequence_model import SequenceModel

WINDOW = 401
NAMES = ("transformer", "lstm", "gru", "autoregression")


def afresh(network: SequenceModel, series: Tensor, steps: int) -> Tensor:
    """A roll-out without memory: the whole window through the network for every frame."""
    name = network.task.targets[0].name
    lattice = chain(32)
    with torch.no_grad():
        for _ in range(steps):
            recent = {name: series[:, -WINDOW:]}
            series = torch.cat([series, network(recent, lattice, 1)[name]], 1)
    return series[:, -steps:]


def measure(label: str, batch: int, steps: int, fresh_steps: int) -> dict[str, Any]:
    torch.manual_seed(0)
    network = create_model(label, order_task("delta_n")).eval()
    assert isinstance(network, SequenceModel)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    series = 0.07 * torch.randn(batch, WINDOW, 1)
    network.roll_out({"delta_n": series}, chain(32), 2)
    start = time.process_time()
    network.roll_out({"delta_n": series}, chain(32), steps)
    kept = batch * steps / (time.process_time() - start)
    start = time.process_time()
    afresh(network, series, fresh_steps)
    fresh = batch * fresh_steps / (time.process_time() - start)
    return {
        "network": label,
        "batch": batch,
        "frames_per_second": round(kept),
        "frames_per_second_without_cache": round(fresh, 1),
        "gain": round(kept / fresh, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, no file")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    steps, fresh = (10, 2) if given.quick else (100, 5)
    rows = [
        measure(name, batch, steps, fresh)
        for name in NAMES
        for batch in ((1,) if given.quick else (1, 16))
    ]
    text = json.dumps({"window": WINDOW, "rows": rows, "hardware": hardware()}, indent=1)
    print(text)
    if not given.quick:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
