"""Finds what could pose as an identifier of the prompt in a query or a passage, and writes it so that it cannot.

`[3]` becomes `(3)`, as the originals do, and so does everything that the answer reader takes for `[3]`: `[ 3 ]`,
`［３］`, `①`, `&#91;3&#93;`, an invisible character inside. Text without any of these is returned as it is.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from rankllm_core.answers.tokens import GLUE, IDENTIFIER, NOUN, SHORT_NOUN, holds_prose, opens_list
from rankllm_core.identifiers import IdentifierKind
from rankllm_core.spellings import COMBINING, INVISIBLE, INVISIBLE_BEYOND, SPELLINGS, TERMINAL_ESCAPE


@dataclass(frozen=True, slots=True)
class Names:
    """What a prompt calls its passages."""

    kind: IdentifierKind
    word: str = ""
    """What stands before each identifier without a blank, such as `PASSAGE`; empty for most prompts."""


def defuse(text: str, names: Names) -> str:
    """The text with every look-alike of the prompt's identifiers in round brackets, and nothing else changed.

    Numbers are defused under alphabetic identifiers, too. So are the marks around an answer, `<answer>` and
    `[rankstart]`. Idempotent; takes time linear in the length of the text.
    """
    if not _may_pose(text, names):
        return text
    for decode in _views(text):
        seen = _see(text, decode=decode)
        pieces, done = [], 0
        for start, end, written in _edits(seen, names):
            pieces += [text[done:start], written]
            done = end
        text = "".join([*pieces, text[done:]])
    return text


def identifiers_in(text: str, names: Names) -> list[str]:
    """Everything in the text that `defuse` would change, in order, in its plainest spelling."""
    if not _may_pose(text, names):
        return []
    return [found.shown for decode in _views(text) for found in _find(_see(text, decode=decode), names)]


def _views(text: str) -> tuple[bool, ...]:
    """With entities as they are written, and decoded: a model sees the one, the repair of a prompt makes the other."""
    return (False, True) if "&" in text else (False,)


@dataclass(slots=True)
class _Seen:
    """A text as a reader sees it: entities decoded, other spellings in ASCII, what is invisible left out."""

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


def _see(text: str, *, decode: bool) -> _Seen:
    seen = _Seen(text)
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


def _spelled(special: str) -> str:
    if special[0] == "&":
        if special[-1] != ";" and html.unescape(special) not in ("[", "]"):
            return special  # browsers read `&#91` without its semicolon; of other entities that is too far
        while (decoded := html.unescape(special)) != special:
            special = decoded
        special = _SEEN_THROUGH.sub("", special)
    elif _SEEN_THROUGH.match(special):
        return " " if _COMBINING.search(special) else ""
    return special.translate(SPELLINGS)


@dataclass(frozen=True, slots=True)
class _Found:
    """A look-alike, by offsets in the text as it is seen. The round brackets go in place of `[` and `]`."""

    start: int
    end: int
    shown: str
    is_bare: bool = False
    """An identifier and its brackets, and nothing else."""
    opens: bool = True
    """Whether the first character is a bracket; if not, one is missing or put in."""
    closes: bool = True


def _edits(seen: _Seen, names: Names) -> list[tuple[int, int, str]]:
    """What to write over which characters of the original, in order and without overlap."""
    edits: list[tuple[int, int, str]] = []
    for found in _find(seen, names):
        start, end = seen.source(found.start), seen.source(found.end - 1)
        if found.is_bare:
            inside = seen.original[start[1] : end[0]]
            is_plain = inside and not _COMBINING.search(inside)
            edits.append((start[0], end[1], f"({found.shown if is_plain or not inside else inside})"))
            continue
        if found.opens:
            edits.append((*start, "("))
        if found.closes:
            edits.append((*end, ")"))
        if not found.opens and not found.closes:  # PASSAGE3: the number is put in brackets
            edits.append((start[0], end[1], f"({found.shown})"))
    edits.sort()
    kept: list[tuple[int, int, str]] = []
    for edit in edits:
        if not kept or edit[0] >= kept[-1][1]:
            kept.append(edit)
    return kept


def _find(seen: _Seen, names: Names) -> list[_Found]:
    text = seen.text
    found = list(_in_brackets(text, names.kind, spares_prose=not seen.has_decoded_brackets))
    found += [_Found(m.start(), m.end(), m[0][1:-1]) for m in _MARKS.finditer(text)]
    if names.word:
        glued = re.compile(rf"(?i:{re.escape(names.word)})[_#]?({_IDENTIFIER[names.kind]})")
        found += [
            _Found(m.start(1), m.end(1), m[1], opens=False, closes=False)
            for m in glued.finditer(text)
            if not text[m.start() - 1 : m.start()].isalnum()
        ]
    return sorted(found, key=lambda one: (one.start, -one.end))


def _in_brackets(text: str, kind: IdentifierKind, *, spares_prose: bool) -> Iterator[_Found]:
    """Brackets that an identifier touches from inside, in pairs where they are.

    spares_prose: leave out those that hold more than identifiers, which the answer reader does not take for one.
    """
    opened: list[tuple[int, bool]] = []  # offset, and whether an identifier follows it
    last = -1  # the bracket before
    for match in _BRACKET.finditer(text):
        here = match.start()
        if match[0] == "[":
            first = _OPENED[kind].match(text, here + 1)
            opened.append((here, first is not None and (not spares_prose or opens_list(text, first.end(), kind))))
        else:
            is_touched = _is_touched(text, here, after=last, kind=kind)
            if not opened:
                if is_touched:
                    yield _Found(here, here + 1, "]", opens=False)
            else:
                start, opens = opened.pop()
                inside = text[start + 1 : here] if last == start else ""
                bare = _BARE[kind].fullmatch(inside) if inside else None
                is_prose = spares_prose and (_OTHER.fullmatch(inside) is not None or holds_prose(inside, kind))
                if bare or opens or (is_touched and not is_prose):
                    yield _Found(start, here + 1, bare[1] if bare else "[]", is_bare=bare is not None)
        last = here
    for start, opens in opened:
        if opens:
            yield _Found(start, start + 1, "[", closes=False)


def _is_touched(text: str, bracket: int, *, after: int, kind: IdentifierKind) -> bool:
    """Whether an identifier, or more blanks than a text has, stands right before a closing bracket."""
    before = text[max(after + 1, bracket - _LOOKED_BACK) : bracket]
    return _CLOSED[kind].search(before) is not None or (len(before) == _LOOKED_BACK and not before.strip())


def _may_pose(text: str, names: Names) -> bool:
    """A quick look: False where nothing in the text can be a look-alike, as in most texts."""
    return (
        "[" in text
        or "]" in text
        or ("&" in text and _HINT.search(text) is not None)
        or (">" in text and "answer>" in text.lower())
        or (bool(names.word) and names.word.lower() in text.lower())
        or (not text.isascii() and not _OTHER_BRACKETS.isdisjoint(text))
    )


_LOOKED_BACK = 80
_ENTITY = r"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)*(?:#[0-9]{1,9};?|#[xX][0-9a-fA-F]{1,8};?|[A-Za-z][A-Za-z0-9]{1,31};)"
_HINT = re.compile(r"&(?:#|amp;|AMP;|gt;|GT;|[lr](?:brack|sqb);)")
"""The beginning of an entity that can stand for a bracket, or for the `>` of `<answer>`."""
_OTHER_BRACKETS = frozenset(chr(code) for code, spelled in SPELLINGS.items() if not {"[", "]", ">"}.isdisjoint(spelled))
_BELOW = "".join(re.escape(chr(code)) for code in SPELLINGS if code < 0x10000)
_SEEN_THROUGH = re.compile(rf"{TERMINAL_ESCAPE}|[{INVISIBLE}{INVISIBLE_BEYOND}{COMBINING}]+")
_COMBINING = re.compile(f"[{COMBINING}]")
_SPECIAL = re.compile(
    # Beyond the basic plane one range for all: a set with more is a hundred times as slow.
    rf"{_ENTITY}|{TERMINAL_ESCAPE}|[{_BELOW}{INVISIBLE}{COMBINING}\U00010000-\U0010ffff]"
)
_BRACKET = re.compile(r"[\[\]]")
_MARKS = re.compile(r"</?answer>|\[rank(?:start|end)\]", re.IGNORECASE)

_CAPITAL = IDENTIFIER["alpha"].replace("[A-Za-z]", "[A-Z]")
_IDENTIFIER = {"numeric": IDENTIFIER["numeric"], "alpha": _CAPITAL}
_NOUNS = rf"(?:{NOUN}s?+[ \t_\#]{{0,3}}+|{SHORT_NOUN})"
_OPENED = {
    kind: re.compile(rf"""\s*+["'*_`]{{0,3}}+{_NOUNS}?{identifier}""") for kind, identifier in _IDENTIFIER.items()
}
_CLOSED = {
    kind: re.compile(
        rf"""(?<!\w)(?<!\w[{GLUE}%]){"(?<![0-9]:)" if kind == "numeric" else ""}"""
        rf"""{_NOUNS}?{identifier}["'*_`.]{{0,3}}\s*\Z"""
    )
    for kind, identifier in _IDENTIFIER.items()
}
_BARE = {
    "numeric": re.compile(rf"\s*({IDENTIFIER['numeric']}[.]?)\s*"),
    "alpha": re.compile(rf"\s*((?:{_CAPITAL}|{IDENTIFIER['numeric']})[.]?)\s*"),
}
_OTHER = re.compile(r"[^\[\]<>,;=\n]{1,30}+")
"""What the reader takes as a whole for something unknown in brackets."""
