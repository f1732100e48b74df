"""Kinetic Monte Carlo of signs on links: flips in continuous time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit
from torch import Tensor

from latticezoo.simulate.dynamics.langevin import Forces
from latticezoo.simulate.dynamics.schedule import (
    Ramp,
    check_positive,
    check_temperature,
    temperature_at,
)
from latticezoo.simulate.noise import generator
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError, unknown

RATES = ("metropolis", "glauber")


@dataclass(frozen=True)
class KineticMonteCarlo:
    r"""Signs ±1 that flip at rates set by the cost ΔE of the flip.

    The field ``U`` flips; its "forces" are −ΔE, as
    :class:`~latticezoo.simulate.systems.GaugeFermions` of Z2 or a network gives them. Rates per
    unit of time, both in detailed balance with exp(−E/T):

    * ``metropolis``: min(1, e^{−ΔE/T});
    * ``glauber``: 1/(1 + e^{ΔE/T}), which is also the heat bath of a sign.

    Waiting times are exponential and every event is a flip (A. B. Bortz, M. H. Kalos, J. L.
    Lebowitz, J. Comput. Phys. 17, 10 (1975)). One step is an interval dt of this process, with as
    many flips as happen in it, each at the price of one force call; it is exact for every dt. At
    the start of a step waiting begins anew, which such a process does not notice. Random numbers
    of a replica depend on (seed, replica, step) alone.

    Attributes:
        dt: Length of a step, in attempts per link.
        temperature: Temperature T ≥ 0 of the bath, or a :class:`Ramp`.
        rates: ``metropolis`` or ``glauber``.
        seed: Seed of the events; None takes the seed of the state.

    Raises:
        InputError: A parameter lies outside its range.
    """

    dt: float
    temperature: float | Ramp
    rates: str = "glauber"
    seed: int | None = None

    def __post_init__(self) -> None:
        check_positive("dt", self.dt)
        if not isinstance(self.temperature, Ramp):
            check_temperature(self.temperature)
        if self.rates not in RATES:
            raise unknown("rates of kinetic Monte Carlo", self.rates, RATES)

    def start(self, state: State) -> State:
        """Check the fields.

        Raises:
            InputError: There is no field ``U`` of signs with forces on it.
        """
        signs = state.fields.get("U")
        if signs is None or signs.is_complex() or not bool((signs.abs() == 1).all()):
            raise InputError("kinetic Monte Carlo flips a real field U that is ±1 everywhere.")
        if "U" not in state.forces:
            found = ", ".join(state.forces) or "nothing"
            raise InputError(f"kinetic Monte Carlo needs costs of flips of U, not of {found}.")
        return replace(state, momenta={}).with_dt(self.dt)

    def step(self, state: State, forces: Forces) -> State:
        """An interval dt; ``forces`` is called once for every round of flips.

        A round flips one link in every replica that has time left.
        """
        temperature = temperature_at(self.temperature, state.step)
        seed = state.seed if self.seed is None else self.seed
        draws = [generator(seed, r, state.step, "dynamics/U") for r in state.replicas]
        signs, found = state.fields["U"], dict(state.forces)
        left = np.full(len(draws), self.dt)
        active = list(range(len(draws)))
        while active:
            rates = self._rates(found["U"], temperature)
            signs = signs.clone()
            still = []
            for row in active:
                total = rates[row].sum()
                wait = draws[row].exponential() / total if total > 0 else np.inf
                left[row] -= wait
                if left[row] <= 0:
                    continue
                # The last link at which the running sum is still below the drawn level.
                sums = np.cumsum(rates[row])
                link = int(np.searchsorted(sums, draws[row].random() * sums[-1], side="right"))
                signs[row].view(-1)[min(link, len(sums) - 1)] *= -1
                still.append(row)
            active = still
            if active:
                found = dict(forces({**state.fields, "U": signs}))
        return replace(
            state,
            fields={**state.fields, "U": signs},
            forces=found,
            step=state.step + 1,
        )

    def _rates(self, forces: Tensor, temperature: float) -> np.ndarray:
        """Rates ``[R, links]`` float64."""
        costs = -forces.detach().double().cpu().numpy().reshape(len(forces), -1)
        if temperature == 0:
            level = 1.0 if self.rates == "metropolis" else 0.5
            return np.where(costs < 0, 1.0, np.where(costs == 0, level, 0.0))
        if self.rates == "metropolis":
            return np.exp(-np.maximum(costs, 0) / temperature)
        rates: np.ndarray = expit(-costs / temperature)
        return rates
