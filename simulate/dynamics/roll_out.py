"""Roll-outs: a propagator goes on by itself, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from latticezoo.simulate.dynamics.schedule import check_positive
from latticezoo.simulate.noise import normal_like
from latticezoo.simulate.propagator import Propagator
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


@dataclass(frozen=True)
class RollOut:
    """A run without forces: each step is the next frame of a propagator.

    Example::

        state = RollOut.washed_in(network, {"order": series}, lattice)   # series [R, T, 1]
        simulate(network, RollOut(dt=3.0), state, steps=1500, lattice=lattice, trajectory="run.h5")

    Args:
        dt: Time between frames.
        noise: Random numbers added to each frame before it is taken in, in units of the
            propagator's ``residual_noise()``: 1 for one that was fitted to a noisy process. They
            depend on (seed, replica, step) alone.

    Raises:
        InputError: ``dt`` is not positive, or the noise is negative.
    """

    dt: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        check_positive("dt", self.dt)
        check_positive("noise", self.noise, zero=True)

    @staticmethod
    def washed_in(
        propagator: Propagator,
        series: Mapping[str, Tensor],
        lattice: Lattice,
        *,
        replicas: Sequence[int] = (),
        seed: int = 0,
    ) -> State:
        """The state at the end of true series.

        Each replica is washed in alone, so that its memory does not depend on the others.

        Args:
            propagator: What shall go on.
            series: ``[R, T, …]`` by name.
            lattice: The lattice.
            replicas: The R replica numbers; 0, …, R − 1 by default.
            seed: Of the noise, if there is any.

        Returns:
            The last frame, with the memory of the propagator.

        Raises:
            InputError: As the propagator's ``begin``; or there is no series.
        """
        if not series:
            raise InputError("there is no series to begin a roll-out with; give at least one.")
        count = len(next(iter(series.values())))
        with torch.no_grad():
            parts = [
                propagator.begin({k: v[row : row + 1].clone() for k, v in series.items()}, lattice)
                for row in range(count)
            ]
        return State(
            {name: values[:, -1].clone() for name, values in series.items()},
            replicas=tuple(replicas),
            seed=seed,
            memory={name: torch.cat([part[name] for part in parts]) for name in parts[0]},
        )

    def start(self, state: State) -> State:
        """The state on the clock of the frames."""
        return state.with_dt(self.dt)

    def step(self, state: State, calls: Any) -> State:
        """One frame.

        Args:
            state: With the memory of the propagator.
            calls: :class:`~latticezoo.simulate.propagator.PropagatorCalls` of the run.
        """
        if not self.noise:
            fields, memory = calls.advance(state)
            return replace(state, fields=fields, memory=memory, step=state.step + 1)
        if not hasattr(calls.force_field, "residual_noise"):
            raise InputError(
                f"noise is {self.noise:g}, but {type(calls.force_field).__name__} does not know "
                "how much its predictions leave open; leave noise out."
            )

        def drawn(rows: State, frame: dict[str, Tensor]) -> dict[str, Tensor]:
            kicks = {
                name: normal_like(values, rows.seed, rows.replicas, rows.step, f"roll-out/{name}")
                for name, values in frame.items()
            }
            noise = calls.force_field.residual_noise(kicks)
            return {name: self.noise * values for name, values in noise.items()}

        fields, memory = calls.advance(state, drawn)
        return replace(state, fields=fields, memory=memory, step=state.step + 1)
