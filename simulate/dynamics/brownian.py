"""Overdamped (Brownian) dynamics by the Euler–Maruyama scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from latticezoo.simulate.dynamics.langevin import Forces, per_field
from latticezoo.simulate.dynamics.schedule import (
    Ramp,
    check_positive,
    check_temperature,
    temperature_at,
)
from latticezoo.simulate.noise import normal_like
from latticezoo.simulate.state import State


@dataclass(frozen=True)
class Brownian:
    r"""Overdamped dynamics, the limit of vanishing mass of the Langevin equation.

    .. math::
        \gamma \dot Q = F(Q) + \eta, \qquad
        Q \to Q + \frac{h}{\gamma} F(Q) + \sqrt{2 T h / \gamma}\; \xi

    Euler–Maruyama, one force call a step. On a harmonic potential of stiffness K it samples
    :math:`\langle Q^2 \rangle = (T / K) / (1 - K h / 2 \gamma)`: the error is first order in h.

    Args:
        dt: Time step h.
        temperature: Temperature in units of t, or a :class:`Ramp`; 0 gives steepest descent.
        damping: Friction coefficient γ > 0, or a mapping by field name.
        seed: Seed of the noise; None takes the seed of the state.

    Raises:
        InputError: A parameter lies outside its range.
    """

    dt: float
    temperature: float | Ramp
    damping: float | Mapping[str, float] = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        check_positive("dt", self.dt)
        if not isinstance(self.temperature, Ramp):
            check_temperature(self.temperature)
        given = self.damping
        for value in given.values() if isinstance(given, Mapping) else (given,):
            check_positive("damping", value)

    def start(self, state: State) -> State:
        """Drop momenta: this dynamics has none."""
        return replace(state, momenta={}).with_dt(self.dt)

    def step(self, state: State, forces: Forces) -> State:
        """One step: the state one step later, with its forces; ``forces`` is called once."""
        temperature = temperature_at(self.temperature, state.step)
        seed = state.seed if self.seed is None else self.seed
        fields = dict(state.fields)
        for name, force in state.forces.items():
            damping = per_field(self.damping, name, "damping")
            position = fields[name] + (self.dt / damping) * force
            spread = math.sqrt(2 * temperature * self.dt / damping)
            if spread > 0:
                position = position + spread * normal_like(
                    position, seed, state.replicas, state.step, f"dynamics/{name}", state.sites
                )
            fields[name] = position
        return replace(state, fields=fields, forces=dict(forces(fields)), step=state.step + 1)
