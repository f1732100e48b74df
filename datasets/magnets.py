"""Recipe for itinerant magnets: random spins, disturbed ordered states, frames of exact LLG runs.

Random configurations: half of them (``ordered_share``) an ordered state of the parameter set,
turned by a random rotation of all spins and disturbed by normal noise of a strength drawn from
0.1–1.2 a component; the others directions uniform on the sphere.

Trajectories: damped Landau–Lifshitz–Gilbert dynamics with exact fields at a bath temperature of
zero (an abrupt quench) or above. They start from random spins; the first ``disturbed`` of them from
an ordered state with noise, as in the healing of a skyrmion lattice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from latticezoo.datasets.frames import FramesRecipe
from latticezoo.datasets.labelled import RANDOM, LabelledData
from latticezoo.datasets.registry import Unit, check_count, recipe
from latticezoo.datasets.torus import parse_lattice
from latticezoo.simulate import spin_states
from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.dynamics.schedule import check_positive, check_temperature
from latticezoo.simulate.noise import generator
from latticezoo.simulate.state import State
from latticezoo.simulate.systems import create_system
from latticezoo.simulate.systems.sd_magnet import SDMagnet, warn_of_misfit
from latticezoo.simulate.systems.spin_system import TARGET
from latticezoo.simulate.unit_vectors import normalized
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.rotations import quaternion_rotation
from latticezoo.symmetry.tasks import Task

#: Strength of the disturbance of ordered states, standard deviation a component.
NOISES = (0.1, 1.2)


class Setting(NamedTuple):
    """What goes with a parameter set.

    Attributes:
        family: Lattice family.
        dt: Time step, some tenths over the largest field.
        last_time: When a quench has come near its end.
        order: Ordered states, drawn by a generator.
    """

    family: str
    dt: float
    last_time: float
    order: Callable[[Lattice, np.random.Generator], State]


def _sign(draw: np.random.Generator) -> int:
    return 1 if draw.random() < 0.5 else -1


def _tetrahedral(lattice: Lattice, draw: np.random.Generator) -> State:
    return spin_states.tetrahedral(lattice, chirality=_sign(draw))


def _three_sublattice(lattice: Lattice, draw: np.random.Generator) -> State:
    first, second = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    plane = (first, second) if _sign(draw) > 0 else (second, first)
    return spin_states.three_sublattice(lattice, plane=plane)


def _neel(lattice: Lattice, draw: np.random.Generator) -> State:
    return spin_states.spiral(lattice, q=(math.pi, math.pi))


def _skyrmions(lattice: Lattice, draw: np.random.Generator) -> State:
    """One or two skyrmions a magnetic cell, of both windings."""
    phase = 0.0 if draw.random() < 0.5 else 0.5 * math.pi
    magnetization = 0.2 + 0.4 * draw.random()
    return spin_states.skyrmion_lattice(
        lattice, phase=phase, magnetization=magnetization, winding=_sign(draw)
    )


SETTINGS: dict[str, Setting] = {
    "sd_tetrahedral": Setting("triangular", 1.0, 250.0, _tetrahedral),
    "sd_120": Setting("triangular", 0.25, 120.0, _three_sublattice),
    "sd_skyrmion": Setting("triangular", 4.0, 1000.0, _skyrmions),
    "sd_square": Setting("square", 0.4, 100.0, _neel),
}


@lru_cache(maxsize=64)
def _warn_once(preset: str, lattice: Lattice) -> None:
    """Warn of a torus that does not hold the order; a recipe is made many times over."""
    warn_of_misfit(preset, lattice)


@recipe("sd_magnet")
@dataclass(frozen=True, kw_only=True)
class ItinerantMagnet(FramesRecipe):
    """s–d model: random spins, disturbed order, and frames of exact Landau–Lifshitz–Gilbert runs.

    Energies are in units of t, times in 1/t. Options as
    :class:`~latticezoo.datasets.frames.FramesRecipe`, and:

    Args:
        lattice: Linear size, or a lattice such as ``triangular(12, 12)``.
        preset: Parameter set: ``sd_tetrahedral``, ``sd_120``, ``sd_skyrmion`` or ``sd_square``.
        temperature: Temperature of the electrons instead of the preset's.
        J: Coupling instead of the preset's.
        twists: Boundary twists that labels average over in each direction, instead of the preset's;
            ``n`` of them on L × L have the electrons of nL × nL with the spins repeated.
        ordered_share: Share of the random configurations that are disturbed ordered states.
        disturbed: Of the trajectories, the first so many start from a disturbed ordered state.
        damping: α of the dynamics.
        bath_temperature: Temperature of the spins.
        first_time: Time of the first frame; by default a fiftieth of ``last_time``.
        last_time: Time of the last frame; by default that of the preset.
        dt: Time step; by default that of the preset.

    Raises:
        InputError: An option is outside its range.
    """

    preset: str = "sd_tetrahedral"
    temperature: float | None = None
    J: float | None = None
    twists: int | None = None
    ordered_share: float = 0.5
    disturbed: int = 0
    damping: float = 0.5
    bath_temperature: float = 0.0
    last_time: float | None = None
    dt: float | None = None

    targets: ClassVar[tuple[str, ...]] = (TARGET,)

    def __post_init__(self) -> None:
        if self.preset not in SETTINGS:
            raise unknown("s–d preset", self.preset, SETTINGS)
        setting = self.setting
        lattice = parse_lattice(self.lattice, setting.family)
        object.__setattr__(self, "lattice", str(lattice))
        last = setting.last_time if self.last_time is None else self.last_time
        first = last / 50 if self.first_time is None else self.first_time
        for name, value in (("dt", setting.dt), ("last_time", last), ("first_time", first)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        self.check_frames()
        check_count("disturbed", self.disturbed)
        if self.disturbed > self.trajectories:
            raise InputError(
                f"disturbed is {self.disturbed}, more than the {self.trajectories} trajectories."
            )
        check_positive("damping", self.damping)
        check_temperature(self.bath_temperature)
        if not 0 <= self.ordered_share <= 1:
            raise InputError(f"ordered_share is {self.ordered_share}; it must lie between 0 and 1.")
        self.system.hoppings(lattice)  # raises on a torus that is too small
        _warn_once(self.preset, lattice)
        if self.trajectories:
            self.frame_steps()  # raises when there are too few steps

    @property
    def setting(self) -> Setting:
        """What goes with the preset."""
        return SETTINGS[self.preset]

    @cached_property
    def system(self) -> SDMagnet:
        """The exact system: the preset with what is given instead."""
        given = {"temperature": self.temperature, "J": self.J, "twists": self.twists}
        changes = {name: value for name, value in given.items() if value is not None}
        # LAPACK on any machine: the bits of a label must not depend on where it is made.
        made = create_system(self.preset, backend="lapack", **changes)
        assert isinstance(made, SDMagnet)
        return made

    @property
    def task(self) -> Task:
        """From spins to perpendicular fields."""
        return self.system.task(self.setting.family)

    def types(self) -> dict[str, Field]:
        """Type of every label."""
        scalars = ("energy", "chemical_potential")
        return {
            TARGET: self.task.target(TARGET),
            **{name: Field(name, support="global") for name in scalars},
        }

    def trajectory_cost(self, number: int) -> int:
        """Two fields a step, and the labels."""
        return self.frames + 2 * self.frame_steps()[-1] + 1

    def seconds_per_solve(self) -> float:
        """Rough time of one field: complex diagonalizations of two states a site on one core."""
        return self.system.twists**2 * (1e-3 + 8e-10 * (2 * self.geometry.n_sites) ** 3)

    # ---- random configurations -----------------------------------------------------------------

    def random_block(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make the random configurations of a unit."""
        numbers = range(unit.first, unit.first + unit.count)
        spins = torch.cat([self.configuration(number) for number in numbers])
        return self._labelled(
            spins, report, kind=torch.full((unit.count,), RANDOM), frame=torch.tensor(numbers)
        )

    def configuration(self, number: int) -> torch.Tensor:
        """Spins ``[1, N, 3]`` of one random configuration: a function of seed and number."""
        share = self.ordered_share
        draw = generator(self.stream_seed, number, stream="random configuration")
        # Number i is ordered when the running share passes a whole number there.
        if math.floor((number + 1) * share) > math.floor(number * share):
            return self._disturbed(draw)
        state = spin_states.random_spins(self.geometry, (number,), seed=self.stream_seed)
        return state.fields["S"]

    def _disturbed(self, draw: np.random.Generator) -> torch.Tensor:
        """An ordered state, turned and disturbed, ``[1, N, 3]``."""
        spins = self.setting.order(self.geometry, draw).fields["S"].double()
        w, x, y, z = torch.from_numpy(draw.standard_normal(4)).unbind()
        size = torch.sqrt(w**2 + x**2 + y**2 + z**2)
        turned = spins @ quaternion_rotation(w / size, x / size, y / size, z / size).T
        low, high = NOISES
        strength = low + (high - low) * draw.random()
        noise = torch.from_numpy(draw.standard_normal(tuple(spins.shape)))
        return normalized(turned + strength * noise)

    # ---- trajectories --------------------------------------------------------------------------

    def initial_state(self, number: int) -> State:
        """Start of one trajectory: a function of seed and number."""
        if number >= self.disturbed:
            return spin_states.random_spins(self.geometry, (number,), seed=self.stream_seed)
        draw = generator(self.stream_seed, number, stream="disturbed order")
        return State({"S": self._disturbed(draw)}, replicas=(number,), seed=self.stream_seed)

    def trajectory(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make the frames of one run."""
        system, lattice = self.system, self.geometry

        def forces(fields: Any) -> dict[str, torch.Tensor]:
            report(1)
            return system.forces(fields, lattice)

        _, _, dt = self.times
        dynamics = LLG(dt, self.bath_temperature, self.damping)
        state = self.initial_state(unit.first)
        state = dynamics.start(replace(state, forces=forces(state.fields)))
        steps, frames = self.frame_steps(), []
        for step in range(1, steps[-1] + 1):
            state = dynamics.step(state, forces)
            if step in steps:
                frames.append(state.fields["S"])
        return self._labelled(torch.cat(frames), report, **self.frame_columns(unit.first))

    def _labelled(
        self, spins: torch.Tensor, report: Callable[[int], None], **columns: Any
    ) -> LabelledData:
        fields = {"S": spins}
        labels = self.system.labels(fields, self.geometry)
        report(len(spins))
        return self.labelled_frames(fields, labels, **columns)
