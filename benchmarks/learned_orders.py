"""Orders that learned fields of itinerant magnets lead to, beside the exact ones.

    python benchmarks/learned_orders.py tetrahedral.yaml exact lattice_enn.sd_tetrahedral
    python benchmarks/learned_orders.py skyrmion_healing.yaml MODEL --lattice 48 --steps 100

Settings are those of ``latticezoo simulate``. Every model (pretrained name, run folder, checkpoint,
or "exact") starts from the same states. Up to 400 sites the exact energy of the visited states is
taken along the way, and at the end that of the parameter set itself, at its own temperature of the
electrons, beside the energy of the perfect order. Of skyrmion lattices the topological charge at
every sample is what has to stay. Writes JSON with the hardware, one entry for settings and lattice,
and a picture.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from hardware import hardware

from latticezoo.simulate import spin_states
from latticezoo.simulate.files import atomic_write
from latticezoo.simulate.observers import FunctionObserver
from latticezoo.simulate.run import Result, simulate
from latticezoo.simulate.systems import create_system
from latticezoo.symmetry.lattices import Lattice
from latticezoo.training.names import read_config
from latticezoo.training.plots import DASHES, PALETTE, figure
from latticezoo.training.settings import merge
from latticezoo.training.simulate_command import Plan

#: Above this many sites no exact energies are taken.
EXACT_SITES = 400
ENERGY = "exact_energy_per_site"
ORDERS = {
    "sd_tetrahedral": spin_states.tetrahedral,
    "sd_120": spin_states.three_sublattice,
    "sd_square": lambda lattice: spin_states.spiral(lattice, q=(np.pi, np.pi)),
}


def run(plan: Plan) -> tuple[Result, float]:
    """The run, and its processor time."""
    system, lattice, every = plan.system, plan.lattice, plan.sample_every
    driver: Any = system if plan.model == "exact" else plan.force_field()  # one process

    def energy(snapshot: Any) -> Any:
        return system.energy(snapshot.state.fields, lattice) / lattice.n_sites

    watched = [entry for entry in plan.observers(driver) if entry.label != "energy"]
    if lattice.n_sites <= EXACT_SITES:
        watched.append(FunctionObserver(every, ENERGY, energy))
    began = time.process_time()
    result = simulate(
        driver,
        plan.integrator(),
        plan.state(),
        plan.steps,
        lattice=lattice,
        observers=watched,
        progress=False,
    )
    return result, time.process_time() - began


def energies(preset: str, lattice: Lattice, result: Result) -> dict[str, Any]:
    """Exact energies per site of the final states and of the perfect order, with the preset."""
    if lattice.n_sites > EXACT_SITES:
        return {}
    system: Any = create_system(preset)
    final = system.energy(result.state.fields, lattice) / lattice.n_sites
    found = {"final_energy_per_site": final.tolist()}
    if preset in ORDERS:
        perfect = ORDERS[preset](lattice).fields
        found["perfect_order"] = float(system.energy(perfect, lattice)[0] / lattice.n_sites)
    return found


def draw(path: Path, entry: dict[str, Any]) -> None:
    """What was observed against time, the mean over the replicas, a panel each."""
    names = [name for name in entry["results"][0]["observed"] if name != "magnetization"]
    with figure(path, ncols=len(names), figsize=(3.6 * len(names), 3.2)) as (_, axes):
        for ax, name in zip(np.atleast_1d(axes).flat, names, strict=True):
            for index, row in enumerate(entry["results"]):
                values = np.asarray(row["observed"][name])
                if name == "chirality":  # of domains of both signs
                    values = values[..., 1]
                style = {"color": PALETTE[index], "ls": DASHES[index]}
                ax.plot(row["times"], values.mean(1), label=row["model"], **style)
            ax.set(xlabel="time (1/t)", ylabel=name.replace("_", " "))
        np.atleast_1d(axes).flat[-1].legend(loc="best")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("settings", help="of latticezoo simulate, such as tetrahedral.yaml")
    add("models", nargs="+")
    add("--lattice", type=int, help="side, instead of that of the settings")
    add("--temperature", type=float, help="of the electrons, instead of the preset's")
    add("--twists", type=int, help="boundary twists of exact fields in each direction")
    add("--replicas", type=int, default=4)
    add("--steps", type=int)
    add("--seed", type=int)
    add("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    settings = read_config(given.settings)
    preset = settings["system"]
    changes = {"temperature": given.temperature, "twists": given.twists}
    settings["system"] = {"name": preset, **{k: v for k, v in changes.items() if v is not None}}
    for name in ("replicas", "steps", "seed"):
        if getattr(given, name) is not None:
            settings[name] = getattr(given, name)
    if given.lattice:
        family = Lattice.parse(settings["lattice"]).family
        settings["lattice"] = f"{family}({given.lattice})"
    plans = [Plan.make(merge(settings, {"model": name})) for name in given.models]
    for plan in plans:
        plan.force_field()  # a wrong name shows before the work
    rows = []
    for plan in plans:
        result, seconds = run(plan)
        row: dict[str, Any] = {"model": plan.label, "processor_seconds": round(seconds, 1)}
        row |= energies(preset, plan.lattice, result)
        observed = {name: np.asarray(s.values) for name, s in result.observers.items()}
        row["final"] = {name: values[-1].tolist() for name, values in observed.items()}
        row["times"] = np.round(next(iter(result.observers.values())).times, 6).tolist()
        row["observed"] = {name: np.round(v, 6).tolist() for name, v in observed.items()}
        rows.append(row)
        shown = {name: row[name] for name in row if name not in ("times", "observed")}
        print(json.dumps(shown), flush=True)
    system: Any = plans[0].system
    entry = {
        "settings": given.settings,
        "system": {"system": system.name, "preset": preset, **system.parameters},
        "lattice": str(plans[0].lattice),
        "initial": plans[0].initial,
        "dynamics": plans[0].dynamics,
        "steps": plans[0].steps,
        "replicas": plans[0].replicas,
        "seed": plans[0].seed,
        "results": rows,
        "hardware": hardware(),
    }
    entries = json.loads(given.out.read_text())["entries"] if given.out.exists() else []
    same = ("settings", "lattice")
    entries = [old for old in entries if any(old[key] != entry[key] for key in same)]
    with atomic_write(given.out) as path:
        path.write_text(json.dumps({"benchmark": "learned_orders", "entries": [*entries, entry]}))
    side = plans[0].lattice.shape[0]
    picture = given.out.with_suffix("") / f"{Path(given.settings).stem}_{side}.png"
    picture.parent.mkdir(exist_ok=True)
    draw(picture, entry)
    print(f"{given.out}\n{picture}")


if __name__ == "__main__":
    main()
