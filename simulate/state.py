"""The state of a batch of replicas: all that a dynamics needs to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from latticezoo.symmetry.errors import InputError


@dataclass(frozen=True)
class State:
    """Fields, momenta and forces of R replicas at one step. Steps make new states; none is edited.

    Attributes:
        fields: Name to values ``[R, N, C]``, those of links ``[R, N, D, …]``; gauge links are
            complex.
        momenta: Name to momenta, shaped as the fields; empty for first-order dynamics, and filled
            with zeros by :class:`~latticezoo.simulate.dynamics.langevin.Langevin` when empty.
        replicas: The R replica numbers. They address the noise, so replicas (5, 6, 7) alone give
            the trajectories that they give within (0, …, 7). Default: 0, …, R − 1.
        seed: Seed of all random numbers of the run.
        step: Number of steps done.
        forces: Forces at these fields, carried from step to step so that a step costs one force
            call; empty when not yet known.
        dt: Time step since ``origin``.
        origin: (step, time) at which this ``dt`` began; time = origin time + dt · (steps since).
            A product, not a running sum: times carry no accumulated rounding.
        memory: What a :class:`~latticezoo.simulate.propagator.Propagator` knows besides the fields,
            ``[R, …]`` by name; empty where forces drive.
        sites: (first, all): the fields hold the sites from the first on of a lattice of so many,
            and feel the noise of those. None: they hold the whole lattice.

    Raises:
        InputError: Shapes or replica numbers do not fit together.
    """

    fields: Mapping[str, Tensor]
    momenta: Mapping[str, Tensor] = field(default_factory=dict)
    replicas: tuple[int, ...] = ()
    seed: int = 0
    step: int = 0
    forces: Mapping[str, Tensor] = field(default_factory=dict)
    dt: float = 0.0
    origin: tuple[int, float] = (0, 0.0)
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    sites: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.fields:
            raise InputError("the starting state has no field; give at least one, such as Q.")
        for name, values in self.fields.items():
            if values.ndim < 2 or not (values.is_floating_point() or values.is_complex()):
                raise InputError(
                    f"field {name!r} has shape {list(values.shape)} and type {values.dtype}; a "
                    "state needs real or complex numbers shaped [replicas, sites, channels]."
                )
        size = next(iter(self.fields.values())).shape[0]
        if not self.replicas:
            object.__setattr__(self, "replicas", tuple(range(size)))
        object.__setattr__(self, "replicas", tuple(int(number) for number in self.replicas))
        if len(set(self.replicas)) != len(self.replicas) or min(self.replicas, default=0) < 0:
            raise InputError(
                f"the replica numbers are {list(self.replicas)}; they must differ and be 0 or more."
            )
        for kind, table in (
            ("field", self.fields),
            ("momentum", self.momenta),
            ("memory", self.memory),
        ):
            for name, values in table.items():
                if values.shape[0] != len(self.replicas):
                    raise InputError(
                        f"{kind} {name!r} holds {values.shape[0]} replicas, but "
                        f"{len(self.replicas)} replica numbers were given; the two must agree."
                    )
        for name, values in self.momenta.items():
            if name not in self.fields or self.fields[name].shape != values.shape:
                raise InputError(
                    f"momentum {name!r} has shape {list(values.shape)}; it needs a field of the "
                    "same name and shape."
                )
        if self.step < 0:
            raise InputError(f"the state is at step {self.step}; steps count from 0.")

    @property
    def time(self) -> float:
        """Time at this step, in the units of ``dt``."""
        step, time = self.origin
        return time + (self.step - step) * self.dt

    def with_dt(self, dt: float) -> State:
        """The same state on a clock that ticks by ``dt`` from here on."""
        return self if dt == self.dt else replace(self, dt=dt, origin=(self.step, self.time))

    def select(self, rows: Sequence[int]) -> State:
        """The replicas in these rows, copied.

        The copy matters: a slice starts at another memory alignment than a tensor of its own, and
        vector code may round differently there.
        """

        def take(table: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: values[list(rows)].clone() for name, values in table.items()}

        return replace(
            self,
            fields=take(self.fields),
            momenta=take(self.momenta),
            forces=take(self.forces),
            memory=take(self.memory),
            replicas=tuple(self.replicas[row] for row in rows),
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """The same state on another device or in another precision.

        A memory keeps its precision, which is that of its propagator.
        """

        def move(table: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: values.to(device=device, dtype=dtype) for name, values in table.items()}

        return replace(
            self,
            fields=move(self.fields),
            momenta=move(self.momenta),
            forces=move(self.forces),
            memory={name: values.to(device=device) for name, values in self.memory.items()},
        )
