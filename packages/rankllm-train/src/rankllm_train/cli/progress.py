"""How far a long piece of work is, for the person at the screen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

_BRIEF_S = 2.0
"""What takes no longer than this is not announced."""


def counted(items: Iterable[Any], what: str) -> Iterator[Any]:
    """The same items; how many have come is shown on standard error. what: what they are, in the plural."""
    from tqdm import tqdm

    # A log file wants a line now and then, a terminal one that moves.
    quiet_s = 0.5 if sys.stderr.isatty() else 30.0
    yield from tqdm(items, unit=f" {what}", delay=_BRIEF_S, mininterval=quiet_s, file=sys.stderr)
