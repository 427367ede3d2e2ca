"""Messages and progress of a run, for whoever shows them. Jobs print nothing themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from rankllm_infer.ranking.progress import PromptProgress


def _nothing_said(line: str) -> None:
    pass


def _uncounted(items: Iterable[Any], what: str, *, unit: str) -> Iterator[Any]:
    yield from items


@contextmanager
def _unshown(what: str, progress: PromptProgress) -> Iterator[Callable[[], None]]:
    yield lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Whoever watches a run. The command line shows lines and bars on standard error; by default nobody watches."""

    say: Callable[[str], None] = _nothing_said
    """Receives what a user should know, a line at a time."""
    counted: Callable[..., Iterator[Any]] = _uncounted
    """counted(items, what, unit=...): the same items, counted as they come."""
    prompts: Callable[[str, PromptProgress], AbstractContextManager[Callable[[], None]]] = _unshown
    """Context of a run's prompts; what it gives is called after each change of the progress."""


SILENT = Watcher()


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
