"""What the recipes for adiabatic models share: random configurations and frames of exact quenches.

Random configurations: every mode of every site uniform in ±A times the weight of the mode, with A
drawn for each configuration. A share of them lies on a staggered background ±B(−1)^(x+y) of one
mode, with B drawn too: without it, states near the ordered one are missing.

Quenches: each trajectory starts from disorder of its own and follows exact Langevin dynamics
(BAOAB) at the temperature of the electrons. Domains form within some 10 tau0 and then change ever
more slowly, so frames lie on a geometric grid in time, from ``first_time`` to ``last_time``.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from latticezoo.datasets.file import RANDOM, TRAJECTORY, LabelledData, Source
from latticezoo.datasets.registry import Recipe, Unit, check_count
from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.electrons.fermi import RESOLUTION
from latticezoo.simulate.noise import generator
from latticezoo.simulate.state import State
from latticezoo.simulate.systems import create_system
from latticezoo.simulate.systems.adiabatic import AdiabaticSystem
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task


@dataclass(frozen=True, kw_only=True)
class QuenchRecipe(Recipe):
    """Random configurations and frames of exact quenches of an adiabatic model.

    Amplitudes are in units of g/k, times in units of tau0 = √(m/k), energies in units of t.

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
        first_time: Time of the first frame.
        last_time: Time of the last frame, the end of the quench.
        dt: Time step.
        start_amplitude: Amplitude of the random start.
        seed: Seed of everything that is random.

    Raises:
        InputError: An option is outside its range.
    """

    lattice: int | str = 12
    preset: str
    temperature: float | None = None
    g: float | None = None
    k: float | None = None
    filling: float | None = None
    mass: float | None = None
    damping: float | None = None
    random: int = 100
    staggered_fraction: float = 0.5
    trajectories: int = 10
    frames: int = 20
    first_time: float | None = None
    last_time: float = 40.0
    dt: float = 0.1
    start_amplitude: float = 1.0
    seed: int = 0

    #: Name of the model, for sentences, and its parameter sets.
    model: ClassVar[str]
    presets: ClassVar[Mapping[str, AdiabaticSystem]]
    family: ClassVar[str]
    #: All targets that a file holds labels for; the first is that of the file's task.
    targets: ClassVar[tuple[str, ...]]
    #: Options that replace a parameter of the preset.
    overrides: ClassVar[tuple[str, ...]] = (
        "temperature",
        "g",
        "k",
        "filling",
        "mass",
        "damping",
    )
    #: Range of the amplitudes A, and of the strengths B of the background, in units of g/k.
    amplitudes: ClassVar[tuple[float, float]]
    backgrounds: ClassVar[tuple[float, float]]
    #: Weights of the modes in random configurations, and the mode that has the background.
    modes: ClassVar[tuple[float, ...]] = (1.0,)
    ordered_mode: ClassVar[int] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lattice", str(parse_lattice(self.lattice, self.family)))
        if self.preset not in self.presets:
            raise unknown(f"{self.model} preset", self.preset, self.presets)
        self._fill_in()
        for name in ("random", "trajectories", "seed"):
            check_count(name, getattr(self, name))
        check_count("frames", self.frames, least=1)
        if self.seed >= 1 << 63:
            raise InputError(f"seed is {self.seed}; it must be below 2^63.")
        if not self.random and not self.trajectories:
            raise InputError("random and trajectories are both 0; a dataset needs one of them.")
        self._check_numbers()
        self.exact.hamiltonian(self.geometry)  # raises on a torus that is too small
        self.exact.task(self.family)  # raises on an unstable lattice
        if self.random and self.staggered_fraction:
            self.geometry.stagger  # noqa: B018  raises for odd sides
        if self.trajectories:
            self.frame_steps()  # raises when there are too few steps

    def _fill_in(self) -> None:
        """Fill in the options whose default depends on others."""
        if self.first_time is None:
            object.__setattr__(self, "first_time", 1.0)

    def _check_numbers(self) -> None:
        for name in ("dt", "last_time", "start_amplitude"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}; it must be positive.")
        if not 0 <= self.staggered_fraction <= 1:
            raise InputError(
                f"staggered_fraction is {self.staggered_fraction}; it must lie between 0 and 1."
            )
        if not 0 <= self._first < self.last_time:
            raise InputError(
                f"first_time is {self.first_time}; it must lie between 0 and last_time, "
                f"{self.last_time}."
            )

    @property
    def _first(self) -> float:
        assert self.first_time is not None
        return self.first_time

    # ---- what is made --------------------------------------------------------------------------

    @property
    def geometry(self) -> Lattice:
        """The lattice."""
        return Lattice.parse(str(self.lattice))

    @cached_property
    def exact(self) -> Any:
        """The exact system: the preset with what is given instead."""
        given = {name: getattr(self, name) for name in self.overrides}
        changes = {name: value for name, value in given.items() if value is not None}
        # LAPACK on any machine: the bits of a label must not depend on where it is made.
        return create_system(self.preset, backend="lapack", **changes)

    @property
    @abstractmethod
    def system(self) -> AdiabaticSystem:
        """:attr:`exact`, with its type."""

    @property
    def task(self) -> Task:
        """From Q to the first of the targets; see :func:`torus_task`."""
        return torus_task(self.exact, self.geometry, self.targets[0])

    def types(self) -> dict[str, Field]:
        """Type of every label."""
        tasks = {name: torus_task(self.exact, self.geometry, name) for name in self.targets}
        energies = ("energy", "electronic_energy")
        return {
            **{name: task.target(name) for name, task in tasks.items()},
            **{name: Field(name, support="global") for name in energies},
        }

    def source(self) -> Source:
        """System, parameters and options."""
        import scipy

        return Source(
            system=self.exact.name,
            parameters=self.exact.parameters,
            recipe=self.name,
            options=self.options(),
            seed=self.seed,
            # A direct solver: rounding is its only error; levels closer than this count as one.
            solver_tolerance=RESOLUTION,
            created_with={
                "numpy": np.__version__,
                "scipy": scipy.__version__,
                "torch": torch.__version__,
            },
        )
