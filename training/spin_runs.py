"""Simulations of spins: their starting states, LLG dynamics, observers and summary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.observers import Energy, ForceSpread, Observer
from latticezoo.simulate.run import Result
from latticezoo.simulate.spin_observers import (
    SPIN_OBSERVERS,
    Chirality,
    Magnetization,
    TopologicalCharge,
)
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.training.settings import bath_temperature, section
from latticezoo.training.spin_pictures import spin_pictures

if TYPE_CHECKING:
    from latticezoo.simulate.state import State
    from latticezoo.training.simulate_command import Plan

#: Kinds of starting states with their options, and the function of ``spin_states`` that makes them.
INITIAL: dict[str, dict[str, type]] = {
    "random": {},
    "ferromagnet": {"axis": object, "noise": float},
    "spiral": {"q": object, "plane": object, "cone": float, "noise": float},
    "three_sublattice": {"plane": object, "noise": float},
    "tetrahedral": {"chirality": int, "noise": float},
    "skyrmion_lattice": {
        "amplitude": float,
        "magnetization": float,
        "phase": float,
        "wave_number": float,
        "winding": int,
        "spread": float,
        "noise": float,
    },
    "skyrmion": {
        "radius": float,
        "width": float,
        "centre": object,
        "winding": int,
        "helicity": float,
        "background": int,
        "noise": float,
    },
}
#: Name of the dynamics, and its options.
NAME = "llg"
DYNAMICS: dict[str, type] = {
    "name": str,
    "dt": float,
    "temperature": object,
    "damping": float,
    "gamma": float,
    "scheme": str,
    "form": str,
}
_OBSERVERS: dict[str, dict[str, type]] = {
    "magnetization": {},
    "topological_charge": {},
    "chirality": {},
    "peak_order": {"wave_number": float, "peaks": object, "window": float},
    "peak_length": {"wave_number": float, "peaks": object},
}


def observer_options(given: Any) -> dict[str, dict[str, Any]]:
    """Check the setting ``observers``: a list of names, or options by name.

    Returns:
        Options by name.

    Raises:
        InputError: For an unknown name or option (with the nearest one), or another kind of value.
    """
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        given = dict.fromkeys(given)
    if not isinstance(given, Mapping):
        raise InputError(f"observers are {given!r}; give a list of names, or options by name.")
    checked = {}
    for name, options in given.items():
        if name not in _OBSERVERS:
            raise unknown("observer of spins", str(name), _OBSERVERS)
        checked[str(name)] = section(options, f"the observer {name}", _OBSERVERS[name])
    return checked


def state(plan: Plan) -> State:
    """The starting state."""
    from latticezoo.simulate import spin_states

    options = {k: v for k, v in plan.initial.items() if k != "kind" and v is not None}
    kind = plan.initial["kind"]
    if kind == "spiral" and "q" not in options:
        raise InputError("a spiral needs its wave vector q, such as [1.0472, 0].")
    if kind == "skyrmion" and "radius" not in options:
        raise InputError("a skyrmion needs its radius, in bond lengths.")
    make = getattr(spin_states, "random_spins" if kind == "random" else kind)
    made: State = make(plan.lattice, plan.replicas, seed=plan.seed, **options)
    return made.to(plan.device)


def dynamics(plan: Plan) -> LLG:
    """LLG dynamics; at temperature 0, with damping 0.1, where nothing else is said."""
    given = {k: v for k, v in plan.dynamics.items() if k != "name" and v is not None}
    given = {"dt": 0.1, "temperature": 0.0, "damping": 0.1, **given}
    given["dt"] *= plan.time_unit
    return LLG(**{**given, "temperature": bath_temperature(given["temperature"])})


def observers(plan: Plan, driver: Any) -> list[Observer]:
    """Energy where there is one, magnetization, charge, chirality, and those asked for."""
    every = plan.sample_every
    chosen: dict[str, Observer] = {}
    if hasattr(driver, "energy"):
        chosen["energy"] = Energy(every)
    for kind in (Magnetization, TopologicalCharge, Chirality):
        chosen[kind.default_name] = kind(every)
    for name, options in plan.extra_observers.items():
        chosen[name] = SPIN_OBSERVERS[name](every, **options)
    if hasattr(driver, "force_spread"):
        chosen["force_spread"] = ForceSpread(every)
    return list(chosen.values())


def summary(plan: Plan, result: Result) -> dict[str, Any]:
    """The last samples of the observers, energies per site."""
    final: dict[str, Any] = {"time": float(result.state.time / plan.time_unit)}
    for name, series in result.observers.items():
        last = np.asarray(series.values[-1], dtype=np.float64)
        if name == "energy":
            final["energy_per_site"] = (last / plan.lattice.n_sites).tolist()
        elif name != "force_spread":
            final[name] = (
                [float(v) if np.isfinite(v) else None for v in last]
                if (last.ndim == 1)
                else last.tolist()
            )
    return {"final": final}


def pictures(out: Path, plan: Plan, result: Result) -> list[Path]:
    """Maps of the spins, structure factor, observers against time."""
    return spin_pictures(out, plan, result)
