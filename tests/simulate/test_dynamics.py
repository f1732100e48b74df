"""Integrators against exact averages and exact solutions; noise by counter."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from harmonic_lattice import HarmonicLattice

from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.brownian import Brownian
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.dynamics.schedule import Ramp
from latticezoo.simulate.noise import normal, normal_like, uniform
from latticezoo.simulate.observers import FunctionObserver, TimeAverage
from latticezoo.simulate.run import simulate
from latticezoo.simulate.state import State
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square

PINNED_NORMAL = [1.266493022685423, 0.4331738247335754, 0.6012533749850615]
PINNED_UNIFORM = [0.868728841275767, 0.009811252676281024, 0.7131800970394124]


def squared(kind):
    """Q² or P² at every site, [R, N]."""
    return lambda snapshot: getattr(snapshot.state, kind)["Q"][..., 0] ** 2


def time_means(force_field, dynamics, start, steps, lattice, functions, *, every=1, after=50):
    """Time averages per replica by name, after the start is forgotten."""
    observers = [
        TimeAverage(name=name, observer=FunctionObserver(every, name, function), after=after)
        for name, function in functions.items()
    ]
    result = simulate(
        force_field,
        dynamics,
        start,
        steps,
        lattice=lattice,
        observers=observers,
        progress=False,
        batch_replicas=True,  # statistics only: bits do not matter here
    )
    return {name: series.values[0] for name, series in result.observers.items()}


def agrees(blocks, exact):
    """Mean of independent blocks within four standard errors of the value, error below 1 %."""
    error = blocks.std(ddof=1) / math.sqrt(blocks.size)
    assert error < 0.01 * abs(exact)
    assert abs(blocks.mean() - exact) < 4 * error


# ------------------------------------------------------------------ exact averages


@pytest.mark.parametrize(("dt", "damping"), [(0.5, 1.0), (1.0, 1.0), (1.5, 0.4)])
def test_baoab_samples_the_oscillator(dt, damping):
    """Known answers row 9: ⟨Q²⟩ = 1 for every step, ⟨P²⟩ = 1 − h²/4; one block an oscillator."""
    lattice = square(64)
    means = time_means(
        HarmonicLattice(),
        Langevin(dt, 1.0, damping),
        initial.thermal(lattice, 4, temperature=1.0, seed=11),
        250,
        lattice,
        {"Q2": squared("fields"), "P2": squared("momenta")},
    )
    agrees(means["Q2"], 1.0)
    agrees(means["P2"], 1 - dt**2 / 4)


def test_baoab_with_a_mass_and_a_spring():
    """Units: ⟨Q²⟩ = T/K and ⟨P²⟩ = m T (1 − h²K/4m) for m = 5, K = 2, T = 0.3."""
    lattice = square(64)
    means = time_means(
        HarmonicLattice(stiffness=2.0),
        Langevin(0.8, 0.3, 3.0, mass=5.0),
        initial.thermal(lattice, 4, temperature=0.3, stiffness=2.0, mass=5.0, seed=5),
        250,
        lattice,
        {"Q2": squared("fields"), "P2": squared("momenta")},
    )
    agrees(means["Q2"], 0.15)
    agrees(means["P2"], 5 * 0.3 * (1 - 0.8**2 * 2 / 20))


def test_brownian_samples_the_oscillator():
    """Known answers row 10: Euler–Maruyama gives ⟨Q²⟩ = 1/(1 − Kh/2γ) = 1.052632 at Kh/γ = 0.1."""
    lattice = square(64)
    means = time_means(
        HarmonicLattice(),
        Brownian(0.2, 1.0, 2.0),
        initial.thermal(lattice, 8, temperature=1.0, seed=2),
        400,
        lattice,
        {"Q2": squared("fields")},
        after=80,
    )
    agrees(means["Q2"], 1 / 0.95)


def test_harmonic_lattice_modes():
    """Known answers row 7: ⟨|Q_k|²⟩ = T/(K + 2κ(cos k_x + cos k_y)), ⟨Q²⟩ = 1.190470 T, ⟨P²⟩.

    BAOAB samples positions exactly; mode by mode ⟨|P_k|²⟩ = m T (1 − h²ω_k²/4), which averages to
    m T (1 − h²K/4m) over the zone. One block a replica.
    """
    lattice, T, dt = square(16), 0.1, 1.0
    waves = 2 * torch.pi * torch.arange(16, dtype=torch.float64) / 16
    exact = T / (1 + 2 * 0.18 * (waves.cos()[:, None] + waves.cos())).numpy()

    def modes(snapshot):
        values = snapshot.state.fields["Q"].reshape(-1, 16, 16)
        return torch.fft.fft2(values).abs() ** 2 / 256

    means = time_means(
        HarmonicLattice(1.0, 0.18),
        Langevin(dt, T, 1.0),
        initial.thermal(lattice, 128, temperature=T, seed=3),
        1200,
        lattice,
        {"modes": modes, "P2": squared("momenta")},
        every=2,
        after=60,
    )
    found = means["modes"]
    error = found.std(0, ddof=1) / math.sqrt(128)
    assert np.all(np.abs(found.mean(0) - exact) < 4 * error)
    assert np.all(error < 0.01 * exact)
    agrees(found.mean((1, 2)), 1.190470 * T)
    agrees(means["P2"].mean(1), T * (1 - dt**2 / 4))


# ------------------------------------------------------------------ exact solutions


def run_plain(force_field, dynamics, state, steps, lattice):
    return simulate(force_field, dynamics, state, steps, lattice=lattice, progress=False).state


def test_order_of_verlet():
    """At γ = 0 the error against cos t falls by 4 when the step is halved: second order."""
    lattice = square(4)
    start = State({"Q": torch.ones(1, 16, 1, dtype=torch.float64)})
    errors = []
    for steps in (50, 100, 200):
        end = run_plain(HarmonicLattice(), Langevin(5 / steps, 0.0, 0.0), start, steps, lattice)
        errors.append(float((end.fields["Q"] - math.cos(5)).abs().max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


def test_energy_error_is_second_order_and_bounded():
    """Symplectic: energy of an anharmonic lattice oscillates by O(h²) and does not drift."""
    lattice = square(4)
    force_field = HarmonicLattice(1.0, 0.2, 1.0)
    start = initial.random(lattice, 2, amplitude=1.0, seed=4)

    def total(snapshot):
        kinetic = 0.5 * (snapshot.state.momenta["Q"] ** 2).sum((1, 2))
        return kinetic + snapshot.force_field.energy(snapshot.state.fields, snapshot.lattice)

    spreads = []
    for dt in (0.1, 0.05):
        energy = (
            simulate(
                force_field,
                Langevin(dt, 0.0, 0.0),
                start,
                round(100 / dt),
                lattice=lattice,
                observers=[FunctionObserver(1, "total", total)],
                progress=False,
            )
            .observers["total"]
            .values
        )
        error = np.abs(energy / energy[0] - 1)
        spreads.append(error.max())
        early, late = error[: len(error) // 4].max(), error[-len(error) // 4 :].max()
        assert late < 1.5 * early
    assert spreads[0] < 0.01
    assert spreads[0] / spreads[1] == pytest.approx(4, rel=0.1)


def test_time_reversal():
    """At γ = 0, steps forward, momenta reversed, as many steps: back at the start."""
    lattice = square(4, 6)
    force_field, dynamics = HarmonicLattice(1.0, 0.1, 0.5), Langevin(0.1, 0.0, 0.0)
    start = initial.thermal(lattice, 2, temperature=0.5, seed=8)
    there = run_plain(force_field, dynamics, start, 200, lattice)
    assert (there.fields["Q"] - start.fields["Q"]).abs().max() > 0.1
    back = replace(there, momenta={"Q": -there.momenta["Q"]})
    home = run_plain(force_field, dynamics, back, 200, lattice)
    torch.testing.assert_close(home.fields["Q"], start.fields["Q"], rtol=0, atol=1e-12)
    torch.testing.assert_close(-home.momenta["Q"], start.momenta["Q"], rtol=0, atol=1e-12)


def test_friction_without_noise_is_exact():
    """T = 0, no force: P decays as e^{−γt/m} to rounding, whatever the step."""
    lattice = square(4)
    P = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 16, 1)
    start = State({"Q": torch.zeros_like(P)}, {"Q": P})
    end = run_plain(HarmonicLattice(0.0), Langevin(0.7, 0.0, 0.6, mass=2.0), start, 9, lattice)
    torch.testing.assert_close(end.momenta["Q"], P * math.exp(-0.6 * 6.3 / 2), rtol=1e-14, atol=0)


def test_brownian_without_noise_is_steepest_descent():
    """T = 0: Q shrinks by 1 − Kh/γ a step."""
    lattice = square(4)
    Q = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 16, 1)
    end = run_plain(HarmonicLattice(2.0), Brownian(0.1, 0.0, 4.0), State({"Q": Q}), 7, lattice)
    torch.testing.assert_close(end.fields["Q"], Q * 0.95**7, rtol=1e-14, atol=0)
    assert not end.momenta


def test_one_force_call_a_step():
    """The force is carried from step to step: n steps cost n + 1 calls."""
    lattice, calls = square(4), []

    class Counting(HarmonicLattice):
        def forces(self, fields, lattice):
            calls.append(1)
            return super().forces(fields, lattice)

    for dynamics in (Langevin(0.1, 0.1, 0.1), Brownian(0.1, 0.1, 1.0)):
        calls.clear()
        run_plain(Counting(), dynamics, initial.random(lattice, seed=1), 10, lattice)
        assert len(calls) == 11


def test_several_fields_with_their_own_mass_and_noise():
    """Fields move side by side, each as it would alone with its mass; their noises differ."""
    lattice = square(4)

    class Two:
        def forces(self, fields, lattice):
            return {name: -fields[name] for name in ("Q", "X")}

    one = initial.random(lattice, 2, seed=1).fields["Q"]
    dynamics = Langevin(0.1, 0.2, {"Q": 0.3, "X": 0.3}, mass={"Q": 1.0, "X": 5.0})
    start = State({"Q": one, "X": one, "frozen": one}, seed=3)
    end = run_plain(Two(), dynamics, start, 20, lattice)
    alone = run_plain(
        HarmonicLattice(), Langevin(0.1, 0.2, 0.3), State({"Q": one}, seed=3), 20, lattice
    )
    assert torch.equal(end.fields["Q"], alone.fields["Q"])
    assert torch.equal(end.fields["frozen"], one)
    assert not torch.allclose(end.fields["X"], end.fields["Q"])
    with pytest.raises(InputError, match="mass is given for Q but not for field 'X'"):
        run_plain(Two(), Langevin(0.1, 0.2, 0.3, mass={"Q": 1.0}), start, 1, lattice)


# ------------------------------------------------------------------ temperature schedule


def test_ramp():
    """Straight lines between the points, constant outside; a run follows it step by step."""
    ramp = Ramp(((10, 1.0), (20, 0.5), (40, 0.1)))
    steps = (0, 10, 15, 20, 30, 40, 99)
    assert [ramp.at(n) for n in steps] == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.3, 0.1, 0.1])
    flat = Ramp(((0, 0.3),))
    lattice, start = square(4), initial.random(square(4), seed=1)
    by_ramp = run_plain(HarmonicLattice(), Langevin(0.1, flat, 0.5), start, 20, lattice)
    constant = run_plain(HarmonicLattice(), Langevin(0.1, 0.3, 0.5), start, 20, lattice)
    assert torch.equal(by_ramp.fields["Q"], constant.fields["Q"])


def test_quench_cools():
    """A ramp from T = 1 to 0 takes the kinetic temperature with it."""
    lattice = square(32)
    start = initial.thermal(lattice, 1, temperature=1.0, seed=1)
    dynamics = Langevin(0.2, Ramp(((100, 1.0), (400, 0.01))), 0.5)
    hot = run_plain(HarmonicLattice(), dynamics, start, 100, lattice)
    cold = run_plain(HarmonicLattice(), dynamics, hot, 400, lattice)
    assert float((hot.momenta["Q"] ** 2).mean()) == pytest.approx(0.99, rel=0.15)
    assert float((cold.momenta["Q"] ** 2).mean()) == pytest.approx(0.0099, rel=0.15)


# ------------------------------------------------------------------ noise by counter


def test_noise_is_addressed():
    """The same address gives the same bits; numbers pinned, so that old runs can be repeated."""
    assert np.array_equal(normal(1, 2, 3, (5, 2)), normal(1, 2, 3, (5, 2)))
    assert np.array_equal(normal(1, 2, 3, (7,))[:3], normal(1, 2, 3, (3,)))
    np.testing.assert_allclose(normal(1, 2, 3, (3,)), PINNED_NORMAL, rtol=1e-15)
    np.testing.assert_allclose(uniform(1, 2, 3, (3,), "initial/Q"), PINNED_UNIFORM, rtol=1e-15)


def test_noise_of_different_addresses_is_independent():
    """Neighbouring seeds, replicas, steps and streams: standard normal and uncorrelated."""
    count = 40_000
    addresses = [
        (seed, replica, step, stream)
        for seed in (0, 1)
        for replica in (0, 1, 2)
        for step in (0, 1, 1000)
        for stream in ("dynamics/Q", "dynamics/X")
    ]
    drawn = np.stack([normal(*a[:3], (count,), a[3]) for a in addresses])
    correlation = drawn @ drawn.T / count
    off = correlation[~np.eye(len(addresses), dtype=bool)]
    assert np.abs(off).max() < 5 / math.sqrt(count)
    assert np.abs(drawn.mean(1)).max() < 4 / math.sqrt(count)
    assert np.abs(drawn.var(1) - 1).max() < 4 * math.sqrt(2 / count)
    assert np.abs((drawn**4).mean(1) - 3).max() < 4 * math.sqrt(96 / count)


def test_noise_does_not_depend_on_the_batch():
    """A replica's row is the same in any company, and float32 is the rounded float64."""
    like = torch.zeros(4, 6, 2, dtype=torch.float64)
    batch = normal_like(like, 9, (0, 3, 5, 8), 12)
    alone = normal_like(like[:1], 9, (5,), 12)
    assert torch.equal(batch[2:3], alone)
    assert torch.equal(normal_like(like.float(), 9, (0, 3, 5, 8), 12), batch.float())


# ------------------------------------------------------------------ starting states


def test_starting_states():
    """Range, spread and sublattice pattern; replica 5 is the same alone and in a batch."""
    lattice = square(32, 16)
    state = initial.random(lattice, 8, amplitude=2.0, seed=4)
    Q = state.fields["Q"]
    assert Q.shape == (8, 512, 1)
    assert Q.dtype == torch.float64
    assert Q.abs().max() <= 2
    assert float(Q.var()) == pytest.approx(4 / 3, rel=0.05)
    assert torch.equal(initial.random(lattice, (5,), amplitude=2.0, seed=4).fields["Q"], Q[5:6])
    assert not torch.equal(initial.random(lattice, 8, amplitude=2.0, seed=5).fields["Q"], Q)
    gauss = initial.random(lattice, 8, amplitude=2.0, distribution="normal", seed=4).fields["Q"]
    assert float(gauss.std()) == pytest.approx(2, rel=0.05)

    ordered = initial.staggered(lattice, 2, amplitude=1.5, noise=0.1, seed=1).fields["Q"][..., 0]
    assert (ordered * lattice.stagger - 1.5).abs().max() <= 0.1

    hot = initial.thermal(lattice, 8, temperature=5.0, stiffness=0.18, mass=5.0, seed=1)
    assert float(hot.fields["Q"].var()) == pytest.approx(5 / 0.18, rel=0.08)
    assert float(hot.momenta["Q"].var()) == pytest.approx(25, rel=0.08)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Langevin(0.1, -0.2, 0.1), "temperature is -0.2; it must be 0 or more"),
        (lambda: Langevin(0.0, 0.2, 0.1), "dt is 0.0; it must be above 0"),
        (lambda: Langevin(math.nan, 0.2, 0.1), "dt is nan"),
        (lambda: Langevin(0.1, 0.2, -0.1), "damping is -0.1; it must be 0 or more"),
        (lambda: Langevin(0.1, 0.2, 0.1, mass=0.0), "mass is 0.0; it must be above 0"),
        (lambda: Brownian(0.1, 0.2, 0.0), "damping is 0.0; it must be above 0"),
        (lambda: Brownian(0.1, math.inf, 1.0), "temperature is inf"),
        (lambda: Ramp(((5, 1.0), (5, 0.1))), "must rise"),
        (lambda: Ramp(()), "at least one"),
        (lambda: Ramp(((0, -1.0),)), "temperature is -1.0"),
        (lambda: normal(-1, 0, 0, (1,)), "seed is -1"),
        (lambda: normal(0, 1.5, 0, (1,)), "replica is 1.5"),
        (lambda: initial.random(square(4), 0), "replicas is 0"),
        (lambda: initial.random(square(4), (1, 1)), "must differ"),
        (lambda: initial.random(square(4), amplitude=-1.0), "amplitude is -1.0"),
        (lambda: initial.random(square(4), distribution="flat"), "'uniform' or 'normal'"),
        (lambda: initial.staggered(square(3, 4)), "3"),
        (lambda: initial.thermal(square(4), temperature=-1.0), "temperature is -1.0"),
    ],
)
def test_bad_parameters(build, sentence):
    """Each is refused by one sentence that names the value."""
    with pytest.raises(InputError) as caught:
        build()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
