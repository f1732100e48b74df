"""Echo state networks: exact symmetry, one-pass training, roll-outs, bad input."""

import math
import tempfile

import pytest
import torch

from latticezoo.simulate import FunctionObserver, simulate
from latticezoo.simulate.dynamics.roll_out import RollOut
from latticezoo.symmetry.elements import SymmetryGroup
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field, transform
from latticezoo.symmetry.lattices import Lattice, chain, square, triangular
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.echo_state import EchoState
from latticezoo.zoo.sequence_model import unbounded
from latticezoo.zoo.testing import Batches, short_trainer

ORDER = Field("order", odd=("ising",))
NUMBER = Field("signal", support="global", odd=("ising",))
EVEN = Field("state", support="global", point="3xA1")
SMALL = {"nodes": 40, "washout": 5}


def series_task(field, family="square"):
    return Task("series", (field,), (field,), family, field.odd)


def randomized(network, seed=3):
    """Weights and statistics such as a fit leaves."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.05 * torch.randn(weight.shape, generator=draw, dtype=torch.float64))
    network.input_scaling.scale(network.task.targets[0].name).fill_(0.7)
    network.target_scaling.scale(network.task.targets[0].name).fill_(0.7)
    return network.eval()


def noise(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def fit(network, series, lattice, tmp_path, **trainer):
    """Fit to series ``[B, T, …]`` in batches of two."""
    name = network.task.inputs[0].name
    batches = [
        {"fields": {name: part[:, :-1]}, "targets": {name: part[:, 1:]}, "lattice": lattice}
        for part in series.split(2)
    ]
    runner = short_trainer(tmp_path, **{"max_epochs": 5, **trainer})
    runner.fit(network.to(series.dtype), Batches(batches))
    return runner


# ---- symmetry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", ["orbits", "invariants", "average"])
@pytest.mark.parametrize(
    ("lattice", "shells"), [(square(6), 4), (square(6, 5), 4), (triangular(5), 2)]
)
def test_predictions_and_roll_outs_follow_every_operation(coupling, lattice, shells):
    """Point group, translations, φ → −φ: after six frames of truth and four of its own."""
    task = series_task(ORDER, lattice.family)
    options = {**SMALL, "coupling": coupling, "shells": shells, "input_scale": 0.5}
    network = randomized(create_model("echo_state", task, **options).double())
    series = noise(1, 6, lattice.n_sites, 1)

    def outcome(given):
        with torch.no_grad():
            next_frames = network({"order": given}, lattice)["order"]
        return torch.cat([next_frames, network.roll_out({"order": given}, lattice, 4)["order"]], 1)

    before = outcome(series)
    draw = torch.Generator().manual_seed(1)
    for element in [*SymmetryGroup(lattice, ("ising",)).sample(12, draw)]:
        turned = transform(ORDER, series[0], element)[None]
        expected = transform(ORDER, before[0], element)
        torch.testing.assert_close(outcome(turned)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [0.0, 0.4])
def test_a_number_stays_odd_with_and_without_bias(bias):
    network = create_model("echo_state", series_task(NUMBER, "chain"), bias=bias, **SMALL).double()
    randomized(network)
    assert network.built_in_flips == (frozenset() if bias else {"ising"})
    lattice, series = chain(4), noise(2, 9, 1)
    for steps in (1, 5):
        found = [network.roll_out({"signal": s * series}, lattice, steps) for s in (1, -1)]
        torch.testing.assert_close(found[0]["signal"], -found[1]["signal"], rtol=0, atol=1e-14)


def test_the_same_weights_run_on_a_larger_lattice():
    network = randomized(create_model("echo_state", series_task(ORDER), **SMALL).double())
    series = noise(1, 6, 8, 8, 1)
    small = network.roll_out({"order": series.flatten(2, 3)}, square(8), 5)["order"]
    twice = series.repeat(1, 1, 2, 1, 1).flatten(2, 3)
    large = network.roll_out({"order": twice}, square(16, 8), 5)["order"]
    torch.testing.assert_close(large, small.repeat(1, 1, 2, 1), rtol=0, atol=1e-12)


# ---- series --------------------------------------------------------------------------------------


@pytest.mark.parametrize("coupling", ["orbits", "average"])
def test_frame_by_frame_is_the_whole_series_and_causal(coupling):
    network = create_model("echo_state", series_task(ORDER), coupling=coupling, shells=2, **SMALL)
    randomized(network.double())
    lattice, series = square(5), noise(3, 12, 25, 1)
    with torch.no_grad():
        whole = network({"order": series}, lattice)["order"]
        part = network({"order": series}, lattice, 4)["order"]
        torch.testing.assert_close(part, whole[:, -4:], rtol=0, atol=1e-13)
        early = network({"order": series[:, :7]}, lattice)["order"]
        torch.testing.assert_close(early, whole[:, :7], rtol=0, atol=1e-13)
        memory = network.begin({"order": series[:, :6]}, lattice)
        for t in range(6, 12):
            expected = whole[:, t - 1]
            torch.testing.assert_close(memory["next/order"], expected, rtol=0, atol=1e-13)
            frame = {"order": series[:, t]}
            _, memory = network.advance(memory, lattice, frame)


def test_the_blocks_do_not_change_the_numbers(monkeypatch):
    network = randomized(create_model("echo_state", series_task(ORDER), **SMALL).double())
    series = {"order": noise(2, 11, 64, 1)}
    found = []
    for block in (1, 400, 10_000):
        monkeypatch.setattr("latticezoo.zoo.echo_state._BLOCK", block)
        found.append(network(series, square(8))["order"].detach())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-13)
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=1e-13)


@pytest.mark.parametrize("field", [ORDER, NUMBER], ids=lambda field: field.support)
@pytest.mark.parametrize("preset", list(EchoState.presets))
def test_the_echo_state_property_holds_within_the_washout(preset, field):
    """Two hidden states under the same series come together below 1e-6."""
    network = create_model("echo_state", series_task(field), preset=preset).double()
    draw = torch.Generator().manual_seed(5)
    hidden = [2 * torch.rand(3, 500, generator=draw, dtype=torch.float64) - 1 for _ in range(2)]
    for _ in range(network.required_frames):
        given = torch.randn(3, network.reservoir.inputs, generator=draw, dtype=torch.float64)
        hidden = [network.reservoir.step(state, given) for state in hidden]
    assert float((hidden[0] - hidden[1]).abs().max()) < 1e-6


# ---- training ------------------------------------------------------------------------------------


def test_one_epoch_of_the_trainer_is_the_ridge_regression(tmp_path):
    """Against the normal equations of all samples at once, with all frames but the washout."""
    lattice, series = square(5), 0.3 * noise(4, 15, 25, 1).cumsum(1)
    network = create_model("echo_state", series_task(ORDER), shells=2, ridge=1e-3, **SMALL)
    runner = fit(network, series, lattice, tmp_path)
    assert runner.current_epoch == 1
    with torch.no_grad():
        inputs = network._standardized({"order": series[:, :-1]}, lattice)["order"]
        goals = network._standardized({"order": series[:, 1:]}, lattice)["order"]
        features = network.features(inputs, lattice)[:, 5:].flatten(0, -2)
    changes = (goals - inputs)[:, 5:].flatten(0, -2)
    penalty = 1e-3 * len(features) * torch.eye(features.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(features.T @ features + penalty, features.T @ changes)
    torch.testing.assert_close(network.read_out.detach(), weights, rtol=1e-8, atol=1e-10)
    residual = (changes - features @ weights).square().mean(0).sqrt()
    residual = residual * network.target_scaling.scale("order")
    torch.testing.assert_close(network.residual_spread()["order"], residual, rtol=1e-8, atol=0)
    torch.testing.assert_close(network.largest, inputs.abs().flatten(0, -2).amax(0))


def test_it_learns_a_wave_and_goes_on_with_it(tmp_path):
    """A standing wave of two frequencies: a closed form to compare with."""
    time = torch.arange(600, dtype=torch.float64)
    signal = torch.sin(0.31 * time) + 0.5 * torch.sin(0.53 * time + 1)
    task = series_task(NUMBER, "chain")
    options = {"nodes": 100, "radius": 0.95, "leak": 0.5, "washout": 300, "ridge": 1e-9}
    network = create_model("echo_state", task, **options)
    fit(network, signal[None, :500, None], chain(4), tmp_path)
    found = network.roll_out({"signal": signal[None, :500, None]}, chain(4), 100)["signal"]
    assert float((found[0, :, 0] - signal[500:]).abs().max()) < 0.005


def test_a_constant_is_learned_with_a_bias(tmp_path):
    time = torch.arange(400, dtype=torch.float64)
    columns = [5 + torch.sin(0.3 * time), torch.cos(0.3 * time) - 2, torch.sin(0.3 * time) ** 2]
    series = torch.stack(columns, -1)[None]
    task = series_task(EVEN, "chain")
    options = {"nodes": 100, "washout": 50, "bias": 0.3, "ridge": 1e-8}
    network = create_model("echo_state", task, radius=0.8, **options)
    fit(network, series[:, :350], chain(4), tmp_path)
    found = network.roll_out({"state": series[:, :350]}, chain(4), 50)["state"]
    assert float((found - series[:, 350:]).abs().max()) < 0.02


def test_a_checkpoint_holds_the_reservoir_and_the_fit(tmp_path):
    lattice, series = square(5), noise(2, 12, 25, 1).float()
    network = create_model("echo_state", series_task(ORDER), shells=2, seed=9, **SMALL)
    runner = fit(network, series, lattice, tmp_path)
    runner.save_checkpoint(tmp_path / "net.ckpt")
    again = ZooModel.load_from_checkpoint(tmp_path / "net.ckpt")
    expected, found = (n.state_dict() for n in (network, again))
    assert {"reservoir.values", "reservoir.coupling", "read_out", "order_residual"} <= set(found)
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name
    steps = [n.roll_out({"order": series}, lattice, 3)["order"] for n in (network, again)]
    assert torch.equal(*steps)


# ---- bad input -----------------------------------------------------------------------------------


def test_a_reservoir_that_runs_away_is_stopped_and_says_when_and_what_to_change():
    network = create_model("echo_state", series_task(NUMBER, "chain"), **SMALL).double()
    with torch.no_grad():  # each step adds a tenth of the value
        network.read_out[-1] = 0.1
    network.largest.fill_(1.0)
    over = math.ceil(math.log(3.0) / math.log(1.1))
    series = {"signal": torch.ones(1, 6, 1, dtype=torch.float64)}
    message = f"ran away at frame {over} after the wash-in.*smaller input_scale, a smaller radius"
    with pytest.raises(InputError, match=message):
        network.roll_out(series, chain(4), 50)
    network.roll_out(series, chain(4), over - 1)
    with unbounded(network):
        found = network.roll_out(series, chain(4), 50)["signal"]
    assert float(found[0, -1]) == pytest.approx(1.1**50, rel=1e-9)
    with pytest.raises(InputError, match=message):
        network.roll_out(series, chain(4), 50)


def test_short_windows_and_bad_numbers_are_refused(tmp_path):
    network = create_model("echo_state", series_task(ORDER), shells=1, **SMALL)
    with pytest.raises(InputError, match=r"5 frames, all of which the washout of 5 takes up"):
        fit(network, noise(2, 6, 16, 1).float(), square(4), tmp_path)
    with pytest.raises(InputError, match="has 4 frames, but echo_state needs 5"):
        network.roll_out({"order": noise(1, 4, 16, 1)}, square(4), 3)
    bad = noise(2, 12, 16, 1).float()
    bad[1, 8, 3] = float("nan")
    with pytest.raises(InputError, match="not finite at frame 8"):
        network.roll_out({"order": bad}, square(4), 3)
    fresh = create_model("echo_state", series_task(ORDER), shells=1, **SMALL)
    fresh.statistics_set.fill_(True)
    with pytest.raises(InputError, match="NaN"):
        fit(fresh, bad, square(4), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 1.2}, "spectral radius is 1.2; it must be above 0 and below 1"),
        ({"coupling": "orbit"}, "orbits"),
        ({"washout": 0}, "washout is 0"),
        ({"ridge": 0.0}, "ridge is 0"),
        ({"nodes": 1}, "2 nodes"),
        ({"ema": 0.9}, "leave out ema"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        create_model("echo_state", series_task(ORDER), **options)


@pytest.mark.parametrize(
    "field",
    [Field("u", point="vector"), Field("S", internal="1x1e"), Field("E", support="link")],
    ids=lambda field: field.name,
)
def test_other_fields_are_refused(field):
    with pytest.raises(InputError, match="echo_state cannot serve the task"):
        create_model("echo_state", series_task(field), **SMALL)


def test_a_lattice_too_small_for_the_shells_is_refused():
    network = create_model("echo_state", series_task(ORDER), **SMALL)
    with pytest.raises(InputError, match="too small"):
        network({"order": torch.zeros(1, 3, 16, 1)}, Lattice("square", (4, 4)))


# ---- as a simulation -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def noisy():
    """A fitted network and series: a decaying field kicked by white noise of size 0.2."""
    lattice, frames = square(4), [torch.zeros(6, 16, 1, dtype=torch.float64)]
    for step in range(200):
        frames.append(0.6 * frames[-1] + 0.2 * noise(6, 16, 1, seed=step))
    series = torch.stack(frames[20:], 1)
    network = create_model("echo_state", series_task(ORDER), shells=1, **SMALL)
    with tempfile.TemporaryDirectory() as folder:
        fit(network, series, lattice, folder)
    return network.eval(), series, lattice


def test_the_residual_is_the_noise_of_the_process(noisy):
    network, _, _ = noisy
    assert float(network.residual_spread()["order"]) == pytest.approx(0.2, rel=0.03)


def test_a_roll_out_with_noise_fluctuates_like_the_process(noisy):
    """⟨φ²⟩ = σ²/(1 − 0.6²) for φ → 0.6 φ + σ ξ; without noise all dies out."""
    network, series, lattice = noisy
    network.largest.fill_(float("inf"))
    start = RollOut.washed_in(network, {"order": series[:, :10]}, lattice, seed=3)
    watching = [FunctionObserver(1, "order", lambda snapshot: snapshot.state.fields["order"])]
    squares = {}
    for strength in (0.0, 1.0):
        run = simulate(
            network,
            RollOut(noise=strength),
            start,
            150,
            lattice=lattice,
            observers=watching,
            progress=False,
        )
        squares[strength] = float((run.observers["order"].values[30:] ** 2).mean())
    assert squares[0.0] < 1e-3
    assert squares[1.0] == pytest.approx(0.04 / (1 - 0.36), rel=0.15)


def test_noise_depends_on_seed_replica_and_step_alone(noisy):
    network, series, lattice = noisy

    def run(state, steps):
        return simulate(network, RollOut(noise=1.0), state, steps, lattice=lattice, progress=False)

    state = RollOut.washed_in(network, {"order": series[:3, :10]}, lattice, seed=3)
    whole = run(state, 8).state.fields["order"]
    parts = run(run(state, 5).state, 3).state.fields["order"]
    assert torch.equal(whole, parts)
    alone = run(state.select([1]), 8).state.fields["order"]
    assert torch.equal(whole[1:2], alone)
    other = RollOut.washed_in(network, {"order": series[:3, :10]}, lattice, seed=4)
    assert not torch.equal(whole, run(other, 8).state.fields["order"])


def test_noise_needs_a_propagator_that_knows_its_spread(noisy):
    _, series, lattice = noisy
    network = create_model("autoregression", series_task(ORDER), order=3).double()
    state = RollOut.washed_in(network, {"order": series[:1, :10]}, lattice)
    with pytest.raises(InputError, match="autoregression leave open has not been measured"):
        simulate(network, RollOut(noise=1.0), state, 2, lattice=lattice, progress=False)
    with pytest.raises(InputError, match="noise"):
        RollOut(noise=-1.0)
