"""Training in several processes: the loss curve of one, started by Lightning or by SLURM."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from latticezoo.datasets import batches
from latticezoo.datasets.batches import EpochSampler, MixedSampler, ProcessSampler
from latticezoo.datasets.registry import create_data
from latticezoo.symmetry.errors import InputError
from latticezoo.training.callbacks import Budget
from latticezoo.training.runs import is_helper
from tests.training.conftest import TINY_GCN

#: Data in closed form, made in half a second: 44 training samples, the last batch of four.
DATA = {"lattice": "square(6)", "system": "gradients", "random": 40, "trajectories": 5, "frames": 4}
FIT = ["fit", *TINY_GCN, "--data", "synthetic", "--data.dtype", "float64"] + [
    word for name, value in DATA.items() for word in (f"--data.{name}", str(value))
]
FIT += ["--trainer.max_epochs", "3", "--trainer.accelerator", "cpu"]
TWO = ["--trainer.strategy", "ddp", "--trainer.devices", "2"]


def curve(folder):
    with Path(folder, "metrics.csv").open() as stream:
        return [
            {k: float(v) for k, v in row.items() if k != "seconds"}
            for row in csv.DictReader(stream)
        ]


def weights(folder):
    return torch.load(Path(folder, "checkpoints", "last.ckpt"), weights_only=True)["state_dict"]


def assert_same_training(one, other):
    assert len(curve(one)) == 3
    for here, there in zip(curve(one), curve(other), strict=True):
        assert here == pytest.approx(there, rel=1e-6, abs=1e-12)
        # Everything but the error, which is kept in single precision, agrees to rounding.
        exact = ("step", "learning_rate", "train/loss", "val/loss")
        for name in exact:
            assert here[name] == pytest.approx(there[name], rel=1e-11)
    for name, values in weights(one).items():
        torch.testing.assert_close(values, weights(other)[name], rtol=1e-10, atol=1e-13)


def launch(words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "latticezoo.training.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


@pytest.mark.slow
@pytest.mark.parametrize("members", [1, 2])
def test_two_processes_train_as_one(empty, members):
    outputs = []
    for words in (["--out", "one"], [*TWO, "--out", "two"]):
        process = launch([*FIT, "--ensemble", str(members), *words])
        outputs.append(process.communicate(timeout=300))
        assert process.returncode == 0, outputs[-1]
    assert_same_training("one", "two")
    # The second process says nothing and writes nothing.
    assert outputs[1][0].count("into two") == 1
    assert outputs[1][0].count("wrote:") == 1


@pytest.mark.slow
def test_tasks_of_slurm_train_as_one(empty):
    """What srun tells the tasks of a job with --ntasks-per-node=2, here set by hand."""
    assert launch([*FIT, "--out", "one"]).wait(300) == 0
    job = {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NAME": "fit",
        "SLURM_NODELIST": "localhost",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(25000 + os.getpid() % 10000),
    }
    tasks = [
        launch([*FIT, *TWO, "--out", "two"], **job, SLURM_PROCID=str(k), SLURM_LOCALID=str(k))
        for k in range(2)
    ]
    outputs = [task.communicate(timeout=300) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    assert outputs[1][0] == ""
    assert_same_training("one", "two")


def test_without_a_progress_bar(command):
    status, _, err = command(
        *FIT, "--trainer.max_epochs", 1, "--trainer.enable_progress_bar", "false", "--out", "run"
    )
    assert status == 0
    assert "%" not in err
    assert len(curve("run")) == 1


def test_only_training_runs_in_several_processes(command, refused):
    assert command(*FIT, "--trainer.max_epochs", 1, "--out", "run")[0] == 0
    for name in ("validate", "test", "predict"):
        words = [name, "--run", "run", "--trainer.accelerator", "cpu", *TWO]
        assert refused(*words) == (
            f"{name} runs in one process, not in 2; give --trainer.devices 1."
        )


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("kind", ["epoch", "mixed"])
def test_batches_of_all_processes_are_those_of_one(processes, kind):
    count, batch = 18, 6
    kinds = (torch.arange(count) % 3 > 0).long()

    def whole():
        return EpochSampler(count, 5) if kind == "epoch" else MixedSampler(kinds, 0.5, 5)

    alone = whole()
    shares = [ProcessSampler(whole(), processes, rank, even=True) for rank in range(processes)]
    for epoch in range(3):
        for sampler in (alone, *shares):
            sampler.set_epoch(epoch)
        parts = [list(share) for share in shares]
        assert {len(part) for part in parts} == {len(share) for share in shares}
        size = batch // processes
        for number in range(count // batch):
            union = [k for part in parts for k in part[number * size : (number + 1) * size]]
            assert sorted(union) == sorted(list(alone)[number * batch : (number + 1) * batch])


def test_what_cannot_be_shared_evenly():
    shares = [ProcessSampler(EpochSampler(7, 0), 3, rank, even=True) for rank in range(3)]
    assert [len(list(share)) for share in shares] == [3, 3, 3]
    assert {k for share in shares for k in share} == set(range(7))
    # In validation every sample counts once.
    shares = [ProcessSampler(EpochSampler(7, 0), 3, rank, even=False) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 2, 2]
    assert sorted(k for share in shares for k in share) == list(range(7))


def test_a_batch_must_be_divisible(monkeypatch):
    monkeypatch.setattr(batches, "_processes", lambda: 2)
    monkeypatch.setattr(batches.dist, "get_rank", lambda: 1)
    data = create_data("synthetic", **DATA, batch_size=8, workers=1)
    assert len(data.train_dataloader().sampler) == 22
    assert data.train_dataloader().batch_size == 4
    # What statistics are taken over is the whole.
    assert len(data.training_batches().sampler) == 44
    assert data.training_batches().batch_size == 8
    with pytest.raises(InputError, match="7 samples cannot be divided among 2 processes"):
        create_data("synthetic", **DATA, batch_size=7, workers=1).train_dataloader()


def test_all_processes_stop_by_the_clock_of_the_first():
    budget = Budget(10.0, SimpleNamespace(now=3.0))
    strategy = SimpleNamespace(broadcast=lambda value: value + 8.0)
    for processes, stopped in ((1, False), (2, True)):
        trainer = SimpleNamespace(world_size=processes, strategy=strategy, should_stop=False)
        budget.on_train_batch_end(trainer, None, None, None, 0)
        assert trainer.should_stop is stopped


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_further_processes_are_known_however_they_were_started(monkeypatch, name):
    assert not is_helper()
    monkeypatch.setenv(name, "0")
    assert not is_helper()
    monkeypatch.setenv(name, "1")
    assert is_helper()
