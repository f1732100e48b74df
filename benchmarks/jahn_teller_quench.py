"""Quenches of the Jahn–Teller model from disorder: exact against learned forces.

    python benchmarks/jahn_teller_quench.py                            # exact, f = 0.5 and 0.49
    python benchmarks/jahn_teller_quench.py --half RUN --doped RUN     # and learned
    python benchmarks/jahn_teller_quench.py --half lattice_enn.jahn_teller_half_filled \\
        --doped lattice_enn.jahn_teller_doped                           # the committed JSON

RUN is a run folder, a checkpoint or a pretrained name. The order is C-type: a staggered Q^x. Its
local Ising parameter φ_i = ±(Q^x_i − mean of the neighbours) is 2 δ K/λ = 0.82 (K/λ = 1/Q0) in the
perfect state of 12 × 12 at half filling. Replicas start alike and feel the same noise under both
forces. JSON: |mean φ| and mean |φ| over the ensemble with standard errors at the times of the
physics sheet's table, the rms forces, and, for learned forces, their error along the exact runs
relative to those. A picture of φ(t) beside it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hardware import hardware

from latticezoo.simulate.forcefield import Fields
from latticezoo.simulate.observables import local_order
from latticezoo.simulate.systems.jahn_teller import QX
from latticezoo.simulate.trajectory import open_trajectory
from latticezoo.training import plots
from latticezoo.training.simulate_command import Plan

SYSTEMS = {"half": "jahn_teller_half_filled", "doped": "jahn_teller_doped"}
#: One run each of the physics sheet, in units of λ/K: (time in τ₀, mean φ), and mean |φ| late.
SHEET = {
    "half": {"mean": {0: 0.0, 5: 0.23, 10: 0.54, 20: 0.61, 30: 0.70, 40: 0.71}},
    "doped": {"mean": {10: 0.16, 20: 0.33, 30: 0.31}, "mean of modulus": 0.40},
}
MODES = ("Q^A", "Q^z", "Q^x")


class Order:
    """φ of an ensemble: the modulus of its mean over the sites, and the mean of its modulus."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        system: Any = plan.system
        with open_trajectory(folder / "trajectory.h5") as trajectory:
            self.frames = torch.from_numpy(trajectory.fields["Q"][...])  # [T, R, N, 3]
            self.times = np.asarray(trajectory.times[...]) / plan.time_unit
        values = self.frames[..., QX : QX + 1].flatten(0, 1) / system.Q0
        phi = local_order(values, plan.lattice)[..., 0].view(*self.frames.shape[:3])
        self.mean = phi.mean(-1).abs().numpy()  # [T, R]
        self.modulus = phi.abs().mean(-1).numpy()

    def table(self, times: tuple[int, ...]) -> list[dict[str, float]]:
        """Ensemble mean and standard error at some times."""
        rows = []
        for wanted in times:
            index = int(np.abs(self.times - wanted).argmin())
            row = {"time": float(self.times[index])}
            for name, values in (("mean", self.mean), ("mean_of_modulus", self.modulus)):
                row[name], row[f"{name}_error"] = map(float, _band(values[index]))
            rows.append(row)
        return rows


def _band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    replicas = values.shape[-1]
    spread = values.std(-1, ddof=1) if replicas > 1 else np.full(values.shape[:-1], np.nan)
    return values.mean(-1), spread / replicas**0.5


def force_errors(plan: Plan, exact: Order, learned: Any) -> dict[str, dict[str, float]]:
    """RMS of exact forces (in λ) after 10 τ₀ by mode, and of the learned ones' errors."""
    system: Any = plan.system
    late = exact.frames[exact.times >= min(10.0, exact.times[-1] / 2)].flatten(0, 1)
    fields: Fields = {"Q": late.double()}
    forces = system.forces(fields, plan.lattice)["Q"] / system.g
    rms = forces.square().mean((0, 1)).sqrt().tolist()
    found = {"rms_force": dict(zip(MODES, rms, strict=True))}
    if learned is not None:
        difference = learned.forces(fields, plan.lattice)["Q"] / system.g - forces
        error = difference.square().mean((0, 1)).sqrt().tolist()
        found["rms_error"] = dict(zip(MODES, error, strict=True))
        total = float(difference.square().mean().sqrt() / forces.square().mean().sqrt())
        found["relative_error"] = {"all modes": total}
    return found


def ensemble(filling: str, given: argparse.Namespace, picture: Path) -> dict[str, Any]:
    """Exact and, where a model is given, learned quenches at one filling."""
    model = getattr(given, filling)
    plan = Plan.make(
        {
            "system": SYSTEMS[filling],
            "model": model or "exact",
            "lattice": given.lattice,
            "replicas": given.replicas,
            "steps": given.steps,
            "seed": given.seed,
            "dynamics": {"name": "langevin", "dt": 0.05},
            "frame_every": 20,
            "sample_every": 20,
        }
    )
    system: Any = plan.system
    learned = plan.force_field() if model else None
    drivers = {"exact": replace(system, workers=given.workers), "learned": learned}
    times = tuple(t for t in (0, 5, 10, 20, 30, 40) if t <= 0.05 * given.steps)
    result: dict[str, Any] = {"system": SYSTEMS[filling], "model": model, "sheet": SHEET[filling]}
    curves: dict[str, plots.Band] = {}
    orders: dict[str, Order] = {}
    with tempfile.TemporaryDirectory() as folder:
        for label, driver in drivers.items():
            if driver is None:
                continue
            start = time.perf_counter()
            plan.simulate(Path(folder) / label, driver)
            orders[label] = order = Order(Path(folder) / label, plan)
            result[label] = {
                "seconds": round(time.perf_counter() - start, 1),
                "order": order.table(times),
            }
            curves[f"{label}: |mean φ|"] = plots.Band(*_band(order.mean))
            curves[f"{label}: mean |φ|"] = plots.Band(*_band(order.modulus))
    result["forces"] = force_errors(plan, orders["exact"], learned)
    if learned is not None:
        exact, other = (orders[label].modulus for label in ("exact", "learned"))
        difference = (exact - other).mean(1)
        error = np.hypot(_band(exact)[1], _band(other)[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            worst = np.nanmax(np.where(error > 0, np.abs(difference) / error, 0.0))
        result["largest_difference_in_combined_errors"] = float(worst)
    draw(picture, orders["exact"].times, curves, SHEET[filling]["mean"])
    return result


def draw(
    path: Path, times: np.ndarray, curves: dict[str, plots.Band], sheet: dict[int, float]
) -> None:
    """φ(t) with bands of one standard error; the physics sheet's single run as points."""
    with plots.figure(path, figsize=(5.4, 4.0)) as (_, axes):
        ax = axes[0, 0]
        for index, (label, band) in enumerate(curves.items()):
            colour = plots.PALETTE[index // 2 % len(plots.PALETTE)]
            style = plots.DASHES[index % 2]
            ax.fill_between(
                times, band.mean - band.error, band.mean + band.error, color=colour, alpha=0.2, lw=0
            )
            ax.plot(times, band.mean, color=colour, ls=style, label=label)
        ax.plot(list(sheet), list(sheet.values()), "k.", label="reference, one run")
        ax.set(xlabel="time t (τ₀)", ylabel="C-type order φ (λ/K)", ylim=(0, 0.9))
        ax.legend(loc="best")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--half", help="learned forces at f = 0.5: run folder, checkpoint or pretrained name")
    add("--doped", help="learned forces at f = 0.49")
    add("--fillings", default="half,doped", help="half, doped or both")
    add("--lattice", default="square(12, 12)")
    add("--replicas", type=int, default=8)
    add("--steps", type=int, default=800, help="of 0.05 τ₀")
    add("--seed", type=int, default=1)
    add("--workers", type=int, default=1, help="processes of the exact solver")
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    folder = given.out.parent / given.out.stem
    folder.mkdir(exist_ok=True)
    result = {
        "lattice": given.lattice,
        "replicas": given.replicas,
        "steps": given.steps,
        "seed": given.seed,
        "fillings": {
            filling: ensemble(filling, given, folder / f"{filling}.png")
            for filling in given.fillings.split(",")
        },
        "hardware": hardware(),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(given.out)


if __name__ == "__main__":
    main()
