"""Force calls of a run: replica by replica, checked, on the state's device and in its precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice


class DivergedError(InputError):
    """A field or a force is no longer a finite number. ``step`` and ``replica`` say where."""

    def __init__(self, message: str, step: int, replica: int) -> None:
        super().__init__(message)
        self.step = step
        self.replica = replica


class ForceCalls:
    """Callable that gives the forces at new fields.

    The bits of a network's output depend on the size of the batch: matrix products are blocked by
    shape, and the vector and tail parts of an array use different code for functions such as SiLU.
    So by default each replica is evaluated alone, from a tensor of its own.

    Args:
        force_field: Has ``forces(fields, lattice) -> dict``.
        lattice: The lattice.
        whole: Evaluate all replicas in one call.
        advice: Says what to change, for the sentence of :class:`DivergedError`.
    """

    def __init__(
        self, force_field: Any, lattice: Lattice, whole: bool, advice: Callable[[], str]
    ) -> None:
        self.force_field = force_field
        self.lattice = lattice
        self.whole = whole
        self.advice = advice
        self.calls = 0
        self._step = 0
        self._replicas: tuple[int, ...] = ()

    def first(self, state: State) -> dict[str, Tensor]:
        """Forces at a starting state, with names and shapes checked.

        Raises:
            InputError: The field has the wrong number of sites, a force does not fit its field, or
                a number is not finite.
        """
        for name, values in state.fields.items():
            if values.shape[1] != self.lattice.n_sites:
                raise InputError(
                    f"field {name!r} has {values.shape[1]} sites, but {self.lattice} has "
                    f"{self.lattice.n_sites}; the two must agree."
                )
        return self.at(state, state.step)(state.fields)

    def at(self, state: State, step: int) -> ForceCalls:
        """Say which step the next call belongs to, for the sentences."""
        self._step, self._replicas = step, state.replicas
        return self

    def __call__(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Forces ``[R, N, C]`` of the fields that move.

        Raises:
            DivergedError: A field or a force is NaN or infinite.
            InputError: A force has no field, or another shape.
        """
        for name, values in fields.items():
            self._check("field", name, values)
        self.calls += 1
        if self.whole:
            forces = self._evaluate(fields)
        else:
            # clone: a slice has another memory alignment than a tensor of its own, which can
            # change the rounding of vector code.
            alone = [
                self._evaluate(
                    {name: values[row : row + 1].clone() for name, values in fields.items()}
                )
                for row in range(len(self._replicas))
            ]
            forces = {name: torch.cat([part[name] for part in alone]) for name in alone[0]}
        for name, force in forces.items():
            self._check("force on", name, force)
        return forces

    def _evaluate(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = self.force_field.forces(fields, self.lattice)
        forces = {}
        for name, force in found.items():
            if name not in fields or force.shape != fields[name].shape:
                raise InputError(
                    f"the force field gives a force on {name!r} of shape {list(force.shape)}; the "
                    f"state has {', '.join(f'{n} {list(v.shape)}' for n, v in fields.items())}."
                )
            # copy: the force field may reuse its output buffer in the next call.
            forces[name] = force.detach().to(fields[name], copy=True)
        if not forces:
            raise InputError("the force field gives no force; nothing would move.")
        return forces

    def _check(self, what: str, name: str, values: Tensor) -> None:
        # A sum is finite only if all its terms are, and costs a tenth of a look at each of them.
        if bool(values.sum().isfinite()) or bool(torch.isfinite(values).all()):
            return
        row = int((~torch.isfinite(values)).flatten(1).any(1).nonzero()[0])
        replica = self._replicas[row]
        raise DivergedError(
            f"the {what} {name!r} is not finite at step {self._step} in replica {replica}; "
            f"{self.advice()}",
            self._step,
            replica,
        )
