"""simulate: settings, exact and learned runs, resuming, refusals."""

import json
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.trajectory import open_trajectory
from tests.training.conftest import DATA_WORDS, TINY_GCN

SHORT = ["simulate", "quench.yaml", "--lattice", 6, "--steps", 20, "--replicas", 2]
SHORT += ["--dynamics.dt", 0.1]


def frames(folder):
    with open_trajectory(Path(folder, "trajectory.h5")) as trajectory:
        observers = {name: series.values for name, series in trajectory.observers.items()}
        return trajectory.fields["Q"][...], observers


def assert_same(one, other):
    first, second = frames(one), frames(other)
    assert np.array_equal(first[0], second[0])
    for name, values in first[1].items():
        assert np.array_equal(values, second[1][name], equal_nan=True), name


def test_an_exact_quench_is_written_and_analysed(command):
    status, out, _ = command(*SHORT, "--model", "exact", "--out", "quench")
    assert status == 0
    for name in ("trajectory.h5", "summary.json", "order_parameter.png", "correlation.png"):
        assert f"quench/{name}" in out
        assert Path("quench", name).stat().st_size > 0
    summary = json.loads(Path("quench/summary.json").read_text())
    assert summary["lattice"] == "square(6, 6)"
    assert summary["final"]["time"] == pytest.approx(2.0)
    assert len(summary["final"]["order_parameter"]) == 2
    assert {"hardware", "versions", "system"} <= set(summary)
    fields, observers = frames("quench")
    assert fields.shape == (2, 2, 36, 1)
    assert observers["correlation_function"][:, :, 0] == pytest.approx(1)

    # The same command again finds a finished run.
    before = Path("quench/trajectory.h5").stat().st_mtime_ns
    assert command(*SHORT, "--model", "exact", "--out", "quench")[0] == 0
    assert Path("quench/trajectory.h5").stat().st_mtime_ns == before
    status, _, err = command(*SHORT, "--model", "exact", "--out", "quench", "--seed", 5)
    assert status == 2
    assert "seed" in err


def test_learned_forces_from_a_run_a_checkpoint_and_a_card(command):
    command("fit", *TINY_GCN, *DATA_WORDS, "--trainer.max_epochs", 1, "--out", "run")
    command("card", "run", "--name", "gcn.tiny")
    for number, model in enumerate(("run", "run/checkpoints/best.ckpt", "cards/gcn.tiny")):
        status, _, err = command(*SHORT, "--model", model, "--out", f"q{number}")
        assert status == 0, err
    assert_same("q0", "q1")
    assert_same("q0", "q2")


def test_an_interrupted_run_goes_on_bit_for_bit(command, monkeypatch):
    words = [*SHORT, "--model", "exact", "--checkpoint.every_steps", 5]
    assert command(*words, "--out", "whole")[0] == 0
    real = Langevin.step

    def die_at_13(self, state, forces):
        if state.step == 13:
            raise KeyboardInterrupt
        return real(self, state, forces)

    monkeypatch.setattr(Langevin, "step", die_at_13)
    assert command(*words, "--out", "torn")[0] == 130
    assert not Path("torn/trajectory.h5").exists()
    monkeypatch.setattr(Langevin, "step", real)
    assert command(*words, "--out", "torn")[0] == 0
    assert_same("whole", "torn")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
@pytest.mark.slow
def test_a_killed_process_goes_on_bit_for_bit(command, start, number, status):
    words = [*SHORT[:4], "--replicas", 2, "--steps", 3000, "--checkpoint.every_steps", 50]
    words += ["--model", "exact", "--out"]
    assert command(*words, "whole")[0] == 0
    found, output = start(*words, "torn").kill_when(Path("torn/checkpoint.h5").exists, number)
    assert found == status, output
    assert not Path("torn/trajectory.h5").exists()
    assert "Traceback" not in output
    assert command(*words, "torn")[0] == 0
    assert_same("whole", "torn")


def test_a_full_disk(command, monkeypatch):
    def full(*words, **named):
        raise OSError(28, "No space left on device", "quench/trajectory.h5")

    monkeypatch.setattr("latticezoo.simulate.run.write_trajectory", full)
    status, _, err = command(*SHORT, "--model", "exact", "--out", "quench")
    assert status == 1
    assert "the disk is full" in err
    assert not list(Path("quench").glob("*.png"))
    assert not Path("quench/trajectory.h5").exists()


def test_settings_from_a_file_and_options_that_win(command):
    Path("mine.yaml").write_text(
        "system: {name: holstein, g: 1.5, k: 1.0, kappa: 0.1, temperature: 0.2}\n"
        "lattice: chain(10)\nsteps: 4\nframe_every: 2\nsample_every: 2\n"
        "initial: {kind: staggered, amplitude: 1.0, noise: 0.1}\ndynamics: {damping: 0.5}\n"
    )
    status, _, err = command("simulate", "mine.yaml", "--seed", 3, "--out", "q")
    assert status == 0, err
    summary = json.loads(Path("q/summary.json").read_text())
    assert summary["system"]["kappa"] == 0.1
    assert summary["seed"] == 3
    with h5py.File("q/trajectory.h5") as file:
        assert file["fields/Q"].shape == (3, 1, 10, 1)


BASE = ["simulate", "quench.yaml", "--lattice", 6, "--steps", 2]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([*BASE, "--model", "gcn.holstein"], "unknown model 'gcn.holstein'"),
        ([*BASE, "--model", "nothing.ckpt"], "there is no checkpoint 'nothing.ckpt'"),
        ([*BASE, "--system", "holstein_week"], "did you mean holstein_weak"),
        (["simulate", "quench.yaml", "--lattice", 7, "--steps", 2], "odd"),
        (["simulate", "quench.yaml", "--lattice", 2, "--steps", 2], "too small"),
        (["simulate", "quench.yaml", "--lattice", "cube(4)"], "cube"),
        ([*BASE, "--temperature=-0.1"], "temperature is -0.1"),
        ([*BASE, "--system.kappa", 0.3], "unstable"),
        ([*BASE, "--system.kapa", 0.3], "did you mean kappa?"),
        ([*BASE, "--dynamics.dtt", 0.3], "did you mean dt?"),
        ([*BASE, "--dynamics.dt", "fast"], "dt of dynamics is 'fast'"),
        ([*BASE, "--initial.kind", "randon"], "did you mean random?"),
        ([*BASE, "--initial.amplitud", 2], "did you mean amplitude?"),
        (["simulate", "quench.yaml", "--steps", 0], "steps is 0"),
        (["simulate", "quench.yaml", "--replicas", 0], "replicas is 0"),
        (["simulate", "quensh.yaml"], "did you mean quench.yaml"),
    ],
)
def test_bad_input(refused, words, expected):
    assert expected in refused(*words)


def test_unknown_keys_in_the_file(command):
    Path("mine.yaml").write_text("latice: square(6)\n")
    status, _, err = command("simulate", "mine.yaml")
    assert status == 2
    assert "unknown key of the settings 'latice'; did you mean lattice" in err


def test_a_network_of_another_task_is_refused(command):
    command("fit", *TINY_GCN, *DATA_WORDS, "--trainer.max_epochs", 1, "--out", "run")
    status, _, err = command("simulate", "--lattice", "chain(10)", "--model", "run", "--steps", 2)
    assert status == 2
    assert "'holstein_square'" in err
    assert not Path("simulations").exists()


# ---- damaged data ------------------------------------------------------------------------------


def test_damaged_data_is_refused_before_training(command):
    make = ["data", "make", "holstein_square", "--lattice", 8, "--random", 8, "--trajectories", 0]
    assert command(*make, "--out", "good.h5")[0] == 0
    good = Path("good.h5")
    data = good.read_bytes()
    Path("cut.h5").write_bytes(data[: len(data) // 2])
    Path("nan.h5").write_bytes(data)
    with h5py.File("nan.h5", "r+") as file:
        file["inputs/Q"][3, 5, 0] = np.nan
    for name in ("cut.h5", "nan.h5"):
        words = ["fit", *TINY_GCN, "--data", "from_file", "--data.path", name, "--out", "new"]
        status, _, err = command(*words)
        assert status == 2
        assert name in err
        assert len(err.strip().splitlines()) == 1
        assert not Path("new").exists()
