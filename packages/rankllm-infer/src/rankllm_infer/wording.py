"""How reports and errors speak of numbers of things, and of the first few."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

N_EXAMPLES = 5
"""How many ids a line shows."""


def count(number: int, noun: str) -> str:
    """`1 query`, `2,000 queries`."""
    plural = noun.removesuffix("y") + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def examples(ids: Iterable[str]) -> str:
    """The first few ids, quoted."""
    first = [repr(name) for name in islice(ids, N_EXAMPLES + 1)]
    return ", ".join([*first[:N_EXAMPLES], "..."] if len(first) > N_EXAMPLES else first)
