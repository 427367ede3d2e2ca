"""What a command made of its input, and what it left out and why: counted while the data goes by."""

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
"""How many names a reason keeps."""

Track = Callable[[Iterable[Any], str], Iterator[Any]]
"""Gives back the same items and shows how many have come; the second argument says what they are."""


def untracked(items: Iterable[Any], what: str) -> Iterator[Any]:
    """The items, with nothing shown."""
    return iter(items)


@dataclass(slots=True)
class Losses:
    """How many of a kind were left out for one reason, and the first few of them."""

    n: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """Counts of what was read and made, and of what was left out by kind and reason, in the order of their first one.

    is_strict: whether what is missing in the input is an error, in place of one more thing that is left out.
    """

    is_strict: bool = False
    read: dict[str, int] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)
    left_out: dict[tuple[str, str], Losses] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What a person should know beside the counts."""

    def see(self, what: str, n: int = 1) -> None:
        """Count something that was looked at."""
        self.read[what] = self.read.get(what, 0) + n

    def make(self, what: str, n: int = 1) -> None:
        """Count something made."""
        if n:
            self.made[what] = self.made.get(what, 0) + n

    def leave_out(self, what: str, reason: str, name: str = "", *, n: int = 1) -> None:
        """Count something left out. what: its kind, in the plural. name: one of them."""
        if not n:
            return
        losses = self.left_out.setdefault((what, reason), Losses())
        losses.n += n
        if name and len(losses.examples) < N_EXAMPLES:
            losses.examples.append(name)

    def miss(self, what: str, reason: str, name: str) -> None:
        """The same for what the input lacks. Raises RankLLMError where that is not allowed."""
        if self.is_strict:
            raise RankLLMError(f"{what}: {name!r} is {reason}; mend the input, or leave out --strict to go on without")
        self.leave_out(what, reason, name)

    def n_left_out(self, what: str) -> int:
        """How many of a kind were left out, for all reasons together."""
        return sum(losses.n for (kind, _), losses in self.left_out.items() if kind == what)

    def lines(self) -> list[str]:
        """The counts as a table: what was read, what was made, then one row for each reason."""
        rows = [("read", what, n, "") for what, n in self.read.items()]
        rows += [("made", what, n, "") for what, n in self.made.items()]
        rows += [
            ("left out", what, losses.n, reason + _named(losses)) for (what, reason), losses in self.left_out.items()
        ]
        widest = max((len(what) for _, what, _, _ in rows), default=0)
        table = [f"{verb:8}  {n:>11,}  {what:{widest}}  {why}".rstrip() for verb, what, n, why in rows]
        return [*table, *self.notes]

    def to_dict(self) -> dict[str, object]:
        """The counts as a JSON object."""
        left_out = [
            {"what": what, "reason": reason, "n": losses.n, "examples": losses.examples}
            for (what, reason), losses in self.left_out.items()
        ]
        return {"read": dict(self.read), "made": dict(self.made), "left_out": left_out, "notes": list(self.notes)}


def nothing_made(tally: Tally, what: str) -> RankLLMError:
    """The error of a command that has nothing to write. what: what it wanted to make, in the plural."""
    worst = max(tally.left_out.items(), key=lambda entry: entry[1].n, default=None)
    if worst is None:
        return RankLLMError(f"no {what}: the input holds nothing to make them of")
    (kind, reason), losses = worst
    return RankLLMError(f"no {what}; most of what was left out: {losses.n:,} {kind}, {reason}{_named(losses)}")


def _named(losses: Losses) -> str:
    if not losses.examples:
        return ""
    more = ", ..." if losses.n > len(losses.examples) else ""
    return f" ({', '.join(losses.examples)}{more})"


def write_report(path: Path, tally: Tally, *, options: Mapping[str, object]) -> None:
    """Write the counts and the options they came of, as JSON. options: a value that JSON cannot hold becomes text."""
    shown = {name: value if _is_json(value) else str(value) for name, value in options.items()}
    with write_text(path) as stream:
        stream.write(json.dumps(tally.to_dict() | {"options": shown}, indent=2) + "\n")


def _is_json(value: object) -> bool:
    """Numbers, switches and texts are; paths and infinity are not."""
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, str | int | None)
