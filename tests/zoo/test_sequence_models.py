"""Every sequence model: causal, odd, the same in roll-outs as without memory, resumable."""

import pytest
import pytorch_lightning as lightning
import torch

from latticezoo.simulate.dynamics.roll_out import RollOut
from latticezoo.simulate.run import Checkpoint, simulate
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import chain, square
from latticezoo.symmetry.tasks import Task
from latticezoo.zoo import create_model
from latticezoo.zoo.base import ZooModel

ODD = ("sublattice_flip",)
ORDER = Field("order", support="global", odd=ODD)
TASK = Task("toy", (ORDER,), (ORDER,), "chain", ODD)
RING = chain(8)
MODELS = {
    "causal": ("transformer", {"width": 16, "heads": 2, "blocks": 2, "span": 7, "patch": 3}),
    "window": (
        "transformer",
        {"preset": "paper", "width": 12, "span": 9, "read_out": [16, 16], "expansion": 2.0},
    ),
    "lstm": ("lstm", {"width": 8}),
    "gru": ("gru", {"width": 8, "layers": 1}),
    "linear": ("autoregression", {"order": 5}),
}
#: Windows that the published network is made for.
PAPER_PARAMETERS = 6_937_830


def built(key, task=TASK, seed=0):
    """A network in double precision with random weights, none of them zero."""
    torch.manual_seed(seed)
    name, options = MODELS[key]
    network = create_model(name, task, **options).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.15 * torch.randn_like(weight))
        if key == "window":  # its ReLUs let nothing through where all numbers are small
            network.network.per_frame.bias.add_(1.0)
            for layer in (0, 2):
                network.network.read_out[layer].bias.add_(0.5)
    for scaling, value in ((network.input_scaling, 0.07), (network.target_scaling, 0.07)):
        scaling.scale(task.targets[0].name).fill_(value)
    network.increments.scale(task.targets[0].name).fill_(0.1)
    return network.eval()


def series(runs=3, frames=20, seed=1):
    torch.manual_seed(seed)
    return {"order": 0.02 * torch.randn(runs, frames, 1, dtype=torch.float64).cumsum(1)}


@pytest.mark.parametrize("key", MODELS)
def test_a_prediction_depends_on_the_past_alone(key):
    network, past = built(key), series()
    changed = {"order": past["order"].clone()}
    changed["order"][:, 12:] += 1.0
    before, after = (network(given, RING)["order"].detach() for given in (past, changed))
    assert torch.equal(before[:, :12], after[:, :12])
    assert float((before[:, 12:] - after[:, 12:]).abs().min()) > 1e-6
    last = network(past, RING, 4)["order"]
    assert torch.allclose(last, before[:, -4:], atol=1e-14)


@pytest.mark.parametrize("key", MODELS)
def test_predictions_and_roll_outs_are_odd(key):
    network, past = built(key), series()
    turned = {"order": -past["order"]}
    found = network(past, RING)["order"].detach()
    assert float((found - past["order"]).abs().mean()) > 1e-5  # it says something
    assert torch.allclose(network(turned, RING)["order"], -found, atol=1e-13, rtol=0)
    ahead, mirrored = (network.roll_out(given, RING, 30)["order"] for given in (past, turned))
    assert torch.allclose(mirrored, -ahead, atol=1e-10, rtol=0)


@pytest.mark.parametrize("frames", [3, 20])
@pytest.mark.parametrize("key", MODELS)
def test_roll_outs_with_memory_agree_with_whole_series(key, frames):
    """For longer than any view, so that old keys are dropped; from less than a window too."""
    network = built(key)
    grown = series(frames=frames)["order"]
    ahead = network.roll_out({"order": grown}, RING, 25)["order"]
    with torch.no_grad():
        for _ in range(25):
            # From the true frames of the roll-out, so that no error grows.
            step = network({"order": grown}, RING, 1)["order"]
            k = grown.shape[1] - frames
            assert torch.allclose(step[:, 0], ahead[:, k], atol=1e-12, rtol=0)
            grown = torch.cat([grown, ahead[:, k : k + 1]], 1)
    assert float(ahead.diff(dim=1).abs().max()) > 1e-5


@pytest.mark.parametrize("key", MODELS)
def test_a_batch_is_its_members_and_true_frames_can_be_fed(key):
    network, past = built(key), series()
    whole = network.roll_out(past, RING, 6)["order"]
    alone = [
        network.roll_out({"order": past["order"][row : row + 1]}, RING, 6)["order"]
        for row in range(3)
    ]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-12)
    with torch.no_grad():
        memory = network.begin({"order": past["order"][:, :10]}, RING)
        for k in range(10, 20):
            _, memory = network.advance(memory, RING, {"order": past["order"][:, k]})
        straight = network.begin(past, RING)
    for name, values in straight.items():
        assert torch.allclose(memory[name], values, atol=1e-12), name


@pytest.mark.parametrize("key", ["causal", "lstm"])
def test_a_roll_out_is_a_simulation_that_resumes_bit_for_bit(key, tmp_path):
    network, past = built(key).float(), series()
    start = RollOut.washed_in(network, {"order": past["order"].float()}, RING)
    dynamics = RollOut(3.0)
    whole = simulate(
        network, dynamics, start, 12, lattice=RING, trajectory=tmp_path / "a.h5", progress=False
    )
    saved = Checkpoint(tmp_path / "half.ckpt")
    simulate(network, dynamics, start, 5, lattice=RING, checkpoint=saved, progress=False)
    rest = simulate(network, dynamics, start, 12, lattice=RING, checkpoint=saved, progress=False)
    assert rest.steps_done == 7
    assert whole.state.time == 36.0
    assert torch.equal(whole.state.fields["order"], rest.state.fields["order"])
    for name, values in whole.state.memory.items():
        assert torch.equal(values, rest.state.memory[name])
    alone = simulate(network, dynamics, start.select([1]), 12, lattice=RING, progress=False)
    assert torch.equal(alone.state.fields["order"][0], whole.state.fields["order"][1])
    ahead = network.roll_out({"order": past["order"][:1].float()}, RING, 12)["order"]
    assert torch.equal(ahead[:, -1], whole.state.fields["order"][:1])


@pytest.mark.parametrize("key", MODELS)
def test_checkpoints_hold_all(key, tmp_path):
    from pytorch_lightning import Trainer

    network, past = built(key), series()
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(network)
    trainer.save_checkpoint(tmp_path / "net.ckpt")
    again = ZooModel.load_from_checkpoint(tmp_path / "net.ckpt").eval()
    assert torch.equal(network(past, RING)["order"], again(past, RING)["order"])


def test_the_published_network_has_its_size():
    network = create_model("transformer", TASK, preset="paper")
    assert sum(weight.numel() for weight in network.parameters()) == PAPER_PARAMETERS
    assert network.options["span"] == 401
    with torch.no_grad():
        found = network({"order": 0.07 * torch.randn(1, 401, 1)}, RING, 1)["order"]
    assert found.shape == (1, 1, 1)


def test_linear_autoregression_finds_a_linear_law():
    """A damped rotation is x(t+1) = 2a cos(w) x(t) − a² x(t−1): two weights, to rounding."""
    a, w = 0.98, 0.4
    times = torch.arange(60, dtype=torch.float64)
    phases = torch.arange(4, dtype=torch.float64)[:, None]
    waves = (a**times * torch.cos(w * times + phases))[..., None]
    network = create_model("autoregression", TASK, order=2, ridge=1e-14).double()
    batch = {
        "fields": {"order": waves[:, :-1]},
        "targets": {"order": waves[:, 1:]},
        "lattice": RING,
        "scored": 40,
    }
    network.training_step(batch, 0)
    network._solve()
    found = network.read_out.detach().flatten()
    law = torch.tensor([2 * a * torch.cos(torch.tensor(w)).item() - 1, -(a**2)])
    assert torch.allclose(found, law.double(), atol=1e-6)
    ahead = network.roll_out({"order": waves[:, :20]}, RING, 40)["order"]
    assert torch.allclose(ahead, waves[:, 20:], atol=1e-6)


@pytest.mark.parametrize("name", ["autoregression", "echo_state", "transformer", "lstm"])
def test_two_numbers_go_on_together(name):
    """A rotation of (x, y): one frame of both holds what one of them has in two."""
    fields = (ORDER, Field("other", support="global", odd=ODD))
    task = Task("pair", fields, fields, "chain", ODD)
    turn = 0.4 * torch.arange(60, dtype=torch.float64) + torch.arange(4.0)[:, None]
    waves = {"order": turn.cos()[..., None], "other": turn.sin()[..., None]}
    short = {"autoregression": {"order": 1, "ridge": 1e-14}, "echo_state": {"washout": 5}}
    network = create_model(name, task, **short.get(name, {})).double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.15 * torch.randn_like(weight))
    past = {key: values[:, :20] for key, values in waves.items()}
    if name in short:
        batch = {
            "fields": {key: values[:, :-1] for key, values in waves.items()},
            "targets": {key: values[:, 1:] for key, values in waves.items()},
            "lattice": RING,
            "scored": 40,
        }
        network.on_train_epoch_start()
        network.training_step(batch, 0)
        network._solve()
    if name == "autoregression":
        ahead = network.roll_out(past, RING, 40)
        for key, values in waves.items():
            assert torch.allclose(ahead[key], values[:, 20:], atol=1e-9)
        assert float(network.residual_spread()["other"]) < 1e-6
    whole = network(waves, RING)
    for frame in (20, 21):
        memory = network.begin({key: v[:, :frame] for key, v in waves.items()}, RING)
        for key, values in network.expected(memory).items():
            assert torch.allclose(values, whole[key][:, frame - 1], atol=1e-12)
    turned = network.roll_out({key: -values for key, values in past.items()}, RING, 5)
    for key, values in network.roll_out(past, RING, 5).items():
        assert torch.allclose(turned[key], -values, atol=1e-12)
    moved = network.roll_out({**past, "other": past["other"] + 0.1}, RING, 2)["order"]
    assert not torch.allclose(moved, network.roll_out(past, RING, 2)["order"], atol=1e-6)


@pytest.mark.parametrize("name", ["autoregression", "lstm"])
def test_noise_of_two_numbers_is_correlated_as_the_residuals_are(name, tmp_path):
    """Pushes of two random walks that hang together come back out of a fit and of a roll-out."""
    fields = (ORDER, Field("other", support="global", odd=ODD))
    task = Task("pair", fields, fields, "chain", ODD)
    draw = torch.Generator().manual_seed(0)
    covariance = torch.tensor([[1.0, -0.6], [-0.6, 0.5]], dtype=torch.float64)
    network = create_model(name, task, **({"order": 1} if name == "autoregression" else {}))
    network = network.double().eval()
    factor = torch.linalg.cholesky(covariance)
    pushes = torch.randn(40, 400, 2, generator=draw, dtype=torch.float64) @ factor.mT
    walks = (pushes - 0.02 * pushes.cumsum(1)).cumsum(1)
    batch = {
        "fields": {f.name: walks[:, :-1, k : k + 1] for k, f in enumerate(fields)},
        "targets": {f.name: walks[:, 1:, k : k + 1] for k, f in enumerate(fields)},
        "lattice": RING,
        "scored": 300,
    }
    if name == "autoregression":
        network.training_step(batch, 0)
        network._solve()
        left = network.residual_spread()["order"]
        assert float(left) == pytest.approx(1.0, rel=0.05)
    else:
        outputs = {k: v + batch["targets"][k] for k, v in network.parted(pushes[:, 1:]).items()}
        network._also_measure("val", outputs, batch)
        network.set_residual(network.residuals.compute())
    kicks = {f.name: torch.randn(40000, 1, generator=draw, dtype=torch.float64) for f in fields}
    noise = network.joined(network.residual_noise(kicks))
    assert torch.allclose(noise.T @ noise / 40000, covariance, atol=0.06)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    other = create_model(name, task, **network.options).double()
    other.load_state_dict(torch.load(tmp_path / "weights.pt"))
    assert torch.equal(other.joined(other.residual_noise(kicks)), noise)


def test_site_fields_go_by_the_past_of_each_site():
    field = Field("order", odd=("particle_hole",))
    task = Task("sites", (field,), (field,), "square", ("particle_hole",))
    network = built("linear", task)
    torch.manual_seed(3)
    past = torch.randn(2, 12, 16, 1, dtype=torch.float64)
    lattice = square(4)
    ahead = network.roll_out({"order": past}, lattice, 4)["order"]
    assert ahead.shape == (2, 4, 16, 1)
    moved = network.roll_out({"order": past.roll(3, 2)}, lattice, 4)["order"]
    assert torch.equal(moved, ahead.roll(3, 2))
    for name in ("transformer", "lstm", "gru"):
        with pytest.raises(InputError, match="whole lattice, not of its sites"):
            create_model(name, task)


def test_training_learns_and_rolls_out_with_a_horizon():
    """Waves of one frequency: the loss of one step and of the roll-out falls by far."""
    torch.manual_seed(0)
    times = torch.arange(25.0)
    options = {"width": 16, "layers": 1, "noise": 0.05, "horizon": 4, "context": 24}
    network = create_model("gru", TASK, **options)
    network.input_scaling.scale("order").fill_(0.7)
    network.increments.scale("order").fill_(0.4)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(80):
        waves = torch.cos(0.4 * times + 6.3 * torch.rand(16, 1))[..., None]
        batch = {"fields": {"order": waves[:, :-1]}, "targets": {"order": waves[:, 1:]}}
        loss = network.training_loss({**batch, "lattice": RING})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_validation_measures_what_predictions_leave_open(tmp_path):
    """White noise of size 0.3: a network that changes nothing leaves √2 of it open."""
    network = built("causal")
    torch.nn.init.zeros_(network.network.head.weight)
    torch.nn.init.zeros_(network.network.head.bias)
    with pytest.raises(InputError, match="transformer leave open has not been measured"):
        network.roll_out(series(), RING, 2, noise=1.0)
    white = 0.3 * torch.randn(8, 401, 1, generator=torch.Generator().manual_seed(0))
    batch = {"fields": {"order": white[:, :-1]}, "targets": {"order": white[:, 1:]}}
    loader = torch.utils.data.DataLoader([{**batch, "lattice": RING}], batch_size=None)
    trainer = lightning.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.validate(network, loader, verbose=False)
    spread = float(network.residual_spread()["order"])
    assert spread == pytest.approx(0.3 * 2**0.5, rel=0.05)
    runs = [
        network.roll_out(batch["fields"], RING, 40, noise=1.0, seed=n)["order"] for n in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    kicks = torch.cat(runs[1:]).diff(dim=1)  # a random walk, since nothing else changes
    assert float(kicks.std()) == pytest.approx(spread, rel=0.1)


def test_bad_input_is_named():
    network = built("causal")
    with pytest.raises(InputError, match=r"shape \[3, 20\]"):
        network({"order": series()["order"][..., 0]}, RING)
    broken = series()
    broken["order"][1, 7] = float("nan")
    with pytest.raises(InputError, match="not finite at frame 7"):
        network.roll_out(broken, RING, 3)
    with pytest.raises(InputError, match="0 steps"):
        network.roll_out(series(), RING, 0)
    other = Field("other", support="global")
    with pytest.raises(InputError, match="same fields as inputs and targets"):
        create_model("gru", Task("t", (ORDER,), (other,), "chain"))
    with pytest.raises(InputError, match="heads is 3"):
        create_model("transformer", TASK, heads=3)
    with pytest.raises(InputError, match="noise is -1"):
        create_model("lstm", TASK, noise=-1.0)
    with pytest.raises(InputError, match="order is 0"):
        create_model("autoregression", TASK, order=0)
    with pytest.raises(InputError, match="leave out ema"):
        create_model("autoregression", TASK, ema=0.9)
    site = Field("site", odd=ODD)
    with pytest.raises(InputError, match="several global ones"):
        create_model("autoregression", Task("t", (ORDER, site), (ORDER, site), "chain", ODD))
