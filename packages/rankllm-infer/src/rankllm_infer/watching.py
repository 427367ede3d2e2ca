"""What a run says of itself while it is at work: lines, counts in words, progress. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

BRIEF_S = 2.0
"""What takes no longer than this is not announced."""
N_EXAMPLES = 5
"""How many ids a line shows."""

T = TypeVar("T")


class Counter(Protocol):
    """Opens a counter for one piece of work; what it yields is called with the number done so far."""

    def __call__(
        self, what: str, *, unit: str, total: int | None = None, delay_s: float = BRIEF_S
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Count `what` in `unit`; total: how many there are, where that is known; delay_s: show nothing before."""


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
    """Whoever watches long work. The command line shows lines and bars on standard error; by default nobody watches."""

    say: Callable[[str], None] = _unsaid
    """Receives what a user should know, a line at a time."""
    counter: Counter = _uncounted
    """Counts what is read, indexed or searched."""
    prompts: Callable[[str, PromptProgress], AbstractContextManager[Callable[[], None]]] = _unshown
    """Context of a run's prompts; what it gives is called after each change of the progress."""

    def counted(self, items: Iterable[T], what: str, *, unit: str) -> Iterator[T]:
        """The same items, counted as they come."""
        with self.counter(what, unit=unit) as show:
            for number, item in enumerate(items, start=1):
                yield item
                show(number)


SILENT = Watcher()


class PromptProgress:
    """Answered prompts, against as many as there will be.

    n_prompts: how many a query of so many candidates asks; a guess where that depends on the answers. sizes: qid ->
    number of candidates, of all queries. A query's guess becomes its number of prompts when it is finished, and the
    number of those it was answered where it asks more, so `done` never goes beyond `total` and ends there.
    """

    def __init__(self, n_prompts: Callable[[int], int], sizes: Mapping[str, int]) -> None:
        known = {size: n_prompts(size) for size in set(sizes.values())}
        self._left = {qid: known[size] for qid, size in sizes.items()}
        """Prompts to come of each unfinished query."""
        self.n_queries = len(sizes)
        self.n_finished = 0
        self.done = 0
        self.total = sum(self._left.values())

    def skip(self, qid: str) -> None:
        """Count a query that was finished before this run as all done."""
        self.done += self._left.pop(qid, 0)
        self.n_finished += 1

    def answer(self, qid: str) -> None:
        """Count a prompt's answer."""
        self.done += 1
        left = self._left.get(qid, 0)
        if left:
            self._left[qid] = left - 1
        else:
            self.total += 1

    def finish(self, qid: str) -> None:
        """Count a query that is finished or has failed; what it has not asked, it never will."""
        self.total -= self._left.pop(qid, 0)
        self.n_finished += 1


class ShownProgress:
    """Progress that is shown as it is counted."""

    def __init__(self, progress: PromptProgress, show: Callable[[], None]) -> None:
        self._progress = progress
        self._show = show

    def answer(self, qid: str) -> None:
        """Count a prompt's answer."""
        self._progress.answer(qid)
        self._show()

    def finish(self, qid: str) -> None:
        """Count a query."""
        self._progress.finish(qid)
        self._show()


def count(number: int, noun: str) -> str:
    """`1 query`, `2,000 queries`."""
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def examples(ids: Iterable[str]) -> str:
    """The first few ids, quoted."""
    first = [repr(name) for name in islice(ids, N_EXAMPLES + 1)]
    return ", ".join([*first[:N_EXAMPLES], "..."] if len(first) > N_EXAMPLES else first)
