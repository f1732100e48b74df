"""The tutorials run as they are, with smaller sizes; the commands in their texts exist."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
#: Scripts that take seconds, with what makes them short.
SHORT = {
    "my_hamiltonian.py": "--epochs 1 --trajectories 4 --steps 5",
    "verify_symmetry.py": "",
}
TOGETHER = """
import runpy, sys
for line in sys.argv[1:]:
    sys.argv = line.split()
    print("==", sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def python(*words, folder):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "LATTICEZOO_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(EXAMPLES),
    }
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_run_here():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {
        *SHORT,
        "my_network.py",
        "train_on_a_cluster.py",
        "slab_quench.py",  # by train_on_a_cluster.py
        "test_my_network.py",
    }


def test_scripts(tmp_path):
    """One interpreter runs them all: imports take longer than they do."""
    lines = [f"{EXAMPLES / name} {options}" for name, options in SHORT.items()]
    found = dict(
        part.split("\n", 1)
        for part in python("-c", TOGETHER, *lines, folder=tmp_path).split("== ")[1:]
    )
    own = found[str(EXAMPLES / "my_hamiltonian.py")]
    for who in ("exact forces", "network"):
        error = re.search(rf"{who}: largest relative error (\S+) in 'pull'", own)
        assert float(error[1]) < 1e-12
    assert {line.split(":")[0].strip() for line in own.splitlines()[-2:]} == {"exact", "learned"}

    checks = found[str(EXAMPLES / "verify_symmetry.py")]
    kept = [
        line.split()[-1] == "exact" for line in checks.splitlines() if "e-" in line or "e+" in line
    ]
    assert kept[:9] == [False, True, True, False, False, True, False, False, False]
    assert checks.count("averaged: largest relative error") == 2


@pytest.mark.slow
def test_a_network_of_ones_own(tmp_path):
    """The script, the suite of the zoo on its network, and the command line."""
    table = python(EXAMPLES / "my_network.py", "--epochs", 1, "--lattice", 6, folder=tmp_path)
    assert " shell_network " in table
    assert " gcn " in table
    assert "640 elements" in table
    options = ("-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", EXAMPLES)
    found = python("-m", "pytest", *options, EXAMPLES / "test_my_network.py", folder=tmp_path)
    assert int(re.search(r"(\d+) passed", found)[1]) > 20
    words = "--data.random 20 --data.trajectories 4 --data.frames 5 --data.last_time 5"
    python(
        *("-m", "latticezoo.training.cli", "fit", "--model", "my_network.ShellNetwork"),
        *("--data", "holstein", "--data.lattice", "8", *words.split()),
        *("--trainer.max_epochs", "1", "--out", "run"),
        folder=tmp_path,
    )
    assert (tmp_path / "run" / "metrics.csv").exists()


@pytest.mark.slow
def test_a_cluster_on_this_machine(tmp_path):
    """Data by Dask, training by DDP, and a run in slabs that goes on where it was."""
    words = ["--epochs", "1", "--lattice", "6", "--large", "32", "--steps", "4"]
    found = python(EXAMPLES / "train_on_a_cluster.py", *words, folder=tmp_path)
    assert re.findall(r"^\$ (\w+ ?\w*)", found, flags=re.MULTILINE) == [
        "latticezoo data",
        "latticezoo fit",
        "torchrun ",
    ]
    assert re.findall(r"step (\d+): mean", found) == ["2", "4"]
    longer = python(
        *("-m", "torch.distributed.run", "--nproc-per-node", 1, EXAMPLES / "slab_quench.py"),
        *("--lattice", 32, "--steps", 6, "--leg", 4, "--out", "cluster/slab_quench.pt"),
        folder=tmp_path,
    )
    assert re.findall(r"step (\d+): mean", longer) == ["6"]


def commands():
    """Every latticezoo command in the docstring of an example."""
    for path in sorted(EXAMPLES.glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())).replace("\\\n", " ")
        for words in re.findall(
            r"^.*?\blatticezoo ((?:data|fit|compare|simulate) .*)$", text, re.M
        ):
            yield path.name, shlex.split(words)


def test_commands_in_the_texts_are_understood(monkeypatch, capsys):
    """Options that do not exist would be refused; what they would do is left out."""
    from latticezoo.training import cli

    found = list(commands())
    assert len(found) >= 3
    for _, words in found:
        assert cli.main([*words[: 3 if words[0] == "data" else 1], "--help"]) == 0
        known = capsys.readouterr().out
        for option in (word.split(".")[0] for word in words if word.startswith("--")):
            assert option in known, (words, option)
