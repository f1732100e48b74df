"""The pool of worker processes: order, errors, deaths, and clean ends."""

import copy
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from latticezoo.simulate.workers import WorkerError, Workers

# What workers import by name: numpy's functions act on whole lists.


@pytest.fixture
def workers():
    pool = Workers()
    yield pool
    pool.close()


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids, seconds=20):
    limit = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < limit:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


def test_results_come_in_order_and_processes_are_reused(workers):
    assert workers.map(np.power, list(range(37)), (2,), count=2) == [n**2 for n in range(37)]
    pids = workers.pids
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert workers.map(np.power, [1, 2, 3], (3,), count=2) == [1, 8, 27]
    assert workers.map(np.abs, [-1], count=2) == [1]
    assert workers.pids == pids
    for pid in pids:
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        assert "OMP_NUM_THREADS=1" in environment
        assert "OPENBLAS_NUM_THREADS=1" in environment
    workers.close()
    assert wait_until_gone(pids)


def test_long_messages_both_ways_do_not_stall(workers):
    """Items and answers far larger than a socket's buffer, in parts of unequal length."""
    items = [np.full(10 ** (1 + n % 6), n) for n in range(24)]
    answers = workers.map(copy.copy, items, count=2)
    assert all(np.array_equal(a, item) for a, item in zip(answers, items, strict=True))


def test_an_error_in_a_worker_reaches_the_caller(workers):
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        workers.map(np.linalg.inv, [np.eye(2), np.zeros((2, 2))], count=2)
    assert workers.map(np.power, [1, 2], (2,), count=2) == [1, 4]


def test_a_worker_that_dies_is_reported_and_replaced(workers):
    workers.map(np.abs, [1, 2], count=2)
    first = workers.pids[0]
    os.kill(first, signal.SIGKILL)
    assert wait_until_gone([first])
    with pytest.raises(WorkerError, match="ended with status -9"):
        workers.map(np.abs, [1, 2], count=2)
    assert workers.map(np.abs, [-1, -2], count=2) == [1, 2]


def test_workers_leave_signals_to_their_parent(workers):
    workers.map(np.abs, [1, 2], count=2)
    for pid in workers.pids:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert workers.map(np.abs, [-1, -2], count=2) == [1, 2]


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_workers_end_with_their_parent(end):
    """A script without a main guard; killed outright, and ended in the ordinary way."""
    script = textwrap.dedent("""
        import sys
        from latticezoo.simulate.workers import pool
        pool().map(sorted, [1, 2], count=2)
        print(*pool().pids, flush=True)
        sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        if end == "kill":
            process.kill()
        else:
            process.stdin.close()
        assert wait_until_gone(pids)
        assert process.wait() == (-signal.SIGKILL if end == "kill" else 0)
