"""How far a long piece of work is, for the person at the screen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_BRIEF_S = 2.0
"""What takes no longer than this is not announced."""


@contextmanager
def counter(what: str, *, unit: str, total: int | None = None, delay_s: float = 0.0) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; it is given how many are done, all in all."""
    from tqdm import tqdm

    # A log file wants a line now and then, a terminal one that moves.
    quiet_s = 0.5 if sys.stderr.isatty() else 30.0
    with tqdm(desc=what, unit=unit, total=total, delay=delay_s, mininterval=quiet_s, file=sys.stderr) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show


def counted(items: Iterable[T], what: str, *, unit: str) -> Iterator[T]:
    """The same items; how many have come is shown where it takes longer than a moment."""
    with counter(what, unit=unit, delay_s=_BRIEF_S) as show:
        for number, item in enumerate(items, start=1):
            yield item
            show(number)
