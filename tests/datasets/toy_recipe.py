"""A cheap recipe with no physics, for tests of everything around the exact solver."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from latticezoo.datasets.file import LabelledData, Source
from latticezoo.datasets.registry import Recipe, Unit, recipe
from latticezoo.simulate.noise import uniform
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import Lattice
from latticezoo.symmetry.tasks import Task

TASK = Task("toy", (Field("Q"),), (Field("density"),), "square")


def toy_data(lattice: Lattice, first: int, count: int, seed: int, source: Source) -> LabelledData:
    """Samples whose density is tanh(Q): even numbers form trajectories of two, odd are random."""
    q = torch.stack(
        [torch.from_numpy(uniform(seed, first + k, 0, (lattice.n_sites, 1))) for k in range(count)]
    )
    number = first + torch.arange(count)
    trajectory = torch.where(number % 4 < 2, number // 4, -1)
    return LabelledData(
        TASK,
        lattice,
        {"Q": q},
        {"density": torch.tanh(q), "energy": (q**2).sum((1, 2))},
        kind=(trajectory >= 0).long(),
        trajectory=trajectory,
        frame=number % 2,
        types={"energy": Field("energy", support="global")},
        source=source,
    )


@recipe("toy")
@dataclass(frozen=True, kw_only=True)
class Toy(Recipe):
    """Units of four samples; ``delay`` seconds each; ``trouble`` says what goes wrong in unit 2."""

    lattice: str = "square(4, 4)"
    samples_wanted: int = 16
    delay: float = 0.0
    trouble: str = ""
    seed: int = 0

    @property
    def geometry(self) -> Lattice:
        return Lattice.parse(self.lattice)

    @property
    def task(self) -> Task:
        return TASK

    def source(self) -> Source:
        options = {k: v for k, v in self.options().items() if k not in ("delay", "trouble")}
        return Source("toy", {}, self.name, options, self.seed, 1e-12, "0.test", {"numpy": "1"})

    def units(self) -> tuple[Unit, ...]:
        count = self.samples_wanted // 4
        return tuple(Unit(f"block-{k}", 4, 4 * k, 4) for k in range(count))

    def run(self, unit: Unit, report: Callable[[int], None]) -> LabelledData:
        if unit.first == 8 and self.trouble == "input":
            raise InputError("the toy is broken.")
        if unit.first == 8 and self.trouble == "fault":
            raise ZeroDivisionError("a fault")
        if unit.first == 8 and self.trouble == "death":
            os._exit(9)
        if unit.first == 8 and self.trouble.startswith("once:"):
            marker = Path(self.trouble.removeprefix("once:"))
            if not marker.exists():
                marker.touch()
                time.sleep(60)  # the test kills us here
        for _ in range(4):
            time.sleep(self.delay / 4)
            report(1)
        return toy_data(self.geometry, unit.first, unit.count, self.seed, self.source())
