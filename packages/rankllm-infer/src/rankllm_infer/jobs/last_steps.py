"""Defer Ctrl-C and SIGTERM from the first output that a run publishes until the run is done."""

from __future__ import annotations

import atexit
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LastSteps:
    """Record signals instead of being stopped by them, from `begin` to `end`.

    A second Ctrl-C still interrupts, since a disk may hang. No effect outside the main thread, the only one signalled.
    """

    def __init__(self) -> None:
        self.was_signalled = False
        self._handlers: dict[signal.Signals, Any] = {}

    def begin(self) -> None:
        """Defer signals from here on; only a second Ctrl-C stops the process."""
        if self._handlers or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, self._note)
        atexit.unregister(_ignore_signals)
        atexit.register(_ignore_signals)

    def end(self) -> None:
        """Restore the usual effect of signals."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.was_signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.was_signalled = True


@contextmanager
def last_steps(say: Callable[[str], None]) -> Iterator[LastSteps]:
    """Context of a run, which calls `begin` before it publishes outputs. say: receives a line if a signal came then."""
    last = LastSteps()
    try:
        yield last
        if last.was_signalled:
            say("The signal to stop was ignored: the run had already finished")
    finally:
        last.end()


def _ignore_signals() -> None:
    """Ignore the first signal while Python shuts down: it would print a traceback and change nothing else."""
    for number in _SIGNALS:
        signal.signal(number, lambda number, frame: signal.signal(number, signal.SIG_DFL))
