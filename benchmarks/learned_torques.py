"""Held-out errors of learned torques on three itinerant magnets, beside pair exchange and locality.

    python benchmarks/learned_torques.py sd_tetrahedral --budget 75
    python benchmarks/learned_torques.py sd_skyrmion --models lattice_enn,gcn --runs runs

Every network is trained for the same processor time on one thread on the same exact data (12 × 12:
random spins, and frames of damped runs, some of them from disturbed order), split by run. The
errors of the perpendicular field on held-out runs and held-out random spins are given as shares of
its rms there. Beside them: least-squares pair exchange over all shells that the torus holds, and
the floor that ``benchmarks/locality.py`` measured for the same parameters on random spins (two
states that agree within a radius of a site have fields there that differ by δ; the floor is
rms(δ)/√2). Runs stay in a folder, from which ``latticezoo card`` makes cards. Writes JSON with the
hardware, one entry for each set, and a picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware

from latticezoo.simulate.files import atomic_write
from latticezoo.simulate.spin_observables import torque_error
from latticezoo.training.baselines import RidgeBaseline
from latticezoo.training.compare import Comparison
from latticezoo.training.evaluate import errors, pairs, parameter_count, predict
from latticezoo.training.plots import PALETTE, figure
from latticezoo.training.runs import RunFolder
from latticezoo.training.train import quiet

COMMON = {"lattice": 12, "ordered_share": 0, "val_fraction": 0.1, "test_fraction": 0.2}
COMMON |= {"batch_size": 4, "workers": 1}
#: T = 0.1 where the fields at 0.05 depend so far that no network of short range learns them.
SETS: dict[str, dict[str, Any]] = {
    "sd_tetrahedral": {
        "temperature": 0.1,
        "random": 600,
        "trajectories": 20,
        "disturbed": 6,
        "frames": 15,
        "last_time": 60.0,
    },
    "sd_120": {
        "random": 300,
        "trajectories": 16,
        "disturbed": 6,
        "frames": 15,
        "last_time": 18.0,
    },
    "sd_skyrmion": {
        "temperature": 0.1,
        "random": 300,
        "trajectories": 30,
        "disturbed": 20,
        "frames": 12,
        "last_time": 200.0,
        "options": {"twists": 2, "dt": 8.0},
    },
}
MODELS = "lattice_enn,lattice_enn:direct_spins,energy_gnn,gcn,descriptor_mlp,spin_cnn"


def floors(preset: str, options: dict[str, Any]) -> list[dict[str, float]]:
    """What ``benchmarks/locality.py`` found for the same parameters: radius, share, its error."""
    path = Path(__file__).with_name("locality.json")
    twists = options.get("options", {}).get("twists", 1)
    wanted = {"temperature": options.get("temperature", 0.05), "twists": twists}
    for entry in json.loads(path.read_text())["entries"]:
        mine = entry["options"].get("preset") == preset and entry["lattice"] == "triangular(12, 12)"
        if mine and all(entry["system"][name] == value for name, value in wanted.items()):
            names = {"radius": "radius", "share": "share_fixed_filling"}
            names |= {"share_error": "share_fixed_filling_error"}
            return [{name: row[key] for name, key in names.items()} for row in entry["rows"]]
    return []


def measured(model: Any, comparison: Comparison) -> dict[str, Any]:
    """Shares of the rms field on held-out states, by kind, and the angle between the two."""
    data, test = comparison.data, comparison.data.samples("test")
    target = data.task.targets[0].name
    with torch.no_grad():
        found = errors(pairs(model, test, target))
        guessed = predict(model, test)[target].double()
    exact = test.targets[target].double()
    angle = torque_error(guessed, exact).angle
    large = exact.norm(dim=-1) > 0.1 * exact.square().sum(-1).mean().sqrt()
    return {
        **{key: value for key, value in found.items() if not key.startswith("spread")},
        "rms_field_random": found["spread_random"] * 3**0.5,
        "rms_field_trajectory": found["spread_trajectory"] * 3**0.5,
        "angle_median_degrees": float(angle[large].rad2deg().nanmedian()),
        "parameters": parameter_count(model),
    }


def entry_of(preset: str, comparison: Comparison, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One set: its data, floor and rows."""
    system: Any = comparison.data.system
    return {
        "set": preset,
        "system": {"system": system.name, **system.parameters},
        "data": comparison.settings["data"],
        "split_sizes": comparison.data.split_sizes,
        "budget_processor_seconds": comparison.budget,
        "locality_floor": floors(preset, SETS[preset]),
        "results": rows,
        "hardware": hardware(),
    }


def write(out: Path, entry: dict[str, Any]) -> None:
    """Put one set in the place of what was known of it."""
    entries = json.loads(out.read_text())["entries"] if out.exists() else []
    entries = [old for old in entries if old["set"] != entry["set"]]
    text = json.dumps({"benchmark": "learned_torques", "entries": [*entries, entry]}, indent=1)
    with atomic_write(out) as path:
        path.write_text(text + "\n")


def draw(out: Path) -> Path:
    """Errors on random spins and on held-out runs, and the floor, a panel each set."""
    entries = json.loads(out.read_text())["entries"]
    picture = out.with_suffix(".png")
    size = (4.6 * len(entries), 3.6)
    with figure(picture, ncols=len(entries), figsize=size) as (_, axes):
        for ax, entry in zip(np.atleast_1d(axes).flat, entries, strict=True):
            rows = sorted(entry["results"], key=lambda row: -row["share_random"])
            for index, kind in enumerate(("random", "trajectory")):
                places = [number + 0.38 * (0.5 - index) for number in range(len(rows))]
                values = [100 * row[f"share_{kind}"] for row in rows]
                label = "random spins" if kind == "random" else "held-out runs"
                ax.barh(places, values, 0.36, color=PALETTE[index], label=label)
            for floor in entry["locality_floor"][-1:]:
                text = f"floor, r = {floor['radius']:g}"
                ax.axvline(100 * floor["share"], color="black", ls="--", lw=1, label=text)
            ax.set(title=entry["set"], xlabel="error, % of the rms torque")
            ax.set_yticks(range(len(rows)), [row["model"] for row in rows])
            ax.legend(loc="upper right", fontsize=7)
    return picture


def main() -> None:
    """Train, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("set", choices=SETS)
    add("--models", default=MODELS)
    add("--budget", type=float, default=75.0, help="processor seconds a network (default 75)")
    add("--runs", type=Path, default=Path("runs"), help="folder of the runs (default runs)")
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = {**COMMON, "preset": given.set, **SETS[given.set]}
    with quiet():
        comparison = Comparison.open(
            "sd_magnet",
            given.models.split(","),
            options,
            budget=given.budget,
            processor_time=True,
            accelerator="cpu",
        )
        data = comparison.data
        data.prepare_data()
        data.setup()
        ridge = RidgeBaseline(data.task, data.samples("train"))
        row = {"model": f"pair exchange, {ridge.shells} shells", **measured(ridge, comparison)}
        rows = [row]
        print(json.dumps(row), flush=True)
        for member in comparison.members:
            label = member.label.replace(":", "-")
            network, record = member.train(
                data,
                RunFolder(given.runs / given.set / label),
                seed=comparison.seed,
                max_epochs=None,
                budget=comparison.budget,
                patience=None,
                accelerator="cpu",
                processor_time=True,
            )
            row = {"model": member.label, **measured(network, comparison)}
            row |= {"conservative": hasattr(network, "energy"), "epochs": record["epochs"]}
            row |= {"training_processor_seconds": record["training_seconds"]}
            row["receptive_radius"] = network.receptive_radius
            rows.append(row)
            print(json.dumps(row), flush=True)
            write(given.out, entry_of(given.set, comparison, rows))
    print(f"{given.out}\n{draw(given.out)}")


if __name__ == "__main__":
    main()
