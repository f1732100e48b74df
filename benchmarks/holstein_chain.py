"""The semiclassical Holstein chain: speed of three ways to integrate it, drift, climate, chaos.

    python benchmarks/holstein_chain.py            # some two minutes on one core
    python benchmarks/holstein_chain.py --quick

Speed is in replica steps a second of processor time on one thread (other users of the machine
lengthen it much less than the time on the wall), and in the hopping times that a replica covers in
a second. The three ways are Runge–Kutta on the density matrix with dense commutators, the same with
shifts to the neighbours, and the splitting of sixth order on orbitals. Drift is the largest change
of the energy per site over a time of 400 after the quench. The climate is that of twelve seeds,
frames 100 to 1333, with standard errors by resampling the seeds, to be held against an independent
simulation of the same equations.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hardware import hardware
from torch import Tensor

from latticezoo.simulate.climate import Climate, standard_errors
from latticezoo.simulate.dynamics.mean_field import (
    DEFAULT_DT,
    density_rate,
    evolve,
    lyapunov_exponent,
)
from latticezoo.simulate.dynamics.runge_kutta import rk4_step
from latticezoo.simulate.systems.holstein_chain import ORDERS, SemiclassicalChain

CHAIN = SemiclassicalChain()
RK4_DT = 0.01
State = dict[str, Tensor]

#: Independent simulation of the same equations, 12 seeds (r = 0.5, λ = 0.67, N = 32).
EXPECTED = {
    "std_delta_n": 0.0708,
    "std_delta_Q": 0.0713,
    "increment_std_delta_n": 0.0080,
    "increment_std_delta_Q": 0.0096,
    "kurtosis_delta_n": 2.14,
    "C(1)": 0.995,
    "C(5)": 0.93,
    "C(10)": 0.77,
    "first_zero_frames": 24,
    "first_minimum_frames": [38, 40],
    "minimum": -0.33,
    "lyapunov_time": [65, 70],
}


def dense_rate(values: State) -> State:
    """As the shifts, by products of dense matrices."""
    rho, Q, P = values["rho"], values["Q"], values["P"]
    hop = torch.eye(CHAIN.sites, dtype=rho.dtype).roll(1, 0)
    h = -(hop + hop.T) - 4 * CHAIN.coupling * torch.diag_embed(Q).to(rho.dtype)
    density = rho.diagonal(dim1=1, dim2=2).real
    return {
        "rho": -1j * (h @ rho - rho @ h),
        "Q": CHAIN.ratio * P,
        "P": CHAIN.ratio * (density - 0.5 - Q),
    }


def speed(step: Callable[[], object], steps: int, replicas: int, dt: float) -> dict[str, Any]:
    """Steps and time covered, for each second of processor time; the best of three."""
    step()
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        step()
        best = min(best, time.process_time() - start)
    rate = steps * replicas / best
    return {
        "replicas": replicas,
        "dt": dt,
        "replica_steps_per_second": round(rate),
        "hopping_times_per_second": round(rate * dt, 1),
    }


def speeds(replicas: int, steps: int) -> dict[str, Any]:
    state = CHAIN.start(range(replicas))
    density = {"rho": CHAIN.density_matrix(state), "Q": state["Q"], "P": state["P"]}

    def runge_kutta(rate: Callable[[State], State]) -> State:
        values = density
        for _ in range(steps):
            values = rk4_step(rate, values, RK4_DT)
        return values

    split = partial(evolve, CHAIN, state, steps * DEFAULT_DT, DEFAULT_DT)
    shifts = partial(density_rate, CHAIN)
    return {
        "dense commutator": speed(lambda: runge_kutta(dense_rate), steps, replicas, RK4_DT),
        "shifts": speed(lambda: runge_kutta(shifts), steps, replicas, RK4_DT),
        "splitting": speed(split, steps, replicas, DEFAULT_DT),
    }


def drift(replicas: int, until: float = 400.0) -> float:
    state = CHAIN.start(range(replicas))
    energy, worst = CHAIN.energy(state), 0.0
    for _ in range(round(until / 4)):
        state = evolve(CHAIN, state, 4.0)
        worst = max(worst, float((CHAIN.energy(state) - energy).abs().max()))
    return worst


def climate(seeds: int, frames: int, skip: int = 100) -> dict[str, Any]:
    state, series = CHAIN.start(range(seeds)), []
    for frame in range(frames):
        if frame >= skip:
            series.append(CHAIN.orders(state))
        state = evolve(CHAIN, state, 3.0)
    found = {name: torch.stack([row[name] for row in series], 1) for name in ORDERS}
    n, Q = (Climate.of(found[name]) for name in ORDERS)
    errors = standard_errors(found["delta_n"], resamples=200)
    return {
        "seeds": seeds,
        "std_delta_n": n.std,
        "std_delta_Q": Q.std,
        "increment_std_delta_n": n.increment_std,
        "increment_std_delta_Q": Q.increment_std,
        "range_delta_n": [float(found["delta_n"].min()), float(found["delta_n"].max())],
        "kurtosis_delta_n": n.kurtosis,
        **{f"C({k})": float(n.correlation[k]) for k in (1, 5, 10, 20)},
        "first_zero_frames": n.first_zero,
        "first_minimum_frames": n.first_minimum,
        "minimum": n.minimum,
        "standard_errors_delta_n": errors,
    }


def chaos(seeds: int, until: float) -> dict[str, Any]:
    state = evolve(CHAIN, CHAIN.start(range(seeds), seed=11), 400.0, 0.2)
    rates = lyapunov_exponent(CHAIN, state, until, dt=0.2)
    error = float(rates.std()) / seeds**0.5
    return {
        "seeds": seeds,
        "time": until,
        "exponent": float(rates.mean()),
        "standard_error": error,
        "lyapunov_time": 1 / float(rates.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, no file")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    small = given.quick
    result: dict[str, Any] = {
        "parameters": CHAIN.parameters,
        "speed": [speeds(replicas, 20 if small else 100) for replicas in (1, 20)],
        "energy_drift_over_400": drift(1 if small else 4),
        "climate": climate(2 if small else 12, 250 if small else 1334),
        "chaos": chaos(2 if small else 8, 150.0 if small else 1200.0),
        "expected": EXPECTED,
        "hardware": hardware(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if not small:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
