"""compare, models and card: leaderboard, resuming, weights that can be believed."""

import csv
import json
from pathlib import Path

import pytest
import torch

from latticezoo.training import callbacks, compare
from latticezoo.zoo import check_golden, create_model, load_pretrained
from latticezoo.zoo.sources import card_folder
from tests.training.conftest import DATA_WORDS, TINY_GCN

COMPARE = ["compare", *DATA_WORDS, "--models", "gcn,descriptor_mlp", "--gcn.widths", "[8,8]"]
COMPARE += ["--descriptor_mlp.widths", "[8]", "--epochs", "2", "--out", "board"]


def table(path="board/leaderboard.csv"):
    with Path(path).open() as stream:
        return {row["label"]: row for row in csv.DictReader(stream)}


def test_compare_measures_all_and_goes_on(command):
    status, out, err = command(*COMPARE, "--transfer", "10")
    assert status == 0, err
    rows = table()
    assert set(rows) == {"gcn", "descriptor_mlp", "linear ridge", "training mean"}
    for label in ("gcn", "descriptor_mlp"):
        row = rows[label]
        assert float(row["equivariance_float64"]) < 1e-10
        assert float(row["equivariance_float32"]) < 1e-5
        assert 0 < float(row["rmse_trajectory"]) < 1
        assert float(row["rmse_transfer"]) > 0
        assert float(row["sites_per_second"]) > 0
        per_site = float(row["microseconds_per_site"])
        assert per_site == pytest.approx(1e6 / float(row["sites_per_second"]))
        # Two passes over 16 random configurations and 10 frames of 64 sites.
        trained = float(row["training_sites_per_second"]) * float(row["training_seconds"])
        assert trained == pytest.approx(2 * 26 * 64, rel=1e-2)
        assert (int(row["epochs"]), int(row["parameters"]) > 0) == (2, True)
        for kind in ("all", "trajectory", "random"):
            assert float(row[f"rmse_{kind}"]) > 0
        share = float(row["rmse_random"]) / float(row["spread_random"])
        assert float(row["share_random"]) == pytest.approx(share)
        assert label in out
    details = json.loads(Path("board/leaderboard.json").read_text())
    assert {"hardware", "versions", "members", "split_sizes", "system", "data"} <= set(details)
    errors = [m["rmse_trajectory"] for m in details["members"]]
    assert errors == sorted(errors)
    for name in ("parity", "errors", "accuracy_cost", "learning"):
        assert f"board/{name}.png" in out
        assert Path(f"board/{name}.png").exists()

    weights = Path("board/members/gcn/checkpoints/best.ckpt")
    before = weights.stat().st_mtime_ns
    Path("board/leaderboard.csv").unlink()
    assert command(*COMPARE)[0] == 0
    assert weights.stat().st_mtime_ns == before
    assert table()["gcn"]["rmse_all"] == rows["gcn"]["rmse_all"]

    # A member of a comparison is a run: it can become a card.
    status, out, _ = command("card", "board/members/gcn", "--name", "gcn.small", "--out", "cards")
    assert status == 0
    assert "cards/gcn.small/README.md" in out


def test_the_budget_counts_processor_time_where_that_is_asked_for(command, monkeypatch):
    clock = {"perf_counter": 0.0, "process_time": 0.0}

    def passes(kind, seconds):
        clock[kind] += seconds
        return clock[kind]

    # A busy machine: a second goes by at every look, of which the processor works a hundredth.
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: passes("perf_counter", 1.0))
    monkeypatch.setattr(callbacks.time, "process_time", lambda: passes("process_time", 0.01))
    words = ["compare", *DATA_WORDS, "--models", "gcn", "--gcn.widths", "[8]", "--no-baselines"]
    for extra, out in ((["--processor-time"], "long"), ([], "short")):
        status, _, err = command(*words, "--budget", 0.5, *extra, "--out", out)
        assert status == 0, err
    epochs = [int(table(f"{out}/leaderboard.csv")["gcn"]["epochs"]) for out in ("long", "short")]
    assert epochs[1] == 1 < epochs[0]
    assert json.loads(Path("long/leaderboard.json").read_text())["processor_time"] is True


def test_pretrained_weights_are_measured_and_not_trained(command):
    words = ["compare", *DATA_WORDS, "--models", "gcn.holstein_weak", "--no-baselines"]
    status, _, err = command(*words, "--out", "board")
    assert status == 0, err
    row = table()["gcn.holstein_weak"]
    assert float(row["share_trajectory"]) < 0.2  # it has learned this physics on other data
    assert "training_seconds" not in row
    assert not Path("board/members").exists()
    chain = ["compare", "--data", "holstein", "--data.family", "chain"]
    status, _, err = command(*chain, "--models", "gcn.holstein_weak")
    assert status == 2
    assert "was trained for the task 'holstein_square'" in err


def test_an_interrupted_comparison_trains_only_what_is_missing(command, monkeypatch):
    real, trained = compare.Member.train, []

    def train(self, *words, **named):
        trained.append(self.label)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(self, *words, **named)

    monkeypatch.setattr(compare.Member, "train", train)
    assert command(*COMPARE)[0] == 130
    assert not Path("board/leaderboard.csv").exists()
    before = Path("board/members/gcn/checkpoints/best.ckpt").stat().st_mtime_ns
    monkeypatch.setattr(compare.Member, "train", real)
    assert command(*COMPARE)[0] == 0
    assert Path("board/members/gcn/checkpoints/best.ckpt").stat().st_mtime_ns == before


def test_other_options_need_another_folder(command):
    words = ["compare", *DATA_WORDS, "--models", "gcn", "--gcn.widths", "[8]", "--no-baselines"]
    assert command(*words, "--epochs", 1, "--out", "board")[0] == 0
    status, _, err = command(*words, "--epochs", 2, "--out", "board")
    assert status == 2
    assert "max_epochs 1, not 2" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--data", "holstein", "--models", "gnc"], "unknown model 'gnc'; did you mean gcn?"),
        (["--data", "holstien", "--models", "gcn"], "did you mean holstein"),
        (["--data", "holstein", "--models", "gcn:huge"], "preset of gcn 'huge'"),
        (["--data", "holstein", "--models", "gcn.hostlein"], "unknown model 'gcn.hostlein'"),
        (["--data", "holstein", "--models", "gcn,gcn"], "named twice"),
        (["--data", "holstein", "--models", ","], "no network to compare"),
        (["--data", "holstein", "--models", "gcn", "--epochs", "0"], "at least 1"),
        (["--data", "holstein", "--models", "gcn", "--budget=-1"], "budget is -1"),
        (
            ["--data", "holstein", "--models", "gcn", "--epochs", "1", "--budget", "1"],
            "give one of them",
        ),
        (["--data", "holstein", "--data.latice", "8", "--models", "gcn"], "did you mean lattice"),
        (["--data", "holstein", "--models", "gcn", "--gcn.widht", "8"], "did you mean widths?"),
        ([*DATA_WORDS, "--data.lattice", "6", "--models", "descriptor_mlp"], "too small"),
        ([*DATA_WORDS, "--data.lattice", "9", "--models", "gcn"], "odd"),
        (["--models", "gcn"], "--data"),
    ],
)
def test_bad_input(refused, words, expected):
    assert expected in refused("compare", *words)


def test_models_lists_networks_with_the_papers_count(command):
    load_pretrained("steerable_cnn.holstein_weak")  # what was built before shall not matter
    status, out, _ = command("models")
    assert status == 0
    assert "10,753,793 parameters" in out
    # What is no network for the task is shown with one that it is for.
    assert "112,609 parameters (chaotic_holstein)" in out
    assert "cannot serve" not in out
    status, out, _ = command("models", "gc*", "--json")
    assert json.loads(out)["models"]["gcn"]["presets"]["paper"] == "10,753,793 parameters"


def test_models_check_and_its_refusals(command, refused):
    assert command("models", "--check")[0] == 0
    assert "no network matches 'xyz'" in refused("models", "xyz")


def test_models_shows_the_page_of_a_card(command, refused):
    status, page, _ = command("models", "--page", "gcn.holstein_weak")
    assert status == 0
    assert page.strip() == (card_folder("gcn.holstein_weak") / "README.md").read_text().strip()
    assert "unknown pretrained model 'gcn.holstein_wek'" in refused(
        "models", "--page", "gcn.holstein_wek"
    )


# ---- cards -------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(command):
    assert command("fit", *TINY_GCN, *DATA_WORDS, "--trainer.max_epochs", 1, "--out", "run")[0] == 0


def test_a_card_holds_what_was_trained(run_folder, command):
    assert command("card", "run", "--name", "gcn.tiny")[0] == 0
    folder = Path("cards/gcn.tiny")
    names = {path.name for path in folder.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "golden.safetensors"} <= names
    assert {"metrics.json", "parity.png", "errors.png"} <= names
    assert not list(Path("cards").glob(".*"))
    assert check_golden(folder) < 1e-4
    network = load_pretrained(f"local-dir:{folder}")
    trained = torch.load("run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for name, value in network.state_dict().items():
        assert torch.equal(value, trained[name])
    metrics = json.loads((folder / "metrics.json").read_text())
    measured = metrics["measurements"]
    page = (folder / "README.md").read_text()
    assert f"{measured['rmse_trajectory']:#.3g}" in page
    assert metrics["system"]["g"] == 1.5

    status, _, err = command("card", "run", "--name", "gcn.tiny")
    assert status == 2
    assert "--force" in err
    assert command("card", "run", "--name", "gcn.tiny", "--force")[0] == 0
    assert check_golden(folder) < 1e-4


def test_a_card_reports_large_runs(run_folder, command, refused):
    """Domain growth beside the errors, when the card is made or afterwards."""
    growth = Path(__file__).parents[2] / "benchmarks" / "domain_growth" / "weak_010.json"
    found = json.loads(growth.read_text())
    assert command("card", "run", "--name", "gcn.tiny")[0] == 0
    page = Path("cards/gcn.tiny/README.md")
    assert "Large runs" not in page.read_text()
    for words in (["cards/gcn.tiny"], ["run", "--name", "gcn.other"]):
        assert command("card", *words, "--growth", growth)[0] == 0
        page = Path("cards", words[-1].removeprefix("cards/"), "README.md")
        assert f"| {found['fits']['half_height']['exponent']:.3f} ± " in page.read_text()
        assert "of 8 |" in page.read_text()
        assert check_golden(page.parent) < 1e-4
    assert "--growth" in refused("card", "cards/gcn.tiny")
    Path("other.json").write_text("{}")
    assert "other.json is no JSON file" in refused("card", "run", "--growth", "other.json")


def test_a_changed_byte_is_noticed(run_folder, command):
    command("card", "run", "--name", "gcn.tiny")
    weights = Path("cards/gcn.tiny/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    status, _, err = command("simulate", "--model", "cards/gcn.tiny", "--lattice", 8, "--steps", 2)
    assert status == 2
    assert "sha256" in err
    assert not Path("simulations").exists()


def test_cards_that_are_refused(run_folder, refused, monkeypatch):
    assert "is not the folder of a run" in refused("card", "nowhere")
    assert "lower case" in refused("card", "run", "--name", "My Card")
    assert "--max-bytes" in refused("card", "run", "--max-bytes", 100)
    record = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps({**record, "state": "started"}))
    assert "not finished" in refused("card", "run")
    record.pop("training_seconds")
    Path("run/run.json").write_text(json.dumps(record))
    assert "not measured: measurements.training_seconds." in refused("card", "run")


def test_a_network_that_cannot_serve_the_task(refused, monkeypatch):
    from latticezoo.zoo.gcn import GCN

    def refuse(self, task, **options):
        raise create_model.__globals__["InputError"]("gcn cannot serve the task 'x': no links.")

    monkeypatch.setattr(GCN, "__init__", refuse)
    sentence = refused("compare", "--data", "holstein", "--models", "gcn")
    assert sentence == "gcn cannot serve the task 'x': no links."


def test_members_trained_by_two_processes_at_once_meet_in_one_folder(command, start):
    """Two comparisons with other members into one folder; a third one only measures."""
    common = ["compare", *DATA_WORDS, "--epochs", "2", "--out", "board", "--no-baselines"]
    common += ["--gcn.widths", "[8,8]", "--descriptor_mlp.widths", "[8]"]
    other = start(*common, "--models", "descriptor_mlp")
    status, _, err = command(*common, "--models", "gcn")
    assert status == 0, err
    status, output = other.wait(120)
    assert status == 0, output
    # Whichever wrote last: a whole table of its own member.
    assert len(table()) == 1
    members = ("gcn", "descriptor_mlp")
    files = [Path(f"board/members/{name}/checkpoints/best.ckpt") for name in members]
    before = [file.stat().st_mtime_ns for file in files]
    status, _, err = command(*common, "--models", ",".join(members))
    assert status == 0, err
    assert set(table()) == set(members)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert not [path for path in Path("board").rglob(".*") if path.name != ".lock"]
