"""Ensembles: mean and spread, inherited laws, training as if each member were alone, files."""

import json

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.fields import Field
from latticezoo.symmetry.lattices import square
from latticezoo.symmetry.tasks import Task
from latticezoo.symmetry.testing import equivariance_error
from latticezoo.zoo import Ensemble, create_model, load_pretrained
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.gcn import GCN
from latticezoo.zoo.pretrained import check_golden, golden_bytes, model_config, weights_bytes
from latticezoo.zoo.testing import perturb, random_fields

TASK = Task(
    "toy_square",
    (Field("Q", odd=("particle_hole",)),),
    (Field("density", odd=("particle_hole",)),),
    "square",
    flips=("particle_hole",),
    conservative=(("density", "Q"),),
)
LATTICE = square(6, 8)
OPTIONS = {"gcn": {"widths": [4, 4]}, "energy_gnn": {"widths": [4, 4]}}
OPTIONS["lattice_enn"] = {"channels": [4], "blocks": 1}


def ensemble(name="gcn", count=3, dtype=torch.float64):
    torch.manual_seed(0)
    network = create_model(name, TASK, ensemble=count, **OPTIONS[name]).to(dtype)
    assert isinstance(network, Ensemble)
    network.set_statistics(
        {
            "inputs": {"Q": {"mean": torch.zeros(1), "std": torch.full((1,), 1.3)}},
            "targets": {"density": {"mean": torch.zeros(1), "std": torch.full((1,), 0.3)}},
        }
    )
    for member in network.members:
        for weight in member.parameters():
            weight.data += 0.1 * torch.randn_like(weight)
    return network.eval()


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_mean_and_spread_are_those_of_the_members(name):
    network = ensemble(name)
    fields = random_fields(TASK, LATTICE)
    alone = torch.stack([member(fields, LATTICE)["density"] for member in network.members])
    assert torch.allclose(network(fields, LATTICE)["density"], alone.mean(0), atol=1e-14)
    spread = network.spread(fields, LATTICE)["density"]
    assert torch.allclose(spread, alone.std(0), atol=1e-14)
    assert spread.shape == fields["Q"].shape
    assert spread.min() > 0
    # Half of the odd symmetry's projection is nothing to see in the spread: it is even.
    flipped = network.spread({"Q": -fields["Q"]}, LATTICE)["density"]
    assert torch.allclose(flipped, spread, atol=1e-12)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_an_ensemble_is_exactly_equivariant(name):
    assert equivariance_error(ensemble(name), TASK, square(6)).error < 1e-10


def test_the_force_is_minus_the_gradient_of_the_mean_energy():
    network = ensemble("energy_gnn")
    fields = random_fields(TASK, LATTICE, batch=1)
    fields["Q"].requires_grad_()
    (slope,) = torch.autograd.grad(network.energy(fields, LATTICE).sum(), fields["Q"])
    force = network.forces(fields, LATTICE)["Q"]
    assert torch.allclose(-slope, force, atol=1e-12)
    assert not hasattr(ensemble("gcn"), "energy")


def test_description_and_checkpoint_bring_back_the_same_ensemble(tmp_path):
    network = ensemble()
    config = json.loads(json.dumps(network.config()))
    assert config["ensemble"] == 3
    assert network.options == network.members[0].options
    again = ZooModel.from_config(config)
    assert isinstance(again, Ensemble)
    assert again.config() == network.config()
    assert (
        again.receptive_radius
        == GCN.from_config({k: v for k, v in config.items() if k != "ensemble"}).receptive_radius
    )
    with pytest.raises(InputError, match="an ensemble of gcn, not of one gcn"):
        GCN.from_config(config)
    for wrong in (0, -1, 2.5, "4", None):
        with pytest.raises(InputError, match="at least 2 members"):
            ZooModel.from_config({**config, "ensemble": wrong})
        with pytest.raises(InputError, match="at least 2 members"):
            create_model("gcn", TASK, ensemble=wrong)
    assert isinstance(create_model("gcn", TASK, ensemble=1), GCN)
    with pytest.raises(InputError, match="did you mean ensemble"):
        create_model("gcn", TASK, ensembel=4)
    with pytest.raises(InputError, match="same task and options"):
        Ensemble([create_model("gcn", TASK, widths=[w, w]) for w in (4, 5)])


def test_a_card_folder_with_prefixed_weights(tmp_path):
    network = ensemble(dtype=torch.float32)
    fields = random_fields(TASK, LATTICE, dtype=torch.float32)
    weights, golden = weights_bytes(network), golden_bytes(network, fields, LATTICE)
    config = model_config(network, weights, golden, LATTICE)
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "golden.safetensors").write_bytes(golden)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert check_golden(tmp_path) < 1e-6
    loaded = load_pretrained(tmp_path)
    assert isinstance(loaded, Ensemble)
    assert not loaded.training
    own = network.state_dict()
    assert any(name.startswith("members.2.") for name in own)
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())
    single = {key: value for key, value in config.items() if key != "ensemble"}
    (tmp_path / "config.json").write_text(json.dumps(single))
    with pytest.raises(InputError, match="do not fit the network 'gcn'"):
        load_pretrained(tmp_path)


# ---- training ----------------------------------------------------------------------------------


class _Given(pl.LightningDataModule):
    """A few fixed batches with labels from a formula, the same in every epoch."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        values = torch.randn(4, 5, LATTICE.n_sites, 1, generator=generator)
        self.batches = [
            {"fields": {"Q": q}, "targets": {"density": torch.tanh(q)}, "lattice": LATTICE}
            for q in values
        ]

    def train_dataloader(self):
        return DataLoader(self.batches, batch_size=None, shuffle=False)

    val_dataloader = train_dataloader


def fit(network, folder, epochs=2):
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(network, datamodule=_Given())
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_members_learn_together_what_each_learns_alone(tmp_path):
    torch.manual_seed(0)
    together = create_model("gcn", TASK, ensemble=2, gradient_clip=1.0, **OPTIONS["gcn"])
    alone = [create_model("gcn", TASK, gradient_clip=1.0, **OPTIONS["gcn"]) for _ in range(2)]
    starts = []
    for single, member in zip(alone, together.members, strict=True):
        single.load_state_dict(member.state_dict())
        starts.append([weight.detach().clone() for weight in member.parameters()])
    assert any(not torch.equal(a, b) for a, b in zip(*starts, strict=True))
    trainer = fit(together, tmp_path)
    for single, member in zip(alone, together.members, strict=True):
        fit(single, tmp_path)
        for one, other in zip(single.parameters(), member.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-6)
        assert not torch.equal(next(iter(single.parameters())), starts[0][0])
    assert trainer.callback_metrics["val/rmse"] > 0


@pytest.mark.filterwarnings("ignore")
def test_the_checkpoint_of_an_ensemble_and_that_of_a_single_network_are_told_apart(tmp_path):
    network = create_model("gcn", TASK, ensemble=2, **OPTIONS["gcn"])
    trainer = fit(network, tmp_path, epochs=1)
    trainer.save_checkpoint(tmp_path / "two.ckpt", weights_only=False)
    loaded = ZooModel.load_from_checkpoint(tmp_path / "two.ckpt")
    assert isinstance(loaded, Ensemble)
    for name, value in network.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    checkpoint = torch.load(tmp_path / "two.ckpt", weights_only=True)
    with pytest.raises(InputError, match="holds an ensemble of 2, not a single network"):
        create_model("gcn", TASK, **OPTIONS["gcn"]).on_load_checkpoint(checkpoint)
    with pytest.raises(InputError, match="holds an ensemble of 2, not an ensemble of 3"):
        create_model("gcn", TASK, ensemble=3, **OPTIONS["gcn"]).on_load_checkpoint(checkpoint)
    assert perturb(loaded) is loaded  # the tools of the zoo take it for a network
