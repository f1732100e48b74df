"""Recipe and data module of the semiclassical Holstein chain: chaotic series of its order.

Interaction quenches 0 → λ from the bare Fermi sea with a little noise on the lattice, seed by seed;
a frame every 3 hopping times. The sheet of the paper (arXiv:2601.19080, public code) has 100 seeds
of 1334 frames, of which the first 100 are the transient; all of that takes some 6 minutes on one
core, for the equations are solved by a splitting of sixth order instead of Runge–Kutta steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from latticezoo.datasets.frames import stream_seed
from latticezoo.datasets.labelled import TRAJECTORY, LabelledData, Source
from latticezoo.datasets.module import MadeData
from latticezoo.datasets.registry import (
    Recipe,
    Unit,
    check_count,
    create_recipe,
    recipe,
    register_data,
)
from latticezoo.datasets.series import SeriesData
from latticezoo.datasets.split import HELD_OUT
from latticezoo.simulate.dynamics.mean_field import DEFAULT_DT, evolve
from latticezoo.simulate.dynamics.schedule import check_positive
from latticezoo.simulate.systems.holstein_chain import ORDERS, SUBLATTICE_FLIP, SemiclassicalChain
from latticezoo.symmetry.errors import InputError, unknown
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

#: Inverse of the largest Lyapunov exponent at the default parameters, ħ/t.
LYAPUNOV_TIME = 67.7
#: Quenches that are made together: arrays of about the size of a processor's cache.
_TOGETHER = 20


@recipe("chaotic_holstein")
@dataclass(frozen=True, kw_only=True)
class ChaoticHolsteinRuns(Recipe):
    """Order parameters of the semiclassical Holstein chain after interaction quenches.

    Times are in units of ħ/t.

    Args:
        trajectories: Number of quenches.
        frames: Frames of each, the first right after the quench.
        frame_time: Time between frames.
        sites: Sites of the chain, even.
        coupling: λ after the quench.
        ratio: r, phonon frequency over hopping.
        noise: Standard deviation of Q and P at the start.
        dt: Longest time step.
        seed: Seed of the noise.

    Raises:
        InputError: An option is outside its range.
    """

    trajectories: int = 100
    frames: int = 1334
    frame_time: float = 3.0
    sites: int = 32
    coupling: float = 0.67
    ratio: float = 0.5
    noise: float = 1e-4
    dt: float = DEFAULT_DT
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("trajectories", self.trajectories, least=1)
        check_count("frames", self.frames, least=2)
        check_count("seed", self.seed)
        for name in ("frame_time", "noise", "dt"):
            check_positive(name, getattr(self, name))
        self.system  # noqa: B018  raises for parameters out of range

    @cached_property
    def system(self) -> SemiclassicalChain:
        """The chain."""
        return SemiclassicalChain(self.sites, self.coupling, self.ratio)

    @property
    def geometry(self) -> Lattice:
        """The ring."""
        return self.system.lattice

    @property
    def task(self) -> Task:
        """From both order parameters to both one frame later."""
        return order_task(*ORDERS)

    def source(self) -> Source:
        """System, parameters and options."""
        return Source(
            system=self.system.name,
            parameters=self.system.parameters,
            recipe=self.name,
            options=self.options(),
            seed=self.seed,
            created_with={"numpy": np.__version__, "torch": torch.__version__},
        )

    def units(self) -> tuple[Unit, ...]:
        """Groups of quenches."""
        starts = range(0, self.trajectories, _TOGETHER)
        counts = [min(_TOGETHER, self.trajectories - start) for start in starts]
        return tuple(
            Unit(f"quenches-{start:05d}", count * self.frames, start, count * self.frames)
            for start, count in zip(starts, counts, strict=True)
        )

    def seconds_per_solve(self) -> float:
        """Rough time of one frame of one quench on one core."""
        return 1e-4 * math.ceil(self.frame_time / self.dt)

    @property
    def size(self) -> int:
        """Rough size of the dataset in bytes."""
        return 8 * self.samples * 9

    def run(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        """Make the frames of some quenches."""
        count = unit.count // self.frames
        replicas = range(unit.first, unit.first + count)
        state = self.system.start(replicas, seed=stream_seed(self.seed), noise=self.noise)
        frames = [self.system.orders(state)]
        for _ in range(self.frames):  # one more than is kept: what follows the last
            state = evolve(self.system, state, self.frame_time, self.dt)
            frames.append(self.system.orders(state))
            report(count)
        series = {name: torch.stack([frame[name] for frame in frames], 1) for name in ORDERS}
        numbers = torch.arange(self.frames).repeat(count)
        return LabelledData(
            task=self.task,
            lattice=self.geometry,
            fields={name: values[:, :-1].reshape(-1, 1) for name, values in series.items()},
            labels={name: values[:, 1:].reshape(-1, 1) for name, values in series.items()},
            kind=torch.full((unit.count,), TRAJECTORY),
            trajectory=torch.tensor(replicas).repeat_interleave(self.frames),
            frame=numbers,
            step=numbers,
            time=numbers.double() * self.frame_time,
            source=self.source(),
        )


def order_task(*names: str) -> Task:
    """The map from order parameters to the same one frame later."""
    fields = tuple(SemiclassicalChain.order_field(name) for name in names)
    return Task("chaotic_holstein", fields, fields, "chain", (SUBLATTICE_FLIP,))


@register_data("chaotic_holstein")
class ChaoticHolstein(SeriesData, MadeData):
    """Series of the order of the semiclassical Holstein chain, made on demand.

    Each order parameter tells of the chain what the other leaves open. The source learns one of
    them; with both, linear regression on the last hundred frames leaves 38 % of the usual change of
    ``delta_n`` open instead of 54 %.

    Args:
        order: ``delta_n``, ``delta_Q``, or both with a comma between; networks are judged by the
            first.
        trajectories: Number of quenches.
        frames: Frames of each.
        skip: First frames left out: the transient before the chaos.
        window: Frames of a window.
        scored: Its last frames, by which networks are judged.
        frame_time: Time between frames.
        sites: Sites of the chain, even.
        coupling: λ after the quench.
        ratio: r, phonon frequency over hopping.
        path: The dataset file; one in the cache by default. Made when it is not there.
        workers: Processes that make it; one a core by default.
        batch_size: Windows in a training batch.
        dtype: ``"float32"`` or ``"float64"``: type of the batches.
        seed: Seed of the data and of the split.
        shuffle_seed: Seed of the order of training samples; ``seed`` by default.
        val_fraction: Share of the trajectories for validation.
        test_fraction: Share for the test.

    Raises:
        InputError: An option is outside its range.
    """

    kind_of_runs: ClassVar[str] = "chaotic runs"

    def __init__(
        self,
        order: str = "delta_n",
        trajectories: int = 100,
        frames: int = 1334,
        skip: int = 100,
        window: int = 401,
        scored: int = 32,
        frame_time: float = 3.0,
        sites: int = 32,
        coupling: float = 0.67,
        ratio: float = 0.5,
        path: str | None = None,
        workers: int | None = None,
        batch_size: int = 32,
        dtype: str = "float32",
        seed: int = 0,
        shuffle_seed: int | None = None,
        val_fraction: float = HELD_OUT,
        test_fraction: float = HELD_OUT,
    ) -> None:
        super().__init__(batch_size, dtype, seed, shuffle_seed, val_fraction, test_fraction)
        self.save_hyperparameters(logger=False)
        names = [name.strip() for name in order.split(",")]
        for name in names:
            if name not in ORDERS:
                raise unknown("order parameter", name, ORDERS)
        if len(set(names)) < len(names):
            raise InputError(f"order is {order!r}; it must name each order parameter once.")
        made = create_recipe(
            "chaotic_holstein",
            trajectories=trajectories,
            frames=frames,
            frame_time=frame_time,
            sites=sites,
            coupling=coupling,
            ratio=ratio,
            seed=seed,
        )
        self.cut(window, scored, skip)
        self.use(made, task=order_task(*names), path=path, workers=workers)

    @property
    def lyapunov_time(self) -> float | None:
        """Inverse of the largest Lyapunov exponent, in ħ/t, where it was measured.

        At the default parameters the exponent is 0.0148(5), by Benettin's method over eight seeds
        of time 1200 (``benchmarks/holstein_chain.py``).
        """
        return LYAPUNOV_TIME if self.system == SemiclassicalChain() else None
