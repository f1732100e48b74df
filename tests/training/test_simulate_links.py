"""simulate with gauge links: the three kinds of runs, resuming, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from latticezoo.simulate.dynamics.link_dynamics import LinkSpins
from latticezoo.simulate.trajectory import open_trajectory
from latticezoo.symmetry.errors import InputError
from latticezoo.training.simulate_command import Plan

SHORT = ["--lattice", 2, "--steps", 4, "--sample-every", 2, "--frame-every", 1]
LINKS = ["simulate", "quantum_link.yaml", *SHORT, "--initial.sweeps", 1]


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("quantum_link", ["--initial.sweeps", 1], {"energy", "gauss_violation", "wilson_2x2"}),
        ("su2_links", ["--dynamics.fermions", "ehrenfest"], {"energy", "gauss_violation"}),
        ("su2_links", ["--system.t", 0], {"energy", "electric_square"}),
        ("z2_kinetic", [], {"energy", "plaquette"}),
    ],
)
def test_a_run_of_links_is_written_and_analysed(command, name, words, expected):
    status, out, err = command("simulate", f"{name}.yaml", *SHORT, *words, "--out", "run")
    assert status == 0, err
    for part in ("trajectory.h5", "summary.json", "observers.png", "correlations.png"):
        assert f"run/{part}" in out
        assert Path("run", part).stat().st_size > 0
    summary = json.loads(Path("run/summary.json").read_text())
    assert expected <= set(summary["final"])
    assert summary["autocorrelation_times"]["W"] > 0
    if "gauss_violation" in expected:
        assert summary["gauss_violation"] < 1e-12
        assert summary["energy_drift"] < 1e-3
    with open_trajectory("run/trajectory.h5") as trajectory:
        assert len(trajectory.times) == 5
        assert np.iscomplexobj(trajectory.fields["U"][...]) == (name != "z2_kinetic")


def test_an_interrupted_run_of_links_goes_on_bit_for_bit(command, monkeypatch):
    assert command(*LINKS, "--out", "whole")[0] == 0
    real = LinkSpins.step

    def die(self, state, forces):
        if state.step == 2:
            raise KeyboardInterrupt
        return real(self, state, forces)

    monkeypatch.setattr(LinkSpins, "step", die)
    assert command(*LINKS, "--out", "torn")[0] == 130
    monkeypatch.setattr(LinkSpins, "step", real)
    assert command(*LINKS, "--out", "torn")[0] == 0
    with (
        open_trajectory("whole/trajectory.h5") as one,
        open_trajectory("torn/trajectory.h5") as two,
    ):
        for field in ("U", "E"):
            assert np.array_equal(one.fields[field][...], two.fields[field][...])


def test_large_link_runs_start_from_blocks(command, refused):
    words = ["--lattice", 4, "--steps", 2, "--initial.sweeps", 1, "--out", "run"]
    assert command("simulate", "quantum_link.yaml", *words, "--initial.block", 2)[0] == 0
    assert json.loads(Path("run/summary.json").read_text())["gauss_violation"] < 1e-12
    assert "block is 3" in refused(
        "simulate", "quantum_link.yaml", *words[:-2], "--initial.block", 3
    )


def built(plan):
    return plan.integrator(), plan.state(), plan.observers()


def test_refusals():
    base = {"system": "quantum_link", "lattice": 2}
    for change, message in (
        ({"dynamics": {"name": "llg"}}, "link_spins"),
        ({"dynamics": {"fermions": "frozen"}}, "unknown treatment of the fermions 'frozen'"),
        ({"dynamics": {"temperature": 1.0}}, "move without a bath"),
        ({"model": "some", "dynamics": {"fermions": "ehrenfest"}}, "needs model exact"),
        ({"lattice": 24, "initial": {"kind": "thermal"}}, r"square\(24, 24\) would take hours"),
        ({"observers": ["magnetization"]}, "unknown observer of links"),
        ({"observers": {"wilson_loop": {"width": 0}}}, "sides of 1 or more"),
    ):
        with pytest.raises(InputError, match=message):
            built(Plan.make({**base, **change}))
