"""A text as the answer reader sees it: other spellings in ASCII, entities decoded, invisible characters left out."""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from dataclasses import dataclass, field

from rankllm_core.spellings import COMBINING, INVISIBLE, INVISIBLE_BEYOND, SPELLINGS, TERMINAL_ESCAPE


@dataclass(slots=True)
class Seen:
    """A text as it is seen, and where in the original each of its characters comes from."""

    original: str
    text: str = ""
    starts: list[int] = field(default_factory=lambda: [0])
    """Offsets in `text` where a piece begins."""
    sources: list[tuple[int, int]] = field(default_factory=lambda: [(0, -1)])
    """Of each piece: where it begins in the original, and where it ends if it is one unit there, else -1."""

    has_decoded_brackets: bool = False
    """Whether an entity stands for a bracket: then the text is not read alike before and after it is decoded."""

    def source(self, place: int) -> tuple[int, int]:
        """The characters of the original that one character of `text` stands for."""
        piece = bisect_right(self.starts, place) - 1
        start, end = self.sources[piece]
        here = start + place - self.starts[piece]
        return (here, here + 1) if end < 0 else (start, end)

    def spelled(self, place: int) -> str:
        """How those characters are seen: `[3]` for each of the three that stand for `③`."""
        piece = bisect_right(self.starts, place) - 1
        return (
            self.text[place] if self.sources[piece][1] < 0 else self.text[self.starts[piece] : self.starts[piece + 1]]
        )


def see(text: str, *, decode: bool) -> Seen:
    """The text as it is seen, with its entities decoded or as they are written."""
    seen = Seen(text)
    pieces, length, done = [], 0, 0
    for match in _SPECIAL.finditer(text):
        spelled = _spelled(match[0]) if decode or match[0][0] != "&" else match[0]
        if spelled == match[0]:
            continue
        if match[0][0] == "&" and ("[" in spelled or "]" in spelled):
            seen.has_decoded_brackets = True
        plain = text[done : match.start()]
        pieces += [plain, spelled]
        seen.starts += [length + len(plain), length + len(plain) + len(spelled)]
        seen.sources += [match.span(), (match.end(), -1)]
        length += len(plain) + len(spelled)
        done = match.end()
    seen.text = "".join([*pieces, text[done:]])
    return seen


def repaired(text: str) -> str:
    """The text as the repair of a prompt writes it: entities decoded, one sort of line break, no control characters.

    Entities without their semicolon stay. What is removed can join the pieces of an entity, so it goes over the text
    again, as ftfy does.
    """
    for _ in range(_REPAIRS):
        before = text
        text = _OTHER_LINE_BREAKS.sub("\n", _REMOVED.sub("", text))
        if "&" not in text:
            return text
        text = _ENTITIES.sub(lambda match: _decoded(match[0]) if match[0][-1] == ";" else match[0], text)
        if text == before:
            return text
    return text


def _decoded(entity: str) -> str:
    while (decoded := html.unescape(entity)) != entity:
        entity = decoded
    return entity


def _spelled(special: str) -> str:
    if special[0] == "&":
        if special[-1] != ";" and html.unescape(special) not in ("[", "]"):
            return special  # browsers read `&#91` without its semicolon; of other entities that is too far
        special = _SEEN_THROUGH.sub("", _decoded(special))
    elif _SEEN_THROUGH.match(special):
        return " " if COMBINING_MARK.search(special) else ""
    return special.translate(SPELLINGS)


def without_brackets(text: str) -> str:
    """The text with round brackets for all square ones, in whatever spelling."""
    return _ENTITIES.sub(lambda match: in_round(_spelled(match[0]), match[0]), text.translate(_ROUND))


def in_round(spelled: str, otherwise: str = "") -> str:
    """A spelling with round brackets for square ones; `otherwise` where it holds none."""
    rounded = spelled.replace("[", "(").replace("]", ")")
    return rounded if rounded != spelled else otherwise or spelled


_ENTITY = r"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)*(?:#[0-9]{1,9};?|#[xX][0-9a-fA-F]{1,8};?|[A-Za-z][A-Za-z0-9]{1,31};)"
_ENTITIES = re.compile(_ENTITY)
_ROUND = {
    code: spelled.replace("[", "(").replace("]", ")")
    for code, spelled in (SPELLINGS | {ord(bracket): bracket for bracket in "[]"}).items()
    if not {"[", "]"}.isdisjoint(spelled)
}
_BELOW = "".join(re.escape(chr(code)) for code in SPELLINGS if code < 0x10000)
_SEEN_THROUGH = re.compile(rf"{TERMINAL_ESCAPE}|[{INVISIBLE}{INVISIBLE_BEYOND}{COMBINING}]+")
COMBINING_MARK = re.compile(f"[{COMBINING}]")
_OTHER_LINE_BREAKS = re.compile("\r\n?|[\u2028\u2029\x85]")
_REMOVED = re.compile(
    r"\x1b[\[［][\d;；]*[A-Za-zＡ-Ｚａ-ｚ]|[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffb]"
)
"""`TERMINAL_ESCAPE`, in full width, too, and control characters."""
_REPAIRS = 4
_SPECIAL = re.compile(
    # Beyond the basic plane one range for all: a set with more is a hundred times as slow.
    rf"{_ENTITY}|{TERMINAL_ESCAPE}|[{_BELOW}{INVISIBLE}{COMBINING}\U00010000-\U0010ffff]"
)
