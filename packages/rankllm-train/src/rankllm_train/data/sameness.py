"""When two texts count as the same: strictly, for judgements (`exact_form`), or leniently, for splits
(`normalised`)."""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from functools import cache

_FOLDED_TAGS = frozenset(
    {"<wide>", "<narrow>", "<compat>", "<noBreak>", "<initial>", "<medial>", "<final>", "<isolated>"}
)
"""Compatibility decompositions that change only a character's appearance. Superscripts, subscripts, fractions, circled
numbers and double-struck letters differ in meaning from the plain character and are kept."""
_TYPOGRAPHY = {
    **dict.fromkeys("\u2018\u2019\u201b", "'"),
    **dict.fromkeys("\u201c\u201d\u201f", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
    # Invisible: soft hyphen, zero-width space, word joiner, byte-order mark, text and emoji presentation selectors.
    **dict.fromkeys("\u00ad\u200b\u2060\ufeff\ufe0e\ufe0f", ""),
}
_CLAUSE_END = re.compile(r"(?<=[^,;:])[,;:]\Z")
_TEXT_END = re.compile(r"(?<=[^.?\u3002,;:])[.?\u3002,;:]\Z|(?<=[^\W\d_]{2})!\Z|(?<=[\])\"'])!\Z")
"""A single mark that ends a sentence. `5!` and `n!` are factorials, `std::` and `x ??` are code: those are kept."""


def exact_form(text: str) -> str:
    """Return the form that two texts share if they count as the same question or passage, for `mine` and `label`.

    Ignores case, whitespace, full-width and other presentation forms, the shape of quotes and dashes, one comma,
    semicolon or colon after a word, and one mark at the end of the text. All other characters count: `C++` differs from
    `C#`, `-5` from `5`, `.NET` from `net`, `x\u00b2` from `x2`, an accented letter from the plain one.
    """
    if text.isascii():
        folded = text.casefold()
    else:
        composed = unicodedata.normalize("NFC", text).translate(_presentation_forms())
        folded = unicodedata.normalize("NFC", composed.casefold())
    *words, last = folded.split() or [""]
    kept = [_CLAUSE_END.sub("", word) if word[-1] in ",;:" and _has_letter(word) else word for word in words]
    # A word made of symbols only is code or an emoticon: its marks are not punctuation.
    return " ".join([*kept, _TEXT_END.sub("", last) if _has_letter(last) else last])


def normalised(text: str) -> str:
    """Return the words of a text leniently: NFKC normalized, case folded, without punctuation and symbols.

    For `split`, where mistaking two texts for one costs nothing: `C++` and `C#` are the same here. A text of
    punctuation only stays as it is, so that such texts do not all become one.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = folded.translate(_blanks()).split()
    return " ".join(words or folded.split())


def digest(text: str) -> int:
    """Return 64 bits that identify a text, the same in every process, unlike `hash`.

    Among ten million texts, two share a digest with a probability of 3 in a million.
    """
    packed = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(packed, "big")


def _has_letter(word: str) -> bool:
    return any(character.isalnum() for character in word)


@cache
def _blanks() -> dict[int, str]:
    """Map every punctuation mark and symbol to a space; combining marks of letters are not among them."""
    return {code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in "PS"}


@cache
def _presentation_forms() -> dict[int, str]:
    """Map characters that are presentation forms of other characters to those characters."""
    forms: dict[int, str] = {}
    for code in range(sys.maxunicode + 1):
        decomposition = unicodedata.decomposition(chr(code))
        if decomposition.partition(" ")[0] in _FOLDED_TAGS:
            # One level only: the rest of a form (a superscript, for instance) is kept.
            forms[code] = "".join(chr(int(part, 16)) for part in decomposition.split()[1:])
    return forms | {ord(character): written for character, written in _TYPOGRAPHY.items()}
