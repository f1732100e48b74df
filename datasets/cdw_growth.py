"""Recipe and data module of domain growth without forces: series of charge-density-wave order.

Thermal quenches of the Holstein model on the square lattice, from random displacements at rest to
the temperature of the bath, seen at equal intervals through the local order parameter alone

    φ_i = (−1)^(x+y) ½ [ n_i − ¼ Σ_nn n_j ],

about ±δ in a domain n_i = ½ ± δ. It is odd under particle–hole and under translations by one site,
which exchange the two waves. The intervals are long against a vibration, so that domains move from
frame to frame: at strong coupling patterns are pinned, and the next frame is the last one.

A sample is one frame, its label the frame after it. Splits go by quench.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from latticezoo.datasets.holstein import HolsteinRecipe
from latticezoo.datasets.labelled import LabelledData
from latticezoo.datasets.module import MadeData
from latticezoo.datasets.registry import create_recipe, recipe, register_data
from latticezoo.datasets.series import SeriesData
from latticezoo.datasets.split import HELD_OUT
from latticezoo.simulate.observables import local_order
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

#: Name of the series.
ORDER = "order"
#: Frames whose electrons are solved at once: their Hamiltonians must fit in memory.
_SOLVED_AT_ONCE = 16


def half_order(density: Tensor, lattice: Lattice) -> Tensor:
    """The local order φ, half of :func:`~latticezoo.simulate.observables.local_order`.

    Args:
        density: n, or n − ½, ``[B, N, 1]``.
        lattice: With even sides.

    Returns:
        ``[B, N, 1]``.
    """
    return 0.5 * local_order(density, lattice)


def growth_task(odd: bool = True) -> Task:
    """From the local order of one frame to that of the next.

    Args:
        odd: Whether φ → −φ is a symmetry, as at half filling.
    """
    flips = ("particle_hole",) if odd else ()
    order = Field(ORDER, odd=flips)
    return Task("cdw_growth", (order,), (order,), "square", flips)


@recipe("cdw_growth")
@dataclass(frozen=True, kw_only=True)
class CDWGrowthRuns(HolsteinRecipe):
    """Series of the local order along quenches of the Holstein model.

    Options as :class:`~latticezoo.datasets.holstein.HolsteinRecipe`, without random configurations,
    and with frames at equal intervals. One quench takes frames · spacing / dt exact solutions
    (0.13 s each on 32×32), or as many forces of a ``driver``; the densities are exact in any case.
    At weak coupling L ~ (t/tau0)^0.5: on 16×16 all is over at 40 tau0, on 32×32 at about 150.

    Args:
        trajectories: Number of quenches.
        frames: Samples from each.
        spacing: Time between frames, in units of tau0.
        first_time: Time of the first frame.
        last_time: Follows from the others.

    Raises:
        InputError: An option is outside its range.
    """

    lattice: int | str = 32
    random: int = 0
    trajectories: int = 40
    frames: int = 40
    spacing: float = 5.0
    last_time: float | None = None
    dt: float | None = 0.25

    family: ClassVar[str] = "square"

    def _fill_in(self) -> None:
        if self.first_time is None:
            object.__setattr__(self, "first_time", self.spacing)
        super()._fill_in()
        assert self.first_time is not None
        assert self.dt is not None
        end = self.first_time + self.frames * self.spacing
        if self.last_time not in (None, end):
            raise InputError(
                f"last_time is {self.last_time}, but {self.frames} frames and the one after them, "
                f"{self.spacing:g} apart from {self.first_time:g} on, end at {end:g}; leave it out."
            )
        object.__setattr__(self, "last_time", end)
        if self.random:
            raise InputError(f"random is {self.random}; a series has no random configurations.")
        for name in ("spacing", "first_time"):
            value = getattr(self, name)
            if not value > 0 or abs(value / self.dt - round(value / self.dt)) > 1e-9:
                raise InputError(
                    f"{name} is {value}; it must be a whole number of time steps of {self.dt}."
                )
        self.geometry.stagger  # noqa: B018  raises for odd sides

    @property
    def task(self) -> Task:
        """From the local order of one frame to that of the next."""
        return growth_task(self.system.has_particle_hole)

    def types(self) -> dict[str, Field]:
        """The local order is all that is kept."""
        return {ORDER: self.task.targets[0]}

    def frame_steps(self) -> list[int]:
        """Steps of the frames, and of the one after the last."""
        begin, _, dt = self.times
        first, between = round(begin / dt), round(self.spacing / dt)
        return [first + number * between for number in range(self.frames + 1)]

    def frame_columns(self, number: int, driven: bool = False) -> dict[str, Tensor]:
        """What a file says of the frames of one quench."""
        return {
            **super().frame_columns(number, driven),
            "step": torch.tensor(self.frame_steps()[:-1]),
            "time": torch.tensor(self.frame_steps()[:-1], dtype=torch.float64) * self.times[2],
        }

    def _labelled(self, Q: Tensor, report: Callable[[int], None], **columns: Any) -> LabelledData:
        densities = []
        for states in Q.split(_SOLVED_AT_ONCE):
            densities.append(self.system.electrons({"Q": states}, self.geometry).density)
            report(len(states))
        order = half_order(torch.cat(densities).reshape(len(Q), -1, 1), self.geometry)
        return self.labelled_frames({ORDER: order[:-1]}, {ORDER: order[1:]}, **columns)


@register_data("cdw_growth")
class CDWGrowth(SeriesData, MadeData):
    """Series of the local order of the Holstein model while domains grow, made on demand.

    Times are in units of tau0 = √(m/k).

    Args:
        lattice: Linear size, or a lattice such as ``square(24, 20)``; even sides.
        preset: Parameter set: ``holstein_weak`` (set A) or ``holstein_strong`` (set B).
        trajectories: Number of quenches.
        frames: Frames of each.
        spacing: Time between frames.
        skip: First frames left out.
        window: Frames of a window.
        scored: Its last frames, by which networks are judged.
        temperature: Temperature of electrons and bath instead of the preset's.
        driver: Network whose forces drive the quenches; densities are exact in any case. Without
            one the quenches are exact.
        exact_trajectories: Of driven quenches, the first so many are exact, to compare with.
        driver_sha256: SHA-256 of the driver's weights: noted when it is not given, checked when it
            is.
        options: Further options of the recipe, such as ``{"dt": 0.1, "g": 1.6}``.
        path: The dataset file; one in the cache by default. Made when it is not there.
        workers: Processes that make it; one a core by default.
        batch_size: Windows in a training batch.
        dtype: ``"float32"`` or ``"float64"``: type of the batches.
        seed: Seed of the data and of the split.
        shuffle_seed: Seed of the order of training samples; ``seed`` by default.
        val_fraction: Share of the quenches for validation.
        test_fraction: Share for the test.

    Raises:
        InputError: An option is outside its range.
    """

    kind_of_runs: ClassVar[str] = "quenches"

    def __init__(
        self,
        lattice: int | str = 32,
        preset: str = "holstein_weak",
        trajectories: int = 40,
        frames: int = 40,
        spacing: float = 5.0,
        skip: int = 0,
        window: int = 15,
        scored: int = 8,
        temperature: float | None = None,
        driver: str | None = None,
        exact_trajectories: int = 0,
        driver_sha256: str | None = None,
        options: dict[str, Any] | None = None,
        path: str | None = None,
        workers: int | None = None,
        batch_size: int = 4,
        dtype: str = "float32",
        seed: int = 0,
        shuffle_seed: int | None = None,
        val_fraction: float = HELD_OUT,
        test_fraction: float = HELD_OUT,
    ) -> None:
        super().__init__(batch_size, dtype, seed, shuffle_seed, val_fraction, test_fraction)
        self.save_hyperparameters(logger=False)
        made = create_recipe(
            "cdw_growth",
            lattice=lattice,
            preset=preset,
            trajectories=trajectories,
            frames=frames,
            spacing=spacing,
            temperature=temperature,
            driver=driver,
            exact_trajectories=exact_trajectories,
            driver_sha256=driver_sha256,
            seed=seed,
            **(options or {}),
        )
        self.cut(window, scored, skip)
        self.use(made, task=made.task, path=path, workers=workers)
