"""fit, validate, test, predict: run folders, exact resume, refusals."""

import csv
import json
import signal
from pathlib import Path

import h5py
import pytest
import torch

from latticezoo.zoo.base import ZooModel
from tests.training.conftest import DATA_WORDS, TINY_GCN

FIT = ["fit", *TINY_GCN, *DATA_WORDS]


def rows(folder):
    with Path(folder, "metrics.csv").open() as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def weights(folder, name="last"):
    file = Path(folder, "checkpoints", f"{name}.ckpt")
    return torch.load(file, weights_only=True)["state_dict"]


def assert_same_run(one, other):
    for name in ("last", "best"):
        first, second = weights(one, name), weights(other, name)
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert torch.equal(value, second[key]), (name, key)
    assert rows(one) == rows(other)


def test_fit_then_measure_and_predict(command):
    status, out, _ = command(*FIT, "--trainer.max_epochs", 3, "--out", "run")
    assert status == 0
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv", "config.yaml"):
        assert f"run/{name}" in out
        assert Path("run", name).stat().st_size > 0
    assert any(Path("run/tensorboard").iterdir())
    assert len(rows("run")) == 3
    assert json.loads(Path("run/run.json").read_text())["state"] == "finished"
    assert not list(Path().rglob(".*-*"))  # nothing half-written lies about

    status, out, _ = command("test", "--run", "run")
    assert status == 0
    found = json.loads(Path("run/test.json").read_text())
    assert "run/test.json" in out
    assert found["test/rmse"] > 0

    status, out, _ = command("validate", "--run", "run", "--out", "val.json")
    assert status == 0
    best = min(float(row["val/rmse"]) for row in rows("run"))
    assert json.loads(Path("val.json").read_text())["val/rmse"] == pytest.approx(best, rel=1e-6)

    status, out, _ = command("predict", "--run", "run", "--out", "p.h5")
    assert status == 0
    with h5py.File("p.h5") as file:
        predicted, exact = file["predicted/density"][...], file["exact/density"][...]
    assert predicted.shape == exact.shape
    rmse = ((predicted - exact) ** 2).mean() ** 0.5
    assert rmse == pytest.approx(found["test/rmse"], rel=1e-5)


def test_the_default_folder_is_named_by_the_options(command):
    for _ in range(2):
        status, _, _ = command(*FIT, "--trainer.max_epochs", 1)
        assert status == 0
    assert command(*FIT, "--trainer.max_epochs", 1, "--seed_everything", 1)[0] == 0
    assert len(list(Path("runs").iterdir())) == 2


def test_a_finished_run_is_left_alone(command):
    command(*FIT, "--trainer.max_epochs", 1, "--out", "run")
    before = Path("run/checkpoints/last.ckpt").stat().st_mtime_ns
    status, out, _ = command(*FIT, "--trainer.max_epochs", 1, "--out", "run")
    assert status == 0
    assert "finished" in out
    assert Path("run/checkpoints/last.ckpt").stat().st_mtime_ns == before
    status, _, err = command(*FIT, "--trainer.max_epochs", 2, "--out", "run")
    assert status == 2
    assert "trainer.max_epochs 1, not 2" in err


def test_equal_seeds_give_equal_weights_and_other_seeds_others(command):
    for seed, out in ((0, "a"), (0, "b"), (1, "c")):
        command(*FIT, "--trainer.max_epochs", 2, "--out", out, "--seed_everything", seed)
    assert_same_run("a", "b")
    assert any(not torch.equal(v, weights("c")[k]) for k, v in weights("a").items())


def test_a_folder_with_other_files_is_refused(command):
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("precious")
    status, _, err = command(*FIT, "--out", "mine")
    assert status == 2
    assert "not a run folder" in err
    assert Path("mine/thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("number", "status", "epoch"), [(signal.SIGKILL, -9, 4), (signal.SIGINT, 130, 7)]
)
def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(
    command, start, number, status, epoch
):
    options = ["--trainer.max_epochs", 40, "--model.activation", "relu"]
    assert command(*FIT, *options, "--out", "whole")[0] == 0
    process = start(*FIT, *options, "--out", "torn")
    metrics = Path("torn/metrics.csv")
    found, output = process.kill_when(
        lambda: metrics.exists() and len(metrics.read_text().splitlines()) > epoch, number
    )
    assert found == status, output
    if number == signal.SIGINT:
        assert output.strip().splitlines()[-1].startswith("latticezoo: interrupted")
        assert "Traceback" not in output
    done = len(rows("torn"))
    assert done < 40
    again, out, err = command(*FIT, *options, "--out", "torn")
    assert again == 0, err
    assert "going on" in out
    assert_same_run("whole", "torn")


def test_a_kill_while_a_checkpoint_is_written_keeps_the_one_before(command, monkeypatch):
    command(*FIT, "--trainer.max_epochs", 4, "--out", "whole")
    real, written = Path.write_bytes, []

    def die_in_the_middle(self, data):
        if self.suffix == ".ckpt":
            written.append(self)
            if len(written) == 3:
                real(self, bytes(data)[:100])
                raise KeyboardInterrupt
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", die_in_the_middle)
    status, _, _ = command(*FIT, "--trainer.max_epochs", 4, "--out", "torn")
    assert status == 130
    assert not written[-1].exists()
    assert weights("torn")  # the second epoch's, whole
    monkeypatch.setattr(Path, "write_bytes", real)
    assert command(*FIT, "--trainer.max_epochs", 4, "--out", "torn")[0] == 0
    assert_same_run("whole", "torn")


def test_a_full_disk_is_told_in_one_sentence_and_the_run_goes_on_later(command, monkeypatch):
    real = Path.write_bytes

    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    status, _, err = command(*FIT, "--trainer.max_epochs", 2, "--out", "run")
    assert status == 1
    assert "the disk is full" in err
    assert not list(Path("run").rglob("*.ckpt"))
    assert not list(Path("run").rglob(".*-*"))
    monkeypatch.setattr(Path, "write_bytes", real)
    assert command(*FIT, "--trainer.max_epochs", 2, "--out", "run")[0] == 0


def test_a_budget_in_seconds_ends_training_with_the_learning_rate_at_its_end(command):
    status, _, _ = command(*FIT, "--budget", 0.5, "--out", "run")
    assert status == 0
    table = rows("run")
    record = json.loads(Path("run/run.json").read_text())
    assert record["training_seconds"] >= 0.5
    rates = [float(row["learning_rate"]) for row in table]
    assert rates[-1] < 0.02 * max(rates)


def test_fine_tuning_starts_from_the_weights_and_the_options_of_another_run(command):
    command(*FIT, "--trainer.max_epochs", 3, "--out", "first", "--model.activation", "relu")
    data = FIT[FIT.index("--data") :]
    status, _, err = command("fit", "--init", "first", *data, "--trainer.max_epochs", 1)
    assert status == 0, err
    (folder,) = Path("runs").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["network"]["options"]["activation"] == "relu"
    before = json.loads(Path("first/run.json").read_text())["best_score"]
    assert record["best_score"] < 1.2 * before  # not that of random weights
    still = ["--trainer.max_epochs", 1, "--model.learning_rate", 1e-12, "--model.ema", 0]
    command("fit", "--init", "first", *data, *still, "--out", "still")
    old = torch.load("first/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for name, value in weights("still", "best").items():
        torch.testing.assert_close(value, old[name], rtol=0, atol=1e-6)


def test_weights_that_do_not_fit_are_no_start(command):
    command(*FIT, "--trainer.max_epochs", 1, "--out", "first")
    status, _, err = command(*FIT, "--init", "first", "--model.widths", "[3]")
    assert status == 2
    assert "leave --model out" in err
    other = ["--data", "synthetic", "--data.system", "gradients", "--trainer.max_epochs", 1]
    status, _, err = command("fit", "--init", "first", *other)
    assert status == 2
    assert "was trained for the task 'holstein_square'" in err
    status, _, err = command("fit", "--init", "gcn.holstein_wek", *other)
    assert status == 2
    assert "gcn.holstein_weak" in err


def test_a_configuration_file_by_path_and_by_packaged_name(command):
    Path("mine.yaml").write_text(
        "model: gcn\ndata:\n  class_path: holstein\n  init_args: {lattice: 8, random: 20,"
        " trajectories: 4, frames: 5, last_time: 5.0}\ntrainer: {max_epochs: 1}\n"
    )
    assert command("fit", "--config", "mine.yaml", "--model.widths", "[8,8]")[0] == 0
    words = ["--model.widths", "[8,8]", *DATA_WORDS[2:], "--trainer.max_epochs", 1, "--out", "run"]
    assert command("fit", "--config", "gcn_holstein.yaml", *words)[0] == 0
    network = ZooModel.load_from_checkpoint("run/checkpoints/best.ckpt")
    assert network.options["widths"] == [8, 8]


def test_checkpoint_of_another_network(command):
    command(*FIT, "--trainer.max_epochs", 1, "--out", "run")
    checkpoint = ["--ckpt_path", "run/checkpoints/best.ckpt"]
    status, _, err = command("test", "--model", "descriptor_mlp", *DATA_WORDS, *checkpoint)
    assert status == 2
    assert "'gcn', not 'descriptor_mlp'" in err
    wider = ["--model", "gcn", "--model.widths", "[9,9]"]
    status, _, err = command("fit", *wider, *DATA_WORDS, *checkpoint, "--out", "other")
    assert status == 2
    assert "other options" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--model", "gnc", "--data", "holstein"], "unknown model 'gnc'; did you mean gcn?"),
        (["--model", "gcn", "--data", "holstien"], "did you mean holstein"),
        (["--model", "gcn:big", "--data", "holstein"], "preset of gcn 'big'"),
        ([*FIT[1:], "--model.widht", "3"], "did you mean widths?"),
        ([*FIT[1:], "--trainer.max_epochs", "x"], "trainer.max_epochs is 'x'"),
        ([*FIT[1:], "--data.random", "1.5"], "random of Holstein is '1.5'"),
        ([*FIT[1:], "--trainer.foo", "3"], "'--trainer.foo'"),
        (["--model", "gcn"], "fit needs --data"),
        (["--config", "nope.yaml"], "unknown configuration file 'nope.yaml'"),
        ([*FIT[1:], "--data.lattice", "7"], "odd"),
        ([*FIT[1:], "--data.lattice", "2"], "too small"),
        ([*FIT[1:], "--data.temperature=-1"], "temperature is -1"),
        ([*FIT[1:], "--data.kappa", "0.3"], "unstable"),
        ([*FIT[1:], "--budget", "0"], "budget is 0"),
        (["--model", "descriptor_mlp", *DATA_WORDS, "--data.lattice", "4"], "too small"),
        (["--model", "gcn", "--data", "from_file", "--data.path", "none.h5"], "none.h5"),
    ],
)
def test_bad_input(refused, words, expected):
    assert expected in refused("fit", *words)


def test_data_that_refuse_when_they_are_opened_leave_no_run_folder(command):
    made = ["--data", "chaotic_holstein", "--data.trajectories", 4, "--data.frames", 12]
    words = ["--data.skip", 2, "--data.window", 40, "--data.scored", 4, "--data.sites", 4]
    status, _, err = command("fit", "--model", "autoregression", *made, *words, "--out", "new")
    assert status == 2
    assert "window is 40 frames" in err
    assert not Path("new").exists()


def test_bad_yaml(command):
    Path("bad.yaml").write_text("model: [gcn\n")
    status, _, err = command("fit", "--config", "bad.yaml")
    assert status == 2
    assert "bad.yaml is not valid YAML" in err
    Path("bad.yaml").write_text("model: gcn\ndata: holstein\ntrianer: {max_epochs: 2}\n")
    status, _, err = command("fit", "--config", "bad.yaml")
    assert status == 2
    assert "did you mean trainer?" in err
