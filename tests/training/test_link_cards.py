"""Comparisons and cards of networks on gauge links: complex fields, runs of links, other sizes."""

import json
from pathlib import Path

import pytest
import torch

from latticezoo.simulate.systems.gauge_fermions import GaugeFermions
from latticezoo.simulate.systems.quantum_link import QuantumLink
from latticezoo.simulate.systems.wilson_loops import WilsonLoops
from latticezoo.symmetry.lattices import square
from latticezoo.training.card_check import check_card, missing
from latticezoo.training.evaluate import pairs
from latticezoo.training.rollout import obstacle, rollout_plan
from latticezoo.zoo import check_golden, load_pretrained

TINY = {"width": 4, "odd_width": 3, "blocks": 1}
RUNS = {
    "quantum_link": {
        "lattice": 4,
        "trajectories": 3,
        "frames": 3,
        "last_time": 1.0,
        "options": '{"sweeps": 2}',
    },
    "gauge_fermions": {
        "group": "U1",
        "lattice": 4,
        "random": 10,
        "thermal": 10,
        "target": "bond,energy_per_site",
    },
}


@pytest.mark.parametrize("data", sorted(RUNS))
def test_cards_of_links_are_complete(command, data):
    words = [w for name, value in RUNS[data].items() for w in (f"--data.{name}", value)]
    options = [w for name, value in TINY.items() for w in (f"--wilson_gnn.{name}", value)]
    made = ["compare", "--data", data, *words, "--models", "wilson_gnn", *options]
    status, _, err = command(*made, "--epochs", 1, "--accelerator", "cpu", "--out", "board")
    assert status == 0, err
    row = json.loads(Path("board/leaderboard.json").read_text())["members"][0]
    assert row["equivariance_float64"] < 1e-10
    assert row["equivariance_float32"] < 1e-4
    run = "board/members/wilson_gnn"
    status, _, err = command(
        "card", run, "--name", "wilson_gnn.tiny", "--steps", 4, "--replicas", 2
    )
    assert status == 0, err
    card = Path("cards/wilson_gnn.tiny")
    check_card(card)
    metrics = json.loads((card / "metrics.json").read_text())
    assert missing(metrics) == []
    assert metrics["measurements"]["transfer_lattice"] == "square(6, 6)"
    assert check_golden(card) < 1e-5
    page = (card / "README.md").read_text()
    assert "[batch, sites, 2]" in page
    if data == "gauge_fermions":
        assert metrics["not_measured"] == {
            "rollout": "What this network gives (bond, energy_per_site) moves no links."
        }
        energy = metrics["measurements"]["other_targets"]["energy_per_site"]
        assert 0 < energy["rmse_random"] < 10 * energy["spread_random"]
        assert (
            f"| energy_per_site, random and thermal links (2) | {energy['rmse_random']:#.3g} |"
            in page
        )
        assert "| bond, random and thermal links (2) |" in page
        return
    names = {entry["name"] for entry in metrics["rollout"]["observables"]}
    assert {"exact potential per site", "plaquette", "mean square of the electric field"} <= names
    assert load_pretrained(card).energy is not None


def test_what_moves_links_makes_runs():
    system = GaugeFermions("U1")
    assert obstacle(system, system.task(target="bond,current")) is None
    assert "moves no links" in obstacle(system, system.task(target="bond"))
    assert "no dynamics" in obstacle(WilsonLoops("SU2"), WilsonLoops("SU2").task())
    plan = rollout_plan(QuantumLink(), square(4), 5, 2, 0.05)
    assert plan.dynamics == {"name": "link_spins", "dt": 0.05}
    assert plan.initial == {"kind": "thermal"}


def test_errors_of_complex_targets_are_those_of_both_parts():
    values = torch.tensor([[[1 + 2j, 3 - 1j]]])

    class Samples:
        lattice, fields, kind = square(1), {"U": values}, torch.zeros(1, dtype=torch.int64)
        targets = {"link_field": values}

        def __len__(self):
            return 1

    found = pairs(lambda fields, _: {"link_field": 1j * fields["U"]}, Samples(), "link_field")
    exact, predicted = found["random"]
    assert exact.tolist() == [1, 2, 3, -1]
    assert predicted.tolist() == [-2, 1, 1, 3]
