"""Run dynamics with a network, or with the exact solver, and analyse it.

Settings come from a YAML file (quench.yaml is one that comes with the library) and from options,
which win; values inside a section have dots:

  latticezoo simulate quench.yaml --model gcn.holstein_weak
  latticezoo simulate quench.yaml --model exact --lattice 16 --replicas 8 --steps 400
  latticezoo simulate quench.yaml --model runs/my-run --dynamics.dt 0.05
  latticezoo simulate spin_quench.yaml --system heisenberg_triangular --lattice 24

Displacements move by Langevin dynamics, spins by Landau–Lifshitz–Gilbert dynamics (name: llg),
gauge links as link spins (name: link_spins), as rotors (link_rotors), or by flips of Z2 links
(kinetic_monte_carlo). Time series go on without forces where the settings name their data:

  latticezoo simulate roll_out.yaml --model transformer.chaotic_holstein --dynamics.noise 1

--model is "exact", the name of pretrained weights, a checkpoint, or a run folder. The folder --out
receives the trajectory (HDF5), a summary (JSON) and pictures. Where the model is an ensemble, the
spread of its forces (rms and largest) is recorded along the run. The same command goes on with a
run that was interrupted or killed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latticezoo.symmetry.errors import InputError, unknown

if TYPE_CHECKING:
    from latticezoo.simulate.forcefield import System
    from latticezoo.simulate.run import Result
    from latticezoo.simulate.state import State
    from latticezoo.symmetry.lattices import Lattice

_SETTINGS: dict[str, type] = {
    "system": object,
    "lattice": object,
    "model": str,
    "initial": dict,
    "dynamics": dict,
    "observers": object,
    "steps": int,
    "replicas": int,
    "seed": int,
    "sample_every": int,
    "frame_every": int,
    "checkpoint": dict,
    "device": str,
    "batch_replicas": bool,
}
_OPTIONS = (
    "model",
    "lattice",
    "steps",
    "replicas",
    "seed",
    "sample_every",
    "frame_every",
    "device",
)
_CHECKPOINT: dict[str, type] = {"every_steps": int, "every_seconds": float}
_DEFAULTS: dict[str, Any] = {
    "system": "holstein_weak",
    "lattice": "square(16, 16)",
    "model": "exact",
    "initial": {"kind": "random"},
    "dynamics": {},
    "steps": 1000,
    "replicas": 1,
    "seed": 0,
    "sample_every": 10,
    "frame_every": 100,
    "device": "cpu",
    "batch_replicas": None,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("settings", nargs="?", metavar="YAML", help="settings; a bare name finds packaged ones")
    add("--model", help="exact, pretrained name, checkpoint or run folder")
    add("--system", dest="system_name", metavar="NAME", help="preset, such as holstein_weak")
    add("--lattice", help="such as square(32), or 32 for another size of the same lattice")
    add("--steps", type=int, help="number of time steps")
    add("--replicas", type=int, help="independent copies, run together")
    add("--seed", type=int, help="of initial states and noise")
    add("--sample-every", type=int, metavar="N", help="steps between samples of the observables")
    add("--frame-every", type=int, metavar="N", help="steps between frames of the trajectory")
    add("--temperature", type=float, help="of the bath, in units of the hopping t")
    add("--device", help="cpu (default) or cuda")
    add("--out", type=Path, metavar="DIR", help="folder (default simulations/<settings>-<model>)")


def dotted_heads() -> tuple[str, ...]:
    """Sections of the settings whose values are options too."""
    return ("system", "initial", "dynamics", "observers", "checkpoint", "data")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from latticezoo.training.names import read_config
    from latticezoo.training.series_runs import SeriesPlan
    from latticezoo.training.settings import merge
    from latticezoo.training.train import written

    given = read_config(arguments.settings) if arguments.settings else {}
    options = {
        name: getattr(arguments, name) for name in _OPTIONS if getattr(arguments, name) is not None
    }
    dotted = {head: values for head, values in arguments.dotted.items() if values}
    if arguments.system_name is not None:
        options["system"] = arguments.system_name
    if arguments.temperature is not None:
        dotted = merge(dotted, {"dynamics": {"temperature": arguments.temperature}})
    if str(options.get("lattice")).isdigit():
        options["lattice"] = _resized(given.get("lattice"), options["lattice"])
    if "system" in dotted and isinstance(given.get("system"), str):
        given["system"] = {"name": given["system"]}
    settings = merge(merge(given, options), dotted)
    plan: Plan | SeriesPlan
    plan = SeriesPlan.make(settings) if "data" in settings else Plan.make(settings)
    stem = Path(arguments.settings).stem if arguments.settings else "simulation"
    label = Path(plan.model).name or "model"
    out = arguments.out or Path("simulations") / f"{stem}-{label}"
    written(*plan.run(out))
    return 0


@dataclass(frozen=True)
class Plan:
    """A simulation, checked: everything that decides its result.

    Attributes:
        system: The exact system.
        lattice: Where.
        model: ``exact``, pretrained name, checkpoint or run folder.
        initial: Kind of starting state and its parameters.
        dynamics: Parameters of the dynamics, in natural units.
        steps: Number of steps.
        replicas: Number of replicas.
        seed: Seed of everything random.
        sample_every: Steps between samples of the observables.
        frame_every: Steps between frames of the trajectory and maps of the order.
        checkpoint: How often to save.
        device: Where to compute.
        batch_replicas: Evaluate all replicas in one call: faster on a GPU, but a replica's last
            bits then depend on the others of the batch.
        extra_observers: Observers of spins beside those that are always there, with their options.
    """

    system: System
    lattice: Lattice
    model: str
    initial: dict[str, Any]
    dynamics: dict[str, Any]
    steps: int
    replicas: int
    seed: int
    sample_every: int
    frame_every: int
    checkpoint: dict[str, Any]
    device: str
    batch_replicas: bool | None = None
    extra_observers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def make(cls, given: Mapping[str, Any]) -> Plan:
        """Check settings and fill in defaults.

        Raises:
            InputError: For an unknown key (with the nearest one), or a value out of range.
        """
        from latticezoo.simulate.systems.sd_magnet import warn_of_misfit
        from latticezoo.training.settings import bath_temperature, merge, section

        values = merge(_DEFAULTS, section(given, "the settings", _SETTINGS))
        system, lattice = _system(values["system"]), _lattice(values["lattice"])
        runs = _kind_of_run(system)
        initial = dict(values["initial"])
        kind = initial.pop("kind", "random")
        if kind not in runs.INITIAL:
            raise unknown("kind of initial state", kind, runs.INITIAL)
        dynamics = {"name": runs.NAME, **values["dynamics"]}
        if dynamics["name"] != runs.NAME:
            raise unknown(f"dynamics of system {system.name!r}", dynamics["name"], [runs.NAME])
        dynamics = section(dynamics, "dynamics", runs.DYNAMICS)
        bath_temperature(dynamics.get("temperature"))  # raises before anything is built
        for name in ("steps", "replicas", "sample_every", "frame_every"):
            if values[name] < 1:
                raise InputError(f"{name} is {values[name]}; it must be at least 1.")
        if values["seed"] < 0:
            raise InputError(f"seed is {values['seed']}; it must be 0 or more.")
        if kind == "random":  # ordered states warn themselves
            named = values["system"]
            warn_of_misfit(named if isinstance(named, str) else named["name"], lattice)
        return cls(
            system=system,
            lattice=lattice,
            model=values["model"],
            initial={
                "kind": kind,
                **section(initial, f"the {kind} initial state", runs.INITIAL[kind]),
            },
            dynamics=dynamics,
            steps=values["steps"],
            replicas=values["replicas"],
            seed=values["seed"],
            sample_every=values["sample_every"],
            frame_every=values["frame_every"],
            checkpoint=section(values.get("checkpoint"), "checkpoint", _CHECKPOINT),
            device=values["device"],
            batch_replicas=values["batch_replicas"],
            extra_observers=runs.observer_options(values.get("observers") or []),
        )

    def run(self, out: Path) -> list[Path]:
        """Simulate into a folder, or go on there, and write summary and pictures.

        Raises:
            InputError: When the folder holds another simulation, or the parts do not fit together.
        """
        from latticezoo.training.runs import write_json

        result = self.simulate(out)
        pictures = self._runs.pictures(out, self, result)
        summary = write_json(out / "summary.json", self.summary(result))
        return [out / "trajectory.h5", summary, *pictures]

    def simulate(self, out: Path, force_field: Any = None) -> Result:
        """Simulate into a folder, or go on there.

        Args:
            out: Receives the trajectory and the checkpoint.
            force_field: What drives the run instead of :attr:`model`.

        Raises:
            InputError: When the folder holds another simulation, or the parts do not fit together.
        """
        from latticezoo.simulate.run import Checkpoint, Trajectory, simulate
        from latticezoo.training.threads import suited_threads, work

        every = {"every_steps": None, "every_seconds": 60.0, **self.checkpoint}
        # Everything is built before the folder, so that a mistake leaves nothing behind.
        driver = force_field or self.force_field()
        network = getattr(driver, "model", None)
        with suited_threads(work(network, self.lattice.n_sites) if network is not None else 0):
            return simulate(
                driver,
                self.integrator(),
                self.state(),
                self.steps,
                lattice=self.lattice,
                observers=self.observers(driver),
                trajectory=Trajectory(out / "trajectory.h5", every=self.frame_every),
                checkpoint=Checkpoint(out / "checkpoint.h5", **every),
                batch_replicas=self.batch_replicas,
            )

    @property
    def label(self) -> str:
        """Name of what drives the run, for legends."""
        return self.model if self.model == "exact" else Path(self.model).name

    @property
    def _runs(self) -> Any:
        """What differs between displacements and spins."""
        return _kind_of_run(self.system)

    @property
    def time_unit(self) -> float:
        """Unit of time τ₀ of the system; 1 where it has none."""
        return float(getattr(self.system, "tau0", 1.0))

    def force_field(self) -> Any:
        """The exact system, or the network in the place of its electrons.

        Raises:
            InputError: When the network serves another task, or the lattice is too small for it.
        """
        if self.model == "exact":
            system = with_workers(self.system, self.replicas)
            # Fermions on links can be out of equilibrium.
            driver = getattr(self._runs, "exact_driver", None)
            return system if driver is None else driver(self, system)
        from latticezoo.zoo.loading import load_network

        network = load_network(self.model, others=["exact"]).to(self.device)
        targets = [field.name for field in network.task.targets]
        task = self.system.task(self.lattice.family, target=",".join(targets))
        if task != network.task:
            raise InputError(
                f"{self.model} serves the task {network.task.name!r} ({', '.join(targets)}), "
                f"not {task.name!r} of system {self.system.name!r} on {self.lattice}."
            )
        # The network would say so itself, but only after the folder of the run was made.
        self.lattice.require(network.required_shells, what=network.registry_name)
        return self.system.learned(network)

    def state(self) -> State:
        """The starting state."""
        return self._runs.state(self)

    def integrator(self) -> Any:
        """The dynamics, parameters from natural units to those of the system."""
        return self._runs.dynamics(self)

    def observers(self, driver: Any = None) -> list[Any]:
        """What is measured on the way.

        Args:
            driver: What drives the run; where it is an ensemble, its uncertainty is recorded too.
        """
        return list(self._runs.observers(self, driver))

    def summary(self, result: Result) -> dict[str, Any]:
        """What the run was and what came out, plain values."""
        from latticezoo.training.runs import hardware, versions

        return {
            "system": {"system": self.system.name, **getattr(self.system, "parameters", {})},
            "lattice": str(self.lattice),
            "model": self.model,
            "initial": self.initial,
            "dynamics": self.dynamics,
            "steps": self.steps,
            "replicas": self.replicas,
            "seed": self.seed,
            "time_unit": self.time_unit,
            **self._runs.summary(self, result),
            **_spread_summary(result),
            "hardware": hardware(),
            "versions": versions(),
        }


def _spread_summary(result: Result) -> dict[str, Any]:
    """Uncertainty of the forces of an ensemble along the run; nothing of other force fields."""
    if "force_spread" not in result.observers:
        return {}
    values = result.observers["force_spread"].values
    return {
        "force_spread": {
            "rms_mean": float((values[..., 0] ** 2).mean() ** 0.5),
            "rms_last": float((values[-1, :, 0] ** 2).mean() ** 0.5),
            "largest": float(values[..., 1].max()),
        }
    }


def _system(given: Any) -> System:
    from latticezoo.simulate.systems import create_system

    if isinstance(given, str):
        return create_system(given)
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise InputError(f"system is {given!r}; give a preset, or a name with parameters.")
    return create_system(**given)


def _lattice(given: Any) -> Lattice:
    from latticezoo.symmetry.lattices import Lattice

    if isinstance(given, int) or str(given).isdigit():
        given = f"square({given})"
    return Lattice.parse(str(given))


def _resized(before: Any, size: str) -> str:
    """Another size of the lattice that the settings name."""
    if before is None or isinstance(before, int) or str(before).isdigit():
        return size
    return f"{_lattice(before).family}({size})"


def _kind_of_run(system: System) -> Any:
    """The module that knows how such a system is simulated."""
    from latticezoo.simulate.systems.spin_system import SpinSystem
    from latticezoo.training import displacement_runs, link_runs, spin_runs

    if (links := link_runs.runs_of(system)) is not None:
        return links
    return spin_runs if isinstance(system, SpinSystem) else displacement_runs


def with_workers(system: Any, replicas: int) -> Any:
    """A system whose diagonalizations share the cores, replica by replica: no result changes."""
    from latticezoo.datasets.make import cores

    names = {field.name for field in fields(system)}
    return replace(system, workers=min(cores(), replicas)) if "workers" in names else system
