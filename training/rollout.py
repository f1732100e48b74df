"""A short run with a network beside the exact one: the roll-out that a model card reports.

Same starting states, same noise, same number of steps; what is measured on the way is compared at
the end, as means over the replicas with their standard errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from latticezoo.simulate.observers import FunctionObserver, KineticTemperature, Observer, Snapshot
from latticezoo.simulate.systems.spin_system import SpinSystem
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

if TYPE_CHECKING:
    from latticezoo.simulate.forcefield import System
    from latticezoo.simulate.run import Result
    from latticezoo.symmetry.tasks import Task
    from latticezoo.training.simulate_command import Plan
    from latticezoo.zoo.base import ZooModel

#: How many samples are taken.
_SAMPLES = 20
#: Above this many sites the exact run takes a smaller lattice.
_SITES = 400
_SIDES = {1: 128, 2: 16, 3: 4}
_SEED = 20_000
#: Time step where the data do not say one, and damping of spins, with which they order.
_STEP, _DAMPING = 0.1, 0.5


#: What moves links, and how such targets are called.
_LINK_FORCES = ("force", "link_field", "current", "flip_cost")


def obstacle(system: System, task: Task) -> str | None:
    """Why no run with such a system can be made, in a sentence; None where one can.

    Args:
        system: The exact system.
        task: What the network has learned of it.
    """
    from latticezoo.training.link_runs import runs_of

    if runs_of(system) is not None:
        targets = [field.name for field in task.targets]
        if set(targets) & set(_LINK_FORCES):
            return None
        return f"What this network gives ({', '.join(targets)}) moves no links."
    if isinstance(system, SpinSystem) or (len(system.masses) == 1 and hasattr(system, "damping")):
        return None
    return f"The system {system.name} has no dynamics that latticezoo simulate could run."


def rollout_plan(
    system: System, lattice: Lattice, steps: int, replicas: int, dt: float | None = None
) -> Plan:
    """A quench from disorder at the system's own temperature; damped precession for spins.

    Links begin at equilibrium and move without a bath.

    Args:
        system: The exact system.
        lattice: That of the training data; of a large one a part is taken.
        steps: Number of steps.
        replicas: Number of replicas.
        dt: Time step, in the unit of the system; that of the training data suits.

    Raises:
        InputError: Fewer than two replicas, which have no error, or no step.
    """
    from latticezoo.training.link_runs import runs_of
    from latticezoo.training.simulate_command import Plan

    if replicas < 2 or steps < 1:
        raise InputError(
            f"a roll-out of {steps} steps and {replicas} replicas has no mean with an error; at "
            "least 1 step and 2 replicas are needed."
        )
    dynamics: dict[str, Any] = {"name": "langevin", "dt": dt or _STEP}
    if isinstance(system, SpinSystem):
        dynamics |= {"name": "llg", "damping": _DAMPING}
    links = runs_of(system)
    if links is not None:
        dynamics = {"name": links.NAME, **({"dt": dt} if dt else {})}
    if lattice.n_sites > _SITES:
        lattice = Lattice(lattice.family, (_SIDES[lattice.dim],) * lattice.dim)
    return Plan(
        system=system,
        lattice=lattice,
        model="exact",
        initial={"kind": "random" if links is None else "thermal"},
        dynamics=dynamics,
        steps=steps,
        replicas=replicas,
        seed=_SEED,
        sample_every=max(1, steps // _SAMPLES),
        frame_every=max(1, steps // _SAMPLES),
        checkpoint={},
        device="cpu",
    )


def measure_rollout(network: ZooModel, plan: Plan, picture: Path) -> dict[str, Any]:
    """Run the plan with the exact system and with a network.

    Args:
        network: With trained weights.
        plan: As :func:`rollout_plan` gives it.
        picture: The PNG to draw, observables against time.

    Returns:
        ``rollout`` of a card's ``metrics.json``, plain values.
    """
    from latticezoo.simulate.run import simulate
    from latticezoo.training.link_runs import runs_of
    from latticezoo.training.runs import hardware

    system: Any = plan.system
    found: dict[str, dict[str, np.ndarray]] = {}
    times = np.zeros(0)
    for label, driver in (("exact", system), ("network", system.learned(network))):
        result = simulate(
            driver,
            plan.integrator(),
            plan.state(),
            plan.steps,
            lattice=plan.lattice,
            observers=_observers(plan, driver),
        )
        found[label] = observables(result)
        times = result.observers[_ENERGY].times / plan.time_unit
    unit = "τ₀" if runs_of(system) is None else "1/t"
    draw_observables(picture, times, found, f"time t ({unit})")
    return {
        "lattice": str(plan.lattice),
        "replicas": plan.replicas,
        "steps": plan.steps,
        "seed": plan.seed,
        "dynamics": plan.dynamics,
        "initial": plan.initial,
        "time": float(times[-1]),
        "time_unit": float(plan.time_unit),
        "observables": compared(found["exact"], found["network"]),
        "hardware": hardware(),
    }


_ENERGY = "exact potential per site"


def _observers(plan: Plan, driver: Any) -> list[Observer]:
    """What ``latticezoo simulate`` records, and the exact potential of the states visited."""
    system, lattice, every = plan.system, plan.lattice, plan.sample_every

    def potential(snapshot: Snapshot) -> Tensor:
        return system.energy(snapshot.state.fields, lattice) / lattice.n_sites

    try:
        known = plan.observers(driver)
    except InputError:  # no staggered order on this lattice
        known = [KineticTemperature(every)]
    return [
        FunctionObserver(every, _ENERGY, potential),
        *(entry for entry in known if entry.label in _REDUCTIONS),
    ]


#: What is reported of an observer: name, and ``[T, R, …] -> [T, R]``.
_REDUCTIONS: dict[str, dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    _ENERGY: {_ENERGY: lambda values: values},
    "kinetic_temperature": {"kinetic temperature": lambda values: values},
    "order_parameter": {"modulus of the order parameter": lambda values: _modulus(values)},
    "correlation_function": {"correlation of neighbours C(1)": lambda values: values[..., 1]},
    "plaquette": {"plaquette": lambda values: values},
    "electric_square": {"mean square of the electric field": lambda values: values},
    "gauss_violation": {"largest violation of Gauss's law": lambda values: values},
    "magnetization": {"magnetization": lambda values: _modulus(values)},
    "chirality": {
        "chirality": lambda values: values[..., 0],
        "modulus of the chirality": lambda values: values[..., 1],
    },
}


def _modulus(values: np.ndarray) -> np.ndarray:
    """Of ``[T, R]`` or ``[T, R, C]``, over the channels."""
    return np.linalg.norm(values.reshape(*values.shape[:2], -1), axis=-1)


def observables(result: Result) -> dict[str, np.ndarray]:
    """What a run measured, by name in words: ``[times, replicas]``."""
    return {
        name: np.asarray(reduce(result.observers[source].values), dtype=np.float64)
        for source, entries in _REDUCTIONS.items()
        if source in result.observers
        for name, reduce in entries.items()
    }


def compared(
    exact: Mapping[str, np.ndarray], network: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Means over the replicas at the end of two runs, with their standard errors.

    Args:
        exact: ``[times, replicas]`` by name.
        network: The same of the other run.

    Returns:
        One row a name that both have; those that are not finite are left out.
    """
    rows = []
    for name in [name for name in exact if name in network]:
        row: dict[str, Any] = {"name": name}
        for label, run in (("exact", exact), ("network", network)):
            last = run[name][-1]
            row[label] = float(last.mean())
            row[f"{label}_error"] = float(last.std(ddof=1) / np.sqrt(len(last)))
        if all(np.isfinite(value) for value in row.values() if not isinstance(value, str)):
            rows.append(row)
    return rows


def draw_observables(
    path: Path, times: np.ndarray, found: Mapping[str, Mapping[str, np.ndarray]], xlabel: str
) -> None:
    """Observables against time, a panel each, mean and standard error over the replicas.

    Args:
        path: The PNG.
        times: ``[T]``.
        found: By the label of the run and the name of the observable, ``[T, replicas]``.
        xlabel: Name and unit of the times.
    """
    from latticezoo.training.plots import DASHES, PALETTE, figure

    names = list(found["exact"])
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    with figure(path, nrows=rows, ncols=columns, figsize=(4 * columns, 3.2 * rows)) as (_, axes):
        for ax, name in zip(axes.flat, names, strict=False):
            for index, (label, run) in enumerate(found.items()):
                mean = run[name].mean(1)
                error = run[name].std(1, ddof=1) / np.sqrt(run[name].shape[1])
                colour = PALETTE[index]
                ax.fill_between(times, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
                ax.plot(times, mean, color=colour, ls=DASHES[index], label=label)
            ax.set(xlabel=xlabel, ylabel=name)
        axes[0, 0].legend(loc="best")
        for ax in axes.flat[len(names) :]:
            ax.remove()
