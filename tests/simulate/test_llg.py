"""Spin dynamics against exact solutions, exact averages and its own conservation laws."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.dynamics.schedule import Ramp
from latticezoo.simulate.noise import normal
from latticezoo.simulate.observers import FunctionObserver, TimeAverage
from latticezoo.simulate.run import Checkpoint, simulate
from latticezoo.simulate.state import State
from latticezoo.simulate.systems.heisenberg import Heisenberg
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.internal import internal_group
from latticezoo.symmetry.lattices import square, triangular

SCHEMES = ("midpoint", "heun")
FORMS = ("landau_lifshitz", "gilbert")
EVERYTHING = Heisenberg((1.0, -0.4), 0.3, (1, 0, 2), 0.5, "interfacial", (0.1, 0.0, 0.3))


@dataclass(frozen=True)
class Fixed:
    """Independent spins in one field B."""

    B: tuple[float, float, float]

    batch_invariant = True

    def forces(self, fields, lattice):
        return {"S": fields["S"].new_tensor(self.B).expand_as(fields["S"])}


@dataclass(frozen=True)
class Pairs:
    """Sites 2n and 2n + 1 coupled by J, no other bonds."""

    J: float

    batch_invariant = True

    def forces(self, fields, lattice):
        spins = fields["S"].unflatten(1, (-1, 2))
        return {"S": self.J * spins.flip(2).flatten(1, 2)}


def directions(count, replicas=1, seed=0):
    """Uniform on the sphere."""
    drawn = torch.from_numpy(normal(seed, 0, 0, (replicas, count, 3)))
    return drawn / drawn.norm(dim=-1, keepdim=True)


def run(force_field, dynamics, state, steps, lattice, **options):
    state = state if isinstance(state, State) else State({"S": state})
    return simulate(force_field, dynamics, state, steps, lattice=lattice, progress=False, **options)


def spins_after(*arguments, **options):
    return run(*arguments, **options).state.fields["S"]


# ------------------------------------------------------------------ exact solutions


def damped(steps, scheme, form, gamma, alpha=0.1, time=10.0):
    """One spin that starts along x in a field 1 along z."""
    start = torch.zeros(1, 9, 3, dtype=torch.float64)
    start[..., 0] = 1
    dynamics = LLG(time / steps, 0.0, alpha, gamma, scheme, form)
    return spins_after(Fixed((0, 0, 1)), dynamics, start, steps, square(3))[0, 0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_damped_spin(scheme):
    """Known answers row 11: S_z = tanh(αBt/(1 + α²)) = .757404539, second order in h."""
    exact = math.tanh(1 / 1.01)
    assert exact == pytest.approx(0.757404539, abs=1e-9)
    coarse, fine = (float(damped(n, scheme, "gilbert", -1.0)[2]) for n in (500, 1000))
    assert fine == pytest.approx(exact, abs=1e-5)
    assert (coarse - exact) / (fine - exact) == pytest.approx(4, rel=0.1)
    assert (4 * fine - coarse) / 3 == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gamma", [1.0, -2.0])
def test_damped_spin_of_both_forms_and_senses(scheme, form, gamma):
    """S_z rises by αγ, divided by 1 + α² in Gilbert's form; S_x + iS_y turns by −γBt."""
    alpha, time, steps = 0.3, 2.0, 400
    slower = 1 + alpha**2 if form == "gilbert" else 1.0
    rate = abs(gamma) / slower
    exact_z = math.tanh(alpha * rate * time)
    angle = -math.copysign(rate, gamma) * time
    across = math.sqrt(1 - exact_z**2)
    exact = [across * math.cos(angle), across * math.sin(angle), exact_z]
    found = damped(steps, scheme, form, gamma, alpha, time)
    assert found.tolist() == pytest.approx(exact, abs=5e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_order_on_a_lattice(scheme):
    """With every term of the energy: differences between step h and h/2 fall by four."""
    lattice, start = triangular(4, 5), directions(20, 2)
    ends = [
        spins_after(EVERYTHING, LLG(1 / n, 0.0, 0.2, scheme=scheme), start, n, lattice)
        for n in (20, 40, 80)
    ]
    first, second = ((late - early).norm() for early, late in itertools.pairwise(ends))
    assert float(first / second) == pytest.approx(4, rel=0.1)


def test_magnons():
    """Known answers row 12: ω = 2J(2 − cos k_x − cos k_y), .585786 J at (π/4, 0)."""
    lattice, amplitude, dt, steps = square(8, 3), 1e-3, 0.005, 800
    exact = 2 * (1 - math.cos(math.pi / 4))
    phase = math.pi / 4 * lattice.positions[:, 0]
    start = torch.stack([phase.cos(), phase.sin(), torch.zeros_like(phase)], -1) * amplitude
    start[:, 2] = math.sqrt(1 - amplitude**2)
    end = spins_after(Heisenberg(), LLG(dt, 0.0, 0.0), start[None], steps, lattice)[0]
    wave = torch.complex(end[:, 0], end[:, 1])
    turned = -float((wave * torch.exp(-1j * phase)).mean().angle())  # clockwise about the field
    turns = round((exact * dt * steps - turned) / (2 * math.pi))
    assert (turned + 2 * math.pi * turns) / (dt * steps) == pytest.approx(exact, abs=1e-4)
    assert exact == pytest.approx(0.585786, abs=1e-6)
    assert float(wave.abs().std()) < 1e-3 * amplitude  # it stays one wave


# ------------------------------------------------------------------ conservation laws


@pytest.mark.parametrize("scheme", SCHEMES)
def test_length_is_kept_to_rounding(scheme):
    """1000 noisy steps: |S| = 1 to 1e-14; in float32 to the last bits."""
    lattice, start = square(4), directions(16, 2)
    dynamics = LLG(0.1, 0.5, 0.3, scheme=scheme, seed=1)
    double = spins_after(Heisenberg(), dynamics, start, 1000, lattice)
    assert float((double.norm(dim=-1) - 1).abs().max()) < 1e-14
    single = spins_after(Heisenberg(), dynamics, start.float(), 300, lattice)
    assert single.dtype == torch.float32
    assert float((single.norm(dim=-1) - 1).abs().max()) < 3e-7


@pytest.mark.parametrize("scheme", SCHEMES)
def test_energy_without_damping(scheme):
    """α = 0: conserved but for an error that falls by four when the step is halved."""
    lattice, start = square(4, 5), directions(20, 2, seed=3)
    before = EVERYTHING.energy({"S": start}, lattice)
    errors = []
    for steps in (40, 80, 160):
        end = spins_after(
            EVERYTHING, LLG(2 / steps, 0.0, 0.0, scheme=scheme), start, steps, lattice
        )
        errors.append(float((EVERYTHING.energy({"S": end}, lattice) - before).norm()))
    assert errors[-1] < 1e-2
    assert errors[1] / errors[2] > 3.5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gamma", [1.0, -1.0])
def test_damping_lowers_the_energy(form, gamma):
    """T = 0: the energy never rises, whichever way round the precession goes."""
    lattice = triangular(5)
    energy = FunctionObserver(1, "energy", lambda s: s.force_field.energy(s.state.fields, lattice))
    result = run(
        EVERYTHING,
        LLG(0.05, 0.0, 0.2, gamma, form=form),
        directions(25, 2),
        100,
        lattice,
        observers=[energy],
    )
    values = result.observers["energy"].values
    assert np.all(np.diff(values, axis=0) <= 0)
    assert np.all(values[-1] < values[0] - 1)


def test_exchange_keeps_the_total_spin():
    """Σ S × H = 0, so that Σ S changes by the error of the scheme alone, of third order a step."""
    lattice, start = square(6), directions(36)
    drifts = []
    for steps in (20, 40):
        end = spins_after(Heisenberg(), LLG(1 / steps, 0.0, 0.0), start, steps, lattice)
        drifts.append(float((end - start).sum(1).norm()))
    assert drifts[0] < 0.05
    assert drifts[0] / drifts[1] > 3.5


def test_two_evaluations_a_step():
    """n steps cost 2n + 1 field evaluations: those at the new state begin the next step."""
    calls = []

    class Counting(Heisenberg):
        def forces(self, fields, lattice):
            calls.append(1)
            return super().forces(fields, lattice)

    for scheme in SCHEMES:
        calls.clear()
        run(Counting(), LLG(0.1, 0.1, 0.1, scheme=scheme), directions(9), 10, square(3))
        assert len(calls) == 21


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    alpha=st.floats(0, 2),
    dt=st.floats(1e-4, 5),
    gamma=st.sampled_from([1.0, -1.0, 0.5]),
    scheme=st.sampled_from(SCHEMES),
    form=st.sampled_from(FORMS),
)
def test_a_step_turns_with_the_spins(seed, alpha, dt, gamma, scheme, form):
    """Whatever the parameters: spins stay unit vectors, and rotations commute with the step."""
    dynamics = LLG(dt, 0.0, alpha, gamma, scheme, form)
    system, lattice, start = Heisenberg((1.0, 0.5)), square(5), directions(25, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    turn = internal_group("SO3").random(generator=generator, dtype=torch.float64)
    end = spins_after(system, dynamics, start, 1, lattice)
    turned = spins_after(system, dynamics, start @ turn.mT, 1, lattice)
    assert float((end.norm(dim=-1) - 1).abs().max()) < 1e-13
    torch.testing.assert_close(turned, end @ turn.mT, rtol=0, atol=1e-11)


# ------------------------------------------------------------------ temperature


def mean_agrees(blocks, exact):
    """Mean of independent blocks within four standard errors, error below 1 %."""
    error = blocks.std(ddof=1) / math.sqrt(blocks.size)
    assert error < 0.01 * abs(exact)
    assert abs(blocks.mean() - exact) < 4 * error


def langevin_function(x):
    return 1 / math.tanh(x) - 1 / x


@pytest.mark.parametrize(
    ("scheme", "form", "gamma"),
    [
        ("midpoint", "landau_lifshitz", 1.0),
        ("midpoint", "gilbert", -1.0),
        ("heun", "landau_lifshitz", -1.0),
        ("heun", "gilbert", 1.0),
    ],
)
def test_a_thermal_spin(scheme, form, gamma):
    """Known answers row 13: ⟨cos θ⟩ = coth x − 1/x, .537315 at B/T = 2; one block a spin."""
    lattice = square(80)
    mean = TimeAverage(
        observer=FunctionObserver(25, "z", lambda s: s.state.fields["S"][..., 2]), after=250
    )
    dynamics = LLG(0.02, 0.5, 1.0, gamma, scheme, form, seed=7)
    result = run(
        Fixed((0, 0, 1)), dynamics, directions(lattice.n_sites), 750, lattice, observers=[mean]
    )
    assert langevin_function(2) == pytest.approx(0.537315, abs=1e-6)
    mean_agrees(result.observers["z_mean"].values[0, 0], langevin_function(2))


def test_thermal_pairs():
    """Two spins with −J S·S': ⟨S·S'⟩ = coth(J/T) − T/J; one block a pair."""
    lattice = square(100)

    def product(snapshot):
        spins = snapshot.state.fields["S"].unflatten(1, (-1, 2))
        return (spins[:, :, 0] * spins[:, :, 1]).sum(-1)

    mean = TimeAverage(observer=FunctionObserver(25, "product", product), after=250)
    dynamics = LLG(0.02, 0.5, 0.5, seed=3)
    result = run(Pairs(1.0), dynamics, directions(lattice.n_sites), 750, lattice, observers=[mean])
    mean_agrees(result.observers["product_mean"].values[0, 0], langevin_function(2))


@pytest.mark.parametrize("form", FORMS)
def test_free_diffusion(form):
    """No field: ⟨S(t)·S(0)⟩ = exp(−2α|γ|Tt), slower by 1 + α² in Gilbert's form."""
    lattice, alpha, gamma = square(100), 0.8, -2.0
    start = directions(lattice.n_sites)
    end = spins_after(
        Fixed((0, 0, 0)), LLG(0.01, 0.25, alpha, gamma, form=form, seed=5), start, 100, lattice
    )
    rate = 2 * alpha * 2.0 * 0.25 / (1 + alpha**2 if form == "gilbert" else 1)
    mean_agrees((end * start).sum(-1)[0].numpy(), math.exp(-rate))


def test_a_ramp_cools():
    """Between the plateaus of a ramp ⟨cos θ⟩ goes from one thermal value to the other."""
    lattice = square(40)
    ramp = Ramp(((0, 2.0), (150, 2.0), (200, 0.0)))
    hot = run(Fixed((0, 0, 1)), LLG(0.1, ramp, 1.0), directions(1600), 150, lattice).state
    cold = run(Fixed((0, 0, 1)), LLG(0.1, ramp, 1.0), hot, 150, lattice).state
    assert float(hot.fields["S"][..., 2].mean()) == pytest.approx(langevin_function(0.5), abs=0.06)
    assert float(cold.fields["S"][..., 2].min()) > 0.99


# ------------------------------------------------------------------ replicas and resuming


def test_replicas_and_parts_have_the_same_bits(tmp_path):
    """A replica alone, a run in two parts, and one from a checkpoint: the bits of one run."""
    lattice, dynamics = triangular(6), LLG(0.1, 0.2, 0.1)
    state = State({"S": directions(36, 4)}, seed=4)
    whole = run(EVERYTHING, dynamics, state, 20, lattice).state
    alone = run(EVERYTHING, dynamics, state.select([2]), 20, lattice).state
    assert torch.equal(alone.fields["S"], whole.fields["S"][2:3])
    half = run(EVERYTHING, dynamics, state, 10, lattice).state
    assert torch.equal(spins_after(EVERYTHING, dynamics, half, 10, lattice), whole.fields["S"])
    checkpoint = Checkpoint(tmp_path / "run.h5", every_steps=7)
    run(EVERYTHING, dynamics, state, 10, lattice, checkpoint=checkpoint)
    going_on = run(EVERYTHING, dynamics, state, 20, lattice, checkpoint=checkpoint)
    assert going_on.steps_done < 20
    assert torch.equal(going_on.state.fields["S"], whole.fields["S"])
    other = run(EVERYTHING, LLG(0.1, 0.2, 0.1, seed=9), state, 20, lattice).state
    assert not torch.equal(other.fields["S"], whole.fields["S"])


def test_blocks_of_sites_change_no_bit(monkeypatch):
    lattice, state = square(7), State({"S": directions(49, 2)}, seed=1)
    for scheme in SCHEMES:
        dynamics = LLG(0.1, 0.2, 0.1, scheme=scheme)
        whole = spins_after(EVERYTHING, dynamics, state, 5, lattice)
        with monkeypatch.context() as patch:
            patch.setattr("latticezoo.simulate.dynamics.llg.BLOCK", 13)
            patch.setattr("latticezoo.simulate.systems.heisenberg.BLOCK", 13)
            assert torch.equal(spins_after(EVERYTHING, dynamics, state, 5, lattice), whole)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: LLG(0.0, 0.0, 0.1), "dt is 0.0; it must be above 0"),
        (lambda: LLG(0.1, -1.0, 0.1), "temperature is -1.0; it must be 0 or more"),
        (lambda: LLG(0.1, 0.0, -0.1), "damping is -0.1; it must be 0 or more"),
        (lambda: LLG(0.1, 0.0, 0.1, gamma=0.0), "gamma is 0.0; it must be a finite number"),
        (lambda: LLG(0.1, 0.0, 0.1, gamma=math.nan), "gamma is nan"),
        (lambda: LLG(0.1, 0.0, 0.1, scheme="huen"), "did you mean heun?"),
        (lambda: LLG(0.1, 0.0, 0.1, form="gilbrt"), "did you mean gilbert?"),
        (
            lambda: run(Heisenberg(), LLG(0.1, 0.0, 0.1), 2 * directions(9), 1, square(3)),
            "length 2",
        ),
        (
            lambda: run(Fixed((0, 0, 1)), LLG(0.1, 0.0, 0.1), 2 * directions(9), 1, square(3)),
            "a spin has length 2; spins must have length 1",
        ),
        (
            lambda: run(
                Fixed((0, 0, 1)),
                LLG(0.1, 0.0, 0.1),
                State({"Q": torch.zeros(1, 9, 1), "S": torch.zeros(1, 9, 3)}),
                1,
                square(3),
            ),
            "a spin has length 0",
        ),
    ],
)
def test_bad_input(build, sentence):
    """Each is refused by one sentence that names the value."""
    with pytest.raises(InputError) as caught:
        build()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_state_without_spins_is_refused():
    with pytest.raises(InputError, match="LLG dynamics moves spins"):
        LLG(0.1, 0.0, 0.1).start(State({"Q": torch.zeros(1, 9, 1)}))
    spins = directions(9)
    state = State({"S": spins}, forces={"S": spins, "Q": spins})
    with pytest.raises(InputError, match="moves the field 'S' alone, but the forces act on S, Q"):
        LLG(0.1, 0.0, 0.1).start(state)
