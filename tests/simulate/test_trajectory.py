"""Trajectory and checkpoint files: content, kills, damage, full disks."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from harmonic_lattice import HarmonicLattice

from latticezoo.simulate import checkpoint as checkpoints
from latticezoo.simulate import initial
from latticezoo.simulate.dynamics.langevin import Langevin
from latticezoo.simulate.observers import Energy, FunctionObserver, TimeAverage
from latticezoo.simulate.run import Checkpoint, Trajectory, simulate
from latticezoo.simulate.trajectory import open_trajectory
from latticezoo.symmetry.errors import InputError
from latticezoo.symmetry.lattices import Lattice, square

LATTICE = square(4, 6)


def run(steps=20, **options):
    start = initial.thermal(LATTICE, (2, 5, 7), temperature=0.3, seed=9)
    return simulate(
        HarmonicLattice(1.0, 0.18),
        Langevin(0.1, 0.3, 0.2, mass=2.0),
        start,
        steps,
        lattice=LATTICE,
        progress=False,
        **options,
    )


def read_everything(path):
    """All datasets of an HDF5 file, in order."""
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: found.update(
                {name: item[()]} if isinstance(item, h5py.Dataset) else {}
            )
        )
        attributes = dict(file.attrs)
    return found, attributes


def same_files(a, b):
    (here, attributes), (there, others) = read_everything(a), read_everything(b)
    assert here.keys() == there.keys()
    assert attributes == others
    return all(np.array_equal(here[name], there[name]) for name in here)


# ------------------------------------------------------------------ content


def test_frames_and_metadata(tmp_path):
    """Shapes, steps, times, and everything needed to know what the run was."""
    path = tmp_path / "sub" / "run.h5"
    states = FunctionObserver(1, "Q", lambda snapshot: snapshot.state.fields["Q"])
    result = run(
        observers=(Energy(every=4), states, TimeAverage(observer=Energy(every=5))),
        trajectory=Trajectory(path, every=3, quantities=("fields", "momenta", "forces")),
    )
    assert result.trajectory == path
    with open_trajectory(path) as file:
        assert file.steps.tolist() == [0, 3, 6, 9, 12, 15, 18]
        np.testing.assert_array_equal(file.times, 0.1 * file.steps)
        assert file.replicas.tolist() == [2, 5, 7]
        for quantity in ("fields", "momenta", "forces"):
            assert file.quantity(quantity)["Q"].shape == (7, 3, 24, 1)
        Q, F = file.fields["Q"][...], file.quantity("forces")["Q"][...]
        exact = HarmonicLattice(1.0, 0.18).forces({"Q": torch.from_numpy(Q[4])}, LATTICE)["Q"]
        assert np.array_equal(F[4], exact.numpy())
        assert np.array_equal(Q, file.observers["Q"].values[::3])
        for name, series in result.observers.items():
            assert np.array_equal(series.values, file.observers[name].values)
            assert np.array_equal(series.steps, file.observers[name].steps)
        assert file.metadata["force_field"] == {
            "class": "HarmonicLattice",
            "coupling": 0.18,
            "quartic": 0.0,
            "stiffness": 1.0,
        }
        assert file.metadata["dynamics"]["class"] == "Langevin"
        assert file.metadata["dynamics"]["dt"] == 0.1
        assert file.metadata["seed"] == 9
        assert Lattice.parse(file.lattice) == LATTICE
        with pytest.raises(InputError, match="unknown trajectory quantity 'spins'"):
            file.quantity("spins")
    _, attributes = read_everything(path)
    assert attributes["library_version"]
    assert [item.name for item in path.parent.iterdir()] == ["run.h5"]


def test_frames_in_single_precision(tmp_path):
    """The file is rounded, the run is not."""
    narrow = run(trajectory=Trajectory(tmp_path / "narrow.h5", dtype="float32"))
    wide = run(trajectory=Trajectory(tmp_path / "wide.h5"))
    assert torch.equal(narrow.state.fields["Q"], wide.state.fields["Q"])
    with open_trajectory(tmp_path / "narrow.h5") as a, open_trajectory(tmp_path / "wide.h5") as b:
        assert a.fields["Q"].dtype == np.float32
        assert np.array_equal(a.fields["Q"][...], b.fields["Q"][...].astype(np.float32))


def test_no_frames(tmp_path):
    """A run that begins and ends between two frames still gives a whole file."""
    state = run(steps=2).state
    simulate(
        HarmonicLattice(),
        Langevin(0.1, 0.3, 0.2),
        state,
        3,
        lattice=LATTICE,
        trajectory=Trajectory(tmp_path / "run.h5", every=10),
        observers=(Energy(every=10),),
        progress=False,
    )
    with open_trajectory(tmp_path / "run.h5") as file:
        assert file.steps.tolist() == []
        assert file.observers == {}


def test_frames_do_not_stay_in_memory(tmp_path, monkeypatch):
    """Long runs write on the way, and the file is the same."""
    run(trajectory=tmp_path / "a.h5", observers=(Energy(),))
    monkeypatch.setattr("latticezoo.simulate.records._BLOCK_BYTES", 2000)
    largest = []

    def look(snapshot):
        largest.append(len(list((tmp_path / "b.h5.parts").glob("*.h5"))))
        return snapshot.state.fields["Q"][:, 0, 0]

    run(trajectory=tmp_path / "b.h5", observers=(Energy(), FunctionObserver(1, "look", look)))
    assert max(largest) > 3
    assert not (tmp_path / "b.h5.parts").exists()
    with open_trajectory(tmp_path / "a.h5") as a, open_trajectory(tmp_path / "b.h5") as b:
        assert np.array_equal(a.fields["Q"][...], b.fields["Q"][...])
        assert np.array_equal(a.observers["energy"].values, b.observers["energy"].values)


# ------------------------------------------------------------------ kill -9


def test_kill_at_any_moment(tmp_path):
    """SIGKILL at every file operation, at force calls and at random: the rerun ends alike."""
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_runs.py")), str(tmp_path)],
        check=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    killed = json.loads((tmp_path / "killed.json").read_text())
    assert killed["file"] > 20
    assert killed["call"] > 1
    assert killed["any"] > 2
    for place in tmp_path.iterdir():
        if place.is_dir():
            assert sorted(item.name for item in place.iterdir()) == ["run.ckpt", "run.h5"], place
            assert same_files(tmp_path / "undisturbed" / "run.h5", place / "run.h5"), place


# ------------------------------------------------------------------ damage


@pytest.fixture
def files(tmp_path):
    """A finished trajectory and its checkpoint."""
    path, saved = tmp_path / "run.h5", tmp_path / "run.ckpt"
    run(trajectory=path, checkpoint=saved, observers=(Energy(),))
    return path, saved


def one_sentence(error, path):
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files(files, share):
    """Cut short anywhere, both are refused by name."""
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
    path, saved = files
    with pytest.raises(InputError) as error, open_trajectory(path):
        pass
    one_sentence(error, path)
    with pytest.raises(InputError) as error:
        run(trajectory=path, checkpoint=saved, observers=(Energy(),))
    one_sentence(error, saved)


def test_changed_bytes(files):
    """A byte changed anywhere is noticed, or lies where nothing is stored."""
    path, saved = files
    chance = np.random.default_rng(0)

    def read_trajectory():
        with open_trajectory(path) as file:
            return [
                file.fields["Q"][...],
                file.observers["energy"].values,
                file.steps,
                file.replicas,
                np.array(json.dumps(file.metadata)),
            ]

    def read_checkpoint():
        state = checkpoints.load(saved).state
        return [state.fields["Q"].numpy(), state.momenta["Q"].numpy(), state.forces["Q"].numpy()]

    for target, read in ((path, read_trajectory), (saved, read_checkpoint)):
        whole, good = target.read_bytes(), read()
        noticed = 0
        for position in chance.integers(0, len(whole), 80):
            changed = bytearray(whole)
            changed[position] ^= 0x10
            target.write_bytes(changed)
            try:
                found = read()
            except InputError:
                noticed += 1
                continue
            assert all(np.array_equal(a, b) for a, b in zip(found, good, strict=True)), position
        assert noticed > 20


def test_other_files(tmp_path, files):
    """What is no trajectory, or is not there, is called so."""
    path, saved = files
    for wrong, sentence in (
        (saved, "is not a finished trajectory"),
        (tmp_path / "absent.h5", "there is no trajectory at"),
        (tmp_path, "there is no trajectory at"),
    ):
        with pytest.raises(InputError, match=sentence), open_trajectory(wrong):
            pass
    with pytest.raises(InputError, match="is not a checkpoint of a simulation"):
        run(trajectory=tmp_path / "new.h5", checkpoint=path, observers=(Energy(),))
    with open_trajectory(path), pytest.raises(FileNotFoundError):
        Path("/nowhere/at/all").read_text()  # the caller's own errors pass through


def test_trajectory_gone_from_under_its_checkpoint(files):
    """A finished run cannot go on without what it recorded."""
    path, saved = files
    path.unlink()
    with pytest.raises(InputError, match="which is gone; delete the checkpoint"):
        run(steps=30, trajectory=path, checkpoint=saved, observers=(Energy(),))


# ------------------------------------------------------------------ no room


def test_full_disk(tmp_path):
    """A write that fails ends in one sentence; the last checkpoint works once there is room."""
    options = {
        "trajectory": Trajectory(tmp_path / "run.h5", quantities=("fields", "forces")),
        "checkpoint": Checkpoint(tmp_path / "run.ckpt", every_steps=150),
        "observers": (Energy(),),
    }
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Parts of 150 frames fit, the whole trajectory does not: the kernel refuses to write on.
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*run\.h5'$") as error:
            run(steps=400, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.filename == str(tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()
    assert not list(tmp_path.glob(".run*"))
    assert run(steps=400, **options).steps_done == 0
    run(
        steps=400,
        **(
            options
            | {
                "checkpoint": None,
                "trajectory": Trajectory(tmp_path / "whole.h5", quantities=("fields", "forces")),
            }
        ),
    )
    assert same_files(tmp_path / "run.h5", tmp_path / "whole.h5")


def test_unwritable_folder(tmp_path):
    """A path under a file is refused before the first step."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run(trajectory=tmp_path / "file" / "run.h5")
