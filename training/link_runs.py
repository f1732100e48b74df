"""Simulations of gauge links: quantum link spins, rotors of U(1) and SU(2), flipping Z2 links."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from latticezoo.simulate import link_states
from latticezoo.simulate.dynamics.kinetic_monte_carlo import KineticMonteCarlo
from latticezoo.simulate.dynamics.link_dynamics import EhrenfestRotors, LinkRotors, LinkSpins
from latticezoo.simulate.forcefield import System
from latticezoo.simulate.link_observers import ElectricField, GaussLaw, RotorEnergy, WilsonLoop
from latticezoo.simulate.observers import Energy, ForceSpread, Observer
from latticezoo.simulate.run import Result
from latticezoo.simulate.state import State
from latticezoo.simulate.statistics import autocorrelation, integrated_time
from latticezoo.simulate.systems.ehrenfest_links import EhrenfestLinks
from latticezoo.simulate.systems.gauge_fermions import GaugeFermions
from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.simulate.trajectory import open_trajectory
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.gauge import plaquettes, trace
from latticezoo.training.plots import figure
from latticezoo.training.settings import bath_temperature, section
from latticezoo.training.spin_pictures import histories

if TYPE_CHECKING:
    from latticezoo.training.simulate_command import Plan

_FERMIONS = ("adiabatic", "ehrenfest")
#: Thermal starts of link spins on more sites cost hours: 60 diagonalizations a site by default.
_THERMAL_SITES = 256


class LinkRuns(ABC):
    """What the simulations of links share; the kinds differ in what moves.

    Attributes:
        INITIAL: Kinds of starting states with their options.
        NAME: Name of the dynamics.
        DYNAMICS: Its options.
    """

    INITIAL: ClassVar[dict[str, dict[str, type]]]
    NAME: ClassVar[str]
    DYNAMICS: ClassVar[dict[str, type]]

    @abstractmethod
    def start(self, plan: Plan, kind: str, options: dict[str, Any]) -> State:
        """The starting state on the CPU."""

    @abstractmethod
    def dynamics(self, plan: Plan) -> Any:
        """The dynamics."""

    @abstractmethod
    def energies(self, plan: Plan) -> Observer:
        """The observer of the conserved energy."""

    def observer_options(self, given: Any) -> dict[str, dict[str, Any]]:
        """Check the setting ``observers``: ``wilson_loop`` with its ``width`` and ``height``.

        Raises:
            InputError: For an unknown name or option, or another kind of value.
        """
        if isinstance(given, list):
            given = dict.fromkeys(given)
        if not isinstance(given, Mapping):
            raise InputError(f"observers are {given!r}; give a list of names, or options by name.")
        checked = {}
        for name, options in given.items():
            if name != "wilson_loop":
                raise unknown("observer of links", str(name), ["wilson_loop"])
            known: dict[str, type] = {"width": int, "height": int}
            checked[str(name)] = section(options, f"the observer {name}", known)
        return checked

    def state(self, plan: Plan) -> State:
        """The starting state, with ρ where fermions are out of equilibrium."""
        options = {k: v for k, v in plan.initial.items() if k != "kind" and v is not None}
        made = self.start(plan, plan.initial["kind"], options)
        if self.ehrenfest(plan):
            driver = EhrenfestLinks(_model(plan.system))
            made = State(driver.start(made.fields, plan.lattice), seed=made.seed)
        return made.to(plan.device)

    def ehrenfest(self, plan: Plan) -> bool:
        """Whether the fermions move.

        Raises:
            InputError: For an unknown treatment of the fermions, or a network in their place.
        """
        chosen = plan.dynamics.get("fermions") or "adiabatic"
        if chosen not in _FERMIONS:
            raise unknown("treatment of the fermions", chosen, _FERMIONS)
        if chosen == "ehrenfest" and plan.model != "exact":
            raise InputError(
                f"model is {plan.model}; a network stands for fermions in equilibrium, so that "
                "Ehrenfest dynamics needs model exact."
            )
        return bool(chosen == "ehrenfest")

    def exact_driver(self, plan: Plan, system: System) -> Any:
        """What drives an exact run."""
        return EhrenfestLinks(_model(system)) if self.ehrenfest(plan) else system

    def observers(self, plan: Plan, driver: Any) -> list[Observer]:
        """Energy where there is one, Gauss's law, the plaquette, E², and loops asked for."""
        every = plan.sample_every
        chosen: list[Observer] = [WilsonLoop(every)]
        if self.NAME != KINETIC:
            chosen += [GaussLaw(every), ElectricField(every)]
        if hasattr(driver, "energy"):
            chosen.insert(0, self.energies(plan))
        for options in plan.extra_observers.values():
            chosen.append(WilsonLoop(every, **{"width": 2, "height": 2, **options}))
        if hasattr(driver, "force_spread"):
            chosen.append(ForceSpread(every))
        return chosen

    def summary(self, plan: Plan, result: Result) -> dict[str, Any]:
        """Last samples, drifts, and autocorrelation times of E and W from the frames."""
        final: dict[str, Any] = {"time": float(result.state.time)}
        for name, series in result.observers.items():
            if name != "force_spread":
                final[name] = np.asarray(series.values[-1], dtype=np.float64).tolist()
        found: dict[str, Any] = {"final": final}
        if "energy" in result.observers and self.NAME != KINETIC:
            energy = np.asarray(result.observers["energy"].values)
            found["energy_drift"] = float(np.abs(energy - energy[0]).max())
        if "gauss_violation" in result.observers:
            found["gauss_violation"] = float(
                np.asarray(result.observers["gauss_violation"].values).max()
            )
        times, curves = correlations(plan, result)
        spacing = float(times[1] - times[0]) if len(times) > 1 else 0.0
        found["autocorrelation_times"] = {
            name: spacing * integrated_time(values) for name, values in curves.items()
        }
        return found

    def pictures(self, out: Path, plan: Plan, result: Result) -> list[Path]:
        """Observers against time, and the autocorrelation of E and W."""
        path = out / "correlations.png"
        times, curves = correlations(plan, result)
        with figure(path, figsize=(6.4, 3.6)) as (_, axes):
            ax = axes[0, 0]
            for name, values in curves.items():
                half = max(1, len(values) // 2)
                ax.plot(times[:half] - times[0], autocorrelation(values)[:half], label=name)
            ax.axhline(0, color="0.6", lw=0.8)
            ax.set(xlabel="time t", ylabel="C(t) / C(0)")
            if curves:
                ax.legend()
        return [histories(out / "observers.png", result.observers, plan), path]


KINETIC = "kinetic_monte_carlo"


class QuantumLinkRuns(LinkRuns):
    """Link spins."""

    INITIAL = {"random": {}, "thermal": {"temperature": float, "sweeps": int, "block": int}}
    NAME = "link_spins"
    DYNAMICS = {"name": str, "dt": float, "fermions": str, "temperature": object}

    def start(self, plan: Plan, kind: str, options: dict[str, Any]) -> State:
        """Random phases with E = 0, or a thermal state with div E = 0."""
        system = _model(plan.system)
        assert isinstance(system, QuantumLink)
        if kind == "random":
            return link_states.random_link_spins(
                plan.lattice, plan.replicas, system.length, plan.seed
            )
        options = {"temperature": 0.5, **options}
        if plan.lattice.n_sites > _THERMAL_SITES and not options.get("block"):
            raise InputError(
                f"a thermal start on {plan.lattice} would take hours of diagonalizations; give "
                "initial.block, a divisor of both sides such as 8, to repeat and stir a smaller "
                "thermal state, or initial.kind random."
            )
        return link_states.thermal_link_spins(
            system, plan.lattice, replicas=range(plan.replicas), seed=plan.seed, **options
        )

    def dynamics(self, plan: Plan) -> LinkSpins:
        """Runge–Kutta with dt 0.01 where nothing else is said."""
        _no_bath(plan)
        system = _model(plan.system)
        assert isinstance(system, QuantumLink)
        return LinkSpins(plan.dynamics.get("dt") or 0.01, length=system.length)

    def energies(self, plan: Plan) -> Observer:
        """The energy of the system holds all."""
        return Energy(plan.sample_every)


class RotorRuns(LinkRuns):
    """Rotors of U(1) and SU(2)."""

    INITIAL = {"random": {}, "thermal": {"beta": float}}
    NAME = "link_rotors"
    DYNAMICS = {"name": str, "dt": float, "g2": float, "fermions": str, "temperature": object}

    def start(self, plan: Plan, kind: str, options: dict[str, Any]) -> State:
        """Random links, or those of the pure gauge theory, with E = 0."""
        system = _model(plan.system)
        assert isinstance(system, GaugeFermions)
        beta = options.get("beta", 1.0) if kind == "thermal" else None
        return link_states.link_rotors(plan.lattice, plan.replicas, system.group, beta, plan.seed)

    def dynamics(self, plan: Plan) -> LinkRotors | EhrenfestRotors:
        """Leapfrog with dt 0.02 and g² = 0.8 where nothing else is said."""
        _no_bath(plan)
        dt, g2 = plan.dynamics.get("dt") or 0.02, self._g2(plan)
        if self.ehrenfest(plan):
            return EhrenfestRotors(EhrenfestLinks(_model(plan.system)), plan.lattice, dt, g2)
        return LinkRotors(dt, g2)

    def energies(self, plan: Plan) -> Observer:
        """Electric energy included."""
        return RotorEnergy(plan.sample_every, g2=self._g2(plan))

    @staticmethod
    def _g2(plan: Plan) -> float:
        given = plan.dynamics.get("g2")
        return 0.8 if given is None else float(given)


class KineticRuns(LinkRuns):
    """Z2 links that flip."""

    INITIAL = {"random": {}, "thermal": {"beta": float}}
    NAME = KINETIC
    DYNAMICS = {"name": str, "dt": float, "temperature": object, "rates": str}

    def start(self, plan: Plan, kind: str, options: dict[str, Any]) -> State:
        """Random signs, or those of the pure gauge theory."""
        beta = options.get("beta", 1.0) if kind == "thermal" else 0.0
        return link_states.signs(plan.lattice, plan.replicas, beta, plan.seed)

    def dynamics(self, plan: Plan) -> KineticMonteCarlo:
        """Flips in continuous time; at T = 0.1, dt = 0.1 where nothing else is said."""
        given = plan.dynamics
        temperature = bath_temperature(given.get("temperature"))
        return KineticMonteCarlo(
            dt=given.get("dt") or 0.1,
            temperature=0.1 if temperature is None else temperature,
            rates=given.get("rates") or "glauber",
        )

    def energies(self, plan: Plan) -> Observer:
        """Not conserved here."""
        return Energy(plan.sample_every)


def runs_of(system: System) -> LinkRuns | None:
    """How a system of links is simulated; None for other systems."""
    if isinstance(system, QuantumLink):
        return QuantumLinkRuns()
    if isinstance(system, GaugeFermions):
        return KineticRuns() if system.group == "Z2" else RotorRuns()
    return None


def correlations(plan: Plan, result: Result) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Invariant local quantities in the frames of a run.

    Returns:
        Times ``[frames]``; by name ``[frames, values]``: ``W`` Re Tr W/d of every plaquette, and
        ``E`` of every link (of SU(2), whose components are not invariant, ``E2`` = E^a E^a).
    """
    assert result.trajectory is not None
    with open_trajectory(result.trajectory) as trajectory:
        times = np.asarray(trajectory.times)
        links = torch.from_numpy(trajectory.fields["U"][...])
        electric = trajectory.fields["E"][...] if "E" in trajectory.fields else None
    loops = trace(plaquettes(links.flatten(0, 1), plan.lattice)).real
    curves = {"W": loops.numpy().reshape(len(times), -1) / (2 if links.dim() == 6 else 1)}
    if electric is not None and electric.ndim == 5:
        curves["E2"] = (electric**2).sum(-1).reshape(len(times), -1)
    elif electric is not None:
        curves["E"] = electric.reshape(len(times), -1)
    return times, curves if len(times) > 1 else {}


def _model(system: System) -> QuantumLink | GaugeFermions:
    assert isinstance(system, QuantumLink | GaugeFermions)
    return system


def _no_bath(plan: Plan) -> None:
    if plan.dynamics.get("temperature") is not None:
        raise InputError(
            f"temperature is {plan.dynamics['temperature']!r}, but links move without a bath; give "
            "initial.kind thermal with its temperature or beta."
        )
