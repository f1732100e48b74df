"""Pretrained weights: what is loaded, and everything that is refused before it is believed."""

import hashlib
import json
import pickle

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.groups import CONVENTION_VERSION
from latticezoo.symmetry.lattices import square
from latticezoo.zoo import check_golden, create_model, list_pretrained, load_pretrained, pretrained
from latticezoo.zoo.testing import perturb, random_fields, scalar_task, write_card

TASK = scalar_task("square", odd=True)
LATTICE = square(4)


@pytest.fixture
def card(tmp_path):
    network = perturb(create_model("gcn", TASK, widths=[4, 4]))
    folder = tmp_path / "gcn.test"
    write_card(network, random_fields(TASK, LATTICE), LATTICE, folder)
    return folder


def change_config(folder, **changes):
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def rehash(folder, file, data):
    """Write a file and make config.json vouch for it, as a forger would."""
    (folder / file).write_bytes(data)
    hashes = json.loads((folder / "config.json").read_text())["sha256"]
    change_config(folder, sha256={**hashes, file: hashlib.sha256(data).hexdigest()})


def test_a_folder_is_loaded_in_eval_mode_by_path_or_prefix(card):
    for name in (card, str(card), f"local-dir:{card}"):
        network = load_pretrained(name)
        assert not network.training
        assert bool(network.statistics_set)
        assert network.options["widths"] == [4, 4]
    assert load_pretrained(card, dtype=torch.float64, device="cpu").dtype is torch.float64
    assert check_golden(card) == 0


def test_double_precision_weights_stay_what_they_are(tmp_path):
    network = perturb(create_model("gcn", TASK, widths=[4, 4]).double())
    write_card(network, random_fields(TASK, LATTICE), LATTICE, tmp_path)
    again = load_pretrained(tmp_path)
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_config_json_tells_what_the_weights_are(card):
    config = json.loads((card / "config.json").read_text())
    assert config["model"] == "gcn"
    assert config["convention_version"] == CONVENTION_VERSION
    assert config["task"] == TASK.to_dict()
    assert config["parameters"] == sum(p.numel() for p in load_pretrained(card).parameters())
    assert config["statistics"]["inputs"]["Q"]["mean"] == [0.0]


def test_the_cards_that_come_with_the_library_load_and_reproduce_their_outputs():
    for name in list_pretrained():
        assert not load_pretrained(name).training
        assert check_golden(name) <= pretrained.GOLDEN_TOLERANCE[torch.float32]
    assert list_pretrained("no such*") == []


def test_a_name_of_the_library_is_found_in_its_folder(card, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.resources, "files", lambda _: card.parent)
    assert list_pretrained("gcn.*") == ["gcn.test"]
    assert load_pretrained("gcn.test").options["widths"] == [4, 4]
    with pytest.raises(InputError, match=r"unknown pretrained model 'gcn\.tset'; did you mean gcn"):
        load_pretrained("gcn.tset")


@pytest.mark.parametrize("name", ["../gcn.test", "gcn.test/../../x", "/etc", "", "local-dir:"])
def test_paths_that_hold_no_card_are_refused(name):
    with pytest.raises(InputError, match="is not a folder with pretrained weights"):
        load_pretrained(name)


def test_one_changed_byte_is_noticed_before_parsing(card, monkeypatch):
    path = card / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr("safetensors.torch.load", None)  # not reached
    with pytest.raises(InputError, match="sha256 differs"):
        load_pretrained(card)


def test_truncated_or_missing_weights_are_noticed(card):
    path = card / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="cut off"):
        load_pretrained(card)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_pretrained(card)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


def test_a_pickle_in_disguise_is_not_run(card):
    rehash(card, "model.safetensors", pickle.dumps(Trap()))
    with pytest.raises(InputError, match="is not a safetensors file"):
        load_pretrained(card)


def test_golden_outputs_of_other_weights_are_noticed(card):
    network = load_pretrained(card)
    with torch.no_grad():
        next(network.parameters()).mul_(1.01)
    rehash(card, "model.safetensors", pretrained.weights_bytes(network))
    with pytest.raises(InputError, match="does not reproduce its golden outputs"):
        check_golden(card)
    data = bytearray((card / "golden.safetensors").read_bytes())
    data[-1] ^= 1
    (card / "golden.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"golden\.safetensors is not the file"):
        check_golden(card)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "gnc"}, "unknown model 'gnc'; did you mean gcn"),
        ({"model": "latticezoo.zoo.gcn.GCN"}, "unknown model"),
        ({"model": 3}, "must name its model"),
        ({"convention_version": CONVENTION_VERSION + 1}, "representation conventions"),
        ({"format": "other"}, "is not in the format"),
        ({"options": None}, "lacks options"),
        ({"sha256": {}}, "must give the sha256 of model.safetensors"),
        (
            {"sha256": {"model.safetensors": "0", "../../x": "0"}},
            "must give the sha256 of model.safetensors and at most",
        ),
        ({"import": "os.system"}, "keys that are not allowed: import"),
        ({"options": {"widths": [5, 5]}}, "do not fit the network 'gcn'"),
        ({"options": {"width": 3}}, "describes no network"),
        ({"task": {"name": "x"}}, "describes no network"),
    ],
)
def test_wrong_descriptions_are_refused_in_one_sentence(card, changes, sentence):
    change_config(card, **changes)
    with pytest.raises(InputError, match=sentence) as caught:
        load_pretrained(card)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_unreadable_descriptions_are_refused(card, text):
    (card / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"damaged|format"):
        load_pretrained(card)
