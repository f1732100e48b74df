"""Langevin dynamics by the BAOAB splitting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from latticezoo.simulate.dynamics.schedule import (
    Ramp,
    check_positive,
    check_temperature,
    temperature_at,
)
from latticezoo.simulate.noise import normal_like
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError

Forces = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def per_field(values: float | Mapping[str, float], name: str, what: str) -> float:
    """A parameter of one field: one number for all fields, or a mapping by field name."""
    if not isinstance(values, Mapping):
        return values
    if name not in values:
        raise InputError(
            f"{what} is given for {', '.join(sorted(values))} but not for field {name!r}; give one "
            "number, or one for every moving field."
        )
    return values[name]


@dataclass(frozen=True)
class Langevin:
    r"""Underdamped Langevin dynamics.

    .. math::
        m \ddot Q + \gamma \dot Q = F(Q) + \eta, \qquad
        \langle \eta_i(t)\, \eta_j(t') \rangle = 2 \gamma T\, \delta_{ij}\, \delta(t - t')

    One step of length h is BAOAB (Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34):
    half kick, half drift, the exact Ornstein–Uhlenbeck map :math:`P \to c P + \sqrt{(1 - c^2) m T}
    \xi` with :math:`c = e^{-\gamma h / m}`, half drift, half kick, with one force call. On a
    harmonic potential the positions are sampled exactly for every stable h, and
    :math:`\langle P^2 \rangle = m T (1 - h^2 \omega^2 / 4)`.

    With ``damping=0`` there is no noise and no friction: velocity Verlet at constant energy. With
    ``temperature=0`` there is friction alone.

    Args:
        dt: Time step h, in units of sqrt(mass / spring constant) when both are in natural units.
        temperature: Temperature in units of t, or a :class:`Ramp`.
        damping: Friction coefficient γ; the friction *rate* is γ / m. A mapping by field name when
            several fields move.
        mass: Mass m, or a mapping by field name.
        seed: Seed of the noise; None takes the seed of the state.

    Raises:
        InputError: A parameter lies outside its range.
    """

    dt: float
    temperature: float | Ramp
    damping: float | Mapping[str, float]
    mass: float | Mapping[str, float] = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        check_positive("dt", self.dt)
        if not isinstance(self.temperature, Ramp):
            check_temperature(self.temperature)
        for what, given, zero in (("damping", self.damping, True), ("mass", self.mass, False)):
            for value in given.values() if isinstance(given, Mapping) else (given,):
                check_positive(what, value, zero=zero)

    def start(self, state: State) -> State:
        """Give the fields that feel a force momenta: zero where the state has none."""
        momenta = {
            name: state.momenta.get(name, torch.zeros_like(state.fields[name]))
            for name in state.forces
        }
        return replace(state, momenta=momenta).with_dt(self.dt)

    def step(self, state: State, forces: Forces) -> State:
        """One step.

        Args:
            state: Fields, momenta ``[R, N, C]`` and the forces at these fields.
            forces: Gives the forces at new fields; called once.

        Returns:
            The state one step later, with its forces.
        """
        temperature = temperature_at(self.temperature, state.step)
        half = self.dt / 2
        fields, momenta = dict(state.fields), dict(state.momenta)
        # Plain products and sums throughout: fused forms such as torch.add(alpha=) may round
        # differently in the vector body and in the tail of an array, that is, by batch size.
        for name, force in state.forces.items():
            mass = per_field(self.mass, name, "mass")
            momentum = momenta[name] + half * force
            position = fields[name] + (half / mass) * momentum
            momentum = self._bath(momentum, state, name, mass, temperature)
            fields[name] = position + (half / mass) * momentum
            momenta[name] = momentum
        new = dict(forces(fields))
        for name, force in new.items():
            momenta[name] = momenta[name] + half * force
        return replace(state, fields=fields, momenta=momenta, forces=new, step=state.step + 1)

    def _bath(
        self, momentum: Tensor, state: State, name: str, mass: float, temperature: float
    ) -> Tensor:
        """The exact Ornstein–Uhlenbeck map over one time step."""
        exponent = per_field(self.damping, name, "damping") * self.dt / mass
        if exponent == 0:
            return momentum
        momentum = math.exp(-exponent) * momentum
        # 1 − c² by expm1: for weak damping the difference of two near numbers would lose digits.
        spread = math.sqrt(-math.expm1(-2 * exponent) * mass * temperature)
        if spread == 0:
            return momentum
        seed = state.seed if self.seed is None else self.seed
        return momentum + spread * normal_like(
            momentum, seed, state.replicas, state.step, f"dynamics/{name}", state.sites
        )
