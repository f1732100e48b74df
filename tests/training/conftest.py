"""Fixtures for the command line: an empty folder each, small data made once, quiet threads."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latticezoo.training.cli import main

#: A dataset that is made in half a second.
SMALL_DATA = {"lattice": 8, "random": 20, "trajectories": 4, "frames": 5, "last_time": 5.0}
DATA_WORDS = ["--data", "holstein"] + [
    word for name, value in SMALL_DATA.items() for word in (f"--data.{name}", str(value))
]
#: A network that trains in a second.
TINY_GCN = ["--model", "gcn", "--model.widths", "[8,8]"]


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """One cache of datasets for the session."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("LATTICEZOO_CACHE")
    os.environ["LATTICEZOO_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["LATTICEZOO_CACHE"]
    else:
        os.environ["LATTICEZOO_CACHE"] = before


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(empty, capsys):
    """Run a command in the empty folder; gives status, standard output and standard error."""

    def run(*words):
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def refused(command):
    """Run a command that must fail with status 2 and one sentence, and write nothing."""

    def run(*words):
        before = files()
        status, _, err = command(*words)
        assert status == 2, err
        sentence = err.strip()
        assert sentence.startswith("latticezoo: ")
        assert "\n" not in sentence, sentence
        assert "Traceback" not in sentence
        assert files() == before
        return sentence.removeprefix("latticezoo: ")

    def files():
        return sorted(str(path) for path in Path().rglob("*") if path.is_file())

    return run


class Process:
    """A command in a process of its own, that can be killed at a chosen moment."""

    def __init__(self, *words):
        self.log = Path("log.txt").open("w+")  # noqa: SIM115 - closed in wait
        self.process = subprocess.Popen(
            [sys.executable, "-m", "latticezoo.training.cli", *map(str, words)],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def kill_when(self, ready, number=signal.SIGKILL, timeout=60.0):
        """Send a signal as soon as ``ready()`` holds; give status and output."""
        end = time.monotonic() + timeout
        while not ready():
            assert self.process.poll() is None, self.output()
            assert time.monotonic() < end, self.output()
            time.sleep(0.01)
        self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout=60.0):
        """Status and output."""
        status = self.process.wait(timeout)
        return status, self.output()

    def output(self):
        """What it printed so far."""
        return Path(self.log.name).read_text()


@pytest.fixture
def start(empty):
    """Start a command in a process of its own; it is killed at the end of the test."""
    started = []

    def run(*words):
        started.append(Process(*words))
        return started[-1]

    yield run
    for process in started:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait()
        process.log.close()
