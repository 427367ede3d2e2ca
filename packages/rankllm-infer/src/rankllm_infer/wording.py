"""How reports and errors speak of numbers of things, of the first few, and of what a library raised."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from rankllm_core.checkpoints.load_failures import first_line

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


def reason(error: BaseException) -> str:
    """The first line of what a library raised, without its kind unless there is nothing else."""
    return first_line(error).removeprefix(f"{type(error).__name__}: ")
