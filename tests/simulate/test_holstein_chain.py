"""The semiclassical Holstein chain: exact limits, conservation, order of the schemes, chaos."""

import math

import pytest
import torch

from latticezoo.simulate.dynamics.mean_field import (
    MeanField,
    density_rate,
    evolve,
    evolve_density,
    lyapunov_exponent,
)
from latticezoo.simulate.dynamics.roll_out import RollOut
from latticezoo.simulate.dynamics.runge_kutta import rk4_step, rk5_step
from latticezoo.simulate.run import Checkpoint, simulate
from latticezoo.simulate.systems.holstein_chain import SemiclassicalChain
from latticezoo.simulate.trajectory import open_trajectory
from latticezoo.symmetry.errors import InputError

CHAIN = SemiclassicalChain()


def distance(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def as_density(chain, state):
    return {"rho": chain.density_matrix(state), "Q": state["Q"], "P": state["P"]}


@pytest.mark.parametrize(("step", "order"), [(rk4_step, 4), (rk5_step, 5)])
def test_runge_kutta_steps_are_of_their_order(step, order):
    """On dz/dt = iz, whose solution is a rotation, halving the step cuts the error by 2^order."""
    errors = []
    for steps in (20, 40):
        values = {"z": torch.ones(1, dtype=torch.complex128)}
        for _ in range(steps):
            values = step(lambda v: {"z": 1j * v["z"]}, values, 2 / steps)
        errors.append(abs(complex(values["z"]) - complex(math.cos(2), math.sin(2))))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_sea_is_the_half_filled_projector_with_two_half_filled_modes():
    for sites, kept in ((8, 5), (10, 5), (32, 17)):
        chain = SemiclassicalChain(sites)
        orbitals = chain.sea()
        assert orbitals.shape == (kept, sites)
        rho = (orbitals.T @ orbitals.conj()).numpy()
        assert rho.trace().real == pytest.approx(sites / 2, abs=1e-13)
        occupation = torch.linalg.eigvalsh(torch.from_numpy(rho))
        halves = ((occupation - 0.5).abs() < 1e-12).sum()
        assert halves == (2 if sites % 4 == 0 else 0)


def test_without_coupling_the_sea_rests_and_the_oscillators_swing():
    chain = SemiclassicalChain(8, coupling=0.0, ratio=0.5)
    state = chain.start(range(2), noise=0.1)
    later = evolve(chain, state, 3.0)
    turn = 0.5 * 3.0
    expected = state["Q"] * math.cos(turn) + state["P"] * math.sin(turn)
    assert torch.allclose(later["Q"], expected, atol=1e-9)
    assert (
        distance({"rho": chain.density_matrix(later)}, {"rho": chain.density_matrix(state)}) < 1e-13
    )


def test_both_schemes_go_to_the_same_limit_at_their_orders():
    chain = SemiclassicalChain(8)
    state = chain.start(range(2), noise=0.3)
    reference = evolve(chain, state, 3.0, 0.01)
    errors = [distance(evolve(chain, state, 3.0, dt), reference) for dt in (0.3, 0.15)]
    assert 50 < errors[0] / errors[1] < 80
    exact = as_density(chain, reference)
    errors = [
        distance(evolve_density(chain, as_density(chain, state), 3.0, dt), exact)
        for dt in (0.02, 0.01)
    ]
    assert 15 < errors[0] / errors[1] < 17
    assert errors[1] < 1e-7


def test_shifts_are_the_dense_commutator():
    chain = SemiclassicalChain(8)
    state = as_density(chain, evolve(chain, chain.start(range(3), noise=0.3), 2.0))
    hop = torch.eye(8, dtype=torch.complex128).roll(1, 0)
    h = -(hop + hop.T) - 4 * chain.coupling * torch.diag_embed(state["Q"]).to(hop)
    dense = -1j * (h @ state["rho"] - state["rho"] @ h)
    assert float((density_rate(chain, state)["rho"] - dense).abs().max()) < 1e-14


def test_energy_and_norm_are_kept_over_a_time_of_400():
    state = CHAIN.start(range(4))
    energy, worst = CHAIN.energy(state), 0.0
    for _ in range(10):
        state = evolve(CHAIN, state, 40.0)
        worst = max(worst, float((CHAIN.energy(state) - energy).abs().max()))
    assert worst < 1e-10
    assert float(CHAIN.orders(state)["delta_n"].abs().max()) > 0.03  # order has formed
    overlaps = state["orbitals"] @ state["orbitals"].transpose(1, 2).conj()
    sea = CHAIN.sea()
    assert float((overlaps - sea @ sea.T.conj()).abs().max()) < 1e-9


def test_a_translation_by_one_site_changes_the_sign_of_both_orders():
    state = evolve(CHAIN, CHAIN.start(range(2), noise=0.1), 3.0)
    moved = {name: values.roll(1, -1) for name, values in state.items()}
    before = CHAIN.orders(evolve(CHAIN, state, 6.0))
    after = CHAIN.orders(evolve(CHAIN, moved, 6.0))
    for name, values in before.items():
        assert float(values.abs().min()) > 1e-6
        assert torch.allclose(after[name], -values, atol=1e-12)


def test_a_replica_starts_from_seed_and_number_alone():
    both, alone = CHAIN.start((3, 5), seed=7), CHAIN.start((5,), seed=7)
    assert torch.equal(both["Q"][1:], alone["Q"])
    assert not torch.equal(both["Q"][:1], alone["Q"])
    assert not torch.equal(CHAIN.start((5,), seed=8)["Q"], alone["Q"])


def test_a_free_chain_is_not_chaotic_and_the_quenched_one_is():
    chain = SemiclassicalChain(16, coupling=0.0)
    free = lyapunov_exponent(chain, chain.start(range(2)), 300.0, dt=0.3)
    assert float(free.abs().max()) < 1e-3
    state = evolve(CHAIN, CHAIN.start(range(4)), 300.0, 0.3)
    chaotic = lyapunov_exponent(CHAIN, state, 300.0, dt=0.3)
    assert float(chaotic.min()) > 5e-3


def test_runs_go_on_bit_for_bit(tmp_path):
    exact = MeanField(SemiclassicalChain(8), frame_time=1.0)
    lattice, dynamics = exact.chain.lattice, RollOut(1.0)
    start = exact.quench((0, 4), noise=0.1)
    whole = simulate(
        exact, dynamics, start, 6, lattice=lattice, trajectory=tmp_path / "run.h5", progress=False
    )
    saved = Checkpoint(tmp_path / "half.ckpt")
    simulate(exact, dynamics, start, 3, lattice=lattice, checkpoint=saved, progress=False)
    rest = simulate(exact, dynamics, start, 6, lattice=lattice, checkpoint=saved, progress=False)
    assert rest.steps_done == 3
    alone = simulate(
        exact, dynamics, exact.quench((4,), noise=0.1), 6, lattice=lattice, progress=False
    )
    for name, values in whole.state.memory.items():
        assert torch.equal(values, rest.state.memory[name])
        assert torch.equal(values[1:], alone.state.memory[name])
    with open_trajectory(tmp_path / "run.h5") as run:
        assert run.fields["delta_n"].shape == (7, 2, 1)
        assert run.times[-1] == 6.0
        assert (run.fields["Q"][-1] == whole.state.fields["Q"].numpy()).all()


def test_bad_parameters_are_named():
    with pytest.raises(InputError, match="7 sites"):
        SemiclassicalChain(7)
    with pytest.raises(InputError, match="ratio"):
        SemiclassicalChain(ratio=0.0)
    exact = MeanField(CHAIN)
    with pytest.raises(InputError, match="quench"):
        exact.begin({}, CHAIN.lattice)
    empty = exact.quench((0,)).select([0])
    with pytest.raises(InputError, match="no memory"):
        simulate(exact, RollOut(), dict(empty.fields), 1, lattice=CHAIN.lattice, progress=False)
    with pytest.raises(InputError, match="no propagator"):
        simulate(CHAIN, RollOut(), empty, 1, lattice=CHAIN.lattice, progress=False)
