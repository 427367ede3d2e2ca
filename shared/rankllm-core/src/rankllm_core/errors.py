"""Errors that a user can mend, shown as one line without a traceback; and untrusted text made safe for a terminal."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_LONGEST_MESSAGE = 2_000
_LONGEST_REASON = 240
_TERMINAL_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters other than tab and newline, marks that turn the direction of writing, lone surrogates."""


class RankLLMError(Exception):
    """Base of every error a user can mend. The message says where, what was found, what was expected, what to do."""


class ConfigError(RankLLMError):
    """An option, a template or a card holds something that cannot be used."""


class DataError(RankLLMError):
    """A file holds something that cannot be read.

    path: the file. line: 1-based line number, or None where the whole file is meant. problem: the message without both.
    """

    def __init__(self, message: str, *, path: str | Path, line: int | None = None) -> None:
        self.path = str(path)
        self.line = line
        self.problem = message
        where = self.path if line is None else f"{self.path}:{line}"
        super().__init__(f"{where}: {message}")


class ContractError(RankLLMError):
    """A model does not keep what its card, or the way it is to be read, promises."""


class MissingPackageError(RankLLMError):
    """An optional package is needed and not installed."""


def first_line(error: BaseException, *, with_kind: bool = True) -> str:
    """Return what a library's error says in its first line, or in two where the first ends in a colon.

    It is printable, has at most 240 characters, and is the name of the error's kind where the error says nothing.
    with_kind: whether the name stands before it in any case.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()][:2]
    line = " ".join(lines) if lines and lines[0].endswith(":") else "".join(lines[:1])
    shown = " ".join("".join(c if c.isprintable() else " " for c in line[: 4 * _LONGEST_REASON]).split())
    shown = shown if len(shown) <= _LONGEST_REASON else shown[: _LONGEST_REASON - 3] + "..."
    kind = type(error).__name__
    return f"{kind}: {shown}" if shown and with_kind else shown or kind


def one_line(text: str) -> str:
    """A message fit for a terminal: control characters, line ends and lone surrogates are written as escapes.

    File names and ids may hold them, and would otherwise break the line or reach the terminal as commands. Cut where
    it is longer than any message of ours.
    """
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]} ..."
    if text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) else ascii(letter)[1:-1] for letter in text)


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def for_terminal(text: str, *, one_line: bool = False) -> str:
    """The text with every character that a terminal would obey written as in Python: an escape becomes `\\x1b`.

    one_line: newlines and tabs, too.
    """
    safe = (
        text
        if text.isascii() and text.isprintable()
        else _TERMINAL_COMMANDS.sub(lambda match: _escaped(match[0]), text)
    )
    return safe.replace("\n", "\\n").replace("\t", "\\t") if one_line else safe


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"
