"""Progress reporting for long-running work: messages, counts in words, progress. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

BRIEF_S = 2.0
"""Seconds; the progress of shorter work is not shown."""
N_EXAMPLES = 5
"""Number of ids shown as examples."""

T = TypeVar("T")


class Counter(Protocol):
    """Opens a progress bar; the yielded function takes the number of items done so far."""

    def __call__(
        self, what: str, *, unit: str, total: int | None = None, delay_s: float = BRIEF_S
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Show progress of `what` in `unit`. total: number of items, if known. delay_s: seconds before anything is
        shown."""


def _unsaid(line: str) -> None:
    pass


@contextmanager
def _uncounted(
    what: str, *, unit: str, total: int | None = None, delay_s: float = BRIEF_S
) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


@contextmanager
def _unshown(what: str, progress: PromptProgress) -> Iterator[Callable[[], None]]:
    yield lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Receiver for progress and messages. The command line prints them to standard error; the default discards them."""

    say: Callable[[str], None] = _unsaid
    """Receives messages for the user, one line at a time."""
    counter: Counter = _uncounted
    """Shows progress of reading, indexing or searching."""
    prompts: Callable[[str, PromptProgress], AbstractContextManager[Callable[[], None]]] = _unshown
    """Context manager for a run's prompts; the yielded function is called after each change of the progress."""

    def counted(self, items: Iterable[T], what: str, *, unit: str) -> Iterator[T]:
        """Yield the items while counting them."""
        with self.counter(what, unit=unit) as show:
            for number, item in enumerate(items, start=1):
                yield item
                show(number)


SILENT = Watcher()


class PromptProgress:
    """Number of answered prompts, and the expected total.

    n_prompts: number of prompts for a given number of candidates; an estimate if it depends on the answers. sizes: qid
    -> number of candidates, for all queries. When a query finishes, its estimate is replaced by its actual number of
    prompts; while it exceeds the estimate, the total grows. `done` therefore never exceeds `total` and ends there.
    """

    def __init__(self, n_prompts: Callable[[int], int], sizes: Mapping[str, int]) -> None:
        known = {size: n_prompts(size) for size in set(sizes.values())}
        self._left = {qid: known[size] for qid, size in sizes.items()}
        """qid -> remaining prompts, for unfinished queries."""
        self.n_queries = len(sizes)
        self.n_finished = 0
        self.done = 0
        self.total = sum(self._left.values())

    def skip(self, qid: str) -> None:
        """Count a query that was finished before this run as done."""
        self.done += self._left.pop(qid, 0)
        self.n_finished += 1

    def answer(self, qid: str) -> None:
        """Count an answered prompt."""
        self.done += 1
        left = self._left.get(qid, 0)
        if left:
            self._left[qid] = left - 1
        else:
            self.total += 1

    def finish(self, qid: str) -> None:
        """Count a query that finished or failed, and drop its remaining prompts from the total."""
        self.total -= self._left.pop(qid, 0)
        self.n_finished += 1


class ShownProgress:
    """PromptProgress that refreshes its display after each change."""

    def __init__(self, progress: PromptProgress, show: Callable[[], None]) -> None:
        self._progress = progress
        self._show = show

    def answer(self, qid: str) -> None:
        """Count an answered prompt."""
        self._progress.answer(qid)
        self._show()

    def finish(self, qid: str) -> None:
        """Count a finished query."""
        self._progress.finish(qid)
        self._show()


def count(number: int, noun: str) -> str:
    """Format a number with its noun: `1 query`, `2,000 queries`."""
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def examples(ids: Iterable[str]) -> str:
    """Quote the first few ids."""
    first = [repr(name) for name in islice(ids, N_EXAMPLES + 1)]
    return ", ".join([*first[:N_EXAMPLES], "..."] if len(first) > N_EXAMPLES else first)
