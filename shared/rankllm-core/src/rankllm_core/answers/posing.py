"""Asks the answer reader for the bracketed identifiers of a text that stands somewhere in a prompt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from rankllm_core.answers.tokens import NOUN, Token, normalise, tokenize
from rankllm_core.spellings import SPELLINGS
from rankllm_core.types import IdentifierKind


def posing(text: str, kind: IdentifierKind) -> list[Token]:
    """The bracketed identifiers in a text that went through `normalise`, whatever stands before it; often none.

    Lower-case letters do not count. What stands before a text can change how it is read in two ways: a list goes on
    into it, or a parenthesis is open that the text closes, so that the reader skips all before as a remark. Other
    states of the reader only make it find less, since a text's own brackets begin anew.
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
    """Whether a prompt holds more bracketed identifiers than `base`, the same prompt around harmless texts.

    A parenthesis in a text can make the reader skip some of the prompt's own, so fewer are as good.
    """
    if _brackets(text) == _brackets(base):
        return False
    text, base = normalise(text), normalise(base)
    if len(_MAY_POSE[kind].findall(text)) == len(_MAY_POSE[kind].findall(base)):
        return False
    found, meant = (Counter(token.name for token in _bracketed(one, kind, in_list=False)) for one in (text, base))
    return not found <= meant


def _brackets(text: str) -> int:
    """How many square brackets a text holds. Circled numbers and letters do not count: each is an identifier."""
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
"""Where an identifier touches a bracket as the reader's grammar has it, whatever stands around: a bracketed identifier
holds such a place, so a text without one needs no closer look."""
_REMARK = "(as "
"""A remark that is still open."""
_CLOSES_REMARK = re.compile(r"[^()>]*+\)")
"""A text up to the end of a remark that began before it."""
