"""Exact data of classical models in closed form, on any lattice and for vectors too.

They show that a network works where no electronic model of the library lives: displacements on the
diamond lattice (T_d), fields on the triangular (D6) and the honeycomb lattice (D3). Thousands of
samples take seconds.

Random configurations: every component of every site uniform in ±A, with A drawn for each
configuration from 0.2–1 of the system's amplitude. Trajectories: Langevin dynamics (BAOAB) at the
system's temperature from a random start of full amplitude; frames at equal distances in time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from latticezoo.datasets.labelled import RANDOM, TRAJECTORY, LabelledData, Source
from latticezoo.datasets.module import MadeData
from latticezoo.datasets.registry import (
    Recipe,
    Unit,
    check_count,
    create_recipe,
    recipe,
    register_data,
)
from latticezoo.datasets.split import HELD_OUT
from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.noise import generator
from latticezoo.simulate.systems import create_system
from latticezoo.simulate.systems.classical import PRESETS, ClassicalSystem
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

#: Range of the amplitudes of random configurations, in units of the system's.
AMPLITUDES = (0.2, 1.0)
#: Random configurations in one unit of work.
_BLOCK = 200


@recipe("synthetic")
@dataclass(frozen=True, kw_only=True)
class Synthetic(Recipe):
    """Random configurations and trajectories of a classical model on any lattice.

    Args:
        lattice: A lattice, such as ``diamond(2)`` or ``triangular(6, 8)``.
        system: ``springs`` (displacements, vectors) or ``gradients`` (a scalar field).
        temperature: Temperature of the trajectories instead of the system's.
        random: Number of random configurations.
        trajectories: Number of trajectories.
        frames: Samples taken from each.
        last_time: Time of the last frame.
        dt: Time step.
        seed: Seed of everything that is random.

    Raises:
        InputError: An option is outside its range.
    """

    lattice: str = "triangular(8)"
    system: str = "springs"
    temperature: float | None = None
    random: int = 100
    trajectories: int = 10
    frames: int = 20
    last_time: float = 20.0
    dt: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lattice", str(Lattice.parse(self.lattice)))
        if self.system not in PRESETS:
            raise unknown("system of the synthetic recipe", self.system, PRESETS)
        for name in ("random", "trajectories", "seed"):
            check_count(name, getattr(self, name))
        check_count("frames", self.frames, least=1)
        if not self.random and not self.trajectories:
            raise InputError("random and trajectories are both 0; a dataset needs one of them.")
        for name in ("dt", "last_time"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}; it must be positive.")
        if self.trajectories and self.frames * self.dt > self.last_time * (1 + 1e-9):
            raise InputError(
                f"frames is {self.frames}, but only {int(self.last_time / self.dt)} steps of dt "
                f"{self.dt} reach last_time {self.last_time}."
            )
        self.geometry.require(1, "a model with nearest neighbours")
        self.model  # noqa: B018  raises for a bad temperature

    @property
    def geometry(self) -> Lattice:
        """The lattice."""
        return Lattice.parse(self.lattice)

    @cached_property
    def model(self) -> ClassicalSystem:
        """The exact system."""
        given = {} if self.temperature is None else {"temperature": self.temperature}
        made = create_system(self.system, **given)
        assert isinstance(made, ClassicalSystem)
        return made

    @property
    def task(self) -> Task:
        """From the field to its force."""
        return self.model.task(self.geometry.family)

    @property
    def field(self) -> Field:
        """The field."""
        return self.task.inputs[0]

    def source(self) -> Source:
        """System, parameters and options."""
        return Source(
            system=self.model.name,
            parameters=self.model.parameters,
            recipe=self.name,
            options=self.options(),
            seed=self.seed,
            created_with={"numpy": np.__version__, "torch": torch.__version__},
        )

    def seconds_per_solve(self) -> float:
        """Rough time of one force call on one core."""
        return 2e-4 + 1e-6 * self.geometry.n_sites

    def units(self) -> tuple[Unit, ...]:
        """Blocks of random configurations, then one unit a trajectory."""
        starts = range(0, self.random, _BLOCK)
        counts = [min(_BLOCK, self.random - start) for start in starts]
        blocks = [
            Unit(f"random-{start:05d}", count, start, count)
            for start, count in zip(starts, counts, strict=True)
        ]
        steps = self.frame_steps()[-1] if self.trajectories else 0
        runs = [
            Unit(f"trajectory-{number:05d}", steps, number, self.frames)
            for number in range(self.trajectories)
        ]
        return (*blocks, *runs)

    def frame_steps(self) -> list[int]:
        """Steps at which frames are taken."""
        last = self.last_time / self.dt
        return [round((k + 1) * last / self.frames) for k in range(self.frames)]

    @property
    def stream_seed(self) -> int:
        """Seed of the streams: another than the user's, under which simulations will run."""
        digest = hashlib.blake2b(f"synthetic {self.seed}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little")

    def run(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Do one unit."""
        if unit.name.startswith("random"):
            numbers = range(unit.first, unit.first + unit.count)
            values = torch.from_numpy(np.stack([self.configuration(n) for n in numbers]))
            report(unit.count)
            return self._labelled(
                values, kind=torch.full((unit.count,), RANDOM), frame=torch.tensor(numbers)
            )
        return self._trajectory(unit, report)

    def configuration(self, number: int) -> np.ndarray:
        """Values ``[N, C]`` of one random configuration: a function of seed and number."""
        draw = generator(self.stream_seed, number, stream="synthetic configuration")
        low, high = AMPLITUDES
        amplitude = (low + (high - low) * draw.random()) * self.model.start_amplitude
        shape = (self.geometry.n_sites, self.field.channels(self.geometry))
        return amplitude * (2 * draw.random(shape) - 1)

    def _trajectory(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        model, lattice, name = self.model, self.geometry, self.field.name

        def forces(fields: Any) -> dict[str, torch.Tensor]:
            report(1)
            return model.forces(fields, lattice)

        dynamics = Langevin(self.dt, model.temperature, model.damping, model.mass)
        state = initial.random(
            lattice,
            (unit.first,),
            amplitude=model.start_amplitude,
            seed=self.stream_seed,
            field=name,
            channels=self.field.channels(lattice),
        )
        state = dynamics.start(replace(state, forces=model.forces(state.fields, lattice)))
        steps, frames = self.frame_steps(), []
        for step in range(1, steps[-1] + 1):
            state = dynamics.step(state, forces)
            if step in steps:
                frames.append(state.fields[name])
        return self._labelled(
            torch.cat(frames),
            kind=torch.full((self.frames,), TRAJECTORY),
            trajectory=torch.full((self.frames,), unit.first),
            frame=torch.arange(self.frames),
            step=torch.tensor(steps),
            time=torch.tensor(steps, dtype=torch.float64) * self.dt,
        )

    def _labelled(self, values: torch.Tensor, **columns: Any) -> LabelledData:
        fields = {self.field.name: values}
        return LabelledData(
            task=self.task,
            lattice=self.geometry,
            fields=fields,
            labels=self.model.labels(fields, self.geometry),
            types={"energy": Field("energy", support="global")},
            source=self.source(),
            **columns,
        )


@register_data("synthetic")
class SyntheticData(MadeData):
    """Classical models in closed form on any lattice, made on demand in seconds.

    Args:
        lattice: A lattice, such as ``diamond(2)``, ``triangular(8)`` or ``honeycomb(6)``.
        system: ``springs`` (displacements, vectors) or ``gradients`` (a scalar field).
        random: Number of random configurations.
        trajectories: Number of trajectories.
        frames: Samples taken from each.
        temperature: Temperature of the trajectories instead of the system's.
        last_time: Time of the last frame.
        options: Further options of the recipe, such as ``{"dt": 0.02}``.
        path: The dataset file; one in the cache by default. Made when it is not there.
        workers: Processes that make it; one a core by default.
        batch_size: Samples in a training batch, of all processes together.
        dtype: ``"float32"`` or ``"float64"``: type of the batches.
        seed: Seed of the data and of the split.
        shuffle_seed: Seed of the order of training samples; ``seed`` by default.
        val_fraction: Share of the trajectories, and of the random configurations, for validation.
        test_fraction: Share for the test.

    Raises:
        InputError: An option is outside its range.
    """

    def __init__(
        self,
        lattice: str = "triangular(8)",
        system: str = "springs",
        random: int = 100,
        trajectories: int = 10,
        frames: int = 20,
        temperature: float | None = None,
        last_time: float = 20.0,
        options: dict[str, Any] | None = None,
        path: str | None = None,
        workers: int | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
        seed: int = 0,
        shuffle_seed: int | None = None,
        val_fraction: float = HELD_OUT,
        test_fraction: float = HELD_OUT,
    ) -> None:
        super().__init__(batch_size, dtype, seed, shuffle_seed, val_fraction, test_fraction)
        self.save_hyperparameters(logger=False)
        made = create_recipe(
            "synthetic",
            lattice=lattice,
            system=system,
            random=random,
            trajectories=trajectories,
            frames=frames,
            temperature=temperature,
            last_time=last_time,
            seed=seed,
            **(options or {}),
        )
        assert isinstance(made, Synthetic)
        self.recipe = made
        self.path, self.workers = path, workers

    @property
    def task(self) -> Task:
        """From the field to its force."""
        return self.recipe.task

    @property
    def system(self) -> ClassicalSystem:
        """The exact system."""
        return self.recipe.model
