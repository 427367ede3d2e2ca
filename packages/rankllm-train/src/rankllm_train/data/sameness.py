"""When two texts are the same: strictly, for judgements (`exact_form`), or leniently, for a split (`normalised`)."""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from functools import cache

_FOLDED_TAGS = frozenset(
    {"<wide>", "<narrow>", "<compat>", "<noBreak>", "<initial>", "<medial>", "<final>", "<isolated>"}
)
"""Compatibility decompositions that change the looks of a character only. A superscript, a subscript, a fraction, a
circled number or a double-struck letter means something else than the plain one, and is kept."""
_TYPOGRAPHY = {
    **dict.fromkeys("\u2018\u2019\u201b", "'"),
    **dict.fromkeys("\u201c\u201d\u201f", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
    # Invisible: soft hyphen, zero-width space, word joiner, byte-order mark, text and emoji presentation.
    **dict.fromkeys("\u00ad\u200b\u2060\ufeff\ufe0e\ufe0f", ""),
}
_CLAUSE_END = re.compile(r"(?<=[^,;:])[,;:]\Z")
_TEXT_END = re.compile(r"(?<=[^.?\u3002,;:])[.?\u3002,;:]\Z|(?<=[^\W\d_]{2})!\Z|(?<=[\])\"'])!\Z")
"""One mark that ends a sentence. `5!` and `n!` are factorials, `std::` and `x ??` are code: nothing is taken there."""


def exact_form(text: str) -> str:
    """What two texts must share to be one question or one passage, for judgements and copies (`mine`, `label`).

    Ignored are case, blanks, full-width and other presentation forms, the shape of quotes and dashes, one comma,
    semicolon or colon behind a word, and one mark at the end of the text. All other characters count: `C++` is not
    `C#`, `-5` not `5`, `.NET` not `net`, `x\u00b2` not `x2`, an accented letter not the plain one.
    """
    if text.isascii():
        folded = text.casefold()
    else:
        composed = unicodedata.normalize("NFC", text).translate(_presentation_forms())
        folded = unicodedata.normalize("NFC", composed.casefold())
    *words, last = folded.split() or [""]
    kept = [_CLAUSE_END.sub("", word) if word[-1] in ",;:" and _has_letter(word) else word for word in words]
    # A word of signs alone is code or an emoticon: no mark of it is punctuation.
    return " ".join([*kept, _TEXT_END.sub("", last) if _has_letter(last) else last])


def normalised(text: str) -> str:
    """The words of a text, lenient: compatibility characters composed (NFKC), case folded, punctuation and symbols out.

    For `split`, where taking two texts for one costs nothing: `C++` and `C#` are the same here. A text of nothing but
    punctuation stays as it is, so that not all of those are one.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = folded.translate(_blanks()).split()
    return " ".join(words or folded.split())


def digest(text: str) -> int:
    """64 bits that stand for a text. They are the same in every process, unlike `hash`.

    Of ten million texts two share a digest with a probability of 3 in a million.
    """
    packed = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(packed, "big")


def _has_letter(word: str) -> bool:
    return any(character.isalnum() for character in word)


@cache
def _blanks() -> dict[int, str]:
    """Every punctuation mark and symbol, to be written as a blank; marks that belong to letters are none of them."""
    return {code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in "PS"}


@cache
def _presentation_forms() -> dict[int, str]:
    """Characters that are another one in a different shape, and what they are written as."""
    forms: dict[int, str] = {}
    for code in range(sys.maxunicode + 1):
        decomposition = unicodedata.decomposition(chr(code))
        if decomposition.partition(" ")[0] in _FOLDED_TAGS:
            # One level only: what a form holds beside (a superscript, say) is kept as it is.
            forms[code] = "".join(chr(int(part, 16)) for part in decomposition.split()[1:])
    return forms | {ord(character): written for character, written in _TYPOGRAPHY.items()}
