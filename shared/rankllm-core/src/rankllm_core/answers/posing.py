"""Bracketed identifiers that the answer reader would find in a text, wherever it occurs in a prompt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from rankllm_core.answers.tokens import NOUN, Token, normalise, tokenize
from rankllm_core.spellings import SPELLINGS
from rankllm_core.types import IdentifierKind


def posing(text: str, kind: IdentifierKind) -> list[Token]:
    """Return the bracketed identifiers in a normalised text, whatever precedes it; usually none.

    Lower-case letters do not count. Preceding text can affect the reading in two ways: a list may continue into the
    text, or the text may close a parenthesis, so that the reader skips everything before as a remark. Other reader
    states only find less, since the text's own brackets start anew.
    """
    if not _MAY_POSE[kind].search(text):
        return []
    found = list(_bracketed(text, kind, in_list=True))
    closed = _CLOSES_REMARK.match(text)
    if closed and "[" in closed[0]:
        n = len(_REMARK)
        behind = _bracketed(_REMARK + text, kind, in_list=False)
        found += [token._replace(start=token.start - n, end=token.end - n) for token in behind]
    return found


def adds_bracketed(text: str, base: str, kind: IdentifierKind) -> bool:
    """Whether a prompt contains more bracketed identifiers than `base`, the same prompt around harmless texts.

    Fewer are fine: a parenthesis in a text can make the reader skip some of the prompt's own.
    """
    if _brackets(text) == _brackets(base):
        return False
    text, base = normalise(text), normalise(base)
    if len(_MAY_POSE[kind].findall(text)) == len(_MAY_POSE[kind].findall(base)):
        return False
    found, meant = (Counter(token.name for token in _bracketed(one, kind, in_list=False)) for one in (text, base))
    return not found <= meant


def _brackets(text: str) -> int:
    """Count the square brackets in a text. Circled numbers and letters do not count, since each is an identifier."""
    n_others = 0 if text.isascii() else len(_OTHER_BRACKET.findall(text))
    return text.count("[") + text.count("]") + n_others


def _bracketed(text: str, kind: IdentifierKind, *, in_list: bool) -> Iterator[Token]:
    return (token for token in tokenize(text, kind, in_list=in_list) if token.is_bracketed and not token.is_lower)


_OTHER_BRACKET = re.compile("[" + "".join(chr(code) for code, plain in SPELLINGS.items() if plain in ("[", "]")) + "]")
_MAY_POSE = {
    kind: re.compile(
        rf"""[{first}\[] (?: (?<!\[) {unglued} (?= ["'*_`]{{0,3}}+ \s*+ \] )
          | (?<=\[) (?= \s*+ ["'*_`]{{0,3}}+ (?: {NOUN} s?+ [ \t_\#]{{0,3}}+ | [Pp\#] )?
                        (?: \[ \s*+ )? [{first}] {unglued} ) )""",
        re.VERBOSE,
    )
    for kind, first, unglued in (("numeric", r"\d", ""), ("alpha", "A-Z", r"(?![^\W_])"))
}
"""Where an identifier touches a bracket according to the reader's grammar, ignoring context. Every bracketed identifier
matches, so a text without a match needs no further check."""
_REMARK = "(as "
"""Remark that is still open."""
_CLOSES_REMARK = re.compile(r"[^()>]*+\)")
"""Text up to the end of a remark that started before it."""
