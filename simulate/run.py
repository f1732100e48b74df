"""Run a dynamics: the loop, with observers, trajectory, checkpoints and progress."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from latticezoo.simulate.checkpoint import (
    Checkpoint,
    Saved,
    check_plan,
    load,
    remove_leftovers,
    save,
)
from latticezoo.simulate.describe import describe, library_version
from latticezoo.simulate.dynamics.langevin import Forces
from latticezoo.simulate.dynamics.roll_out import RollOut
from latticezoo.simulate.evaluate import DivergedError, ForceCalls
from latticezoo.simulate.observers import Observer, Snapshot
from latticezoo.simulate.propagator import PropagatorCalls
from latticezoo.simulate.records import Recorder, Row
from latticezoo.simulate.samples import Samples
from latticezoo.simulate.signals import Caught, Interrupted, caught_signals
from latticezoo.simulate.state import State
from latticezoo.simulate.trajectory import Series, Trajectory, write_trajectory
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

__all__ = ["Checkpoint", "DivergedError", "Interrupted", "Result", "Trajectory", "simulate"]

try:
    import fcntl
except ImportError:  # not on Windows: runs are not guarded against a second one there
    fcntl = None  # type: ignore[assignment]

_log = logging.getLogger(__name__)


class Dynamics(Protocol):
    """What :func:`simulate` needs of a dynamics; it should be a frozen dataclass of its parameters.

    ``step`` calls ``forces``, at last at the new fields, and returns a state that carries them.
    """

    @property
    def dt(self) -> float:
        """Time step."""
        ...

    def start(self, state: State) -> State:
        """The state with all that steps need, such as momenta."""
        ...

    def step(self, state: State, forces: Forces) -> State:
        """One step."""
        ...


@dataclass(frozen=True)
class Result:
    """What a run leaves.

    Attributes:
        state: The last state; ``simulate(..., result.state, ...)`` goes on from it.
        observers: Samples by observer name.
        trajectory: Path of the trajectory, if one was asked for.
        steps_done: Steps done by this call, fewer than asked for when a checkpoint was found.
        seconds: Wall-clock time of these steps.
    """

    state: State
    observers: dict[str, Series]
    trajectory: Path | None
    steps_done: int
    seconds: float


def simulate(
    force_field: Any,
    dynamics: Dynamics,
    initial: State | Mapping[str, Tensor],
    steps: int,
    *,
    lattice: Lattice,
    observers: Sequence[Observer] = (),
    trajectory: Trajectory | str | os.PathLike[str] | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    progress: bool | Literal["always"] = True,
    batch_replicas: bool | None = None,
) -> Result:
    """Run ``steps`` steps of a dynamics on a batch of replicas.

    A replica's trajectory depends on (seed, replica number, step) alone: not on the other replicas
    of the batch and not on where the run was interrupted. Running A steps, then B steps from the
    result's state, gives the bits of a run of A + B steps; so does going on from a checkpoint.
    (Between devices, and between builds of the numerical libraries, forces agree to rounding only.
    Full sums over very large arrays can depend on the number of threads; a checkpointed run
    therefore goes on with the number of threads it began with.)

    Frames and samples are taken at every step that is a multiple of their ``every``, both ends of
    the run included.

    Args:
        force_field: Anything with ``forces(fields, lattice) -> dict``: an exact system, a network;
            or, for a :class:`RollOut`, a :class:`~latticezoo.simulate.propagator.Propagator`.
        dynamics: :class:`Langevin`, :class:`Brownian`, :class:`RollOut`, …
        initial: The starting state, or fields ``[R, N, C]`` by name.
        steps: Number of steps from the starting state.
        lattice: The lattice.
        observers: What to measure on the way.
        trajectory: What to write, or just where to (then every step).
        checkpoint: Where to save the run, or just the path. When the file exists, the run goes on
            from it; when it holds the whole run already, nothing is computed again.
        progress: Show a bar with steps per second and time left. True: when stderr is a terminal;
            "always": in any case.
        batch_replicas: Evaluate forces and observers of all replicas in one call. This is faster,
            above all on a GPU, but the low bits of a network's output depend on the size of the
            batch, so that a replica's trajectory then depends on the company it runs in (a run of
            the same batch is still reproducible, and resumes, bit for bit). Default: only for force
            fields that promise equal bits by an attribute ``batch_invariant = True``.

    Returns:
        The last state and the observers' samples.

    Raises:
        InputError: Arguments do not fit together, or the checkpoint is damaged or another run's.
        DivergedError: A number is no longer finite. The last checkpoint stays as it was.
        Interrupted: SIGTERM or Ctrl-C came. The checkpoint holds the last whole step.
        OSError: A file cannot be written. The last checkpoint stays as it was.
    """
    run = _Run(
        force_field,
        dynamics,
        initial if isinstance(initial, State) else State(initial),
        steps,
        lattice,
        tuple(observers),
        trajectory if isinstance(trajectory, Trajectory | None) else Trajectory(trajectory),
        checkpoint if isinstance(checkpoint, Checkpoint | None) else Checkpoint(checkpoint),
        batch_replicas,
    )
    threads = torch.get_num_threads()
    try:
        with torch.no_grad(), run.locked():
            return run.run(progress)
    finally:
        torch.set_num_threads(threads)


class _Run:
    """One call of :func:`simulate`."""

    def __init__(
        self,
        force_field: Any,
        dynamics: Dynamics,
        initial: State,
        steps: int,
        lattice: Lattice,
        observers: tuple[Observer, ...],
        trajectory: Trajectory | None,
        checkpoint: Checkpoint | None,
        batch_replicas: bool | None,
    ) -> None:
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
            raise InputError(f"steps is {steps!r}; it must be a whole number, 0 or more.")
        by_itself = isinstance(dynamics, RollOut)
        if not callable(getattr(force_field, "advance" if by_itself else "forces", None)):
            raise InputError(
                f"{type(force_field).__name__} is no propagator; a roll-out needs a method "
                "advance(memory, lattice) that returns the next frame and the memory after it."
                if by_itself
                else f"{type(force_field).__name__} is no force field; it needs a method "
                "forces(fields, lattice) that returns the forces by field name."
            )
        self.dynamics, self.lattice, self.initial = dynamics, lattice, initial
        self.target = initial.step + steps
        self.steps = steps
        self.trajectory, self.checkpoint = trajectory, checkpoint
        invariant = bool(getattr(force_field, "batch_invariant", False))
        calls: Any = PropagatorCalls if by_itself else ForceCalls
        self.calls = calls(
            force_field,
            lattice,
            invariant if batch_replicas is None else batch_replicas,
            self._advice,
        )
        self.samples = Samples(observers, bool(batch_replicas))
        folder, final = None, None
        if trajectory is not None:
            final = Path(trajectory.path)
            folder = Path(f"{final}.parts")
        if checkpoint is not None:
            folder = Path(f"{checkpoint.path}.parts")
        if folder is not None and not folder.parent.is_dir():
            folder.parent.mkdir(parents=True)
        self.recorder = Recorder(folder, final)
        # Through JSON and back, so that what is compared is what a checkpoint can hold.
        self.plan: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "lattice": str(lattice),
                    "seed": initial.seed,
                    "replicas": initial.replicas,
                    "initial": {
                        "step": initial.step,
                        "time": initial.time,
                        "fields": describe(initial.fields),
                        "momenta": describe(initial.momenta),
                        **({"memory": describe(initial.memory)} if initial.memory else {}),
                    },
                    "dynamics": describe(dynamics),
                    "force_field": describe(force_field),
                    "observers": describe(observers),
                    "trajectory": describe(trajectory),
                    "batch_replicas": bool(batch_replicas),
                }
            )
        )

    def _advice(self) -> str:
        advice = f"take a time step dt below {self.dynamics.dt:g}, or check the force field"
        if isinstance(self.dynamics, RollOut):
            advice = "check the propagator and the series it began with"
        if self.checkpoint and Path(self.checkpoint.path).exists():
            return f"{advice}; the last good checkpoint stays in {self.checkpoint.path}."
        return f"{advice}."

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder of part files against a second run of the same command."""
        folder = self.recorder.folder
        if folder is None:
            yield
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as stream:
            try:
                if fcntl is None:
                    raise OSError
                # A lock of the process, gone with it however it dies, not inherited by workers.
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another process is running this simulation: it holds {folder}; wait for it "
                    "or name another path."
                ) from None
            except OSError:
                _log.warning("%s is on a file system without locks.", folder)
            yield

    # ------------------------------------------------------------------ the loop
    def run(self, progress: bool | str) -> Result:
        handle = self.checkpoint.signals if self.checkpoint else self.trajectory is not None
        with caught_signals(handle) as caught:
            try:
                state = self._begin()
                first, began = state.step, time.monotonic()
                state = self._loop(state, caught, progress)
                seconds = time.monotonic() - began
                observed = self._finish(state, changed=state.step > first)
            except BaseException:
                # With a checkpoint the parts are what the next call goes on from.
                if self.checkpoint is None or not Path(self.checkpoint.path).exists():
                    self.recorder.remove()
                raise
            if caught.number is not None:
                raise Interrupted(
                    f"stopped by {caught.name} after the last step, {self.target}; the run is "
                    "complete and its files are written.",
                    self.target,
                    caught.number,
                    None if self.checkpoint is None else str(self.checkpoint.path),
                )
        path = None if self.trajectory is None else Path(self.trajectory.path)
        return Result(state, observed, path, state.step - first, seconds)

    def _begin(self) -> State:
        """The state to start from: that of the checkpoint, or the initial one with its forces."""
        for asked in (self.checkpoint, self.trajectory):
            if asked is not None:
                remove_leftovers(asked.path)
        if self.checkpoint is None or not Path(self.checkpoint.path).exists():
            self.recorder.restore([])
            forces = self.calls.first(self.initial)
            state = self.dynamics.start(replace(self.initial, forces=forces))
            self._record(state)
            return state
        path = self.checkpoint.path
        device = next(iter(self.initial.fields.values())).device
        saved = load(path, device)
        check_plan(path, self.plan, saved.plan)
        if saved.state.step > self.target:
            raise InputError(
                f"the checkpoint {path} is at step {saved.state.step}, beyond step {self.target} "
                "that was asked for; ask for more steps, or delete it to start afresh."
            )
        if saved.library_version != library_version():
            _log.warning(
                "%s was written by version %s, this is %s; the results may differ.",
                path,
                saved.library_version,
                library_version(),
            )
        self.recorder.restore(saved.parts)
        self.samples.restore(saved.sums)
        torch.set_num_threads(saved.threads)
        _log.info("going on from step %d of %s.", saved.state.step, path)
        return saved.state

    def _loop(self, state: State, caught: Caught, progress: bool | str) -> State:
        saved_at, saved_step = time.monotonic(), state.step
        with self._bar(progress, state) as bar:
            while state.step < self.target and caught.number is None:
                try:
                    state = self.dynamics.step(state, self.calls.at(state, state.step + 1))
                except Exception:
                    if caught.number is None:
                        raise
                    break  # the signal hit the force field's workers too; the state is still whole
                self._record(state)
                bar.update()
                if self.checkpoint and self.checkpoint.due(state.step, time.monotonic() - saved_at):
                    self._save(state)
                    saved_at, saved_step = time.monotonic(), state.step
                elif self.recorder.full:
                    self.recorder.flush()
        if state.step < self.target and caught.number is not None:
            kept = "nothing was kept, for no checkpoint was asked for"
            if self.checkpoint:
                if saved_step < state.step or not Path(self.checkpoint.path).exists():
                    self._save(state)
                kept = (
                    f"{self.checkpoint.path} holds this step: run the same command again to go on"
                )
            raise Interrupted(
                f"stopped by {caught.name} at step {state.step} of {self.target}; {kept}.",
                state.step,
                caught.number,
                str(self.checkpoint.path) if self.checkpoint else None,
            )
        return state

    def _bar(self, progress: bool | str, state: State) -> Any:
        from tqdm import tqdm

        done = state.step - self.initial.step
        # None: tqdm itself looks whether stderr is a terminal.
        hidden = {True: None, "always": False}.get(progress, True)
        return tqdm(
            total=self.steps, initial=done, unit="step", disable=hidden, mininterval=0.5, desc="run"
        )

    # ------------------------------------------------------------------ records and files
    def _snapshot(self, state: State) -> Snapshot:
        return Snapshot(state, self.lattice, self.calls.force_field, self.dynamics)

    def _record(self, state: State) -> None:
        if self.trajectory and state.step % self.trajectory.every == 0:
            self.recorder.append("", self.trajectory.row(state))
        for name, row in self.samples.take(self._snapshot(state)):
            self.recorder.append(f"observers/{name}", row)

    def _save(self, state: State) -> None:
        assert self.checkpoint is not None
        self.recorder.flush()
        threads = torch.get_num_threads()
        saved = Saved(self.plan, state, self.recorder.parts, self.samples.sums, threads)
        save(self.checkpoint.path, saved)

    def _finish(self, state: State, changed: bool) -> dict[str, Series]:
        """Write the trajectory, then let the checkpoint go on from it, then drop the parts.

        In this order each kill in between leaves files from which the same command ends alike.
        """
        axes = self.samples.axes(self._snapshot(state))
        summaries = self.samples.summaries()
        whole = self.recorder.consolidated()
        changed = changed or self.recorder.parts != whole
        if self.checkpoint and changed:
            self._save(state)
        if self.trajectory:
            if changed:
                path = self.trajectory.path
                write_trajectory(path, self.recorder, self.plan, state.replicas, summaries, axes)
                self.recorder.adopt(whole)
                if self.checkpoint:
                    self._save(state)
            self.recorder.remove()
        replicas = len(state.replicas)
        observed = {}
        for name in self.samples.series_names():
            table = f"observers/{name}"
            row: Row = {
                "steps": np.zeros(0, np.int64),
                "times": np.zeros(0),
                "values": np.zeros((0, replicas)),
            }
            if self.recorder.rows(table):
                row = {column: self.recorder.column(table, column) for column in row}
            observed[name] = Series(**row, axes=dict(axes.get(name, {})))
        for name, row in summaries.items():
            observed[name] = Series(**row, axes=dict(axes.get(name, {})))
        return observed
