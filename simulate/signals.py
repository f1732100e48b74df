"""Orderly stops: SIGTERM and Ctrl-C end a run after the step in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A run was stopped by SIGTERM or Ctrl-C. The message says where and how to go on.

    It derives from KeyboardInterrupt, so that code which catches Exception to carry on with the
    next piece of work does stop.

    Attributes:
        step: The last whole step.
        signal: The signal's number.
        checkpoint: Path of the checkpoint that holds that step, None when none was asked for.
    """

    def __init__(self, message: str, step: int, number: int, checkpoint: str | None) -> None:
        super().__init__(message)
        self.step = step
        self.signal = number
        self.checkpoint = checkpoint


class Caught:
    """Which signal came, if any."""

    number: int | None = None

    @property
    def name(self) -> str:
        """The signal in words."""
        return "Ctrl-C" if self.number == signal.SIGINT else "SIGTERM"


@contextmanager
def caught_signals(enabled: bool = True) -> Iterator[Caught]:
    """Note SIGTERM and Ctrl-C instead of dying of them; the second Ctrl-C or SIGTERM is obeyed.

    Does nothing outside of the main thread, where Python allows no handlers.
    """
    caught = Caught()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        if caught.number is not None:
            raise KeyboardInterrupt
        caught.number = number

    for watched in (signal.SIGTERM, signal.SIGINT):
        # None: a handler set by C code, which Python could not put back.
        if signal.getsignal(watched) is not None:
            before[watched] = signal.signal(watched, note)
    try:
        yield caught
    finally:
        for watched_number, handler in before.items():
            signal.signal(watched_number, handler)
