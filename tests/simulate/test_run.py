"""The promises of a run: the batch, the interruption and the repetition change no bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from harmonic_lattice import Disturbed, HarmonicLattice, Network

from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.brownian import Brownian
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.dynamics.schedule import Ramp
from latticezoo.simulate.observers import (
    Energy,
    FunctionObserver,
    KineticTemperature,
    Observer,
    TimeAverage,
)
from latticezoo.simulate.run import (
    Checkpoint,
    DivergedError,
    Interrupted,
    Trajectory,
    simulate,
)
from latticezoo.simulate.state import State
from latticezoo.simulate.trajectory import open_trajectory
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import square

LATTICE = square(6, 4)
DYNAMICS = Langevin(0.1, Ramp(((0, 0.5), (60, 0.1))), 0.4)
STEPS = 60


def mean_field(snapshot):
    return snapshot.state.fields["Q"].mean((1, 2))


OBSERVERS = (
    Energy(every=5),
    KineticTemperature(every=4),
    FunctionObserver(7, "mean_field", mean_field),
    TimeAverage(observer=Energy(every=3), after=20),
)


def start(replicas=4, seed=3):
    return initial.random(LATTICE, replicas, seed=seed)


def run(force_field=None, dynamics=DYNAMICS, state=None, steps=STEPS, **options):
    options = {"lattice": LATTICE, "observers": OBSERVERS, "progress": False} | options
    field = HarmonicLattice(1.0, 0.18, 0.3) if force_field is None else force_field
    return simulate(field, dynamics, start() if state is None else state, steps, **options)


def same_state(a, b):
    for kind in ("fields", "momenta", "forces"):
        here, there = getattr(a, kind), getattr(b, kind)
        assert here.keys() == there.keys()
        assert all(torch.equal(here[name], there[name]) for name in here)
    assert (a.step, a.time, a.replicas, a.seed) == (b.step, b.time, b.replicas, b.seed)


def same_series(a, b):
    assert a.keys() == b.keys()
    for name in a:
        for part in ("steps", "times", "values"):
            assert np.array_equal(getattr(a[name], part), getattr(b[name], part)), (name, part)


def content(path):
    """Everything in a trajectory, as plain arrays."""
    with open_trajectory(path) as file:
        found = {
            "metadata": file.metadata,
            "replicas": file.replicas,
            "steps": file.steps,
            "times": file.times,
        }
        for quantity in file.metadata["trajectory"]["quantities"]:
            found |= {f"{quantity}/{n}": d[...] for n, d in file.quantity(quantity).items()}
        for name, series in file.observers.items():
            found |= {f"{name}/{part}": v for part, v in vars(series).items() if part != "axes"}
    return found


def same_content(a, b):
    here, there = content(a), content(b)
    assert here.keys() == there.keys()
    for name in here:
        assert np.array_equal(here[name], there[name]), name


# ------------------------------------------------------------------ the batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "dynamics", [DYNAMICS, Brownian(0.05, 0.2, 1.0)], ids=["langevin", "brownian"]
)
def test_the_batch_changes_no_bit(dtype, dynamics):
    """Replicas 5, 6, 7 alone and within 0, …, 7, driven by a convolution network: equal bits.

    (Evaluated in one batch, the same network differs in its last bits.)
    """
    network = Network(dtype)
    observers = (FunctionObserver(5, "mean_field", mean_field),)
    eight, three = (
        run(
            network,
            dynamics,
            initial.random(LATTICE, replicas, seed=3, dtype=dtype),
            30,
            observers=observers,
        )
        for replicas in (8, (5, 6, 7))
    )
    assert eight.state.fields["Q"].dtype == dtype
    same_state(eight.state.select([5, 6, 7]), three.state)
    alone = three.observers["mean_field"].values
    assert np.array_equal(eight.observers["mean_field"].values[:, 5:], alone)


def test_whole_batch_agrees_to_rounding():
    """The faster mode computes the same thing, and a force field may promise equal bits."""
    network = Network(torch.float64)
    alone = run(network, steps=20, observers=())
    whole = run(network, steps=20, observers=(), batch_replicas=True)
    torch.testing.assert_close(whole.state.fields, alone.state.fields, rtol=0, atol=1e-12)

    sizes = []

    class Promising(HarmonicLattice):
        batch_invariant = True

        def forces(self, fields, lattice):
            sizes.append(fields["Q"].shape[0])
            return super().forces(fields, lattice)

    run(Promising(), steps=3)
    assert set(sizes) == {4}


def test_replicas_and_seeds_differ():
    """No two replicas share a trajectory, no two seeds either; the same seed repeats it."""
    Q = run().state.fields["Q"]
    for row in range(4):
        others = torch.cat([Q[:row], Q[row + 1 :]])
        assert ((others - Q[row]).abs().amax((1, 2)) > 0.01).all()
    assert torch.equal(run().state.fields["Q"], Q)
    assert not torch.allclose(run(state=start(seed=4)).state.fields["Q"], Q)
    other_noise = Langevin(0.1, DYNAMICS.temperature, 0.4, seed=4)
    assert not torch.allclose(run(dynamics=other_noise).state.fields["Q"], Q)
    same_noise = Langevin(0.1, DYNAMICS.temperature, 0.4, seed=3)
    assert torch.equal(run(dynamics=same_noise).state.fields["Q"], Q)


# ------------------------------------------------------------------ A then B


@pytest.mark.parametrize("dynamics", [DYNAMICS, Brownian(0.05, 0.2)], ids=["langevin", "brownian"])
def test_a_then_b_is_ab(dynamics):
    """Two runs in a row end in the bits, and take the samples, of one."""
    observers = (FunctionObserver(1, "mean_field", mean_field),)
    whole = run(dynamics=dynamics, observers=observers)
    first = run(dynamics=dynamics, observers=observers, steps=23)
    second = run(dynamics=dynamics, observers=observers, steps=37, state=first.state)
    same_state(second.state, whole.state)
    for part in ("steps", "times", "values"):
        # Both ends of a run are sampled: step 23 is in both halves.
        halves = [getattr(r.observers["mean_field"], part) for r in (first, second)]
        joined = np.concatenate([halves[0][:-1], halves[1]])
        assert np.array_equal(joined, getattr(whole.observers["mean_field"], part))


def test_times_follow_the_time_step():
    """Time goes on where the first run ended when the second has another step."""
    first = run(dynamics=Langevin(0.1, 0.1, 0.1), steps=30, observers=())
    second = run(dynamics=Langevin(0.05, 0.1, 0.1), steps=20, observers=(), state=first.state)
    assert first.state.time == 30 * 0.1
    assert second.state.time == 30 * 0.1 + 20 * 0.05


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl")])
def test_signal_saves_and_the_same_command_goes_on(tmp_path, number, name):
    """The signal ends the run after the step in hand; a rerun ends in the bits of no signal."""

    def command(folder, force_field):
        return run(
            force_field,
            trajectory=Trajectory(folder / "run.h5", every=4, quantities=("fields", "momenta")),
            checkpoint=Checkpoint(folder / "run.ckpt", every_steps=25, every_seconds=None),
        )

    undisturbed = command(tmp_path / "a", Disturbed(1.0, 0.18, 0.3))
    # One force call for each replica and step, the start included: call 150 is in step 37.
    for call in (150, 30):
        field = Disturbed(1.0, 0.18, 0.3, call, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match=f"stopped by {name}.* at step .* of 60") as caught:
            command(tmp_path / "b", field)
        assert "run the same command again" in str(caught.value)
        assert not (tmp_path / "b" / "run.h5").exists()
    assert caught.value.step == 37 + 8
    resumed = command(tmp_path / "b", Disturbed(1.0, 0.18, 0.3))
    assert resumed.steps_done == 60 - 45
    same_state(resumed.state, undisturbed.state)
    same_series(resumed.observers, undisturbed.observers)
    same_content(tmp_path / "a" / "run.h5", tmp_path / "b" / "run.h5")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["run.ckpt", "run.h5"]
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


def test_signal_in_a_call_that_fails_for_it(tmp_path):
    """Ctrl-C reaches the force field's workers too: their failure does not lose the state."""

    def event():
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("a worker died")

    with pytest.raises(Interrupted, match="at step 11 of 60"):
        run(Disturbed(1.0, 0.18, 0.3, 50, event), checkpoint=tmp_path / "run.ckpt")
    resumed = run(Disturbed(1.0, 0.18, 0.3), checkpoint=tmp_path / "run.ckpt")
    same_state(resumed.state, run().state)


def test_signal_without_a_checkpoint_leaves_nothing(tmp_path):
    """No checkpoint asked for: the sentence says so, and no file is left."""
    field = Disturbed(1.0, 0.18, 0.3, 50, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="nothing was kept, for no checkpoint"):
        run(field, trajectory=tmp_path / "run.h5")
    assert not list(tmp_path.iterdir())


def test_outside_of_the_main_thread():
    """Where Python allows no signal handlers, a run works without."""
    results = []
    thread = threading.Thread(target=lambda: results.append(run(steps=5)))
    thread.start()
    thread.join()
    same_state(results[0].state, run(steps=5).state)


# ------------------------------------------------------------------ checkpoints


def test_longer_run_goes_on_from_a_finished_one(tmp_path):
    """More steps under the same names: the trajectory grows to that of one long run."""
    files = {
        "trajectory": Trajectory(tmp_path / "run.h5", every=6),
        "checkpoint": Checkpoint(tmp_path / "run.ckpt", every_steps=10),
    }
    run(steps=22, **files)
    again = run(steps=22, **files)
    assert again.steps_done == 0
    same_series(again.observers, run(steps=22).observers)
    on = run(steps=23, **files)  # no new frame in this step, yet the state goes on
    assert on.steps_done == 1
    long = run(steps=60, **files)
    assert long.steps_done == 60 - 23
    whole = run(trajectory=Trajectory(tmp_path / "whole.h5", every=6))
    same_state(long.state, whole.state)
    same_series(long.observers, whole.observers)
    same_content(tmp_path / "run.h5", tmp_path / "whole.h5")
    with pytest.raises(InputError, match="is at step 60, beyond step 50"):
        run(steps=50, **files)


def test_observers_alone_resume_too(tmp_path):
    """Without a trajectory the samples live beside the checkpoint."""
    checkpoint = Checkpoint(tmp_path / "run.ckpt", every_steps=7)
    field = Disturbed(1.0, 0.18, 0.3, 150, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(field, checkpoint=checkpoint)
    resumed = run(Disturbed(1.0, 0.18, 0.3), checkpoint=checkpoint)
    assert resumed.steps_done == 60 - 35
    same_series(resumed.observers, run().observers)


def test_wall_clock_checkpoints(tmp_path):
    """With an interval of no time at all, every step is saved; with a long one, the end alone."""
    saved = []
    for seconds in (0.0, 1000.0):
        path = tmp_path / f"{seconds}.ckpt"
        field = Disturbed(1.0, 0.18, 0.3, 99, lambda path=path: saved.append(path.exists()))
        run(field, checkpoint=Checkpoint(path, every_seconds=seconds))
        assert path.exists()
    assert saved == [True, False]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"force_field": HarmonicLattice(1.0, 0.19, 0.3)}, r"force_field.coupling \(0.18 there"),
        ({"dynamics": Langevin(0.2, 0.1, 0.4)}, r"dynamics.dt \(0.1 there, 0.2 here\)"),
        ({"state": start(seed=5)}, r"initial.fields.Q.sha256, seed \(3 there, 5 here\)"),
        ({"state": start(3)}, "replicas"),
        ({"observers": OBSERVERS[:2]}, "observers"),
        ({"trajectory": "other.h5"}, "trajectory"),
        ({"lattice": square(4, 6)}, r"lattice \('square\(6, 4\)' there"),
        ({"batch_replicas": True}, "batch_replicas"),
    ],
)
def test_checkpoint_of_another_run(tmp_path, change, named):
    """It is refused in one sentence that says what differs, and left as it was."""
    path = tmp_path / "run.ckpt"
    run(checkpoint=path)
    before = path.read_bytes()
    if "trajectory" in change:
        change = {"trajectory": tmp_path / "other.h5"}
    with pytest.raises(InputError, match=f"belongs to another run, which differs in .*{named}"):
        run(checkpoint=path, **change)
    assert path.read_bytes() == before
    assert run(checkpoint=path).steps_done == 0


def test_checkpoint_knows_the_weights(tmp_path):
    """A network with one weight changed is another run."""
    network = Network(torch.float64)
    run(network, observers=(), checkpoint=tmp_path / "run.ckpt", steps=3)
    with torch.no_grad():
        network.weights[1][0, 0, 0, 0] += 1e-12
    with pytest.raises(InputError, match=r"differs in force_field\.weights"):
        run(network, observers=(), checkpoint=tmp_path / "run.ckpt", steps=3)


def test_a_second_process_on_the_same_files(tmp_path):
    """While one process runs, another is refused: their files would mix."""
    folder = tmp_path / "run.ckpt.parts"
    folder.mkdir()
    code = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(InputError, match="another process is running this simulation"):
            run(checkpoint=tmp_path / "run.ckpt")
        other.stdin.close()
    assert run(checkpoint=tmp_path / "run.ckpt").steps_done == 60


# ------------------------------------------------------------------ NaN


class Explosive(HarmonicLattice):
    """NaN on one site of one replica at one step; calls are one a replica."""

    def forces(self, fields, lattice):
        force = super().forces(fields, lattice)["Q"]
        CALLS.append(1)
        if len(CALLS) == 4 * 31 + 3:  # the start and thirty steps, then the third replica
            force[0, 5] = torch.nan
        return {"Q": force}


CALLS: list[int] = []


def test_nan_stops_the_run_and_keeps_the_checkpoint(tmp_path):
    """The sentence says step, replica and remedy; the checkpoint is the last good one."""
    CALLS.clear()
    with pytest.raises(DivergedError) as caught:
        run(
            Explosive(),
            state=start((10, 11, 12, 13)),
            observers=(),
            checkpoint=Checkpoint(tmp_path / "run.ckpt", every_steps=8),
        )
    message = str(caught.value)
    assert "the force on 'Q' is not finite at step 31 in replica 12" in message
    assert "dt below 0.1" in message
    assert "run.ckpt" in message
    assert (caught.value.step, caught.value.replica) == (31, 12)
    resumed = run(
        Explosive(), state=start((10, 11, 12, 13)), observers=(), checkpoint=tmp_path / "run.ckpt"
    )
    assert resumed.steps_done == 60 - 24
    same_state(resumed.state, run(HarmonicLattice(), state=start((10, 11, 12, 13))).state)


def test_too_large_a_step_is_noticed(tmp_path):
    """An unstable integrator ends in the sentence, not in a file full of inf."""
    with pytest.raises(DivergedError, match=r"at step .* take a time step dt below 3"):
        run(dynamics=Langevin(3.0, 0.1, 0.1), steps=5000, trajectory=tmp_path / "run.h5")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ bad input


class NoEnergy:
    def forces(self, fields, lattice):
        return {"Q": -fields["Q"]}


class WrongShape:
    def forces(self, fields, lattice):
        return {"Q": -fields["Q"][..., 0]}


class WrongName:
    def forces(self, fields, lattice):
        return {"X": -fields["Q"]}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": -1}, "steps is -1"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"force_field": 3}, "int is no force field"),
        ({"force_field": NoEnergy()}, "NoEnergy has no energy"),
        ({"force_field": WrongShape()}, "a force on 'Q' of shape [1, 24]"),
        ({"force_field": WrongName()}, "a force on 'X'"),
        ({"lattice": square(5)}, "has 24 sites, but square(5, 5) has 25"),
        ({"state": {"Q": torch.full((2, 24, 1), torch.nan)}}, "not finite at step 0"),
        ({"state": {}}, "no field"),
        ({"state": {"Q": torch.zeros(24)}}, "shape [24]"),
        ({"state": {"Q": torch.zeros(2, 24, 1, dtype=torch.long)}}, "torch.int64"),
        ({"observers": (Energy(), Energy(every=2))}, "two observers are named 'energy'"),
        (
            {"dynamics": Brownian(0.1, 0.1), "observers": (KineticTemperature(),)},
            "Brownian has no momenta",
        ),
        ({"observers": (FunctionObserver(1, "f", lambda s: 1.0),)}, "observer 'f' gave float"),
        ({"observers": (FunctionObserver(1, "f"),)}, "has no function"),
    ],
)
def test_bad_arguments(tmp_path, options, sentence):
    """One sentence each, at once, and no file left behind."""
    with pytest.raises(InputError) as caught:
        run(**options, trajectory=tmp_path / "run.h5", checkpoint=tmp_path / "run.ckpt")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "build",
    [
        lambda: Energy(every=0),
        lambda: Observer(every=True),
        lambda: Energy(name="a/b"),
        lambda: Trajectory("run.h5", every=0),
        lambda: Trajectory("run.h5", quantities=("filds",)),
        lambda: Trajectory("run.h5", dtype="int8"),
        lambda: Checkpoint("run.ckpt", every_steps=0),
        lambda: Checkpoint("run.ckpt", every_seconds=-1),
        lambda: State({"Q": torch.zeros(2, 3, 1)}, replicas=(0, 1, 2)),
        lambda: State({"Q": torch.zeros(2, 3, 1)}, {"Q": torch.zeros(2, 4, 1)}),
        lambda: State({"Q": torch.zeros(2, 3, 1)}, replicas=(0, -1)),
        lambda: State({"Q": torch.zeros(2, 3, 1)}, step=-1),
    ],
)
def test_bad_settings(build):
    """Refused where they are written, in one sentence."""
    with pytest.raises(InputError) as caught:
        build()
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ progress


def test_progress_bar(capsys, tmp_path):
    """Silent when stderr is no terminal; steps, rate and time left when asked for."""
    run(steps=3, progress=True)
    assert capsys.readouterr().err == ""
    run(steps=3, progress="always")
    shown = capsys.readouterr().err
    assert "3/3" in shown
    assert "step/s" in shown


def test_results_without_files():
    """Everything in memory: samples at multiples of ``every``, both ends of the run included."""
    result = run()
    assert result.trajectory is None
    assert result.observers["energy"].steps.tolist() == list(range(0, 61, 5))
    assert result.observers["energy"].values.shape == (13, 4)
    np.testing.assert_array_equal(result.observers["energy"].times, 0.1 * np.arange(0, 61, 5))
    every = run(observers=(Energy(),)).observers["energy"].values
    assert np.array_equal(result.observers["energy"].values, every[::5])
    mean = result.observers["energy_mean"].values
    np.testing.assert_allclose(mean[0], every[21::3].mean(0), rtol=1e-14)
