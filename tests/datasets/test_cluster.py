"""Making datasets on a Dask cluster: the bytes of one process, whoever does the units."""

import gc
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy_recipe

from latticezoo.datasets import cluster
from latticezoo.datasets.make import make_dataset
from latticezoo.symmetry.errors import InputError

distributed = pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
HERE = Path(__file__).parent


def make(path, **options):
    return make_dataset("toy", path=path, progress=False, **options)


@pytest.fixture
def address():
    """A scheduler with two workers, threads of this process, which answers at a TCP port."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        dashboard_address=None,
    ) as here:
        yield here.scheduler_address


def test_an_address_gives_the_bytes_of_one_process(tmp_path, address):
    whole = make(tmp_path / "whole.h5", workers=1).read_bytes()
    assert make(tmp_path / "a.h5", cluster=address).read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "whole.h5"]


def test_only_what_is_missing_is_done(tmp_path, address, monkeypatch):
    whole = make(tmp_path / "whole.h5", workers=1).read_bytes()
    with pytest.raises(InputError, match=r"^the toy is broken\.$"):
        make(tmp_path / "a.h5", cluster=address, trouble="input")
    # What was finished before the trouble stays, and the same command goes on from there.
    finished = len(list(tmp_path.glob("a.h5.parts/block-*.h5")))
    done = []
    run = toy_recipe.Toy.run
    monkeypatch.setattr(
        toy_recipe.Toy, "run", lambda *args: done.append(args[1].name) or run(*args)
    )
    assert make(tmp_path / "a.h5", cluster=address).read_bytes() == whole
    assert len(done) == 4 - finished
    assert "block-2" in done


def test_a_fault_of_a_worker_comes_out(tmp_path, address):
    with pytest.raises(ZeroDivisionError, match="a fault"):
        make(tmp_path / "a.h5", cluster=address, trouble="fault")
    assert not list(tmp_path.glob("*.h5"))


def test_workers_with_other_versions_are_refused(tmp_path, address, monkeypatch):
    run = toy_recipe.Toy.run

    def elsewhere(*args):
        data = run(*args)
        return replace(data, source=replace(data.source, created_with={"numpy": "0"}))

    monkeypatch.setattr(toy_recipe.Toy, "run", elsewhere)
    with pytest.raises(InputError, match=r"has {'numpy': '0'}, but here it is {'numpy': '1'}"):
        make(tmp_path / "a.h5", cluster=address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "nonsense", "carrier-pigeon://host:1", "missing.json"]
)
def test_a_bad_address_is_told_in_a_sentence(tmp_path, monkeypatch, capsys, address):
    from latticezoo.training import cli

    monkeypatch.setattr(cluster, "PATIENCE", 0.3)
    status = cli.main(
        ["data", "make", "toy", "--out", str(tmp_path / "a.h5"), "--cluster", address]
    )
    told = capsys.readouterr().err.splitlines()
    assert status != 0
    assert len(told) == 1
    assert address in told[0]
    assert "Dask scheduler" in told[0]
    assert list(tmp_path.iterdir()) == []
    left = [
        o for o in gc.get_objects() if isinstance(o, distributed.Client) and o.status != "running"
    ]
    assert left == []  # collected later, it could stop another client for ever


def test_a_foreign_cluster_has_its_own_workers(tmp_path):
    with pytest.raises(InputError, match="leave out the number of workers, 3"):
        make(tmp_path / "a.h5", cluster="tcp://127.0.0.1:1", workers=3)


def test_without_dask_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'lattice-zoo\[dask\]'"):
        make(tmp_path / "a.h5", cluster="local")


@pytest.mark.slow
def test_processes_of_this_machine_give_the_bytes_of_one_process(tmp_path):
    whole = make(tmp_path / "whole.h5", workers=1).read_bytes()
    assert make(tmp_path / "a.h5", cluster="local", workers=2).read_bytes() == whole


@pytest.mark.slow
def test_a_dying_worker_is_told(tmp_path):
    with pytest.raises(ChildProcessError, match="workers of the cluster died over the same unit"):
        make(tmp_path / "a.h5", cluster="local", workers=1, trouble="death")


@pytest.mark.slow
def test_a_scheduler_file_as_under_slurm(tmp_path):
    """The commands that the documentation shows, without srun; exact labels of a real recipe."""
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    common = ["--scheduler-file", str(file), "--no-dashboard"]
    dask = [sys.executable, "-m", "dask"]
    started = [
        subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
        for command in (
            [*dask, "scheduler", "--port", "0", *common],
            [*dask, "worker", "--nthreads", "1", *common],
        )
    ]
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        options = {"lattice": "square(6)", "random": 4, "trajectories": 2, "frames": 3}
        made = [
            make_dataset(
                "holstein_square", path=tmp_path / name, progress=False, **options, **where
            ).read_bytes()
            for name, where in (("a.h5", {"cluster": str(file)}), ("b.h5", {"workers": 1}))
        ]
        assert made[0] == made[1]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)
