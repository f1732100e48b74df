"""What recipes share that give random configurations and frames of trajectories.

Frames lie on a geometric grid in time, from ``first_time`` to ``last_time``: order forms quickly
and then changes ever more slowly.
"""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from latticezoo.datasets.labelled import TRAJECTORY, LabelledData, Source
from latticezoo.datasets.registry import Recipe, Unit, check_count
from latticezoo.simulate.electrons.fermi import RESOLUTION
from latticezoo.simulate.forcefield import System
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice


def exact_source(recipe: Recipe, system: System, seed: int) -> Source:
    """What a file says of data with labels by direct diagonalization."""
    import scipy

    return Source(
        system=system.name,
        parameters=system.parameters,
        recipe=recipe.name,
        options=recipe.options(),
        seed=seed,
        # A direct solver: rounding is its only error; levels closer than this count as one.
        solver_tolerance=RESOLUTION,
        created_with={
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "torch": torch.__version__,
        },
    )


@dataclass(frozen=True, kw_only=True)
class FramesRecipe(Recipe):
    """Random configurations and frames of trajectories of a system, labelled exactly.

    Args:
        lattice: Linear size, or a lattice such as ``square(12, 16)``.
        random: Number of random configurations.
        trajectories: Number of trajectories.
        frames: Samples taken from each, on a geometric grid in time.
        first_time: Time of the first frame; None for a default.
        last_time: Time of the last frame, the end of the trajectory; None for a default.
        dt: Time step; None for a default.
        seed: Seed of everything that is random.

    Raises:
        InputError: An option is outside its range.
    """

    lattice: int | str = 12
    random: int = 100
    trajectories: int = 10
    frames: int = 20
    first_time: float | None = None
    last_time: float | None = 40.0
    dt: float | None = 0.1
    seed: int = 0

    @property
    @abstractmethod
    def system(self) -> System:
        """The exact system."""

    @abstractmethod
    def types(self) -> dict[str, Field]:
        """Type of every label."""

    @abstractmethod
    def random_block(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make the random configurations of a unit."""

    @abstractmethod
    def trajectory(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make the frames of one trajectory."""

    def check_frames(self) -> None:
        """Check the options listed above; the times must be filled in.

        Raises:
            InputError: Naming the first that is not accepted.
        """
        for name in ("random", "trajectories", "seed"):
            check_count(name, getattr(self, name))
        check_count("frames", self.frames, least=1)
        if self.seed >= 1 << 63:
            raise InputError(f"seed is {self.seed}; it must be below 2^63.")
        if not self.random and not self.trajectories:
            raise InputError("random and trajectories are both 0; a dataset needs one of them.")
        for name in ("dt", "last_time"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}; it must be positive.")
        first, last, _ = self.times
        if not 0 <= first < last:
            raise InputError(
                f"first_time is {self.first_time}; it must lie between 0 and last_time, {last}."
            )

    @property
    def times(self) -> tuple[float, float, float]:
        """First and last time, and the time step, defaults filled in."""
        assert self.first_time is not None
        assert self.last_time is not None
        assert self.dt is not None
        return self.first_time, self.last_time, self.dt

    @property
    def geometry(self) -> Lattice:
        """The lattice."""
        return Lattice.parse(str(self.lattice))

    def source(self) -> Source:
        """System, parameters and options."""
        return exact_source(self, self.system, self.seed)

    def units(self) -> tuple[Unit, ...]:
        """Blocks of random configurations, then one unit a trajectory."""
        size = 20 if self.geometry.n_sites <= 400 else 5
        starts = range(0, self.random, size)
        counts = [min(size, self.random - start) for start in starts]
        blocks = [
            Unit(f"random-{start:05d}", count, start, count)
            for start, count in zip(starts, counts, strict=True)
        ]
        trajectories = [
            Unit(f"trajectory-{number:05d}", self.trajectory_cost(number), number, self.frames)
            for number in range(self.trajectories)
        ]
        return (*blocks, *trajectories)

    def trajectory_cost(self, number: int) -> int:
        """Exact solutions that one trajectory takes, labels included."""
        return self.frames + self.frame_steps()[-1] + 1

    def run(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make one block or one trajectory."""
        if unit.name.startswith("random"):
            return self.random_block(unit, report)
        return self.trajectory(unit, report)

    @property
    def size(self) -> int:
        """Rough size of the dataset in bytes."""
        labels = [field for field in self.types().values() if field.support == "site"]
        channels = sum(field.channels(self.geometry) for field in (*self.task.inputs, *labels))
        return 8 * self.samples * (self.geometry.n_sites * channels + 2)

    def frame_steps(self) -> list[int]:
        """Steps at which frames are taken: a geometric grid, rising, rounded to whole steps.

        Raises:
            InputError: There are more frames than steps.
        """
        begin, end, dt = self.times
        first, last = max(begin, dt) / dt, end / dt
        if self.frames == 1:
            return [round(last)]
        grid = np.rint(np.geomspace(first, last, self.frames)).astype(int).tolist()
        for k in range(1, self.frames):
            grid[k] = max(grid[k], grid[k - 1] + 1)
        if grid[-1] > round(last):
            raise InputError(
                f"frames is {self.frames}, but only {round(last - first) + 1} steps lie between "
                f"first_time {begin} and last_time {end} at dt {dt}."
            )
        return grid

    def frame_columns(self, number: int, driven: bool = False) -> dict[str, torch.Tensor]:
        """What a file says of the frames of one trajectory, a row for each."""
        steps, (_, _, dt) = self.frame_steps(), self.times
        return {
            "kind": torch.full((self.frames,), TRAJECTORY),
            "trajectory": torch.full((self.frames,), number),
            "frame": torch.arange(self.frames),
            "step": torch.tensor(steps),
            "time": torch.tensor(steps, dtype=torch.float64) * dt,
            "driven": torch.full((self.frames,), int(driven)),
        }

    @property
    def stream_seed(self) -> int:
        """Seed of the streams."""
        return stream_seed(self.seed)

    def labelled_frames(
        self, fields: dict[str, torch.Tensor], labels: dict[str, torch.Tensor], **columns: Any
    ) -> LabelledData:
        """Fields and labels with their types and where they come from."""
        return LabelledData(
            task=self.task,
            lattice=self.geometry,
            fields=fields,
            labels=labels,
            types=self.types(),
            source=self.source(),
            **columns,
        )


def stream_seed(seed: int) -> int:
    """Seed of the random streams of a dataset: not the user's own, for later simulations.

    A simulation with the seed of the data would start from the very states, and feel the very
    noise, that a network was trained on.
    """
    digest = hashlib.blake2b(f"dataset {seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
