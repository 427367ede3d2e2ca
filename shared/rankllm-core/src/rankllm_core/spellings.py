"""Unicode spellings of brackets, digits, letters and `>` that the answer reader and the sanitizer recognize.

Both use these tables, so that whatever the reader accepts as an identifier is also removed from passages.
"""

from __future__ import annotations

import re
from html.entities import html5

INVISIBLE = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u20e3\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
)
INVISIBLE_BEYOND = "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001-\U000e007f\U000e0100-\U000e01ef"
"""Characters without a visible shape, as the content of a regular expression's `[...]`: control and format characters,
variation selectors, fillers. Those beyond the basic plane are separate, since one set of both is slow to search."""

TERMINAL_ESCAPE = r"\x1b\[[\d;]*[A-Za-z]"
"""Terminal colour sequences, which repairing a prompt removes."""

COMBINING = (
    "\u0300-\u034e\u0350-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc"
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20e2\u20e4-\u20f0\ufe20-\ufe2f"
)
"""Combining marks, as the content of a regular expression's `[...]`."""

_CIRCLED_NUMBERS = (
    (0x2460, 1, 20),  # ①
    (0x3251, 21, 15),  # ㉑
    (0x32B1, 36, 15),  # ㊱
    (0x2776, 1, 10),  # ❶
    (0x24EB, 11, 10),  # ⓫
    (0x24F5, 1, 10),  # ⓵
    (0x2780, 1, 10),  # ➀
    (0x278A, 1, 10),  # ➊
)
"""First character, its number, count."""
_CIRCLED_LETTERS = (0x24B6, 0x1F150, 0x1F130, 0x1F170)  # Ⓐ 🅐 🄰 🅰


def _spellings() -> dict[int, str]:
    table = {0xFF00 + code: chr(0x20 + code) for code in range(1, 0x5F)}  # full width: ［３］＞
    table |= {ord(character): ">" for character in "≻≽≥≫→⇒⟶➔➜⪰›»"}
    table |= {ord(character): "<" for character in "≺≼≤≪←⇐⟵⪯"}
    table |= {ord(character): "[" for character in "【〔〖⟦〚❲"} | {ord(character): "]" for character in "】〕〗⟧〛❳"}
    table |= {first + i: f"[{number + i}]" for first, number, n in _CIRCLED_NUMBERS for i in range(n)}
    return table | {first + i: f"[{chr(65 + i)}]" for first in _CIRCLED_LETTERS for i in range(26)}


SPELLINGS = _spellings()
"""Code point -> its ASCII equivalent."""

_OTHER_BRACKETS = frozenset(chr(code) for code, spelled in SPELLINGS.items() if not {"[", "]", ">"}.isdisjoint(spelled))
_NAMED_BRACKETS = sorted(
    name for name, decoded in html5.items() if name[-1] == ";" and decoded in {*"[]>", *_OTHER_BRACKETS}
)
_HINT = re.compile(rf"&(?:#|amp;|AMP;|{'|'.join(_NAMED_BRACKETS)})")
"""Start of an entity that may encode a bracket, or the `>` of `<answer>`."""


def may_pose(text: str, *, word: str = "") -> bool:
    """Check quickly whether a text may contain something that looks like an identifier; False for most texts.

    That requires a bracket in some spelling, `<answer>`, or the word that a prompt puts before its identifiers.
    """
    return (
        "[" in text
        or "]" in text
        or ("&" in text and _HINT.search(text) is not None)
        or (">" in text and "answer>" in text.lower())
        or (bool(word) and word.lower() in text.lower())
        or (not text.isascii() and not _OTHER_BRACKETS.isdisjoint(text))
    )
