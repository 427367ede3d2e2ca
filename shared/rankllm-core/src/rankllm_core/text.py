"""Conversion of a stored passage to prompt text: field selection, repair, truncation and removal of identifiers."""

from __future__ import annotations

from collections.abc import Mapping

from rankllm_core.answers import lookalikes
from rankllm_core.errors import RankLLMError
from rankllm_core.spellings import may_pose
from rankllm_core.types import Names

TEXT_FIELDS = ("text", "segment", "contents", "content", "body", "passage")
"""Fields that may contain the text of a passage; the first one present is used."""
_CHARACTERS_A_WORD = 32
_SPARE_CHARACTERS = 256


def title_and_text(doc: Mapping[str, object]) -> tuple[str, str]:
    """Return title (empty if there is none) and text of a stored passage, from the first field that is not null.

    Raises RankLLMError if none of TEXT_FIELDS is present.
    """
    for name in TEXT_FIELDS:
        if doc.get(name) is not None:
            return as_text(doc.get("title"), what="title"), as_text(doc[name], what=name)
    if any(name in doc for name in TEXT_FIELDS):
        return as_text(doc.get("title"), what="title"), ""
    found = ", ".join(repr(key) for key in doc) or "nothing"
    raise RankLLMError(f"passage without text: expected one of {', '.join(TEXT_FIELDS)}; found {found}")


def passage_text(doc: Mapping[str, object]) -> str:
    """Return a passage's text, as `Title: T Content: C` if it has a title, with mojibake repaired and whitespace
    trimmed."""
    title, text = title_and_text(doc)
    return fix_text((f"Title: {title} Content: {text}" if title else text).strip())


def as_text(value: object, *, what: str = "text") -> str:
    """Return a stored text field as a string; null becomes an empty text. Raises RankLLMError for a list or object."""
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise RankLLMError(f"passage: {what}: expected text, found {type(value).__name__}")
    return str(value)


def fix_text(text: str) -> str:
    """Repair mojibake, character widths and HTML entities as the originals do (`ftfy.fix_text`)."""
    import ftfy  # slow to import, and `--help` does without

    return ftfy.fix_text(text)


def first_words(text: str, n: int) -> str:
    """Return the first n words, joined by single spaces, and at most their first `32 n + 256` characters.

    The character limit is rankllm's own: it never affects words of a language written with spaces, and prevents a
    passage of a million letters without spaces from filling the prompt.
    """
    return " ".join(text.split(None, n)[:n])[: _CHARACTERS_A_WORD * n + _SPARE_CHARACTERS] if n > 0 else ""


def words_in(text: str) -> int:
    """Return the smallest n for which `first_words(text, n)` drops nothing."""
    words = text.split()
    n_characters = sum(map(len, words)) + max(0, len(words) - 1)
    return max(len(words), -(-(n_characters - _SPARE_CHARACTERS) // _CHARACTERS_A_WORD))


def defuse(text: str, names: Names) -> str:
    """Return the text with everything that looks like an identifier of the prompt in round brackets
    (`lookalikes.defuse`).

    Most texts contain nothing of the kind and are returned unchanged after a quick check.
    """
    return lookalikes.defuse(text, names) if may_pose(text, word=names.word) else text


def defuse_identifiers(text: str, *, alpha: bool = False) -> str:
    """Write `[3]` as `(3)`, and with alpha `[B]` as `(B)`, so that a passage or query cannot imitate an identifier.

    The same applies to everything the answer reader accepts as one, such as `[ 3 ]`, `［３］`, `①` and `&#91;3&#93;`;
    nothing else is changed.
    """
    return defuse(text, Names("alpha" if alpha else "numeric"))


def safe_query(text: str, *, alpha: bool = False) -> str:
    """Return the query without identifiers, including those that repairing the prompt would create from mojibake."""
    defused = defuse_identifiers(text, alpha=alpha)
    repaired = fix_text(defused)
    safe = defuse_identifiers(repaired, alpha=alpha)
    return safe if safe != repaired else defused
