"""Untrusted text on a terminal: ids, passages, answers and servers' messages are shown, and never obeyed."""

from __future__ import annotations

import re

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters other than tab and newline, marks that turn the direction of writing, lone surrogates."""


def for_terminal(text: str, *, one_line: bool = False) -> str:
    """The text with every character that a terminal would obey written as in Python: an escape becomes `\\x1b`.

    one_line: newlines and tabs, too.
    """
    safe = text if text.isascii() and text.isprintable() else _COMMANDS.sub(lambda match: _escaped(match[0]), text)
    return safe.replace("\n", "\\n").replace("\t", "\\t") if one_line else safe


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 0x100 else f"\\u{ord(character):04x}"
