"""Errors that users can fix, shown as one line without a traceback; and untrusted text made safe for a terminal."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

_LONGEST_MESSAGE = 2_000
_LONGEST_REASON = 240
_TERMINAL_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters other than tab and newline, text direction marks, lone surrogates."""


class RankLLMError(Exception):
    """Base class of errors that users can fix. The message says where, what was found, what was expected, what to
    do."""


class ConfigError(RankLLMError):
    """An option, template or card contains an unusable value."""


class DataError(RankLLMError):
    """A file contains unreadable data.

    path: the file. line: 1-based line number, or None for the whole file. problem: the message without both.
    """

    def __init__(self, message: str, *, path: str | Path, line: int | None = None) -> None:
        self.path = str(path)
        self.line = line
        self.problem = message
        where = self.path if line is None else f"{self.path}:{line}"
        super().__init__(f"{where}: {message}")


class ContractError(RankLLMError):
    """A model does not behave as its card, or the way it is to be read, requires."""


class MissingPackageError(RankLLMError):
    """A required optional package is not installed."""


def first_line(error: BaseException, *, with_kind: bool = True) -> str:
    """Return the first line of a library's error message, or the first two if the first ends in a colon.

    The result is printable and has at most 240 characters; for an empty message, it is the exception's class name.
    with_kind: whether to prefix the class name in any case.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()][:2]
    line = " ".join(lines) if lines and lines[0].endswith(":") else "".join(lines[:1])
    shown = " ".join("".join(c if c.isprintable() else " " for c in line[: 4 * _LONGEST_REASON]).split())
    shown = shown if len(shown) <= _LONGEST_REASON else shown[: _LONGEST_REASON - 4].rsplit(" ", 1)[0] + " ..."
    kind = type(error).__name__
    return f"{kind}: {shown}" if shown and with_kind else shown or kind


def one_line(text: str) -> str:
    """Make a message fit for a terminal: control characters, line ends and lone surrogates become escapes.

    File names and ids may contain them, and would otherwise break the line or act as terminal commands. Messages longer
    than any of rankllm's own are truncated.
    """
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]} ..."
    if text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) else ascii(letter)[1:-1] for letter in text)


def _is_harmless(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def for_terminal(text: str, *, one_line: bool = False) -> str:
    """Escape every character that a terminal would interpret, in Python's notation (`\\x1b`).

    one_line: escape newlines and tabs too.
    """
    safe = (
        text
        if text.isascii() and text.isprintable()
        else _TERMINAL_COMMANDS.sub(lambda match: _escaped(match[0]), text)
    )
    return safe.replace("\n", "\\n").replace("\t", "\\t") if one_line else safe


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"
