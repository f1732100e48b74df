"""Simulations of displacements: their starting states, Langevin dynamics, observers and summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latticezoo.simulate import initial as states
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.observers import (
    CorrelationFunction,
    ForceSpread,
    KineticTemperature,
    Observer,
    OrderParameter,
)
from latticezoo.simulate.run import Result
from latticezoo.symmetry.errors import InputError
from latticezoo.training.analysis import correlation_lengths
from latticezoo.training.pictures import LocalOrder, simulation_pictures
from latticezoo.training.settings import bath_temperature

if TYPE_CHECKING:
    from latticezoo.simulate.state import State
    from latticezoo.training.simulate_command import Plan

#: Kinds of starting states with their options.
INITIAL: dict[str, dict[str, type]] = {
    "random": {"amplitude": float, "distribution": str},
    "staggered": {"amplitude": float, "noise": float},
    "thermal": {"temperature": float},
}
#: Name of the dynamics, and its options.
NAME = "langevin"
DYNAMICS: dict[str, type] = {"name": str, "dt": float, "temperature": object, "damping": float}


def observer_options(given: Any) -> dict[str, dict[str, Any]]:
    """The observers are fixed.

    Raises:
        InputError: When some are asked for.
    """
    if given:
        raise InputError("observers are chosen for spins only; those of displacements are fixed.")
    return {}


def state(plan: Plan) -> State:
    """The starting state, amplitudes in the system's unit of displacement."""
    options = {k: v for k, v in plan.initial.items() if k != "kind" and v is not None}
    unit = float(getattr(plan.system, "Q0", 1.0))
    weights = plan.system.start_weights
    if plan.initial["kind"] == "thermal":
        stiffness = float(getattr(plan.system, "k", 1.0))
        options = {"temperature": 1.0, **options, "stiffness": stiffness, "mass": _mass(plan)}
        options["channels"] = len(weights)
    elif plan.initial["kind"] == "random":
        amplitude = options.get("amplitude", 1.0) * unit
        options["amplitude"] = [amplitude * weight for weight in weights]
    else:
        options["amplitude"] = options.get("amplitude", 1.0) * unit
        if "noise" in options:
            options["noise"] *= unit
    make = getattr(states, plan.initial["kind"])
    made: State = make(plan.lattice, plan.replicas, seed=plan.seed, **options)
    return made.to(plan.device)


def _mass(plan: Plan) -> float:
    (mass,) = plan.system.masses.values()
    return mass


def dynamics(plan: Plan) -> Langevin:
    """Langevin dynamics, dt and damping from natural units to those of the system."""
    system: Any = plan.system
    given = plan.dynamics
    damping = given.get("damping")
    temperature = bath_temperature(given.get("temperature"))
    return Langevin(
        dt=given.get("dt", 0.1) * plan.time_unit,
        temperature=system.temperature if temperature is None else temperature,
        damping=system.damping if damping is None else damping * _mass(plan) / plan.time_unit,
        mass=_mass(plan),
    )


def observers(plan: Plan, driver: Any) -> list[Observer]:
    """Order, its correlation, kinetic temperature; maps of the order with the frames.

    Args:
        plan: The simulation.
        driver: What drives the run; where it is an ensemble, its uncertainty is recorded too.
    """
    plan.lattice.stagger  # noqa: B018 - raises where the lattice holds no staggered order
    source = plan.system.order_source
    return [
        OrderParameter(plan.sample_every, source=source),
        CorrelationFunction(plan.sample_every, source=source),
        KineticTemperature(plan.sample_every),
        LocalOrder(plan.frame_every, source=source),
        *([ForceSpread(plan.sample_every)] if hasattr(driver, "force_spread") else []),
    ]


def summary(plan: Plan, result: Result) -> dict[str, Any]:
    """Last order parameter, temperature reached, and correlation length against time."""
    order = result.observers["order_parameter"]
    local = result.observers["local_order"]
    kinetic = result.observers["kinetic_temperature"]
    length = correlation_lengths(local.values, plan.lattice)
    half = len(kinetic.values) // 2
    return {
        "final": {
            "time": float(result.state.time / plan.time_unit),
            "order_parameter": order.values[-1].tolist(),
            "mean_absolute_order_parameter": float(np.abs(order.values[-1]).mean()),
            "kinetic_temperature_second_half": float(kinetic.values[half:].mean()),
        },
        "correlation_length": {
            "times": (local.times / plan.time_unit).tolist(),
            "mean": _plain(length.mean),
            "standard_error": _plain(length.error),
        },
    }


def pictures(out: Path, plan: Plan, result: Result) -> list[Path]:
    """Maps of the order, correlation functions, growth of the domains."""
    return simulation_pictures(out, plan, {plan.label: result})


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(v) if v == v else None for v in values]
