"""Recipe of the quantum link model: microcanonical runs from thermal starts, and random link spins.

Trajectories begin at a thermal state with div E = 0 and follow the adiabatic equations of motion,
without a bath; their frames lie at equal distances in time. The split is by trajectory. Random
configurations are link spins with directions uniform on the sphere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from latticezoo.datasets.frames import FramesRecipe
from latticezoo.datasets.labelled import RANDOM, LabelledData
from latticezoo.datasets.module import MadeData
from latticezoo.datasets.registry import Unit, check_count, create_recipe, recipe, register_data
from latticezoo.datasets.split import HELD_OUT
from latticezoo.datasets.torus import parse_lattice
from latticezoo.simulate.dynamics.link_dynamics import LinkSpins
from latticezoo.simulate.gauge_sampling import GaugeSampler
from latticezoo.simulate.link_states import thermal_link_spins
from latticezoo.simulate.noise import generator
from latticezoo.simulate.systems.quantum_link import TARGETS, QuantumLink
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.tasks import Task


@recipe("quantum_link")
@dataclass(frozen=True, kw_only=True)
class LinkSpinRuns(FramesRecipe):
    """Quantum link model: see :class:`~latticezoo.simulate.systems.QuantumLink`.

    Energies are in units of t, times in 1/t. Options as
    :class:`~latticezoo.datasets.frames.FramesRecipe`, and:

    Args:
        bath_temperature: Temperature of the thermal starts.
        sweeps: Metropolis sweeps that lead to them.
        temperature: Temperature of the fermions.
        g2: g².
        J: Plaquette coupling.
        length: S.
        last_time: Length of a run.
        dt: Time step of the Runge–Kutta scheme.

    Raises:
        InputError: An option is outside its range.
    """

    lattice: int | str = 8
    random: int = 0
    trajectories: int = 20
    frames: int = 100
    last_time: float | None = 50.0
    dt: float | None = 0.05
    bath_temperature: float = 0.5
    sweeps: int = 20
    temperature: float = 0.02
    g2: float = 0.7
    J: float = 0.25
    length: float = 1.0

    targets: ClassVar[tuple[str, ...]] = TARGETS

    def __post_init__(self) -> None:
        object.__setattr__(self, "lattice", str(parse_lattice(self.lattice, "square")))
        if self.first_time is None:
            object.__setattr__(self, "first_time", 0.0)
        self.check_frames()
        check_count("sweeps", self.sweeps, least=1)
        if self.bath_temperature <= 0:
            raise InputError(f"bath_temperature is {self.bath_temperature}; it must be positive.")
        self.frame_steps()  # raises when there are too few steps
        self.system  # noqa: B018  raises for parameters out of range
        GaugeSampler.check(self.geometry)

    @cached_property
    def system(self) -> QuantumLink:
        """The exact system."""
        return QuantumLink(self.g2, self.J, self.length, temperature=self.temperature)

    @property
    def task(self) -> Task:
        """From U to the field on the link spins; the labels serve others too."""
        return self.system.task()

    def types(self) -> dict[str, Field]:
        """Type of every label."""
        return {**self.system.label_types(), "energy": Field("energy", support="global")}

    def frame_steps(self) -> list[int]:
        """Steps at equal distances, the last one at the end.

        Raises:
            InputError: There are more frames than steps.
        """
        first, last, dt = self.times
        grid = np.rint(np.linspace(first, last, self.frames + 1)[1:] / dt).astype(int).tolist()
        if len(set(grid)) < len(grid) or grid[0] < 1:
            raise InputError(
                f"frames is {self.frames}, but only {round((last - first) / dt)} steps lie "
                f"between first_time {first} and last_time {last} at dt {dt}."
            )
        return grid

    def trajectory_cost(self, number: int) -> int:
        """Six fields a step, the labels, and the start."""
        return self.frames + 6 * self.frame_steps()[-1] + 1

    def seconds_per_solve(self) -> float:
        """Rough time of one field: a complex diagonalization on one core."""
        return 3e-3 + 8e-10 * self.geometry.n_sites**3

    def random_block(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make the random configurations of a unit."""
        numbers = range(unit.first, unit.first + unit.count)
        drawn = []
        for number in numbers:
            draw = generator(self.stream_seed, number, stream="random link spins")
            height = draw.uniform(-1, 1, (self.geometry.n_sites, 2))
            phase = draw.uniform(-np.pi, np.pi, height.shape)
            drawn.append(self.length * np.sqrt(1 - height**2) * np.exp(1j * phase))
        columns = {"kind": torch.full((unit.count,), RANDOM), "frame": torch.tensor(numbers)}
        return self._labelled(torch.from_numpy(np.stack(drawn)), report, **columns)

    def trajectory(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make the frames of one run."""
        system, lattice = self.system, self.geometry

        def forces(fields: Any) -> dict[str, torch.Tensor]:
            report(1)
            return system.forces(fields, lattice)

        _, _, dt = self.times
        dynamics, own = LinkSpins(dt, length=self.length), (unit.first,)
        state = thermal_link_spins(
            system, lattice, self.bath_temperature, own, self.sweeps, self.stream_seed
        )
        state = dynamics.start(replace(state, forces=forces(state.fields)))
        steps, frames = set(self.frame_steps()), []
        for step in range(1, max(steps) + 1):
            state = dynamics.step(state, forces)
            if step in steps:
                frames.append(state.fields["U"])
        return self._labelled(torch.cat(frames), report, **self.frame_columns(unit.first))

    def _labelled(
        self, links: torch.Tensor, report: Callable[[int], None], **columns: Any
    ) -> LabelledData:
        fields = {"U": links}
        labels = self.system.labels(fields, self.geometry)
        report(len(links))
        return self.labelled_frames(fields, labels, **columns)


@register_data("quantum_link")
class QuantumLinkData(MadeData):
    """U(1) quantum link model on the square lattice, made on demand.

    Energies are in units of t, times in 1/t.

    Args:
        lattice: Linear size, or a lattice such as ``square(8, 12)``.
        target: What to learn, names with commas between: ``link_field``, ``bond``, ``current``,
            ``energy_per_site``.
        random: Number of configurations of random link spins.
        trajectories: Number of microcanonical runs from thermal starts.
        frames: Samples taken from each.
        bath_temperature: Temperature of the starts.
        last_time: Length of a run.
        temperature: Temperature of the fermions.
        g2: g².
        J: Plaquette coupling.
        options: Further options of the recipe, such as ``{"sweeps": 40}``.
        path: The dataset file; one in the cache by default. Made when it is not there.
        workers: Processes that make it; one a core by default.
        batch_size: Samples in a training batch, of all processes together.
        dtype: ``"float32"`` or ``"float64"``: type of the batches, and their complex partners.
        seed: Seed of the data and of the split.
        shuffle_seed: Seed of the order of training samples; ``seed`` by default.
        val_fraction: Share of the runs, and of the random configurations, for validation.
        test_fraction: Share for the test.
        random_share: Share of random configurations in every training batch.

    Raises:
        InputError: An option is outside its range.
    """

    kind_of_runs: ClassVar[str] = "microcanonical runs"

    def __init__(
        self,
        lattice: int | str = 8,
        target: str = "link_field",
        random: int = 0,
        trajectories: int = 20,
        frames: int = 100,
        bath_temperature: float = 0.5,
        last_time: float = 50.0,
        temperature: float = 0.02,
        g2: float = 0.7,
        J: float = 0.25,
        options: dict[str, Any] | None = None,
        path: str | None = None,
        workers: int | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
        seed: int = 0,
        shuffle_seed: int | None = None,
        val_fraction: float = HELD_OUT,
        test_fraction: float = HELD_OUT,
        random_share: float | None = None,
    ) -> None:
        super().__init__(
            batch_size, dtype, seed, shuffle_seed, val_fraction, test_fraction, random_share
        )
        self.save_hyperparameters(logger=False)
        given = {
            "lattice": lattice,
            "random": random,
            "trajectories": trajectories,
            "frames": frames,
            "bath_temperature": bath_temperature,
            "last_time": last_time,
            "temperature": temperature,
            "g2": g2,
            "J": J,
            "seed": seed,
        }
        recipe = create_recipe("quantum_link", **{**given, **(options or {})})
        assert isinstance(recipe, LinkSpinRuns)
        task = recipe.system.task("square", target)
        self.use(recipe, task=task, path=path, workers=workers)
