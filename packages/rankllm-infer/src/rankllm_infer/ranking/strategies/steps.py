"""What a strategy says and hears: windows out, their orders in, a ranking at the end."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Candidates that are shown together: two or more, as positions in the list that is being ranked."""

    shown: tuple[int, ...]
    start: int | None = None
    """0-based rank of the first one, where the window is a slice of the ranking as it stands; else None."""


Steps = Generator[tuple[Window, ...], tuple[tuple[int, ...], ...], list[int]]
"""A strategy at work on n candidates, the positions 0 to n - 1 in first-stage order.

It yields windows that may be asked at the same time: one round. It is sent their candidates, for each window in the
order that the model gives them, best first. It returns all positions, best first, each once.
"""
