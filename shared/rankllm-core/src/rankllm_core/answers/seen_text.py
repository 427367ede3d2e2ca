"""Text as the answer reader sees it: normalized spelling, decoded entities, no invisible characters."""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from dataclasses import dataclass, field

from rankllm_core.spellings import COMBINING, INVISIBLE, INVISIBLE_BEYOND, SPELLINGS, TERMINAL_ESCAPE


@dataclass(slots=True)
class Seen:
    """Text as seen, with the origin of each of its characters in the original."""

    original: str
    text: str = ""
    starts: list[int] = field(default_factory=lambda: [0])
    """Offsets in `text` where a piece starts."""
    sources: list[tuple[int, int]] = field(default_factory=lambda: [(0, -1)])
    """For each piece: its start in the original, and its end if it is one unit there, else -1."""

    has_decoded_brackets: bool = False
    """Whether an entity encodes a bracket: the text is then read differently before and after decoding."""

    def source(self, place: int) -> tuple[int, int]:
        """Return the span of the original that one character of `text` comes from."""
        piece = bisect_right(self.starts, place) - 1
        start, end = self.sources[piece]
        here = start + place - self.starts[piece]
        return (here, here + 1) if end < 0 else (start, end)

    def spelled(self, place: int) -> str:
        """Return how this span is seen: `[3]` for each of the three characters that `③` becomes."""
        piece = bisect_right(self.starts, place) - 1
        return (
            self.text[place] if self.sources[piece][1] < 0 else self.text[self.starts[piece] : self.starts[piece + 1]]
        )


def see(text: str, *, decode: bool) -> Seen:
    """Return the text as seen, with its entities decoded or as written."""
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
    """Return the text as repaired in a prompt: entities decoded, uniform line breaks, no control characters.

    Entities without their semicolon are kept. Removing characters can join the parts of an entity, so the text is
    processed repeatedly, as in ftfy.
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
            return special  # browsers accept `&#91` without its semicolon; other such entities are kept
        special = _SEEN_THROUGH.sub("", _decoded(special))
    elif _SEEN_THROUGH.match(special):
        return " " if COMBINING_MARK.search(special) else ""
    return special.translate(SPELLINGS)


def without_brackets(text: str) -> str:
    """Return the text with round brackets instead of all square ones, in any spelling."""
    return _ENTITIES.sub(lambda match: in_round(_spelled(match[0]), match[0]), text.translate(_ROUND))


def in_round(spelled: str, otherwise: str = "") -> str:
    """Replace square brackets in a spelling with round ones; return `otherwise` if there are none."""
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
"""`TERMINAL_ESCAPE`, also in full width, and control characters."""
_REPAIRS = 4
_SPECIAL = re.compile(
    # One range for all characters beyond the basic plane: a more complex set is a hundred times slower.
    rf"{_ENTITY}|{TERMINAL_ESCAPE}|[{_BELOW}{INVISIBLE}{COMBINING}\U00010000-\U0010ffff]"
)
