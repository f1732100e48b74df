"""Pretrained weights: what is loaded, and everything that is refused before it is believed."""

import hashlib
import io
import json
import os
import pickle

import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.groups import CONVENTION_VERSION
from latticezoo.symmetry.lattices import square
from latticezoo.zoo import (
    check_golden,
    create_model,
    list_pretrained,
    load_pretrained,
    pretrained,
    sources,
)
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
    monkeypatch.setattr(sources.importlib.resources, "files", lambda _: card.parent)
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


def disguises():
    file = io.BytesIO()
    torch.save({"weight": Trap()}, file)
    plain = pickle.dumps(Trap())
    return {
        "pickle": plain,
        "oldest pickle": pickle.dumps(Trap(), 2),
        "torch.save": file.getvalue(),
    }


@pytest.mark.parametrize("kind", disguises())
def test_a_pickle_in_disguise_is_not_run(card, kind, monkeypatch):
    monkeypatch.setattr("safetensors.torch.load", None)  # not reached
    rehash(card, "model.safetensors", disguises()[kind])
    with pytest.raises(InputError, match="is not a safetensors file but a pickle"):
        load_pretrained(card)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 64, bytes(8) + b"{}" * 20])
def test_other_files_in_the_place_of_weights_are_refused(card, data):
    rehash(card, "model.safetensors", data)
    with pytest.raises(InputError, match=r"is not a safetensors file\.$"):
        load_pretrained(card)


def test_a_header_that_begins_like_a_pickle_is_none(card):
    """A table of 640 bytes gives the first two bytes of a pickle of protocol 2."""
    data = (card / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    wide = -(-(length - 0x280) // 2**16) * 2**16 + 0x280
    header = data[8 : 8 + length].ljust(wide)
    data = wide.to_bytes(8, "little") + header + data[8 + length :]
    assert data[:2] == b"\x80\x02"
    rehash(card, "model.safetensors", data)
    assert check_golden(card) == 0


def test_links_pipes_and_folders_in_the_place_of_files_are_refused(card, tmp_path):
    path = card / "model.safetensors"
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(InputError, match="is a symbolic link"):
        load_pretrained(card)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="is not a regular file"):
        load_pretrained(card)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match="is not a regular file"):
        load_pretrained(card)
    (card / "config.json").rename(tmp_path / "config.json")
    (card / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(InputError, match=r"config\.json is a symbolic link"):
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


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff", "[" * 100_000])
def test_unreadable_descriptions_are_refused(card, text):
    (card / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"damaged|format"):
        load_pretrained(card)


def test_device_and_type_are_checked(card):
    with pytest.raises(InputError, match="no floating-point type"):
        load_pretrained(card, dtype=torch.int64)
    with pytest.raises(InputError, match="'gpu'"):
        load_pretrained(card, device="gpu")
    with pytest.raises(InputError, match="only repositories on the hub have revisions"):
        load_pretrained(card, revision="main")


# ---- the hub -----------------------------------------------------------------------------------


@pytest.fixture
def published(hub, card):
    """The card as a repository on the hub, with a file that nothing asks for."""
    files = {path.name: path.read_bytes() for path in card.iterdir()}
    hub.first = hub.commit("user/gcn.test", {**files, "evil.py": b"raise SystemExit"})
    return hub


def test_a_repository_on_the_hub_is_loaded_and_checked(published, card):
    network = load_pretrained("hf-hub:user/gcn.test")
    assert not network.training
    for name, value in load_pretrained(card).state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    assert check_golden("hf-hub:user/gcn.test") == 0
    fetched = {r.rsplit("/", 1)[1] for r in published.requests if "/resolve/" in r}
    assert fetched == {"config.json", "model.safetensors", "golden.safetensors"}


def test_a_revision_is_what_it_was(published, card):
    network = load_pretrained(card)
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    rehash(card, "model.safetensors", pretrained.weights_bytes(network))
    files = ("config.json", "model.safetensors")
    published.commit("user/gcn.test", {name: (card / name).read_bytes() for name in files})
    published.tags["user/gcn.test", "v1"] = published.first
    for name, options in (
        ("hf-hub:user/gcn.test@v1", {}),
        ("hf-hub:user/gcn.test", {"revision": "v1"}),
        (f"hf-hub:user/gcn.test@{published.first}", {}),
    ):
        assert check_golden(name, **options) == 0
    with pytest.raises(InputError, match="does not reproduce its golden outputs"):
        check_golden("hf-hub:user/gcn.test")


def test_what_is_fetched_is_checked_as_any_other_card(published, card):
    data = bytearray((card / "model.safetensors").read_bytes())
    data[-1] ^= 1
    published.commit("user/gcn.test", {"model.safetensors": bytes(data)})
    with pytest.raises(InputError, match="sha256 differs"):
        load_pretrained("hf-hub:user/gcn.test")
    rehash(card, "model.safetensors", pickle.dumps(Trap()))
    files = ("config.json", "model.safetensors")
    published.commit("user/gcn.test", {name: (card / name).read_bytes() for name in files})
    with pytest.raises(InputError, match="but a pickle"):
        load_pretrained("hf-hub:user/gcn.test")
    change_config(card, model="gnc")
    published.commit("user/gcn.test", {"config.json": (card / "config.json").read_bytes()})
    with pytest.raises(InputError, match="unknown model 'gnc'"):
        load_pretrained("hf-hub:user/gcn.test")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hf-hub:gcn.test", "is no repository on the hub; it must read hf-hub:user/name"),
        ("hf-hub:../etc", "is no repository on the hub"),
        ("hf-hub:user/..", "is no repository on the hub"),
        ("hf-hub:user/a/b", "is no repository on the hub"),
        ("hf-hub:user/gcn.test@../../x", "is no revision"),
        ("hf-hub:user/other", "there is no repository 'user/other' on the hub"),
        ("hf-hub:user/gcn.test@v9", "has no revision 'v9'"),
        ("hf-hub:user/empty", r"has no config\.json: it holds no card"),
    ],
)
def test_what_is_not_on_the_hub_is_told_in_one_sentence(published, name, sentence):
    published.commit("user/empty", {"README.md": b"nothing"})
    with pytest.raises(InputError, match=sentence) as caught:
        load_pretrained(name)
    assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_serves_what_is_in_the_cache(published, tmp_path):
    load_pretrained("hf-hub:user/gcn.test")
    published.close()
    assert not load_pretrained("hf-hub:user/gcn.test").training
    with pytest.raises(InputError, match="cannot be reached, and golden"):
        check_golden("hf-hub:user/gcn.test")
    # A link in the cache to what is none of the repository's.
    (snapshot,) = (tmp_path / "hub-cache").glob("*/snapshots/*")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(tmp_path / "gcn.test" / "config.json")
    with pytest.raises(InputError, match="leads out of the cache"):
        load_pretrained("hf-hub:user/gcn.test")
