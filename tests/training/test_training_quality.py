"""What fit and compare do for every network: early stopping, clipping, ensembles, precision."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from latticezoo.symmetry.errors import InputError
from latticezoo.training import train as training
from latticezoo.training.callbacks import RunCheckpoint
from latticezoo.training.runs import RunFolder
from latticezoo.zoo import Ensemble, load_pretrained
from latticezoo.zoo.base import ZooModel
from latticezoo.zoo.optimization import TRAINING_DEFAULTS, GradientClip
from tests.training.conftest import DATA_WORDS, TINY_GCN
from tests.training.test_fit import assert_same_run, rows, weights

FIT = ["fit", *TINY_GCN, *DATA_WORDS]


def record(folder):
    return json.loads(Path(folder, "run.json").read_text())


# ---- early stopping ----------------------------------------------------------------------------


def test_patience_ends_training_and_keeps_the_best(command):
    words = [*FIT, "--model.learning_rate", "0.3", "--model.schedule", "constant"]
    words += ["--model.warmup", 0]
    assert command(*words, "--trainer.max_epochs", 40, "--patience", 3, "--out", "run")[0] == 0
    scores = [float(row["val/rmse"]) for row in rows("run")]
    best = int(np.argmin(scores))
    assert len(scores) == best + 4 < 40
    found = record("run")
    assert (found["best_epoch"], found["stopped_early"]) == (best, True)
    assert found["best_score"] == scores[best]
    kept = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    assert kept["epoch"] == best
    # Without patience the same run goes on to its end, through the same states.
    assert command(*words, "--trainer.max_epochs", len(scores), "--out", "free")[0] == 0
    assert_same_run("run", "free")


def test_with_several_targets_the_epoch_of_the_lowest_loss_is_kept(command):
    words = ["fit", "--model", "gauge_gnn", "--model.channels", 2, "--model.layers", 1]
    words += ["--data", "wilson_loops", "--data.lattice", 4, "--data.random", 12]
    words += ["--data.options", "{largest: 2}"]
    words += ["--data.thermal", 0, "--data.val_fraction", "0.3", "--data.batch_size", 2]
    words += ["--model.learning_rate", "0.1", "--model.schedule", "constant"]
    words += ["--trainer.max_epochs", 8, "--out", "run"]
    assert command(*words)[0] == 0
    found, table = record("run"), rows("run")
    losses, errors = ([float(row[f"val/{name}"]) for row in table] for name in ("loss", "rmse"))
    assert np.argmin(losses) != np.argmin(errors)  # which is what makes the choice matter
    assert (found["monitor"], found["best_epoch"]) == ("val/loss", np.argmin(losses))
    assert f"best validation loss {min(losses):.4g}" in command(*words)[1]


@pytest.mark.parametrize("when", ["in the middle", "after the last epoch"])
def test_an_interrupted_run_with_patience_ends_as_an_undisturbed_one(command, monkeypatch, when):
    words = [*FIT, "--model.learning_rate", "0.3", "--model.schedule", "constant", "--model.ema"]
    words += ["0.5", "--trainer.max_epochs", 40, "--patience", 3]
    assert command(*words, "--out", "whole")[0] == 0
    real, saved = RunCheckpoint._save, []

    def save(self, trainer, folder, improved):
        real(self, trainer, folder, improved)
        saved.append(trainer.current_epoch)
        if when == "in the middle" and trainer.current_epoch == self.best_epoch + 2:
            raise KeyboardInterrupt

    def finish(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "_save", save)
        if when == "after the last epoch":
            patch.setattr(training.Session, "finish", finish)
        assert command(*words, "--out", "torn")[0] == 130
    assert command(*words, "--out", "torn")[0] == 0
    assert_same_run("whole", "torn")
    assert record("torn")["stopped_early"]


def test_budget_and_patience_refuse_nonsense(refused):
    assert "patience is 0; it must be at least 1" in refused(*FIT, "--patience", 0)
    without = [*FIT, "--data.val_fraction", "0", "--patience", 3]
    assert "patience needs a validation split" in refused(*without)
    words = ["compare", *DATA_WORDS, "--models", "gcn", "--patience", -1]
    assert "patience is -1" in refused(*words)
    assert "ensemble is 0; it must be a whole number" in refused(*FIT, "--ensemble", 0)
    assert "gradient_clip is a multiple" in refused(*FIT, "--model.gradient_clip", 0.5)


# ---- gradient clipping -------------------------------------------------------------------------


def test_a_single_large_gradient_is_cut_to_a_multiple_of_the_usual_one():
    weight = torch.nn.Parameter(torch.zeros(3))
    clip = GradientClip(2.0)

    def norm_after(gradient):
        weight.grad = torch.tensor(gradient)
        clip.clip([weight])
        return float(weight.grad.norm())

    for _ in range(5):
        assert norm_after([3.0, 0.0, 4.0]) == 5.0
    assert norm_after([300.0, 0.0, 400.0]) == pytest.approx(10.0)
    # What was clipped hardly moves the usual norm: 0.99 · 5 + 0.01 · 10.
    assert float(clip.typical) == pytest.approx(5.05)
    assert norm_after([0.0, 0.5, 0.0]) == 0.5
    assert not np.isfinite(norm_after([float("inf"), 0.0, 0.0]))
    assert np.isfinite(float(clip.typical))
    empty = GradientClip(2.0)
    weight.grad = torch.zeros(3)
    empty.clip([weight])
    assert torch.equal(weight.grad, torch.zeros(3))


def test_a_multiple_of_one_keeps_the_direction_alone():
    weight, unit = torch.nn.Parameter(torch.zeros(2)), GradientClip(1.0)
    for size in (100.0, 1e-3):
        weight.grad = torch.tensor([3.0, 4.0]) * size
        unit.clip([weight])
        torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))
    weight.grad = torch.zeros(2)
    unit.clip([weight])
    assert torch.equal(weight.grad, torch.zeros(2))


def test_clipping_is_reached_from_fit_by_option_and_by_trainer(command):
    """A tight absolute limit on the trainer replaces the relative one of the network."""

    def first_step(*words):
        folder = f"run{len(list(Path().glob('run*')))}"
        common = [*FIT, "--model.optimizer", "adam", "--trainer.max_steps", 2]
        assert command(*common, *words, "--out", folder)[0] == 0
        return folder, weights(folder)

    default, plain = first_step()
    off, without = first_step("--model.gradient_clip", 0)
    _, tight = first_step("--trainer.gradient_clip_val", 1e-9)
    # Nothing out of the ordinary happens here, so that the default changes nothing at all.
    assert all(torch.equal(value, without[name]) for name, value in plain.items())
    assert not all(torch.equal(value, tight[name]) for name, value in plain.items())
    assert TRAINING_DEFAULTS["gradient_clip"] == 5.0
    saved = torch.load(f"{default}/checkpoints/last.ckpt", weights_only=True)
    assert float(saved["typical_gradients"][0]) > 0
    assert not torch.load(f"{off}/checkpoints/last.ckpt", weights_only=True)["typical_gradients"]


def test_a_run_from_before_an_option_existed_is_still_the_same_run(tmp_path):
    new = {"network": {"model": "gcn", "options": {"width": 8, "gradient_clip": 5.0}}, "seed": 0}
    old = {"network": {"model": "gcn", "options": {"width": 8}}, "seed": 0}
    folder = RunFolder(tmp_path / "run")
    folder.claim(old)
    folder.claim(new)
    changed = {**new, "network": {"model": "gcn", "options": {"width": 8, "gradient_clip": 2.0}}}
    with pytest.raises(InputError, match="gradient_clip null, not 2"):
        folder.claim(changed)


# ---- ensembles ---------------------------------------------------------------------------------


def test_fit_trains_an_ensemble_that_all_commands_take(command):
    words = [*FIT, "--ensemble", 3, "--trainer.max_epochs", 2, "--out", "run"]
    status, out, err = command(*words)
    assert status == 0, err
    assert "ensemble of 3 gcn" in out
    network = ZooModel.load_from_checkpoint("run/checkpoints/best.ckpt")
    assert isinstance(network, Ensemble)
    assert len(network.members) == 3
    status, out, err = command("test", "--run", "run")
    assert status == 0, err
    assert command("card", "run", "--name", "gcn.three")[0] == 0
    card = load_pretrained("local-dir:cards/gcn.three")
    assert isinstance(card, Ensemble)
    page = Path("cards/gcn.three/README.md").read_text()
    assert "An ensemble of 3 `gcn`" in page
    measured = json.loads(Path("run/test.json").read_text())["test/rmse"]
    metrics = json.loads(Path("cards/gcn.three/metrics.json").read_text())["measurements"]
    assert metrics["rmse_all"] == pytest.approx(measured, rel=1e-4)
    run = ["simulate", "quench.yaml", "--lattice", 6, "--steps", 20, "--replicas", 2]
    status, _, err = command(*run, "--model", "cards/gcn.three", "--out", "quench")
    assert status == 0, err
    spread = json.loads(Path("quench/summary.json").read_text())["force_spread"]
    assert 0 < spread["rms_mean"] <= spread["largest"]
    # A configuration file says the same with "ensemble: 3", and another number is another run.
    assert "ensemble: 3" in Path("run/config.yaml").read_text()
    status, _, err = command(*FIT, "--ensemble", 2, "--trainer.max_epochs", 2, "--out", "run")
    assert status == 2
    assert "ensemble 3, not 2" in err


@pytest.mark.parametrize(
    "options",
    [["--ensemble", 2], ["--data.dtype", "float64"], ["--data.random_share", 0.7]],
    ids=["ensemble", "float64", "mixed batches"],
)
@pytest.mark.parametrize("ema", [0, 0.5])
def test_interrupted_runs_go_on_bit_for_bit(command, monkeypatch, options, ema):
    words = [*FIT, *options, "--model.ema", ema, "--trainer.max_epochs", 4]
    assert command(*words, "--out", "whole")[0] == 0
    real = RunCheckpoint._save

    def save(self, trainer, folder, improved):
        real(self, trainer, folder, improved)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunCheckpoint, "_save", save)
        assert command(*words, "--out", "torn")[0] == 130
    assert command(*words, "--out", "torn")[0] == 0
    assert_same_run("whole", "torn")


# ---- precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option", [["--trainer.precision", "64-true"], ["--data.dtype", "float64"]]
)
def test_a_float64_run_is_one_from_the_data_to_the_card(command, option):
    words = [*FIT, *option, "--model.ema", 0.9, "--trainer.max_epochs", 2, "--out", "run"]
    status, _, err = command(*words)
    assert status == 0, err
    for name in ("best", "last"):
        floating = {k: v for k, v in weights("run", name).items() if v.is_floating_point()}
        assert {value.dtype for value in floating.values()} == {torch.float64}
        trained = [v for k, v in floating.items() if "weight" in k]
        assert not any(torch.equal(value, value.float().double()) for value in trained)
    saved = Path("run/config.yaml").read_text()
    assert "64-true" in saved
    assert "dtype: float64" in saved
    assert command("test", "--run", "run")[0] == 0
    assert command("predict", "--run", "run", "--out", "p.h5")[0] == 0
    assert command("card", "run", "--name", "gcn.double")[0] == 0
    network = load_pretrained("local-dir:cards/gcn.double")
    assert network.dtype == torch.float64
    page = Path("cards/gcn.double/README.md").read_text()
    assert "parameters, float64." in page
    # Its scale is that of exact labels, not of rounded ones.
    scale = network.target_scaling.scale("density")
    assert not torch.equal(scale, scale.float().double())


def test_compare_trains_in_the_precision_of_the_data_and_ensembles_too(command):
    words = ["compare", *DATA_WORDS, "--data.dtype", "float64", "--models", "gcn", "--epochs", 3]
    words += ["--gcn.widths", "[4,4]", "--gcn.ensemble", 2, "--patience", 2, "--no-baselines"]
    status, _, err = command(*words, "--out", "board")
    assert status == 0, err
    network = ZooModel.load_from_checkpoint("board/members/gcn/checkpoints/best.ckpt")
    assert isinstance(network, Ensemble)
    assert network.dtype == torch.float64
    with Path("board/leaderboard.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["equivariance_float64"]) < 1e-12
    assert int(row["parameters"]) == 2 * sum(p.numel() for p in network.members[0].parameters())
