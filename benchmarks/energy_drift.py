"""Energy drift of undamped dynamics: no bath, 10⁴ steps from a thermalized state.

    python benchmarks/energy_drift.py gcn.holstein_weak energy_gnn.holstein_weak exact
    python benchmarks/energy_drift.py runs/a --system holstein_strong --steps 2000

All force fields (pretrained name, run folder, checkpoint, or "exact") start from the same states: a
quench, brought to the temperature by exact Langevin dynamics. Then the bath is switched off. The
total energy per site is the kinetic energy plus

exact     the exact potential at the visited states: what an outside observer sees
own       the learned potential, where forces derive from one: what the integrator conserves

Reported are its slope, over replicas with a standard error, and the fluctuation about the straight
line. Exact potentials cost a diagonalization, so they are sampled sparsely. Networks compute in
float64 unless --single is given. Writes JSON with the hardware, and a picture beside it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hardware import hardware
from torch import Tensor

from latticezoo.simulate import Energy, FunctionObserver, KineticTemperature, Langevin, simulate
from latticezoo.simulate.evaluate import DivergedError
from latticezoo.simulate.state import State
from latticezoo.training.plots import DASHES, PALETTE, figure
from latticezoo.training.simulate_command import Plan, with_workers


def thermalized(plan: Plan, steps: int) -> tuple[State, float]:
    """States after a quench with exact forces and strong friction; their kinetic temperature."""
    system: Any = plan.system
    bath = replace(plan.integrator(), damping=system.mass / plan.time_unit)
    result = simulate(
        with_workers(system, plan.replicas),
        bath,
        plan.state(),
        steps,
        lattice=plan.lattice,
        observers=[KineticTemperature(10)],
        progress=False,
    )
    kinetic = result.observers["kinetic_temperature"].values
    start = State(result.state.fields, result.state.momenta, result.state.replicas)
    return start, float(kinetic[-len(kinetic) // 4 :].mean())


def measure(plan: Plan, start: State, dt: float, every: int, single: bool) -> dict[str, Any]:
    """One undamped run, and its energies per site ``[T, R]``."""
    system, sites = plan.system, plan.lattice.n_sites
    (mass,) = system.masses.values()
    field = plan.force_field()
    learned = plan.model != "exact"
    if learned and not single:
        field = replace(field, model=field.model.double())

    def kinetic(snapshot: Any) -> Tensor:
        return snapshot.state.momenta["Q"].square().sum((1, 2)) / (2 * mass * sites)

    def exact(snapshot: Any) -> Tensor:
        return system.energy(snapshot.state.fields, snapshot.lattice) / sites

    observers: list[Any] = [
        FunctionObserver(every, "kinetic", kinetic),
        FunctionObserver(every, "potential", exact),
    ]
    own = learned and hasattr(field, "energy")
    if own:
        observers.append(Energy(every))
    began, failed = time.perf_counter(), None
    state, length = start, 0  # first no step at all: the starting energy
    kept: dict[str, list[np.ndarray]] = {}
    # From sample to sample, so that a blow-up loses nothing of what was seen before.
    while failed is None and (not kept or state.step < plan.steps):
        try:
            result = simulate(
                field,
                Langevin(dt, 0.0, 0.0, mass=mass),
                state,
                length,
                lattice=plan.lattice,
                observers=observers,
                progress=False,
                batch_replicas=True,
            )
        except DivergedError as error:
            failed = error.step
            break
        for name, series in result.observers.items():
            kept.setdefault(name, []).append(series.values[-1:])
        kept.setdefault("times", []).append(result.observers["kinetic"].times[-1:])
        state, length = result.state, every
    values = {name: np.concatenate(parts) for name, parts in kept.items()}
    times = values.pop("times") / plan.time_unit
    energies = {"exact": values["kinetic"] + values["potential"]}
    if own:
        energies["own"] = values["kinetic"] + values["energy"] / sites
    about: dict[str, Any] = {
        "model": plan.model,
        "parameters": sum(p.numel() for p in field.model.parameters()) if learned else None,
        "conservative": own or not learned,
        "steps_done": state.step,
        "diverged_at_step": failed,
        **{f"total_energy_{name}": drift(times, total) for name, total in energies.items()},
        "kinetic_temperature": [
            float(2 * part.mean())
            for part in np.array_split(values["kinetic"], min(10, len(times)))
        ],
        "seconds": round(time.perf_counter() - began, 1),
    }
    return {"about": about, "times": times, "energies": energies}


def drift(times: np.ndarray, total: np.ndarray) -> dict[str, Any] | None:
    """Slope per replica and fluctuation about the straight line, of energies per site ``[T, R]``.

    None where a run diverged before it could be seen to drift.
    """
    if len(times) < 3:
        return None
    slope, offset = np.polyfit(times, total, 1)
    rest = total - offset - slope * times[:, None]
    count = total.shape[1]
    return {
        "slope_per_1000_tau0": float(1000 * slope.mean()),
        "slope_standard_error": float(1000 * slope.std(ddof=1) / np.sqrt(count))
        if count > 1
        else None,
        "slopes": (1000 * slope).tolist(),
        "rms_fluctuation": float(np.sqrt((rest**2).mean())),
        "largest_change": float(np.abs(total - total[0]).max()),
        "first_mean": float(total[0].mean()),
    }


def draw(path: Path, runs: dict[str, dict[str, Any]]) -> None:
    """Change of the energy per site against time, mean over replicas with its spread."""
    titles = {"exact": "kinetic + exact potential", "own": "kinetic + own potential"}
    kinds = [kind for kind in titles if any(kind in run["energies"] for run in runs.values())]
    with figure(path, ncols=len(kinds), figsize=(1.0 + 4.6 * len(kinds), 4.6)) as (_, axes):
        for ax, kind in zip(axes[0], kinds, strict=True):
            for index, (label, run) in enumerate(runs.items()):
                total = run["energies"].get(kind)
                if total is None and label == "exact":
                    total = run["energies"]["exact"]
                if total is None:
                    continue
                change = total - total[0]
                style = {"color": PALETTE[index % len(PALETTE)]}
                ax.plot(
                    run["times"],
                    change.mean(1),
                    ls=DASHES[index % len(DASHES)],
                    lw=1.4,
                    label=label,
                    **style,
                )
                low, high = change.min(1), change.max(1)
                ax.fill_between(run["times"], low, high, alpha=0.15, lw=0, **style)
            ax.axhline(0, color="0.35", lw=0.8)
            if kind == "exact":
                # Linear about zero, logarithmic beyond: conserved and drifting ones in one picture.
                ax.set_yscale("symlog", linthresh=1e-4)
            else:
                ax.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
            ax.set(xlabel="time t (τ₀)", title=titles[kind])
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
        axes[0, 0].set_ylabel("change of total energy per site (t)")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("models", nargs="*", default=["gcn.holstein_weak", "descriptor_mlp.holstein_weak", "exact"])
    add("--system", default="holstein_weak", help="preset of the exact system")
    add("--lattice", default="square(16, 16)", help="or one number for a square one")
    add("--replicas", type=int, default=4)
    add("--steps", type=int, default=10_000)
    add("--dt", type=float, default=0.1, help="time step in units of tau0 (default: 0.1)")
    add("--every", type=int, default=50, help="steps between exact potentials (default: 50)")
    add("--thermalize", type=int, default=1000, help="exact Langevin steps before (default: 1000)")
    add("--seed", type=int, default=1)
    add("--single", action="store_true", help="networks in the precision of their weights")
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    if given.steps % given.every:
        parser.error(f"--steps {given.steps} is no multiple of --every {given.every}")
    plans = [
        Plan.make(
            {
                "system": given.system,
                "model": name,
                "lattice": given.lattice,
                "replicas": given.replicas,
                "steps": given.steps,
                "seed": given.seed,
                "dynamics": {"name": "langevin", "dt": given.dt},
            }
        )
        for name in given.models
    ]
    for plan in plans:
        plan.force_field()  # a wrong name shows before the work
    start, temperature = thermalized(plans[0], given.thermalize)
    print(f"thermalized: kinetic temperature {temperature:.4f}", flush=True)
    dt = given.dt * plans[0].time_unit
    runs = {}
    for plan in plans:
        runs[plan.label] = measure(plan, start, dt, given.every, given.single)
        print(json.dumps(runs[plan.label]["about"]), flush=True)
    result = {
        "benchmark": "energy_drift",
        "system": {"system": plans[0].system.name, **plans[0].system.parameters},
        "lattice": str(plans[0].lattice),
        "replicas": given.replicas,
        "steps": given.steps,
        "dt_tau0": given.dt,
        "thermalizing_steps": given.thermalize,
        "kinetic_temperature_of_start": temperature,
        "precision": "weights" if given.single else "float64",
        "unit": "t per site, time in tau0",
        "results": [run["about"] for run in runs.values()],
        "hardware": hardware(),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    folder = given.out.parent / given.out.stem
    folder.mkdir(exist_ok=True)
    draw(folder / "energy.png", runs)
    print(given.out, folder / "energy.png")


if __name__ == "__main__":
    main()
