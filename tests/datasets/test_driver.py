"""Trajectories driven by a network: which is which, exact labels, refusals, identity."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from latticezoo.datasets import processes
from latticezoo.datasets.cache import default_path, recipe_hash
from latticezoo.datasets.driven import pinned
from latticezoo.datasets.driver import Driver, DriverError
from latticezoo.datasets.file import LabelledData, write_dataset
from latticezoo.datasets.holstein import HolsteinChain, HolsteinSquare
from latticezoo.datasets.holstein_module import Holstein
from latticezoo.datasets.jahn_teller import JahnTellerSquare
from latticezoo.datasets.make import make_dataset
from latticezoo.datasets.module import FromFile, evaluation_data
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.run import simulate
from latticezoo.symmetry.errors import InputError
from latticezoo.zoo.loading import load_network, trained_system
from latticezoo.zoo.pretrained import load_pretrained, model_config, weights_bytes
from latticezoo.zoo.registry import create_model
from latticezoo.zoo.sources import card_folder

DRIVER = "gcn.holstein_weak"
UNDRIVEN = {"lattice": 6, "random": 6, "trajectories": 5, "frames": 3, "last_time": 3.0, "seed": 1}
DRIVEN = {**UNDRIVEN, "driver": DRIVER, "exact_trajectories": 2}


def make(path, workers=1, **options):
    return make_dataset(
        "holstein_square", path=path, workers=workers, progress=False, **{**DRIVEN, **options}
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("driven") / "one.h5")


@pytest.fixture(scope="module")
def data(made):
    return LabelledData.open(made)


@pytest.fixture
def card(tmp_path):
    """A copy of the driver's card: the same weights, elsewhere."""
    return Path(shutil.copytree(card_folder(DRIVER), tmp_path / "card"))


def write_card(folder, network):
    """A card without measurements: it does not say what it was trained on."""
    folder.mkdir()
    weights = weights_bytes(network)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(model_config(network, weights)))
    return folder


def refused(words, cls=HolsteinSquare, **options):
    with pytest.raises(InputError, match=words) as caught:
        cls(**{**DRIVEN, **options})
    assert "\n" not in str(caught.value)


# ---- what is in the file -----------------------------------------------------------------------


def test_every_sample_says_which_it_is(data, made):
    assert data.kind.tolist() == [0] * 6 + [1] * 15
    assert data.driven.tolist() == [0] * 6 + [0] * 6 + [1] * 9
    assert data.trajectory[data.driven > 0].unique().tolist() == [2, 3, 4]
    assert data.strata.tolist() == [0] * 6 + [1] * 6 + [2] * 9
    sha256 = json.loads((card_folder(DRIVER) / "config.json").read_text())["sha256"]
    assert data.source.driver == (DRIVER, sha256["model.safetensors"])
    with h5py.File(made) as file:
        assert file["samples/driven"][...].tolist() == data.driven.tolist()
        assert file.attrs["driver"].decode() == DRIVER
        assert file.attrs["driver_sha256"].decode() == sha256["model.safetensors"]


def test_labels_are_exact_whatever_drove(data):
    system = HolsteinSquare(**UNDRIVEN).system
    exact = system.labels(data.fields, data.lattice)
    for name, values in exact.items():
        assert torch.equal(values, data.labels[name]), name


def test_exact_trajectories_are_those_of_undriven_data(data, tmp_path):
    path = make_dataset(
        "holstein_square", path=tmp_path / "exact.h5", workers=1, progress=False, **UNDRIVEN
    )
    exact = LabelledData.open(path)
    assert "samples/driven" not in exact.arrays()
    with h5py.File(path) as file:
        assert "driver" not in file.attrs
    same = data.driven == 0
    for name, values in exact.arrays().items():
        assert np.array_equal(values[same.numpy()], data.arrays()[name][same.numpy()]), name
    # What the network drove starts from the same states and goes elsewhere by its small errors.
    difference = (data.fields["Q"] - exact.fields["Q"])[~same].abs().amax((1, 2))
    assert difference.min() > 0
    assert difference[data.step[~same] == 10].max() < 0.1 * float(exact.fields["Q"].std())


def test_a_driven_quench_is_what_the_simulator_gives(data):
    recipe = HolsteinSquare(**DRIVEN)
    system, steps = recipe.system, recipe.frame_steps()
    dynamics = Langevin(0.1 * system.tau0, system.temperature, system.damping, system.mass)
    result = simulate(
        system.learned(load_pretrained(DRIVER)),
        dynamics,
        recipe.initial_state(3),
        steps[-1],
        lattice=recipe.geometry,
        progress=False,
    )
    last = (data.trajectory == 3) & (data.step == steps[-1])
    assert torch.equal(result.state.fields["Q"], data.fields["Q"][last])


def test_the_number_of_processes_does_not_change_a_bit(made, tmp_path):
    assert make(tmp_path / "two.h5", workers=2).read_bytes() == made.read_bytes()


# ---- identity ----------------------------------------------------------------------------------


def test_data_without_a_driver_keep_the_identity_they_had():
    recipe = HolsteinSquare(lattice=4, random=8, trajectories=2, frames=4, last_time=3.0)
    assert recipe_hash(recipe) == "9a2f4af481d5"  # before there were drivers
    assert recipe_hash(replace(recipe, driver="")) == "9a2f4af481d5"
    assert not {"driver", "driver_sha256", "exact_trajectories"} & set(recipe.options())


def test_the_weights_decide_and_not_where_they_lie(made, card):
    recipe, elsewhere = (HolsteinSquare(**{**DRIVEN, "driver": d}) for d in (DRIVER, str(card)))
    assert recipe.driver_sha256 == elsewhere.driver_sha256
    assert default_path(recipe) == default_path(elsewhere)
    assert make(made, driver=str(card)) == made

    network = load_pretrained(DRIVER)
    with torch.no_grad():
        next(network.parameters()).mul_(1.0001)
    other = write_card(card.parent / "other", network)
    changed = HolsteinSquare(**{**DRIVEN, "driver": str(other)})
    assert changed.driver_sha256 != recipe.driver_sha256
    assert default_path(changed) != default_path(recipe)
    with pytest.raises(InputError, match=r"holds another dataset .its driver_sha256 is"):
        make(made, driver=str(other))
    refused("they were changed since", driver=str(other), driver_sha256=recipe.driver_sha256)


def test_a_checkpoint_has_the_hash_of_its_card(card, tmp_path):
    network = load_pretrained(card)
    checkpoint = {"state_dict": network.state_dict()}
    network.on_save_checkpoint(checkpoint)
    system = trained_system(DRIVER)
    checkpoint["latticezoo_data"] = {"system": system}
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    torch.save(checkpoint, run / "checkpoints" / "best.ckpt")
    expected = HolsteinSquare(**DRIVEN).driver_sha256
    for name in (run, run / "checkpoints" / "best.ckpt", card, f"local-dir:{card}"):
        assert HolsteinSquare(**{**DRIVEN, "driver": str(name)}).driver_sha256 == expected
        assert trained_system(str(name)) == system
    refused("g 1.5, not 3.5", driver=str(run), preset="holstein_strong", first_time=1.0)


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"driver": "gcn.holstein_wek"}, "unknown driver .* did you mean gcn.holstein_weak"),
        ({"driver": "absent/run"}, "driver 'absent/run' is no network"),
        ({"driver": "absent.ckpt"}, "there is no checkpoint 'absent.ckpt'"),
        (
            {"preset": "holstein_strong", "first_time": 1.0},
            "trained on another system .* g 1.5, not 3.5",
        ),
        ({"temperature": 0.2}, "temperature 0.1, not 0.2"),
        ({"exact_trajectories": 5}, "5 of 5 trajectories, so the driver .* would drive none"),
        ({"exact_trajectories": -1}, "exact_trajectories is -1"),
        ({"driver": None}, "exact_trajectories is 2, but no driver is given"),
        ({"driver_sha256": "abc"}, "not abc"),
    ],
)
def test_a_bad_driver_is_refused_before_anything_is_made(options, words, tmp_path):
    refused(words, **options)
    with pytest.raises(InputError, match=words):
        make(tmp_path / "bad.h5", **options)
    assert not list(tmp_path.iterdir())


def test_a_driver_of_another_task_is_refused():
    refused("not 'holstein_chain'", HolsteinChain, lattice=16)
    refused("not 'jahn_teller_square' of 'jahn_teller'", JahnTellerSquare)


def test_other_mass_and_damping_are_no_other_system():
    assert HolsteinSquare(**DRIVEN, mass=2.0, damping=0.5).opened_driver.name == DRIVER


def test_a_driver_that_knows_nothing_is_refused(tmp_path):
    torch.manual_seed(0)
    network = create_model("gcn", HolsteinSquare(**UNDRIVEN).task, widths=[4, 4])
    folder = write_card(tmp_path / "untrained", network.eval())
    assert trained_system(str(folder)) is None
    refused("of the spread of density where trajectories start", driver=str(folder))


@pytest.mark.parametrize("factor", [50.0, float("nan")])
def test_a_blow_up_is_told_and_leaves_nothing(monkeypatch, tmp_path, factor):
    monkeypatch.setattr(Driver, "forces", lambda self, fields, lattice: {"Q": factor * fields["Q"]})
    with pytest.raises(
        DriverError, match=r"trajectory 2 blew up at step \d+ of 30 with the driver 'gcn"
    ):
        make(tmp_path / "bad.h5")
    assert not list(tmp_path.iterdir())


def test_a_blow_up_in_a_worker_reaches_the_caller():
    error = processes._rebuilt(processes._described(DriverError("trajectory 2 blew up.")))
    assert isinstance(error, DriverError)
    assert str(error) == "trajectory 2 blew up."


# ---- feeding a network -------------------------------------------------------------------------


def test_the_split_has_exact_trajectories_on_both_sides(data):
    for seed in range(5):
        module = Holstein(**{**DRIVEN, "seed": 1}, workers=1)
        module._open = lambda: data  # type: ignore[method-assign]
        module.seed = seed
        exact = {
            split: data.trajectory[rows][data.strata[rows] == 1].unique().tolist()
            for split, rows in module.splits.items()
        }
        driven = {
            split: len(data.trajectory[rows][data.strata[rows] == 2].unique())
            for split, rows in module.splits.items()
        }
        assert len(exact["train"]) == len(exact["test"]) == 1
        assert exact["val"] == []
        assert driven == {"train": 1, "val": 1, "test": 1}


def test_the_data_modules_take_a_driver(made, tmp_path):
    module = Holstein(**DRIVEN, path=str(made), workers=1)
    assert module.data.driven.sum() == 9
    sha256 = module.recipe.driver_sha256
    assert module.hparams["driver_sha256"] == sha256
    assert Holstein(**module.hparams).recipe == module.recipe
    fresh = evaluation_data(module, random=1, trajectories=1)
    assert fresh.recipe.driver is None
    assert "driver" not in Holstein(**UNDRIVEN).hparams

    by_file = FromFile(str(made))
    assert by_file.splits["test"].tolist() == FromFile(str(made), seed=0).splits["test"].tolist()
    known = by_file.hparams["content_hash"]
    assert known == LabelledData.open(made).content_hash
    assert FromFile(str(made), content_hash=known).data.has_driven
    with pytest.raises(InputError, match="holds other data than asked for"):
        FromFile(str(made), content_hash="0" * 64)


def test_runs_are_told_apart_by_what_lies_behind_names(made):
    options = {**Holstein(**UNDRIVEN).hparams, "driver": None, "exact_trajectories": 0}
    assert "exact_trajectories" not in pinned(options)
    sha256 = HolsteinSquare(**DRIVEN).driver_sha256
    assert pinned({**DRIVEN, "driver_sha256": None})["driver_sha256"] == sha256
    with pytest.raises(InputError, match="unknown driver"):
        pinned({"driver": "absent"})
    found = pinned({"path": str(made), "content_hash": None})
    assert found["content_hash"] == LabelledData.open(made).content_hash


def test_mixed_parts_keep_their_column(data, tmp_path):
    exact = replace(data, source=replace(data.source, options={}), driven=None)
    both = LabelledData.concatenate([exact, data])
    assert both.driven.tolist() == [0] * len(data) + data.driven.tolist()
    write_dataset(tmp_path / "both.h5", both)
    assert LabelledData.open(tmp_path / "both.h5").driven.tolist() == both.driven.tolist()


def test_networks_are_found_by_name(card):
    assert load_network(str(card)).registry_name == load_network(DRIVER).registry_name == "gcn"
    with pytest.raises(InputError, match="did you mean exact"):
        load_network("exac", others=["exact"])
