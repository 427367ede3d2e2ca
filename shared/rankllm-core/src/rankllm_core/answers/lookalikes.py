"""Removal of text in queries and passages that looks like an identifier of the prompt.

`[3]` becomes `(3)`, as in the originals, and so does everything that the answer reader accepts as `[3]`: `[ 3 ]`,
`［３］`, `①`, `&#91;3&#93;`, or an invisible character inside. Other text is returned unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rankllm_core.answers.posing import posing
from rankllm_core.answers.seen_text import COMBINING_MARK, Seen, in_round, repaired, see, without_brackets
from rankllm_core.answers.tokens import GLUE, IDENTIFIER, NOUN, SHORT_NOUN, holds_prose, normalise, opens_list
from rankllm_core.spellings import may_pose
from rankllm_core.types import IdentifierKind, Names


def defuse(text: str, names: Names) -> str:
    """Return the text with every look-alike of the prompt's identifiers in round brackets, and nothing else changed.

    Numbers are defused under alphabetic identifiers too, and so are the answer marks `<answer>` and `[rankstart]`.
    Idempotent; linear in the length of the text.
    The result is safe by construction: either the answer reader itself finds no bracketed identifier in it (`posing`),
    or it contains no square bracket that could mark one.
    """
    for _ in range(_ROUNDS):
        if not may_pose(text, word=names.word):
            return text
        written = _without_lookalikes(text, names)
        if written == text:
            written = _without_posing(text, names)
        if written == text:
            return text
        text = written
    return _without_lookalikes(without_brackets(text), names)


def identifiers_in(text: str, names: Names) -> list[str]:
    """Return everything that looks like an identifier in a text that may contain the prompt's own, in plain
    spelling."""
    if not may_pose(text, word=names.word):
        return []
    return [found.shown for decode in _views(text) for found in _find(see(text, decode=decode), names)]


def _without_lookalikes(text: str, names: Names) -> str:
    """Put everything that looks like an identifier by itself in round brackets."""
    for decode in _views(text):
        seen = see(text, decode=decode)
        text = _edited(text, _edits(seen, names))
    return text


def _without_posing(text: str, names: Names) -> str:
    """Use round brackets where the answer reader nevertheless finds a bracketed identifier.

    Rare: crossed brackets, or a number where the reader splits a long word.
    """
    views = {normalise(text): False}
    if (written := repaired(text)) != text:
        views |= {normalise(written): "&" in text}
    if "&" in text:
        views |= {see(text, decode=True).text: True}
    found = next((view for view in views if posing(view, names.kind)), None)
    if found is None:
        return text
    seen = see(text, decode=views[found])
    edits = {
        (*seen.source(place), in_round(seen.spelled(place)))
        for token in posing(seen.text, names.kind)
        for place in range(token.start, token.end)
        if seen.text[place] in "[]"
    }
    if edits:
        return _edited(text, sorted(edits))
    rounded = without_brackets(text)  # the reader drops text between its brackets, such as a terminal escape
    return rounded if rounded != text else without_brackets(repaired(text))


def _edited(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """Apply replacements to the text; they are in order and do not overlap."""
    pieces, done = [], 0
    for start, end, written in edits:
        pieces += [text[done:start], written]
        done = end
    return "".join([*pieces, text[done:]])


def _views(text: str) -> tuple[bool, ...]:
    """Views with entities as written and decoded: a model sees the former, repair of a prompt produces the latter."""
    return (False, True) if "&" in text else (False,)


@dataclass(frozen=True, slots=True)
class _Found:
    """Look-alike, by offsets in the text as seen. Round brackets replace `[` and `]`."""

    start: int
    end: int
    shown: str
    is_bare: bool = False
    """Only an identifier and its brackets."""
    opens: bool = True
    """Whether the first character is a bracket; if not, one is missing or inserted."""
    closes: bool = True


def _edits(seen: Seen, names: Names) -> list[tuple[int, int, str]]:
    """Return replacements in the original text, in order and without overlap."""
    edits: list[tuple[int, int, str]] = []
    for found in _find(seen, names):
        start, end = seen.source(found.start), seen.source(found.end - 1)
        if found.is_bare:
            inside = seen.original[start[1] : end[0]]
            is_plain = inside and not COMBINING_MARK.search(inside)
            edits.append((start[0], end[1], f"({found.shown if is_plain or not inside else inside})"))
            continue
        if found.opens:
            edits.append((*start, "("))
        if found.closes:
            edits.append((*end, ")"))
        if not found.opens and not found.closes:  # PASSAGE3: brackets are put around the number
            edits.append((start[0], end[1], f"({found.shown})"))
    edits.sort()
    kept: list[tuple[int, int, str]] = []
    for edit in edits:
        if not kept or edit[0] >= kept[-1][1]:
            kept.append(edit)
    return kept


def _find(seen: Seen, names: Names) -> list[_Found]:
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
    """Yield brackets with an identifier directly inside, in pairs if possible.

    spares_prose: skip brackets that contain more than identifiers, which the answer reader does not accept.
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
    """Whether an identifier, or a run of blanks at the search limit, directly precedes a closing bracket."""
    before = text[max(after + 1, bracket - _LOOKED_BACK) : bracket]
    return _CLOSED[kind].search(before) is not None or (len(before) == _LOOKED_BACK and not before.strip())


_ROUNDS = 4
"""Maximum rewrites of a text before all its square brackets become round. Replacing one bracket can change how the
reader reads another; ordinary texts need one round, hostile ones rarely more than two."""
_LOOKED_BACK = 80
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
"""What the reader treats as one unknown item in brackets."""
