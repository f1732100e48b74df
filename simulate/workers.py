"""A small pool of worker processes, each with one LAPACK thread.

Two threads in one diagonalization are slower than one (n = 900: 0.65 s against 0.29 s); two
processes are twice as fast. The workers are plain interpreters that talk over a socket: nothing is
forked from a process with threads, a script needs no ``if __name__ == "__main__"``, and a worker
ends by itself when the socket closes, however the parent ended.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_SERVE = "from latticezoo.simulate.workers import _serve; _serve(int(__import__('sys').argv[1]))"
_CHUNKS = 4  # parts of the work per worker: few messages, yet little waiting at the end


class WorkerError(RuntimeError):
    """A worker process ended before it answered, for lack of memory for example."""


class Workers:
    """Worker processes, started when first needed and kept until :meth:`close`."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []

    def map(
        self,
        function: Callable[..., Sequence[Any]],
        items: Sequence[Any],
        common: tuple[Any, ...] = (),
        *,
        count: int,
    ) -> list[Any]:
        """Results of all items, in their order.

        Args:
            function: Called as ``function(some_items, *common)``, returns their results. It must
                be a function of a module: workers import it by name.
            items: Anything that pickles.
            common: Further arguments, the same for all; sent only when they change.
            count: Number of processes.

        Raises:
            WorkerError: A worker died. The next call starts new ones.
            Exception: What ``function`` raised.
        """
        count = min(count, len(items))
        while len(self._workers) < count:
            self._workers.append(_Worker())
        shared = pickle.dumps((function, common), protocol=5)
        size = max(1, -(-len(items) // (_CHUNKS * count)))
        starts = list(range(0, len(items), size))[::-1]
        results: list[Any] = [None] * len(items)
        idle = self._workers[:count]
        busy: dict[Any, tuple[_Worker, int]] = {}
        try:
            while starts or busy:
                while starts and idle:
                    worker, start = idle.pop(), starts.pop()
                    worker.send(shared, items[start : start + size])
                    busy[worker.connection] = (worker, start)
                for connection in wait(list(busy)):
                    worker, start = busy.pop(connection)
                    answers = worker.receive()
                    results[start : start + len(answers)] = answers
                    idle.append(worker)
        except BaseException:
            self.close()  # answers under way belong to no one
            raise
        return results

    def close(self) -> None:
        """End the processes."""
        workers, self._workers = self._workers, []
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers."""
        return [worker.process.pid for worker in self._workers]


class _Worker:
    def __init__(self) -> None:
        here, there = socket.socketpair()
        with there:
            environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)}
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(there.fileno())],
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        self.connection = Connection(here.detach())
        self._shared = b""

    def send(self, shared: bytes, items: Sequence[Any]) -> None:
        if shared != self._shared:
            self._shared = shared
        else:
            shared = b""
        try:
            self.connection.send((shared, items))
        except OSError:
            raise self._death() from None

    def receive(self) -> list[Any]:
        try:
            succeeded, answer = self.connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if not succeeded:
            raise answer
        return answer

    def _death(self) -> WorkerError:
        self.end()
        return WorkerError(
            f"worker process {self.process.pid} ended with status {self.process.returncode} before "
            "it answered; if memory ran out, use fewer workers."
        )

    def end(self) -> None:
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_pool: tuple[int, Workers] | None = None


def pool() -> Workers:
    """The pool of this process; a forked child gets its own."""
    global _pool
    if _pool is None or _pool[0] != os.getpid():
        if _pool is None:
            atexit.register(close_workers)
        _pool = (os.getpid(), Workers())
    return _pool[1]


def close_workers() -> None:
    """End the worker processes of this process, if any; the next use starts new ones."""
    if _pool is not None and _pool[0] == os.getpid():
        _pool[1].close()


def _serve(descriptor: int) -> None:
    """The loop of a worker: ends when the parent's end of the socket closes."""
    # Ctrl-C and a SIGTERM to the whole process group are the parent's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection = Connection(descriptor)
    function: Callable[..., Sequence[Any]] | None = None
    common: tuple[Any, ...] = ()
    while True:
        try:
            shared, items = connection.recv()
        except (EOFError, OSError):
            return
        try:
            if shared:
                function, common = pickle.loads(shared)
            assert function is not None
            answer: tuple[bool, Any] = (True, list(function(items, *common)))
        except Exception as error:
            answer = (False, error)
        try:
            connection.send(answer)
        except OSError:
            return
