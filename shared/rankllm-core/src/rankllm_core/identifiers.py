"""What a prompt calls its passages, `1, 2, 3, ...` or `A, B, C, ...`, and how an answer names them in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Literal, get_args

from rankllm_core.errors import ConfigError

IdentifierKind = Literal["numeric", "alpha"]
"""`numeric` counts from 1; `alpha` runs from A to Z and names at most 26 passages."""

MAX_ALPHA = len(ascii_uppercase)
"""Passages that a window with alpha identifiers can hold."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a prompt calls its passages."""

    kind: IdentifierKind
    word: str = ""
    """What stands before each identifier without a blank, such as `PASSAGE`; empty for most prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """How an answer names identifiers in order: what stands before the first, between two and behind the last."""

    opening: str
    link: str
    closing: str

    def write(self, labels: Sequence[str]) -> str:
        """The answer that names these identifiers."""
        return self.opening + self.link.join(labels) + self.closing


CHAIN = AnswerForm(opening="[", link="] > [", closing="]")
"""The form that most templates ask for: `[2] > [1]`."""


def identifiers(kind: IdentifierKind, n: int) -> tuple[str, ...]:
    """The identifiers of `n` passages, in prompt order.

    Raises ConfigError for an unknown kind, and where the alphabet is too short: past `Z` the originals go on with `[`.
    """
    if kind not in get_args(IdentifierKind):
        raise ConfigError(f"identifiers: {kind!r} is unknown, expected 'numeric' or 'alpha'; use one of these")
    if n < 0:
        raise ConfigError(f"identifiers: cannot name {n} passages, expected 0 or more; check the window size")
    if kind == "numeric":
        return tuple(str(number) for number in range(1, n + 1))
    if n > MAX_ALPHA:
        raise ConfigError(
            f"identifiers: {n} passages in one window, but alpha identifiers end at Z; "
            f"use a window of at most {MAX_ALPHA}, or numeric identifiers"
        )
    return tuple(ascii_uppercase[:n])
