"""What networks on gauge links have learned: fresh exact states of the size they saw and twice it.

    latticezoo fit --config wilson_gnn_z2.yaml --out RUNS/z2
    python benchmarks/gauge_learning.py z2=RUNS/z2

    for MODEL in wilson_gnn link_cnn; do             # by Polyakov loops, and on raw links
        latticezoo fit --model $MODEL --data gauge_fermions --data.group Z2 --data.lattice 12 \\
            --data.random 1000 --data.thermal 1000 --data.target bond,energy_per_site \\
            --trainer.max_epochs 4 --out RUNS/z2_$MODEL
    done
    python benchmarks/gauge_learning.py z2_many=RUNS/z2_wilson_gnn,RUNS/z2_link_cnn --count 16

    # Traced loops of SU(2) from links alone; the deepest network then goes on, with more states.
    NET="--model gauge_gnn --model.channels 12 --model.products 12 --model.leaves false
         --model.polyakov false --model.normalization none --model.gradient_clip 1"
    DATA="--data wilson_loops --data.lattice 8 --data.thermal 400 --data.random 100"
    for DEPTH in 3 5 7; do
        latticezoo fit $NET --model.layers $DEPTH --model.learning_rate 0.01 $DATA \\
            --trainer.max_epochs 80 --out RUNS/depth$DEPTH           # 40 epochs of depth 3
    done
    latticezoo fit --init RUNS/depth7 $NET --model.layers 7 --model.learning_rate 0.005 $DATA \\
        --trainer.max_epochs 40 --out RUNS/depth7b
    latticezoo fit --init RUNS/depth7b $NET --model.layers 7 --model.learning_rate 0.003 $DATA \\
        --data.thermal 1500 --data.random 400 --trainer.max_epochs 12 --out RUNS/depth7c
    latticezoo fit --init RUNS/depth7c $NET --model.layers 7 --model.learning_rate 0.003 $DATA \\
        --data.thermal 1500 --data.random 400 --trainer.max_epochs 14 --out RUNS/depth7d
    latticezoo fit --init RUNS/depth7d $NET --model.layers 7 --model.learning_rate 0.003 $DATA \\
        --data.thermal 1500 --data.random 400 --trainer.max_epochs 40 --out RUNS/depth7e
    latticezoo fit --init RUNS/depth7e $NET --model.layers 7 --model.learning_rate 0.0015 $DATA \\
        --data.thermal 6000 --data.random 2000 --trainer.max_epochs 9 --out RUNS/depth7f
    python benchmarks/gauge_learning.py loops=RUNS/depth3,RUNS/depth5,RUNS/depth7f --count 1200

Each argument names runs on the same data; the committed JSON holds the last measurement of every
name. With them are measured the training mean, the linear regression on traced loops, and, of
networks with path moments, the sums that training began at ("path series"). Random links and links
of the pure gauge theory (the β of the training data in turn) are measured apart, because their
spreads differ by an order of magnitude.

JSON, for every one of them, by size and kind of background: for each target
R² = 1 − mean square error / variance and the error over the rms value; for fermions the error of
the energy per site ⟨H⟩/N = −2t Σ Re k / N summed up from the bonds (m = 0), and of Ω/N from the
energy head, each over the standard deviation of the exact values between samples; the growth of
the rms error from one size to the other; the largest relative error under local transformations in
float32 and float64.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from hardware import hardware
from torch import Tensor

from latticezoo.datasets.batches import Samples
from latticezoo.datasets.module import LatticeData, MadeData, evaluation_data
from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.testing import equivariance_error
from latticezoo.training.baselines import baselines
from latticezoo.training.evaluate import parameter_count, predict
from latticezoo.training.names import open_data
from latticezoo.training.runs import RunFolder
from latticezoo.zoo.base import ZooModel

KINDS = ("random", "thermal")


def measure(model: Any, samples: Samples) -> dict[str, Any]:
    """Errors of all targets, and of the energy where there are bonds."""
    predicted = {name: real(v) for name, v in predict(model, samples, 20_000).items()}
    exact = {name: real(values) for name, values in samples.targets.items()}
    found: dict[str, Any] = {
        name: compared(values, predicted[name]) for name, values in exact.items()
    }
    if "bond" in exact:
        sums = [-2 * values.sum(2).mean(1) for values in (exact["bond"], predicted["bond"])]
        found["energy_from_bonds"] = compared(*sums)
    return found


def real(values: Tensor) -> Tensor:
    """In double precision, complex numbers as pairs."""
    values = values.detach()
    return (torch.view_as_real(values.resolve_conj()) if values.is_complex() else values).double()


def compared(exact: Tensor, predicted: Tensor) -> dict[str, float]:
    """Error, spread, R², and the error over the rms value."""
    rmse = float((predicted - exact).square().mean().sqrt())
    spread = float(exact.std(correction=0))
    return {
        "rmse": rmse,
        "spread": spread,
        "share": rmse / spread,
        "R2": 1 - (rmse / spread) ** 2,
        "relative": rmse / float(exact.square().mean().sqrt()),
    }


def states(data: MadeData, side: int, count: int) -> dict[str, Samples]:
    """Fresh states of one size by kind of background."""
    found = {}
    for kind in KINDS:
        if data.hparams[kind]:
            numbers = {name: count if name == kind else 0 for name in KINDS}
            fresh = evaluation_data(data, lattice=side, **numbers)
            fresh.setup()
            found[kind] = fresh.samples("test")
    return found


def members(folders: list[Path], data: LatticeData) -> dict[str, Any]:
    """Baselines, and the trained networks."""
    found: dict[str, Any] = dict(baselines(data.task, data.samples("train")))
    for path in folders:
        network = ZooModel.load_from_checkpoint(RunFolder(path).best).eval()
        if getattr(network, "series", None) is not None and not network.derived:
            start = copy.deepcopy(network)
            with torch.no_grad():
                for name, weight in start.named_parameters():
                    if "_head." in name:
                        weight.zero_()
            found[f"path series of {path.name}"] = start
        found[path.name] = network
    return found


def gauge_errors(model: Any, data: LatticeData) -> dict[str, float]:
    """Largest relative errors under random local transformations."""
    if not isinstance(model, ZooModel):
        return {}
    lattice, task = data.lattice, data.task
    local = SymmetryGroup(lattice, gauge=task.gauge, point_operations=(0,))
    return {
        str(dtype).removeprefix("torch."): equivariance_error(
            model.to(dtype), task, lattice, group=local, dtype=dtype
        ).error
        for dtype in (torch.float64, torch.float32)
    }


def learned(folders: list[Path], count: int) -> dict[str, Any]:
    """All measurements of some runs."""
    records = {folder.name: RunFolder(folder).record() for folder in folders}
    first = next(iter(records.values()))["data"]
    data = open_data(first["name"], first["options"])
    assert isinstance(data, MadeData)
    data.prepare_data()
    data.setup()
    side = data.lattice.shape[0]
    # As many sites of each size: errors of loops have rare large ones, a few in 10⁴ loops, and of
    # fewer loops on the smaller size the growth came out at 70 % where it is 2 %.
    counts = {side: count, 2 * side: max(1, count // 4)}
    fresh = {size: states(data, size, number) for size, number in counts.items()}
    rows = []
    for label, model in members(folders, data).items():
        row: dict[str, Any] = {"label": label, "parameters": parameter_count(model)}
        with torch.no_grad():
            for size, kinds in fresh.items():
                row[f"L{size}"] = {kind: measure(model, samples) for kind, samples in kinds.items()}
        row["growth"] = {
            kind: {
                name: row[f"L{2 * side}"][kind][name]["rmse"] / entry["rmse"] - 1
                for name, entry in found.items()
            }
            for kind, found in row[f"L{side}"].items()
        }
        row["gauge_error"] = gauge_errors(model, data)
        if label in records:
            row |= {key: records[label].get(key) for key in ("training_seconds", "epochs")}
            row["options"] = model.options
        rows.append(row)
        print(label, json.dumps(row, default=str), flush=True)
    options = {k: v for k, v in first["options"].items() if v is not None}
    return {
        "data": {"name": first["name"], **options},
        "states_of_each_kind": {str(size): number for size, number in counts.items()},
        "rows": rows,
        "hardware": hardware(),
    }


def main() -> None:
    """Measure, print, and write the JSON beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="NAME=RUN,…")
    parser.add_argument(
        "--count",
        type=int,
        default=60,
        help="fresh states of each kind, a fourth of them on twice the side",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(__file__).with_suffix(".json")
    found = json.loads(out.read_text()) if out.exists() else {}
    for entry in arguments.folders:
        name, _, folder = entry.partition("=")
        found[name] = learned([Path(run) for run in folder.split(",")], arguments.count)
        out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
