"""simulate with spins: starting states, LLG dynamics, observers, resuming, refusals."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from latticezoo.simulate.dynamics.llg import LLG
from latticezoo.simulate.dynamics.schedule import Ramp
from latticezoo.simulate.trajectory import open_trajectory
from latticezoo.training import spin_runs
from latticezoo.training.simulate_command import Plan

SHORT = ["simulate", "spin_quench.yaml", "--lattice", 6, "--steps", 12, "--replicas", 2]
SHORT += ["--sample-every", 2, "--frame-every", 4, "--temperature", 0.1]


def frames(folder):
    with open_trajectory(Path(folder, "trajectory.h5")) as trajectory:
        observers = {name: series.values for name, series in trajectory.observers.items()}
        return trajectory.fields["S"][...], observers


def assert_same(one, other):
    first, second = frames(one), frames(other)
    assert np.array_equal(first[0], second[0])
    assert first[1].keys() == second[1].keys()
    for name, values in first[1].items():
        assert np.array_equal(values, second[1][name], equal_nan=True), name


def test_a_quench_of_spins_is_written_and_analysed(command):
    status, out, err = command(*SHORT, "--out", "quench")
    assert status == 0, err
    pictures = ("spins.png", "structure_factor.png", "observers.png")
    for name in ("trajectory.h5", "summary.json", *pictures):
        assert f"quench/{name}" in out
        assert Path("quench", name).stat().st_size > 0
    summary = json.loads(Path("quench/summary.json").read_text())
    assert summary["lattice"] == "triangular(6, 6)"
    assert summary["time_unit"] == 1
    assert summary["final"]["time"] == pytest.approx(1.2)
    assert summary["dynamics"]["form"] == "landau_lifshitz"
    assert {"energy_per_site", "magnetization", "topological_charge", "peak_order"} <= set(
        summary["final"]
    )
    spins, observers = frames("quench")
    assert spins.shape == (4, 2, 36, 3)
    assert np.linalg.norm(spins, axis=-1) == pytest.approx(1, abs=1e-14)
    assert observers["energy"].shape == (7, 2)
    assert np.all(observers["energy"][-1] < observers["energy"][0])

    # The same command again finds a finished run; another seed is another run.
    before = Path("quench/trajectory.h5").stat().st_mtime_ns
    assert command(*SHORT, "--out", "quench")[0] == 0
    assert Path("quench/trajectory.h5").stat().st_mtime_ns == before
    status, _, err = command(*SHORT, "--out", "quench", "--seed", 5)
    assert status == 2
    assert "seed" in err


def test_an_interrupted_run_goes_on_bit_for_bit(command, monkeypatch):
    words = [*SHORT, "--checkpoint.every_steps", 5]
    assert command(*words, "--out", "whole")[0] == 0
    real = LLG.step

    def die_at_8(self, state, forces):
        if state.step == 8:
            raise KeyboardInterrupt
        return real(self, state, forces)

    monkeypatch.setattr(LLG, "step", die_at_8)
    assert command(*words, "--out", "torn")[0] == 130
    assert not Path("torn/trajectory.h5").exists()
    monkeypatch.setattr(LLG, "step", real)
    assert command(*words, "--out", "torn")[0] == 0
    assert_same("whole", "torn")


def test_a_learned_field_drives_spins(command):
    """A network of the task in the place of the exact interaction, from its checkpoint."""
    import pytorch_lightning as lightning
    import torch

    from latticezoo.simulate.systems import create_system
    from latticezoo.zoo import create_model

    torch.manual_seed(0)
    task = create_system("heisenberg_triangular").task("triangular")
    network = create_model("lattice_enn", task, width=8)
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(network)
    trainer.save_checkpoint("net.ckpt")
    words = [
        *SHORT,
        "--lattice",
        12,
        "--steps",
        4,
        "--model",
        "net.ckpt",
        "--system.zeeman",
        "[0,0,0.5]",
    ]
    status, _, err = command(*words, "--out", "learned")
    assert status == 0, err
    spins, _ = frames("learned")
    assert np.linalg.norm(spins, axis=-1) == pytest.approx(1, abs=1e-14)
    assert not np.array_equal(spins[0], spins[-1])
    status, _, err = command(*words, "--lattice", "square(12)", "--out", "other")
    assert status == 2
    assert "heisenberg_triangular" in err


@pytest.mark.parametrize("kind", spin_runs.INITIAL)
def test_every_kind_of_starting_state(kind):
    options = {"spiral": {"q": [0.5, 0]}, "skyrmion": {"radius": 2}}.get(kind, {})
    noise = {} if kind == "random" else {"noise": 0.1}
    plan = Plan.make(
        {
            "system": "heisenberg_triangular",
            "lattice": "triangular(12)",
            "initial": {"kind": kind, **options, **noise},
        }
    )
    spins = plan.state().fields["S"]
    assert spins.shape == (1, 144, 3)
    assert float((spins.norm(dim=-1) - 1).abs().max()) < 1e-15


def test_settings_reach_the_dynamics_and_the_observers():
    plan = Plan.make(
        {
            "system": {"name": "heisenberg", "exchange": [1, 0.5], "dmi": 0.2},
            "lattice": "square(8)",
            "dynamics": {
                "dt": 0.05,
                "damping": 0.3,
                "gamma": -1,
                "form": "gilbert",
                "scheme": "heun",
                "temperature": [[0, 1], [100, 0.1]],
            },
            "observers": {"peak_length": {"peaks": [[1, 0], [0, 1]]}, "peak_order": None},
        }
    )
    ramp = Ramp(((0, 1.0), (100, 0.1)))
    assert plan.integrator() == LLG(0.05, ramp, 0.3, -1.0, "heun", "gilbert")
    found = {observer.label: observer for observer in plan.observers(plan.system)}
    always = {"energy", "magnetization", "topological_charge", "chirality"}
    assert set(found) == always | {"peak_length", "peak_order"}
    assert found["peak_length"].peaks == ((1.0, 0.0), (0.0, 1.0))
    standard = Plan.make({"system": "heisenberg_square"})
    assert standard.integrator() == LLG(0.1, 0.0, 0.1)
    assert {o.label for o in standard.observers()} == always - {"energy"}


def test_another_size_keeps_the_lattice(command):
    assert command(*SHORT, "--lattice", 9, "--out", "a")[0] == 0
    with h5py.File("a/trajectory.h5") as file:
        assert "triangular(9, 9)" in str(dict(file.attrs))


def test_displacements_take_a_ramp():
    plan = Plan.make({"dynamics": {"temperature": [[0, 1.0], [10, 0.1]]}})
    assert plan.integrator().temperature == Ramp(((0, 1.0), (10, 0.1)))


BASE = ["simulate", "spin_quench.yaml", "--lattice", 6, "--steps", 2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([*BASE, "--initial.kind", "tetrahedal"], "did you mean tetrahedral?"),
        ([*BASE, "--initial.kind", "staggered"], "unknown kind of initial state 'staggered'"),
        ([*BASE, "--initial.amplitude", 2], "unknown key of the random initial state"),
        ([*BASE, "--initial.kind", "spiral"], "needs its wave vector q"),
        ([*BASE, "--initial.kind", "skyrmion"], "needs its radius"),
        (
            [*BASE, "--initial.kind", "skyrmion_lattice", "--initial.magnetization", 0],
            "without a direction",
        ),
        ([*BASE, "--dynamics.name", "langevin"], "llg"),
        ([*BASE, "--dynamics.dampin", 0.3], "did you mean damping?"),
        ([*BASE, "--dynamics.form", "gilber"], "did you mean gilbert?"),
        ([*BASE, "--dynamics.gamma", 0], "gamma is 0.0"),
        ([*BASE, "--dynamics.damping=-1"], "damping is -1.0"),
        ([*BASE, "--temperature=-0.1"], "temperature is -0.1"),
        ([*BASE, "--dynamics.temperature", "[[0, 1.0], [0, 0.1]]"], "must rise"),
        ([*BASE, "--dynamics.temperature", "[0, 1.0]"], "pairs [step, temperature]"),
        ([*BASE, "--observers.peak_ordr.window", 0.2], "did you mean peak_order or"),
        ([*BASE, "--observers.peak_order.windw", 0.2], "did you mean window?"),
        ([*BASE, "--observers.peak_order.window", 0.01, "--lattice", 7], "take a larger window"),
        ([*BASE, "--lattice", "chain(9)"], "square and triangular lattices"),
        ([*BASE, "--lattice", 2], "too small"),
        ([*BASE, "--system.exchnge", "[1]"], "did you mean exchange?"),
        ([*BASE, "--system.exchange", "[one]"], "exchange is ['one']"),
        (["simulate", "quench.yaml", "--dynamics.name", "llg"], "langevin"),
        (["simulate", "quench.yaml", "--observers.peak_order.window", 1], "spins only"),
    ],
)
def test_bad_input(refused, words, expected):
    assert expected in refused(*words)


def test_observers_in_a_file(command):
    Path("mine.yaml").write_text(
        "system: heisenberg_square\nlattice: square(6)\nsteps: 2\nobservers: 5\n"
    )
    status, _, err = command("simulate", "mine.yaml")
    assert status == 2
    assert "observers are 5" in err


@pytest.mark.parametrize(
    ("system", "lattice", "advice"),
    [
        ("sd_tetrahedral", "triangular(4, 7)", "multiples of 2"),
        ({"name": "sd_120", "temperature": 0.1}, "triangular(4)", "multiples of 3"),
        ("sd_skyrmion", "triangular(18)", "multiples of 12"),
        ("sd_square", "square(5)", "multiples of 2"),
        ("sd_square", "square(6)", None),
        ("heisenberg", "square(5)", None),
    ],
)
def test_a_lattice_that_cannot_hold_the_order_is_warned_of(system, lattice, advice, caplog):
    Plan.make({"system": system, "lattice": lattice})
    assert (advice in caplog.text) if advice else not caplog.text
