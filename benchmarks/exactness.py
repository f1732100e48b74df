"""Relative equivariance error of every network: all group elements, untrained and trained.

    python benchmarks/exactness.py                      # every network in its compact form
    python benchmarks/exactness.py --presets            # and every other preset, the full-size ones

For each registered network and each task that it carries (D4, D6, D3 and T_d sites; scalars, the
Jahn–Teller modes, displacements, spins) it takes the smallest torus that holds it, goes through
every element of the symmetry group (translations, point operations, particle–hole, time reversal;
random rotations of spins), and reports the largest deviation relative to the largest output, in
float64 and float32. Networks that learn the symmetry are measured too, and left out of the worst
error. JSON beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from hardware import hardware

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.testing import TOLERANCES
from latticezoo.zoo import list_models
from latticezoo.zoo.exactness import TASKS, measure
from latticezoo.zoo.registry import model_class

#: What is left out on diamond: with one shell a torus of 192 group elements holds the network.
DIAMOND: dict[str, dict[str, Any]] = {
    "descriptor_mlp": {"shells": 1},
    "lattice_enn": {"embedding_shells": 1, "shells": 1, "readout_shells": 1},
}


def variants(name: str, presets: bool) -> list[dict[str, Any]]:
    """The forms of a network to try: presets, and energies in place of direct output."""
    cls = model_class(name)
    chosen: list[dict[str, Any]] = [{"preset": "compact"}]
    if cls.presets["compact"].get("output") == "direct" and name != "descriptor_mlp":
        chosen.append({"preset": "compact", "output": "energy"})
    if presets:
        others = [preset for preset in cls.presets if preset != "compact"]
        chosen += [{"preset": preset} for preset in others]
    return chosen


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--models", default="", help="comma-separated; all by default")
    add("--presets", action="store_true", help="try the full-size presets too")
    add("--steps", type=int, default=5, help="training steps (default 5)")
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    names = given.models.split(",") if given.models else list_models()
    rows: list[dict[str, Any]] = []
    refused: dict[str, list[str]] = {}
    if given.out.exists():  # go on from a run that was stopped, or add networks
        before = json.loads(given.out.read_text())
        if before["steps"] == given.steps:
            rows, refused = before["rows"], before["refused"]
    done = {(row["model"], row["task"]) for row in rows}
    for name in names:
        for options in variants(name, given.presets):
            label = name + "".join(f", {key} {value}" for key, value in options.items())
            refused.setdefault(label, [])
            for task in TASKS:
                if (label, task.name) in done or task.name in refused[label]:
                    continue
                start = time.perf_counter()
                smaller = DIAMOND.get(name, {}) if task.family == "diamond" else {}
                try:
                    found = measure(name, task, steps=given.steps, **options, **smaller)
                except InputError as error:
                    if "cannot serve" not in str(error):
                        raise
                    refused[label].append(task.name)
                    continue
                row = {
                    "model": label,
                    "task": task.name,
                    "changed": smaller,
                    "lattice": str(found.lattice),
                    "elements": found.elements,
                    "equivariant": model_class(name).equivariant,
                    **{
                        f"{dtype}_{'trained' if trained else 'untrained'}": report.error
                        for (dtype, trained), report in found.errors.items()
                    },
                    "exact": all(
                        report.error <= TOLERANCES[getattr(torch, dtype)]
                        for (dtype, _), report in found.errors.items()
                    ),
                }
                rows.append(row)
                numbers = [row[key] for key in row if key.startswith("float")]
                print(
                    f"{label:44s} {task.name:28s} {row['elements']:6d} elements  "
                    + "  ".join(f"{number:.1e}" for number in numbers)
                    + f"  {time.perf_counter() - start:.1f} s"
                    + ("" if row["exact"] else "  NOT EXACT")
                    + ("" if row["equivariant"] else " (learned)"),
                    flush=True,
                )
                write(given.out, given.steps, rows, refused)
    print(f"{sum(row['exact'] for row in rows)} of {len(rows)} exact: {given.out}")


def write(
    path: Path, steps: int, rows: list[dict[str, Any]], refused: dict[str, list[str]]
) -> None:
    """Write what is known so far."""
    result = {
        "tolerances": {str(k).removeprefix("torch."): v for k, v in TOLERANCES.items()},
        "steps": steps,
        "worst": {
            key: max(row[key] for row in rows if row.get("equivariant", True))
            for dtype in ("float64", "float32")
            for key in (f"{dtype}_untrained", f"{dtype}_trained")
        },
        "rows": sorted(rows, key=lambda row: row["model"]),
        "refused": {label: tasks for label, tasks in refused.items() if tasks},
        "hardware": hardware(),
    }
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
