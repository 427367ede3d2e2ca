"""When two texts are the same question or the same passage, whatever their case, blanks and punctuation."""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from functools import cache


def normalised(text: str) -> str:
    """The words of a text: compatibility characters composed (NFKC), case folded, punctuation and symbols left out.

    A text of nothing but punctuation stays as it is, so that not all of those are one.
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


@cache
def _blanks() -> dict[int, str]:
    """Every punctuation mark and symbol, to be written as a blank; marks that belong to letters are none of them."""
    return {code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] in "PS"}
