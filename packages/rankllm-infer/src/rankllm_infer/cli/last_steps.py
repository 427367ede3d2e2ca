"""The last steps of a run: once its outputs begin to appear, Ctrl-C and SIGTERM wait until all is done."""

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
    """Takes note of signals in place of being stopped by them, from `begin` to `end`.

    A second Ctrl-C is obeyed: a disk may hang. Without effect outside of the main thread, which alone is signalled.
    """

    def __init__(self) -> None:
        self.was_signalled = False
        self._handlers: dict[signal.Signals, Any] = {}

    def begin(self) -> None:
        """Nothing but a second Ctrl-C stops the process from here on."""
        if self._handlers or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, self._note)
        atexit.unregister(_ignore_signals)
        atexit.register(_ignore_signals)

    def end(self) -> None:
        """Signals have their usual effect again."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.was_signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.was_signalled = True


@contextmanager
def last_steps(say: Callable[[str], None]) -> Iterator[LastSteps]:
    """The last steps of the run in the block, which says where they begin. say: is told of a signal that came then."""
    last = LastSteps()
    try:
        yield last
        if last.was_signalled:
            say("The signal to stop was ignored: the run had already finished")
    finally:
        last.end()


def _ignore_signals() -> None:
    """While Python shuts down, a first signal would print a traceback and change nothing else."""
    for number in _SIGNALS:
        signal.signal(number, lambda number, frame: signal.signal(number, signal.SIG_DFL))
