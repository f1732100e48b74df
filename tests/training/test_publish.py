"""Complete cards: what they hold, what is refused, and how they are sent and fetched again."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import DATA_WORDS, TINY_GCN

from latticezoo.training.card_check import check_card, missing, page_faults
from latticezoo.training.cli import main
from latticezoo.zoo import check_golden, list_pretrained, load_pretrained
from latticezoo.zoo.sources import card_folder

FILES = {
    "README.md",
    "config.json",
    "errors.png",
    "golden.safetensors",
    "metrics.json",
    "model.safetensors",
    "parity.png",
    "rollout.png",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory, cache):
    """A complete card of a network that trained for a second."""
    folder = tmp_path_factory.mktemp("made")
    run, cards = str(folder / "run"), str(folder / "cards")
    words = [*DATA_WORDS, *TINY_GCN, "--trainer.max_epochs", "2", "--out", run]
    assert main(["fit", *words]) == 0
    size = ["--steps", "10", "--replicas", "2"]
    assert main(["card", run, "--name", "gcn.tiny", "--out", cards, *size]) == 0
    return folder / "cards" / "gcn.tiny"


@pytest.fixture
def card(made, empty):
    """A copy of it in the working folder."""
    return Path(shutil.copytree(made, "gcn.tiny"))


def change_metrics(card, change):
    path = card / "metrics.json"
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))
    return metrics


# ---- what a card holds -------------------------------------------------------------------------


def test_a_complete_card_reports_all_that_was_measured(card):
    assert {path.name for path in card.iterdir()} == FILES
    assert set(check_card(card)) == FILES
    metrics = json.loads((card / "metrics.json").read_text())
    assert missing(metrics) == []
    assert metrics["measurements"]["transfer_lattice"] == "square(12, 12)"
    run = metrics["rollout"]
    assert (run["lattice"], run["steps"], run["replicas"]) == ("square(8, 8)", 10, 2)
    names = [entry["name"] for entry in run["observables"]]
    assert "exact potential per site" in names
    assert "kinetic temperature" in names
    page = (card / "README.md").read_text()
    for entry in run["observables"]:
        assert f"| {entry['name']} | {entry['exact']:.4g} ±" in page
    assert f"{metrics['measurements']['rmse_transfer']:.4f}" in page
    assert "## Citation" in page


@pytest.mark.parametrize("name", list_pretrained())
def test_every_card_of_the_library_is_complete(name):
    """Measurements, pictures, page, hashes and golden outputs: what publishing would ask for."""
    check_card(card_folder(name))
    page = (card_folder(name) / "README.md").read_text()
    assert f"note = {{model card {name}}}" in page


def test_the_hub_reads_the_results_of_the_page(card):
    from huggingface_hub import ModelCard

    data = ModelCard.load(card / "README.md").data
    metrics = json.loads((card / "metrics.json").read_text())["measurements"]
    found = {(r.metric_name, r.dataset_split): r.metric_value for r in data.eval_results}
    key = ("RMSE of density, states along quenches", "test")
    assert found[key] == metrics["rmse_trajectory"]
    assert (data.license, data.library_name) == ("mit", "lattice-zoo")
    assert data.datasets == ["lattice-zoo/holstein_weak"]


def test_the_example_of_the_page_runs(card, monkeypatch):
    page = (card / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line]) <= 5
    code = code.replace('"gcn.tiny"', '"local-dir:gcn.tiny"')
    scope = {"values": torch.randn(3, 64, 1)}
    exec(code, scope)
    assert scope["outputs"]["density"].shape == (3, 64, 1)


def test_a_run_with_an_exact_network_in_place_agrees_with_the_exact_run(made, tmp_path):
    """What is compared differs by the network alone: the exact density gives the same run."""
    from latticezoo.simulate.systems import create_system
    from latticezoo.symmetry.lattices import square
    from latticezoo.training.rollout import measure_rollout, rollout_plan

    system = create_system("holstein_weak")

    def exact(fields, lattice):
        return {"density": system.labels(fields, lattice)["density"]}

    plan = rollout_plan(system, square(6), 5, 2)
    found = measure_rollout(exact, plan, tmp_path / "picture.png")
    for entry in found["observables"]:
        assert entry["network"] == pytest.approx(entry["exact"], rel=1e-9, abs=1e-9)
    learned = measure_rollout(load_pretrained(made), plan, tmp_path / "picture.png")
    differences = [abs(entry["network"] - entry["exact"]) for entry in learned["observables"]]
    assert max(differences) > 1e-4  # two epochs teach little


# ---- what a card lacks -------------------------------------------------------------------------


def test_missing_measurements_are_all_listed(card, refused):
    def change(metrics):
        del metrics["rollout"], metrics["measurements"]["rmse_transfer"]
        metrics["measurements"]["rmse_all"] = float("nan")
        del metrics["hardware"]["cpu"]

    change_metrics(card, change)
    sentence = refused("publish", card, "elsewhere")
    for part in (
        "errors on another size of the lattice (transfer)",
        "observables of a roll-out beside the exact run (rollout)",
        "hardware.cpu",
        "measurements.rmse_all as the schema wants it",
    ):
        assert part in sentence
    assert "latticezoo card gcn.tiny" in sentence


def test_one_command_measures_what_a_card_lacks(card, command, refused):
    def change(metrics):
        del metrics["rollout"]
        for name in [name for name in metrics["measurements"] if "transfer" in name]:
            del metrics["measurements"][name]

    before = json.loads((card / "metrics.json").read_text())
    change_metrics(card, change)
    (card / "rollout.png").unlink()
    status, out, _ = command("card", card, "--steps", 10, "--replicas", 2)
    assert status == 0
    assert "rollout.png" in out
    after = json.loads((card / "metrics.json").read_text())
    assert after["rollout"]["observables"] == before["rollout"]["observables"]
    transfer = "transfer_rmse_trajectory"
    assert after["measurements"][transfer] == pytest.approx(before["measurements"][transfer])
    assert {path.name for path in card.iterdir()} == FILES
    assert set(check_card(card)) == FILES
    assert "complete card already" in refused("card", card)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("## Citation\n", "## Empty\n\n## Citation\n", "nothing stands under the heading 'Empty'"),
        ("license: mit\n", "", "its metadata lack license"),
        ("---\n", "", "does not begin with metadata"),
    ],
)
def test_a_page_with_gaps_is_refused(card, refused, old, new, fault):
    page = (card / "README.md").read_text()
    assert page_faults(page) == []
    (card / "README.md").write_text(page.replace(old, new, 1))
    assert fault in refused("publish", card, "elsewhere")


def test_the_cards_of_the_library_are_complete_or_say_what_they_lack(command):
    """No card is sent that lacks a measurement; which do is found, not claimed."""
    from latticezoo.training.card_check import read_metrics
    from latticezoo.zoo import list_pretrained
    from latticezoo.zoo.sources import card_folder

    for name in list_pretrained():
        lacking = missing(read_metrics(card_folder(name)))
        status, _, err = command("publish", name, "elsewhere", "--dry-run")
        assert (status == 0) == (not lacking), err
        assert all(entry in err for entry in lacking)


# ---- sending -----------------------------------------------------------------------------------


def test_a_dry_run_lists_and_sends_nothing(card, command, hub):
    import hashlib

    for place in ("elsewhere", "memory://zoo/gcn.tiny", "hf-hub:user/gcn.tiny"):
        status, out, _ = command("publish", card, place, "--dry-run")
        assert status == 0
        for name in FILES:
            data = (card / name).read_bytes()
            assert re.search(
                rf"{len(data):,} bytes +sha256 {hashlib.sha256(data).hexdigest()}", out
            )
        assert f"would send 8 files, {sum(p.stat().st_size for p in card.iterdir()):,} bytes" in out
    assert hub.requests == []
    assert not Path("elsewhere").exists()


def test_a_card_goes_to_a_folder_and_back(card, command, refused):
    assert command("publish", card, "zoo/gcn.tiny")[0] == 0
    assert {p.name: p.read_bytes() for p in Path("zoo/gcn.tiny").iterdir()} == check_card(card)
    assert check_golden("local-dir:zoo/gcn.tiny") == 0
    assert "--force replaces it" in refused("publish", card, "zoo/gcn.tiny")
    assert command("publish", card, "zoo/gcn.tiny", "--force")[0] == 0
    assert [p.name for p in Path("zoo").iterdir()] == ["gcn.tiny"]
    Path("other").mkdir()
    assert "it is no card" in refused("publish", card, "other", "--force")


@pytest.mark.parametrize("protocol", ["file", "memory"])
def test_a_card_goes_to_a_url_and_back(card, command, refused, protocol, tmp_path):
    import fsspec

    root = f"{tmp_path}/remote" if protocol == "file" else "/remote"
    url = f"{protocol}://{root}/gcn.tiny"
    system = fsspec.filesystem(protocol)
    assert command("publish", card, url)[0] == 0
    fetched = Path("fetched")
    system.get(f"{root}/gcn.tiny", str(fetched), recursive=True)
    assert {p.name: p.read_bytes() for p in fetched.iterdir()} == check_card(card)
    assert check_golden(fetched) == 0
    assert "--force replaces it" in refused("publish", card, url)
    assert command("publish", card, url, "--force")[0] == 0
    system.rm(root, recursive=True)


def test_a_card_goes_to_the_hub_and_back(card, command, hub):
    status, out, _ = command("publish", card, "hf-hub:user/gcn.tiny")
    assert status == 0
    ((commit, tree),) = hub.repositories["user/gcn.tiny"]
    assert tree == check_card(card)
    assert f"{hub.url}/user/gcn.tiny/commit/{commit}" in out
    network = load_pretrained("hf-hub:user/gcn.tiny")
    for name, value in load_pretrained(card).state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    status, out, _ = command("models", "--check", f"hf-hub:user/gcn.tiny@{commit}")
    assert status == 0
    assert "hashes right, golden outputs within 0.0e+00" in out
    # Sent again after a change, it is another commit.
    change_metrics(card, lambda metrics: metrics.update(split="test, whole trajectories"))
    assert command("publish", card, "hf-hub:user/gcn.tiny")[0] == 0
    assert len(hub.repositories["user/gcn.tiny"]) == 2
    # What the hub serves is simulated with.
    run = ("--lattice", 8, "--steps", 20, "--frame-every", 5, "--out", "quench")
    assert command("simulate", "--model", "hf-hub:user/gcn.tiny", *run)[0] == 0


def test_what_is_wrong_is_refused_before_anything_is_sent(card, refused, hub, monkeypatch):
    assert "hf-hub:user/name" in refused("publish", card, "hf-hub:gcn.tiny")
    assert "main branch" in refused("publish", card, "hf-hub:user/gcn.tiny@v1")
    assert "unknown pretrained model" in refused("publish", "gcn.tyni", "elsewhere")
    assert "Protocol not known" in refused("publish", card, "nowhere://x/y")
    data = bytearray((card / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (card / "model.safetensors").write_bytes(data)
    assert "sha256 differs" in refused("publish", card, "hf-hub:user/gcn.tiny")
    assert hub.requests == []


def test_a_token_is_needed(card, refused, hub, monkeypatch):
    assert "status 403" in refused("publish", card, "hf-hub:others/gcn.tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not let this token write" in refused("publish", card, "hf-hub:user/gcn.tiny")
    monkeypatch.delenv("HF_TOKEN")
    assert "HF_TOKEN is not set" in refused("publish", card, "hf-hub:user/gcn.tiny")
    assert hub.repositories == {}


def test_models_check_takes_folders(card, command, refused):
    status, out, _ = command("models", "--check", f"local-dir:{card}")
    assert status == 0
    assert "1 pretrained network checked" in out
    (card / "golden.safetensors").write_bytes(b"")
    assert "1 of 1 pretrained network failed" in refused("models", "--check", f"local-dir:{card}")
    assert "unknown pretrained model" in refused("models", "--check", "nothing_like_it")


def test_the_metadata_are_yaml_without_surprises(card):
    head = (card / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(head)["tags"][-1] == "gcn"
