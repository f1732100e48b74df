"""Worker processes for making datasets: one numerical thread each, quick to stop.

A worker is a fresh interpreter that runs this file as a module and talks in lines of JSON: it reads
the job and then the names of units from its standard input, and answers with progress, finished
units and errors. Unlike multiprocessing this does not import the caller's script again, so that
``make_dataset`` works at the top level of a script. A worker whose parent is gone, however it
died, sees the end of its input and leaves.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from latticezoo.symmetry.errors import InputError

_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)
_REPORT_EVERY = 0.2  # seconds
_GRACE = 3.0  # seconds to remove a half-written part before a worker is killed

Message = dict[str, Any]


def run_in_processes(
    recipe: Any, units: list[Any], parts: Any, workers: int, report: Callable[[int], None]
) -> None:
    """Do units in worker processes, the costly ones first.

    Args:
        recipe: The recipe.
        units: The units to do.
        parts: Where their results go.
        workers: Number of processes.
        report: Told the exact solutions done.

    Raises:
        InputError, OSError: What a worker raised.
        ChildProcessError: A worker died.
        RuntimeError: A fault of the library in a worker, with its traceback.
    """
    job = {
        "recipe": recipe.name,
        "module": type(recipe).__module__,
        "options": recipe.options(),
        "target": os.fspath(parts.target),
    }
    waiting = sorted(units, key=lambda unit: -unit.cost)
    answers: queue.SimpleQueue[tuple[_Worker, Message | None]] = queue.SimpleQueue()
    pool: list[_Worker] = []
    try:
        pool += [_Worker(job, answers) for _ in range(workers)]
        for worker in pool:
            worker.give(waiting.pop(0).name)
        left = len(units)
        while left:
            try:
                # A timeout keeps Ctrl-C alive on every platform.
                worker, message = answers.get(timeout=0.5)
            except queue.Empty:
                continue
            if message is None:
                raise worker.died()
            report(message.get("solved", 0))
            if "error" in message:
                raise _rebuilt(message["error"])
            if "done" in message:
                left -= 1
                if waiting:
                    worker.give(waiting.pop(0).name)
    finally:
        _stop(pool)


class _Worker:
    """The parent's end of one process."""

    def __init__(
        self, job: Message, answers: queue.SimpleQueue[tuple[_Worker, Message | None]]
    ) -> None:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.process = subprocess.Popen(
            # -P: the working folder may hold folders named like other packages.
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C goes to the parent alone, which stops us in order
        )
        self._send(job)
        threading.Thread(target=self._listen, args=(answers,), daemon=True).start()

    def give(self, unit: str) -> None:
        """Start a unit."""
        self._send({"unit": unit})

    def _send(self, message: Message) -> None:
        stream = self.process.stdin
        assert stream is not None
        with suppress(BrokenPipeError):  # it died: the end of its answers says so
            stream.write(json.dumps(message) + "\n")
            stream.flush()

    def _listen(self, answers: queue.SimpleQueue[tuple[_Worker, Message | None]]) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                answers.put((self, json.loads(line)))
        answers.put((self, None))

    def died(self) -> ChildProcessError:
        """The error that says how."""
        code = self.process.wait()
        how = f"with status {code}"
        if code < 0:
            how = f"by {signal.Signals(-code).name}"
            how += ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        return ChildProcessError(
            f"a worker process ended {how}; the same command goes on from the finished parts, "
            "and fewer workers need less memory."
        )


def _stop(pool: list[_Worker]) -> None:
    for worker in pool:
        worker.process.terminate()
    deadline = time.monotonic() + _GRACE
    for worker in pool:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):
            worker.process.stdin.close()


def _rebuilt(error: Message) -> Exception:
    """The exception that a worker met, for the caller."""
    from latticezoo.datasets.driver import DriverError

    if error["kind"] == "driver":
        return DriverError(error["message"])
    if error["kind"] == "input":
        return InputError(error["message"])
    if error["kind"] == "os":
        number, text, file = error["os"]
        return OSError(number, text, file) if number else OSError(error["message"])
    if error["kind"] == "memory":
        return MemoryError(error["message"])
    return RuntimeError(f"a worker process failed:\n{error['traceback']}")


# ---- the worker's side -------------------------------------------------------------------------


def main() -> None:
    """Read a job and units from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    # Answers go through a copy of standard output; whatever else is printed goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(sys.stdin, orders), daemon=True).start()
    status = 1
    try:
        _serve(orders, answers)
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    except BaseException as error:
        _answer(answers, {"error": _described(error)})
    os._exit(status)  # at once: there is nothing to clean up, and a second signal may be on its way


def _serve(orders: queue.SimpleQueue[Message], answers: IO[str]) -> None:
    job = orders.get()
    from pathlib import Path

    from latticezoo.datasets.cache import Parts
    from latticezoo.datasets.make import make_part, one_thread
    from latticezoo.datasets.registry import create_recipe

    importlib.import_module(job["module"])
    recipe = create_recipe(job["recipe"], **job["options"])
    parts = Parts(Path(job["target"]), recipe)
    units = {unit.name: unit for unit in recipe.units()}
    with one_thread():
        while True:
            name = orders.get()["unit"]
            progress = _Progress(answers)
            make_part(recipe, units[name], parts, progress)
            _answer(answers, {"done": name, "solved": progress.unsent})


class _Progress:
    """Sends the number of exact solutions, a few times a second."""

    def __init__(self, answers: IO[str]) -> None:
        self.answers = answers
        self.unsent = 0
        self._sent_at = time.monotonic()

    def __call__(self, solved: int) -> None:
        self.unsent += solved
        if time.monotonic() - self._sent_at > _REPORT_EVERY:
            _answer(self.answers, {"solved": self.unsent})
            self.unsent, self._sent_at = 0, time.monotonic()


def _answer(answers: IO[str], message: Message) -> None:
    try:
        answers.write(json.dumps(message) + "\n")
        answers.flush()
    except BrokenPipeError:
        os._exit(1)


def _read_orders(stream: IO[str], orders: queue.SimpleQueue[Message]) -> None:
    for line in stream:
        orders.put(json.loads(line))
    os._exit(1)  # the parent is gone: leave at once, in the middle of whatever is going on


def _leave(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)  # an exception, so that a half-written part is removed on the way


def _described(error: BaseException) -> Message:
    from latticezoo.datasets.driver import DriverError

    kinds = {DriverError: "driver", InputError: "input", OSError: "os", MemoryError: "memory"}
    kind = next((name for cls, name in kinds.items() if isinstance(error, cls)), "fault")
    return {
        "kind": kind,
        "message": str(error),
        "os": [getattr(error, name, None) for name in ("errno", "strerror", "filename")],
        "traceback": "".join(traceback.format_exception(error)),
    }


if __name__ == "__main__":
    main()
