"""How reports and errors speak of numbers of things, of the first few, and of what a library raised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


def printable(text: str) -> str:
    """A text on one line, without what a terminal would take for a command."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows of a table, one line each; every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
