"""Run a simulation that is killed with SIGKILL, again and again, until it comes through.

A program of its own (``python killed_runs.py FOLDER``), because it forks a child for each attempt:
torch is imported once, with one thread, and each child dies the real death. A child dies at its
n-th file operation (rename, remove, open, …) or at its n-th force call, for every n in turn.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from harmonic_lattice import Disturbed

from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.observers import Energy, KineticTemperature, TimeAverage
from latticezoo.simulate.run import Checkpoint, Trajectory, simulate
from latticezoo.symmetry.lattices import square

WATCHED = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "open")


def command(folder: Path, field: Disturbed) -> None:
    """The run under test: 20 steps, a checkpoint every 7, then the trajectory."""
    lattice = square(4)
    simulate(
        field,
        Langevin(0.1, 0.3, 0.2),
        initial.random(lattice, 2, seed=6),
        20,
        lattice=lattice,
        observers=(Energy(3), KineticTemperature(4), TimeAverage(observer=Energy(2))),
        trajectory=Trajectory(folder / "run.h5", every=2, quantities=("fields", "forces")),
        checkpoint=Checkpoint(folder / "run.ckpt", every_steps=7, every_seconds=None),
        progress=False,
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def attempt(folder: Path, *, at_call: int = -1, at_file: int = -1, slow: float = 0.0) -> int | None:
    """Start one child; its process number when ``slow``, else None if it died, 0 if it ended."""
    child = os.fork()
    if child == 0:
        seen = [0]

        def hook(event: str, arguments: tuple) -> None:
            if event in WATCHED and (event != "open" or str(folder) in str(arguments[0])):
                seen[0] += 1
                if seen[0] == at_file:
                    die()

        status = 1
        try:
            if at_file >= 0:
                sys.addaudithook(hook)
            field = Disturbed(1.0, 0.18, 0.3, at_call, die)
            if slow:
                lazy = Disturbed.forces

                def forces(self, fields, lattice):
                    time.sleep(slow)
                    return lazy(self, fields, lattice)

                Disturbed.forces = forces  # type: ignore[method-assign]
            command(folder, field)
            status = 0
        finally:
            os._exit(status)
    if slow:
        return child
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    assert os.WEXITSTATUS(status) == 0, f"a run failed in {folder}"
    return 0


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    (folder / "undisturbed").mkdir()
    assert attempt(folder / "undisturbed") == 0
    killed = {"file": 0, "call": 0, "any": 0}

    for number in range(1, 1000):  # one kill, at each file operation in turn
        place = folder / f"file{number:03d}"
        place.mkdir()
        if attempt(place, at_file=number) == 0:
            break
        killed["file"] += 1
        assert attempt(place) == 0

    place = folder / "call"  # many kills, ever further on
    place.mkdir()
    while attempt(place, at_call=18) is None:
        killed["call"] += 1

    chance = random.Random(1)  # kills at any moment, from outside
    for number in range(6):
        place = folder / f"any{number}"
        place.mkdir()
        child = attempt(place, slow=0.001)
        assert child is not None
        time.sleep(chance.uniform(0.0, 0.15))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed["any"] += os.WIFSIGNALED(status)
        assert attempt(place) == 0
    (folder / "killed.json").write_text(json.dumps(killed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
