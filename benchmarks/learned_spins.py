"""What learned effective fields of spins keep: energy without damping, no torque on the whole.

    python benchmarks/learned_spins.py lattice_enn.sd_tetrahedral runs/a exact
    python benchmarks/learned_spins.py runs/b --system sd_120 --initial three_sublattice --dt 0.25

All start from the same states, an ordered one disturbed or random spins, brought a little down by
exact damped dynamics. For each model (pretrained name, run folder, checkpoint, or "exact"):

energy    the largest change of the model's own energy per site along an undamped run of fixed
          length, for a time step and its halves: the midpoint scheme is of second order, so each
          halving should divide it by four or more where the fields derive from an energy
torque    |Σ S × H| as a share of Σ |S × H| along the run: zero where the energy is invariant under
          rotations of all spins
error     rms of the error of the perpendicular field by the rms of the exact one at the visited
          states, its part in magnitude, and the angle between the two (median and 90 % of sites)
reach     share of the summed |∂H_i/∂S_j| by distance of i and j, the effective receptive field

Exact fields have a part along the spin, up to a hundred times the rest, which turns nothing but
enlarges the error of a step: at equal steps the exact energy drifts more than a learned one.
Networks compute in float64. Writes JSON with the hardware.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hardware import hardware
from torch import Tensor

from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.files import atomic_write
from latticezoo.simulate.observables import radial_average
from latticezoo.simulate.run import simulate
from latticezoo.simulate.spin_observables import effective_receptive_field, torque_error
from latticezoo.simulate.state import State
from latticezoo.simulate.systems.spin_system import TARGET
from latticezoo.symmetry.fields import perpendicular
from latticezoo.training.simulate_command import Plan


def run(field: Any, plan: Plan, start: State, dt: float, steps: int) -> list[Tensor]:
    """Spins at ten equal parts of an undamped run, its start included."""
    frames, state, part = [start.fields["S"]], start, max(steps // 10, 1)
    for _ in range(10):
        result = simulate(
            field, LLG(dt, 0.0, 0.0), state, part, lattice=plan.lattice, progress=False
        )
        state = result.state
        frames.append(state.fields["S"])
    return frames


def conservation(field: Any, plan: Plan, start: State, dt: float, steps: int) -> dict[str, Any]:
    """Change of the own energy per site for a step and its halves."""
    rows, visited = [], []
    for halvings in range(3):
        frames = run(field, plan, start, dt / 2**halvings, steps * 2**halvings)
        visited = visited or frames
        row: dict[str, Any] = {"dt": dt / 2**halvings}
        if hasattr(field, "energy"):
            energies = [field.energy({"S": spins}, plan.lattice) for spins in frames]
            change = torch.stack(energies) - energies[0]
            row["energy_change_per_site"] = float(change.abs().max() / plan.lattice.n_sites)
        rows.append(row)
    changes = [row.get("energy_change_per_site") for row in rows]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(changes) if a and b]
    return {"runs": rows, "orders": orders, "visited": torch.cat(visited)}


def torques(predicted: Tensor, exact: Tensor, spins: Tensor) -> dict[str, float]:
    """Total torque and errors at given states ``[B, N, 3]``, the external field left out."""
    own = torch.linalg.cross(spins, predicted)
    whole = own.sum(1).norm(dim=-1).mean() / own.norm(dim=-1).sum(1).mean()
    size = exact.square().sum(-1).mean().sqrt()
    difference = (predicted - exact).square().sum(-1).mean().sqrt()
    magnitude, angle = torque_error(predicted, exact)
    # Directions mean little where there is hardly a field: below a tenth of its rms they are left.
    angle = angle[exact.norm(dim=-1) > 0.1 * size].nan_to_num(math.pi) * 180 / math.pi
    return {
        "total_torque_share": float(whole),
        "rms_field": float(size),
        "error_share": float(difference / size),
        "magnitude_error_share": float(magnitude.square().mean().sqrt() / size),
        "angle_median_degrees": float(angle.median()),
        "angle_90_percent_degrees": float(angle.quantile(0.9)),
    }


def reach(model: Any, spins: Tensor, plan: Plan) -> list[dict[str, float]]:
    """Share of the summed slopes by distance in bond lengths."""
    map_ = effective_receptive_field(model, {"S": spins}, plan.lattice)
    distance, mean = radial_average(map_[None], plan.lattice)
    share = mean[0] / map_.sum()
    return [
        {"distance": round(float(r), 4), "share_a_site": float(s)}
        for r, s in zip(distance, share, strict=True)
        if r <= 6.01
    ]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("models", nargs="+")
    add("--system", default="sd_tetrahedral", help="preset of the exact system")
    add("--temperature", type=float, help="of the electrons, instead of the preset's")
    add("--twists", type=int, default=1, help="boundary twists that the labels averaged over")
    add("--lattice", default="triangular(12, 12)")
    add("--initial", default="tetrahedral", help="kind of the starting state")
    add("--noise", type=float, default=0.5, help="disturbance of an ordered start (default: 0.5)")
    add("--replicas", type=int, default=4)
    add("--dt", type=float, default=1.0, help="largest time step (default: 1)")
    add("--steps", type=int, default=100, help="undamped steps of that size (default: 100)")
    add("--damped", type=int, default=10, help="exact damped steps before (default: 10)")
    add("--seed", type=int, default=11)
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    initial: dict[str, Any] = {"kind": given.initial}
    if given.initial != "random":
        initial["noise"] = given.noise
    chosen = {"temperature": given.temperature} if given.temperature is not None else {}
    settings = {
        "system": {"name": given.system, "twists": given.twists, **chosen},
        "lattice": given.lattice,
        "replicas": given.replicas,
        "seed": given.seed,
        "initial": initial,
    }
    plans = [Plan.make({**settings, "model": name}) for name in given.models]
    system: Any = plans[0].system
    fields = [plan.force_field() for plan in plans]  # a wrong name shows before the work
    before = simulate(
        system,
        LLG(given.dt, 0.0, 0.5),
        plans[0].state(),
        given.damped,
        lattice=plans[0].lattice,
        progress=False,
    )
    start = State(before.state.fields, replicas=before.state.replicas)
    rows = []
    for plan, field in zip(plans, fields, strict=True):
        learned = plan.model != "exact"
        if learned:
            field = replace(field, model=field.model.double())
        kept = conservation(field, plan, start, given.dt, given.steps)
        spins = kept.pop("visited")
        zeeman = spins.new_tensor(system.zeeman)
        exact = system.labels({"S": spins}, plan.lattice)[TARGET]
        predicted = perpendicular(field.forces({"S": spins}, plan.lattice)["S"] - zeeman, spins)
        row = {"model": plan.label, "conservative": hasattr(field, "energy"), **kept}
        row |= torques(predicted, exact, spins)
        if learned:
            row["reach"] = reach(field.model, spins[:2], plan)
        rows.append(row)
        print(json.dumps({k: v for k, v in row.items() if k != "reach"}), flush=True)
    entry = {
        "system": {"system": system.name, **system.parameters},
        "lattice": given.lattice,
        "initial": initial,
        "replicas": given.replicas,
        "undamped_time": given.dt * given.steps,
        "results": rows,
        "hardware": hardware(),
    }
    entries = json.loads(given.out.read_text())["entries"] if given.out.exists() else []
    same = ("system", "lattice", "initial")
    entries = [old for old in entries if any(old[key] != entry[key] for key in same)]
    text = json.dumps({"benchmark": "learned_spins", "entries": [*entries, entry]}, indent=2)
    with atomic_write(given.out) as path:
        path.write_text(text + "\n")
    print(given.out)


if __name__ == "__main__":
    main()
