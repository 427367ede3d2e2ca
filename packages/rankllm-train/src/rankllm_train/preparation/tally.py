"""Counts of what a command read, wrote and skipped, with reasons, collected while the data is processed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_core.files import write_text

N_EXAMPLES = 3
"""Number of examples kept per reason."""

Track = Callable[[Iterable[Any], str], Iterator[Any]]
"""Yields the same items and shows progress; the second argument is the plural noun for them."""


def untracked(items: Iterable[Any], what: str) -> Iterator[Any]:
    """Yield the items without showing progress."""
    return iter(items)


@dataclass(slots=True)
class Losses:
    """Number of items of a kind skipped for one reason, with a few examples."""

    n: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """Counts of what was read, made and skipped, by kind and reason, in order of first occurrence.

    is_strict: whether missing input is an error instead of being skipped.
    """

    is_strict: bool = False
    read: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    left_out: dict[tuple[str, str], Losses] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Notes for the user in addition to the counts."""

    def see(self, what: str, n: int = 1) -> None:
        """Count items that were read."""
        self.read[what] = self.read.get(what, 0) + n

    def make(self, what: str, n: int = 1) -> None:
        """Count items that were made."""
        if n:
            self.made[what] = self.made.get(what, 0) + n

    def leave_out(self, what: str, reason: str, name: str = "", *, n: int = 1) -> None:
        """Count skipped items. what: plural noun for their kind. name: one of them, as an example."""
        if not n:
            return
        losses = self.left_out.setdefault((what, reason), Losses())
        losses.n += n
        if name and len(losses.examples) < N_EXAMPLES:
            losses.examples.append(name)

    def miss(self, what: str, reason: str, name: str) -> None:
        """Count something missing from the input as skipped. Raises RankLLMError under is_strict."""
        if self.is_strict:
            raise RankLLMError(f"{what}: {name!r} is {reason}; correct the input, or skip it by leaving out --strict")
        self.leave_out(what, reason, name)

    def n_left_out(self, what: str) -> int:
        """Return how many items of a kind were skipped, for all reasons together."""
        return sum(losses.n for (kind, _), losses in self.left_out.items() if kind == what)

    def lines(self) -> list[str]:
        """Return the counts as a table: what was read, what was made, then one row per reason for skipping."""
        rows = [("read", what, n, "") for what, n in self.read.items()]
        rows += [("made", what, n, "") for what, n in self.made.items()]
        rows += [
            ("skipped", what, losses.n, reason + _named(losses)) for (what, reason), losses in self.left_out.items()
        ]
        widest = max((len(what) for _, what, _, _ in rows), default=0)
        table = [f"{verb:8}  {n:>11,}  {what:{widest}}  {why}".rstrip() for verb, what, n, why in rows]
        return [*table, *self.notes]

    def to_dict(self) -> dict[str, object]:
        """Return the counts as a JSON object."""
        left_out = [
            {"what": what, "reason": reason, "n": losses.n, "examples": losses.examples}
            for (what, reason), losses in self.left_out.items()
        ]
        return {"read": dict(self.read), "made": dict(self.made), "left_out": left_out, "notes": list(self.notes)}


def nothing_made(tally: Tally, what: str) -> RankLLMError:
    """Return the error of a command that has nothing to write. what: plural noun for what it makes."""
    worst = max(tally.left_out.items(), key=lambda entry: entry[1].n, default=None)
    if worst is None:
        return RankLLMError(f"no {what} to write: the input contains nothing to make them from")
    (kind, reason), losses = worst
    return RankLLMError(
        f"no {what} to write; most common reason for skipping: {losses.n:,} {kind}, {reason}{_named(losses)}"
    )


def _named(losses: Losses) -> str:
    if not losses.examples:
        return ""
    more = ", ..." if losses.n > len(losses.examples) else ""
    return f" ({', '.join(losses.examples)}{more})"


def write_report(path: Path, tally: Tally, *, options: Mapping[str, object]) -> None:
    """Write the counts with the options that led to them as JSON. Option values that JSON cannot represent become
    text."""
    shown = {name: value if _is_json(value) else str(value) for name, value in options.items()}
    with write_text(path) as stream:
        stream.write(json.dumps(tally.to_dict() | {"options": shown}, indent=2) + "\n")


def _is_json(value: object) -> bool:
    """Whether JSON can represent a value: numbers, booleans and text, but not paths and infinity."""
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int | None)
