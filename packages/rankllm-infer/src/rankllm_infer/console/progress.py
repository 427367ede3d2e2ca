"""How far a long piece of work is, for the person at the screen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rankllm_core.command_line import say
from rankllm_infer.jobs.watching import Watcher

if TYPE_CHECKING:
    from rankllm_infer.ranking.progress import PromptProgress

T = TypeVar("T")

_BRIEF_S = 2.0
"""What takes no longer than this is not announced."""
_QUIET_TERMINAL_S, _QUIET_FILE_S = 0.5, 30.0
"""The least time between two looks: a log file wants a line now and then, a terminal one that moves."""


@contextmanager
def counter(what: str, *, unit: str, total: int | None = None, delay_s: float = 0.0) -> Iterator[Callable[[int], None]]:
    """A bar on standard error; it is given how many are done, all in all."""
    from tqdm import tqdm

    quiet_s = _QUIET_TERMINAL_S if sys.stderr.isatty() else _QUIET_FILE_S
    with tqdm(desc=what, unit=unit, total=total, delay=delay_s, mininterval=quiet_s, file=sys.stderr) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show


@contextmanager
def prompt_counter(what: str, progress: PromptProgress) -> Iterator[Callable[[], None]]:
    """A bar on standard error that counts prompts, and says how many queries are finished; called, it looks again."""
    from tqdm import tqdm

    quiet_s = _QUIET_TERMINAL_S if sys.stderr.isatty() else _QUIET_FILE_S
    with tqdm(
        desc=what, unit=" prompts", total=progress.total, initial=progress.done, mininterval=quiet_s, file=sys.stderr
    ) as bar:

        def show() -> None:
            bar.total = progress.total
            bar.set_postfix_str(f"{progress.n_finished} of {progress.n_queries} queries", refresh=False)
            bar.update(progress.done - bar.n)

        show()
        yield show
        bar.refresh()


def counted(items: Iterable[T], what: str, *, unit: str) -> Iterator[T]:
    """The same items; how many have come is shown where it takes longer than a moment."""
    with counter(what, unit=unit, delay_s=_BRIEF_S) as show:
        for number, item in enumerate(items, start=1):
            yield item
            show(number)


SCREEN = Watcher(say=say, counted=counted, prompts=prompt_counter)
"""Shows lines and bars on standard error."""
