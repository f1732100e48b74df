"""What the recipes for adiabatic models share: random configurations and frames of quenches.

Random configurations: every mode of every site uniform in ±A times the weight of the mode, with A
drawn for each configuration. A share of them lies on a staggered background ±B(−1)^(x+y) of one
mode, with B drawn too: without it, states near the ordered one are missing.

Quenches: each trajectory starts from disorder of its own and follows Langevin dynamics (BAOAB) at
the temperature of the electrons. Domains form within some 10 tau0 and then change ever more slowly,
so frames lie on a geometric grid in time, from ``first_time`` to ``last_time``. The forces are
exact, or those of a network, the ``driver``; labels are exact in any case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from latticezoo.datasets.driven import DrivenRecipe
from latticezoo.datasets.driver import DriverError
from latticezoo.datasets.frames import FramesRecipe
from latticezoo.datasets.labelled import RANDOM, LabelledData
from latticezoo.datasets.registry import Unit
from latticezoo.datasets.torus import parse_lattice, torus_task
from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.noise import generator
from latticezoo.simulate.state import State
from latticezoo.simulate.systems import create_system
from latticezoo.simulate.systems.adiabatic import AdiabaticSystem
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.tasks import Task

_OVERRIDES = ("temperature", "g", "k", "filling", "mass", "damping")


@dataclass(frozen=True, kw_only=True)
class QuenchRecipe(FramesRecipe, DrivenRecipe):
    """Random configurations and frames of quenches of an adiabatic model, labelled exactly.

    Amplitudes are in units of g/k, times in units of tau0 = √(m/k), energies in units of t. Options
    as :class:`~latticezoo.datasets.driven.DrivenRecipe` and
    :class:`~latticezoo.datasets.frames.FramesRecipe` (``first_time`` 1 by default), and:

    Args:
        lattice: Linear size, or a lattice such as ``square(12, 16)``; even sides.
        preset: Parameter set.
        temperature: Temperature of electrons and bath instead of the preset's.
        g: Electron–lattice coupling instead of the preset's.
        k: Spring constant instead of the preset's.
        filling: Share of the electron states that is filled instead of the preset's.
        mass: Mass instead of the preset's.
        damping: Friction coefficient instead of the preset's.
        random: Number of random configurations.
        staggered_fraction: Share of them on a staggered background.
        trajectories: Number of quenches.
        frames: Samples taken from each quench, on a geometric grid in time.
        first_time: Time of the first frame, 1 by default.
        last_time: Time of the last frame, the end of the quench.
        dt: Time step.
        start_amplitude: Amplitude of the random start.
        seed: Seed of everything that is random.

    Raises:
        InputError: An option is outside its range.
    """

    preset: str
    temperature: float | None = None
    g: float | None = None
    k: float | None = None
    filling: float | None = None
    mass: float | None = None
    damping: float | None = None
    staggered_fraction: float = 0.5
    start_amplitude: float = 1.0

    #: Name of the model, for sentences, and its parameter sets.
    model: ClassVar[str]
    presets: ClassVar[Mapping[str, AdiabaticSystem]]
    family: ClassVar[str]
    #: Options that replace a parameter of the preset.
    overrides: ClassVar[tuple[str, ...]] = _OVERRIDES
    #: Range of the amplitudes A, and of the strengths B of the background, in units of g/k.
    amplitudes: ClassVar[tuple[float, float]]
    backgrounds: ClassVar[tuple[float, float]]
    #: The mode that has the background.
    ordered_mode: ClassVar[int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lattice", str(parse_lattice(self.lattice, self.family)))
        if self.preset not in self.presets:
            raise unknown(f"{self.model} preset", self.preset, self.presets)
        self._fill_in()
        self._check_numbers()
        self.system.hamiltonian(self.geometry)  # raises on a torus that is too small
        self.system.task(self.family)  # raises on an unstable lattice
        if self.random and self.staggered_fraction:
            self.geometry.stagger  # noqa: B018  raises for odd sides
        if self.trajectories:
            self.frame_steps()  # raises when there are too few steps
        self.check_driver()

    def _fill_in(self) -> None:
        """Fill in the options whose default depends on others."""
        if self.first_time is None:
            object.__setattr__(self, "first_time", 1.0)

    def _check_numbers(self) -> None:
        self.check_frames()
        if not (self.start_amplitude > 0 and math.isfinite(self.start_amplitude)):
            raise InputError(f"start_amplitude is {self.start_amplitude}; it must be positive.")
        if not 0 <= self.staggered_fraction <= 1:
            raise InputError(
                f"staggered_fraction is {self.staggered_fraction}; it must lie between 0 and 1."
            )

    # ---- what is made --------------------------------------------------------------------------

    @cached_property
    def system(self) -> AdiabaticSystem:
        """The exact system: the preset with what is given instead."""
        given = {name: getattr(self, name) for name in self.overrides}
        changes = {name: value for name, value in given.items() if value is not None}
        # LAPACK on any machine: the bits of a label must not depend on where it is made.
        made = create_system(self.preset, backend="lapack", **changes)
        assert isinstance(made, AdiabaticSystem)
        return made

    @property
    def task(self) -> Task:
        """From Q to the first of the targets; see :func:`torus_task`."""
        return torus_task(self.system, self.geometry, self.targets[0])

    def types(self) -> dict[str, Field]:
        """Type of every label."""
        tasks = {name: torus_task(self.system, self.geometry, name) for name in self.targets}
        energies = ("energy", "electronic_energy", "chemical_potential")
        return {
            **{name: task.target(name) for name, task in tasks.items()},
            **{name: Field(name, support="global") for name in energies},
        }

    def trajectory_cost(self, number: int) -> int:
        """Only exact solutions count: a network's forces cost next to nothing."""
        return self.frames if self.is_driven(number) else super().trajectory_cost(number)

    def seconds_per_solve(self) -> float:
        """Rough time of one exact solution on one core: dense diagonalization of all states."""
        return 1e-3 + 1.5e-10 * (self.system.states_per_site * self.geometry.n_sites) ** 3

    # ---- random configurations -----------------------------------------------------------------

    def random_block(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make the random configurations of a unit."""
        numbers = range(unit.first, unit.first + unit.count)
        fields = np.stack([self.configuration(number) for number in numbers])
        return self._labelled(
            torch.from_numpy(fields),
            report,
            kind=torch.full((unit.count,), RANDOM),
            frame=torch.tensor(numbers),
        )

    def configuration(self, number: int) -> np.ndarray:
        """Displacements ``[N, C]`` of one random configuration: a function of seed and number."""
        draw = generator(self.stream_seed, number, stream="random configuration")
        low, high = self.amplitudes
        amplitude = low + (high - low) * draw.random()
        weights = np.array(self.system.start_weights)
        values = amplitude * weights * (2 * draw.random((self.geometry.n_sites, len(weights))) - 1)
        # Number i lies on a background when the running share passes a whole number there.
        share = self.staggered_fraction
        if math.floor((number + 1) * share) > math.floor(number * share):
            low, high = self.backgrounds
            strength = low + (high - low) * draw.random()
            sign = 1.0 if draw.random() < 0.5 else -1.0
            values[:, self.ordered_mode] += sign * strength * self.geometry.stagger.numpy()
        return self.system.Q0 * values

    # ---- quenches ------------------------------------------------------------------------------

    def initial_state(self, number: int) -> State:
        """Start of one quench, at rest: a function of seed and number."""
        scale = self.start_amplitude * self.system.Q0
        amplitudes = [scale * weight for weight in self.system.start_weights]
        return initial.random(self.geometry, (number,), amplitude=amplitudes, seed=self.stream_seed)

    def trajectory(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make the frames of one quench."""
        system, lattice = self.system, self.geometry
        driver = self.opened_driver if self.is_driven(unit.first) else None

        def forces(fields: Any) -> dict[str, torch.Tensor]:
            if driver is not None:
                return driver.forces(fields, lattice)
            report(1)
            return system.forces(fields, lattice)

        _, _, dt = self.times
        dynamics = Langevin(dt * system.tau0, system.temperature, system.damping, system.mass)
        state = self.initial_state(unit.first)
        bound = math.inf if driver is None else driver.bound(state.fields["Q"])
        state = dynamics.start(replace(state, forces=forces(state.fields)))
        steps, frames = self.frame_steps(), []
        for step in range(1, steps[-1] + 1):
            state = dynamics.step(state, forces)
            if driver is not None and not bool((state.fields["Q"].abs() <= bound).all()):
                raise DriverError(
                    f"trajectory {unit.first} blew up at step {step} of {steps[-1]} with the "
                    f"driver {driver.name!r}: |Q| went beyond {bound:.3g}; train it more, or take "
                    f"a time step below {dt:g}."
                )
            if step in steps:
                frames.append(state.fields["Q"])
        columns = self.frame_columns(unit.first, driver is not None)
        return self._labelled(torch.cat(frames), report, **columns)

    # ---- both ----------------------------------------------------------------------------------

    def _labelled(
        self, Q: torch.Tensor, report: Callable[[int], None], **columns: Any
    ) -> LabelledData:
        lattice, fields = self.geometry, {"Q": Q}
        labels = self.system.labels(fields, lattice)
        report(len(Q))
        # What the electrons add to the energy: A, or Ω at fixed μ, and what is linear in Q.
        elastic = self.system.elastic_energy(fields, lattice)
        labels["electronic_energy"] = labels["energy"] - elastic
        return self.labelled_frames(fields, labels, **columns)
