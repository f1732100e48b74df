"""Comparisons and cards of sequence models on small series."""

import json
import re
from pathlib import Path

import pytest
import torch

from latticezoo.simulate.trajectory import open_trajectory
from latticezoo.training.card_check import check_card, missing
from latticezoo.training.cli import main
from latticezoo.zoo import load_pretrained

CHAIN = {
    "trajectories": 10,
    "frames": 230,
    "skip": 60,
    "sites": 8,
    "window": 40,
    "scored": 16,
    "val_fraction": 0.2,
    "test_fraction": 0.2,
}
GROWTH = {
    "lattice": 8,
    "trajectories": 10,
    "frames": 12,
    "spacing": 1.0,
    "window": 9,
    "val_fraction": 0.2,
    "test_fraction": 0.2,
}


def words(name, options):
    found = ["--data", name]
    for key, value in options.items():
        found += [f"--data.{key}", str(value)]
    return found


CHAIN_WORDS = words("chaotic_holstein", CHAIN)
GROWTH_WORDS = words("cdw_growth", GROWTH)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, cache):
    """A comparison of two networks that are fit in one pass."""
    out = tmp_path_factory.mktemp("compared")
    models = ["--models", "autoregression,echo_state", "--autoregression.order", "10"]
    few = ["--echo_state.nodes", "30", "--echo_state.washout", "20"]
    size = ["--epochs", "1", "--roll-outs", "6", "--frames", "120", "--out", str(out)]
    assert main(["compare", *CHAIN_WORDS, *models, *few, *size]) == 0
    return out


def test_a_comparison_of_series_measures_climate_with_errors(compared):
    found = json.loads((compared / "leaderboard.json").read_text())
    rows = {row["label"]: row for row in found["members"]}
    assert set(rows) == {
        "exact",
        "persistence",
        "autoregression",
        "autoregression, noise",
        "echo_state",
        "echo_state, noise",
    }
    assert rows["persistence"]["share_all"] == pytest.approx(1.0, rel=0.05)
    assert rows["autoregression"]["share_all"] < 0.5
    assert rows["exact"]["std_error"] > 0
    for label in ("autoregression", "echo_state, noise"):
        assert rows[label]["roll_outs"] == 6
        assert rows[label]["std_error"] > 0
    assert (compared / "roll_outs.png").stat().st_size > 10_000


def test_a_card_of_a_number(compared, command):
    run = compared / "members" / "autoregression"
    assert command("card", run, "--out", "cards")[0] == 0
    card = Path("cards/autoregression.chaotic_holstein")
    check_card(card)
    metrics = json.loads((card / "metrics.json").read_text())
    assert missing(metrics) == []
    assert "another size is another series" in metrics["not_measured"]["transfer"]
    found = metrics["measurements"]
    board = json.loads((compared / "leaderboard.json").read_text())["members"]
    row = next(row for row in board if row["label"] == "autoregression")
    # The spread of the changes has their mean taken off, persistence has not.
    assert found["rmse_all"] == pytest.approx(row["rmse_all"], rel=1e-4)
    assert found["equivariance_float64"] < 1e-12
    names = [entry["name"] for entry in metrics["rollout"]["observables"]]
    assert {"standard deviation", "standard deviation; with noise"} <= set(names)
    page = (card / "README.md").read_text()
    assert "`[batch, frames, 1]`" in page
    assert "persistence has a share of" in page
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    code = code.replace('"autoregression.chaotic_holstein"', f'"local-dir:{card}"')
    scope = {"values": 0.1 * torch.randn(2, 40, 1)}
    exec(code, scope)
    assert scope["outputs"]["delta_n"].shape == (2, 40, 1)


def test_a_card_of_a_field_on_sites(command):
    fit = ["--model", "echo_state", "--model.nodes", 20, "--model.shells", 2, "--model.washout", 3]
    status, _, err = command("fit", *GROWTH_WORDS, *fit, "--out", "run")
    assert status == 0, err
    assert command("card", "run", "--out", "cards", "--transfer", "6")[0] == 0
    card = Path("cards/echo_state.cdw_growth")
    check_card(card)
    metrics = json.loads((card / "metrics.json").read_text())
    assert metrics["measurements"]["transfer_lattice"] == "square(6, 6)"
    assert metrics["measurements"]["equivariance_float64"] < 1e-12
    assert "512 elements" in metrics["measurements"]["equivariance_group"] or (
        "1024 elements" in metrics["measurements"]["equivariance_group"]
    )
    run = metrics["rollout"]
    assert (run["replicas"], run["steps"], run["initial"]["frames"]) == (2, 9, 3)
    assert len(run["relative_error"]) == 9
    exact = {entry["name"]: entry["exact"] for entry in run["observables"]}
    assert 0 < exact["mean square of the order"] < 0.25
    assert -1 < exact["correlation C(1)"] < 1
    network = load_pretrained(f"local-dir:{card}")
    assert network.registry_name == "echo_state"


def test_a_network_goes_on_alone_and_resumes(compared, command):
    run = compared / "members" / "autoregression"
    plan = ["simulate", "--data.name", "chaotic_holstein", *CHAIN_WORDS[2:], "--model", run]
    noisy = [*plan, "--dynamics.noise", 1, "--replicas", 2]
    assert command(*noisy, "--steps", 60, "--out", "whole")[0] == 0
    summary = json.loads(Path("whole/summary.json").read_text())
    assert summary["true_frames"] == 40
    assert summary["time"] == 180.0
    assert summary["dynamics"] == {"name": "roll_out", "noise": 1.0, "dt": 3.0}
    assert summary["climate"]["std"] > 0
    assert Path("whole/roll_out.png").stat().st_size > 5_000
    assert command(*noisy, "--steps", 20, "--out", "part")[0] == 0
    assert command(*noisy, "--steps", 60, "--out", "part")[0] == 0
    frames = [load_trajectory(f"{name}/trajectory.h5") for name in ("whole", "part")]
    assert frames[0].shape == (7, 2, 1)
    assert torch.equal(*frames)


def load_trajectory(path):
    """The frames ``[T, R, C]``."""
    with open_trajectory(path) as trajectory:
        return torch.as_tensor(trajectory.fields["delta_n"][:])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--dynamics.noise", "-1"], "noise is -1"),
        (["--dynamics.name", "langevin"], "unknown dynamics of a series"),
        (["--steps", "0"], "steps is 0"),
        (["--data.order", "delta_Q"], "the series are of 'chaotic_holstein' (delta_Q)"),
        (["--data.name", "holstein"], "'order'"),
    ],
)
def test_a_roll_out_that_cannot_be_is_refused(compared, refused, change, sentence):
    run = compared / "members" / "autoregression"
    assert sentence in refused("simulate", "roll_out.yaml", "--model", run, *change)


def test_a_roll_out_needs_series(compared, refused):
    run = compared / "members" / "autoregression"
    assert "needs data of a time series" in refused(
        "simulate", "--data.name", "holstein", "--model", run
    )
