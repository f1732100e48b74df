"""What goes on by itself, without forces: networks that continue a series, closed systems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from latticezoo.simulate.evaluate import DivergedError
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice

#: What is added to a frame ``[R, …]`` by name, given the state before it and the frame.
Noise = Callable[[State, dict[str, Tensor]], dict[str, Tensor]]


@runtime_checkable
class Propagator(Protocol):
    """Knows the next frame from what it remembers of the past.

    A memory is a plain mapping of tensors whose first axis is the batch. A propagator may also have
    an attribute ``batch_invariant``: True when the bits of a replica's frames do not depend on the
    batch it is in.

    For roll-outs with noise it has ``expected(memory)``, the next frame by name,
    ``residual_noise(kicks)``, which makes noise such as that leaves open of independent standard
    normal numbers by name, and takes what happened instead as a third argument of ``advance``.
    """

    def begin(self, fields: Mapping[str, Tensor], lattice: Lattice) -> dict[str, Tensor]:
        """The memory after the frames of series ``[B, T, …]`` by name."""
        ...

    def advance(
        self, memory: dict[str, Tensor], lattice: Lattice
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The next frame ``[B, …]`` by name, and the memory after it."""
        ...


class PropagatorCalls:
    """Calls of a propagator in a run: replica by replica, checked.

    As for forces, the bits of a network's output depend on the size of the batch, so that by
    default each replica goes on alone, from tensors of its own.

    Args:
        propagator: Goes on from a memory.
        lattice: The lattice.
        whole: Advance all replicas in one call.
        advice: Says what to change, for the sentence of
            :class:`~latticezoo.simulate.evaluate.DivergedError`.
    """

    def __init__(
        self, propagator: Any, lattice: Lattice, whole: bool, advice: Callable[[], str]
    ) -> None:
        self.force_field = propagator
        self.lattice = lattice
        self.whole = whole
        self.advice = advice
        self._step = 0

    def first(self, state: State) -> dict[str, Tensor]:
        """Nothing has to be known before the first step; a memory must be there.

        Raises:
            InputError: The state has no memory.
        """
        if not state.memory:
            raise InputError(
                "the starting state has no memory to go on from; make it by "
                "RollOut.washed_in(propagator, series, lattice)."
            )
        return {}

    def at(self, state: State, step: int) -> PropagatorCalls:
        """Say which step the next call belongs to, for the sentences."""
        self._step = step
        return self

    def advance(
        self, state: State, noise: Noise | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Fields and memory of all replicas one frame later.

        Args:
            state: With the memory of the propagator.
            noise: Gives what is added to a predicted frame, by name, for the replicas of a state.

        Raises:
            DivergedError: A field is NaN or infinite.
        """
        if self.whole or len(state.replicas) == 1:
            fields, memory = self._next(state, noise)
        else:
            rows = range(len(state.replicas))
            parts = [self._next(state.select([row]), noise) for row in rows]
            fields, memory = (
                {name: torch.cat([part[kind][name] for part in parts]) for name in parts[0][kind]}
                for kind in (0, 1)
            )
        fields = {name: values.detach() for name, values in fields.items()}
        for name, values in fields.items():
            finite = torch.isfinite(values).flatten(1).all(1)
            if not bool(finite.all()):
                replica = state.replicas[int((~finite).nonzero()[0])]
                raise DivergedError(
                    f"the field {name!r} is not finite at step {self._step} in replica {replica}; "
                    f"{self.advice()}",
                    self._step,
                    replica,
                )
        return fields, memory

    def _next(
        self, state: State, noise: Noise | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        memory = dict(state.memory)
        if noise is None:
            return self.force_field.advance(memory, self.lattice)
        frame = self.force_field.expected(memory)
        added = noise(state, frame)
        frame = {name: values + added[name] for name, values in frame.items()}
        return self.force_field.advance(memory, self.lattice, frame)
