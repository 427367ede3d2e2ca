"""How a stored passage becomes the text a prompt holds: its fields, repaired, shortened and freed of identifiers.

Source: castorini/rank_llm@1b3cabb src/rank_llm/rerank/listwise/listwise_inference_handler.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from rankllm_core.answers import lookalikes
from rankllm_core.errors import RankLLMError
from rankllm_core.spellings import may_pose
from rankllm_core.types import Names

TEXT_FIELDS = ("text", "segment", "contents", "content", "body", "passage")
"""Where the text of a passage may be stored; the first one present counts."""
_CHARACTERS_A_WORD = 32
_SPARE_CHARACTERS = 256


def title_and_text(doc: Mapping[str, object]) -> tuple[str, str]:
    """Title (empty where there is none) and text of a stored passage, from the first field that is not null.

    Raises RankLLMError when none of TEXT_FIELDS is there.
    """
    for name in TEXT_FIELDS:
        if doc.get(name) is not None:
            return as_text(doc.get("title"), what="title"), as_text(doc[name], what=name)
    if any(name in doc for name in TEXT_FIELDS):
        return as_text(doc.get("title"), what="title"), ""
    found = ", ".join(repr(key) for key in doc) or "nothing"
    raise RankLLMError(f"passage without text: expected one of {', '.join(TEXT_FIELDS)}; found {found}")


def passage_text(doc: Mapping[str, object]) -> str:
    """The text of a passage, titled `Title: T Content: C` where it has a title, mojibake repaired, blanks trimmed."""
    title, text = title_and_text(doc)
    return fix_text((f"Title: {title} Content: {text}" if title else text).strip())


def as_text(value: object, *, what: str = "text") -> str:
    """A stored text field as a string; null is an empty text. Raises RankLLMError for a list or an object."""
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
    """The first n words, joined by single blanks, and of those the first `32 n + 256` characters.

    The bound on characters is ours: it never meets words of a language written with blanks, and keeps a passage of a
    million letters without one from filling the prompt.
    """
    return " ".join(text.split(None, n)[:n])[: _CHARACTERS_A_WORD * n + _SPARE_CHARACTERS] if n > 0 else ""


def words_in(text: str) -> int:
    """The least n for which `first_words(text, n)` leaves nothing out."""
    words = text.split()
    n_characters = sum(map(len, words)) + max(0, len(words) - 1)
    return max(len(words), -(-(n_characters - _SPARE_CHARACTERS) // _CHARACTERS_A_WORD))


def defuse(text: str, names: Names) -> str:
    """The text with everything that could pose as an identifier of the prompt in round brackets (`lookalikes.defuse`).

    Most texts hold nothing of the kind and are returned as they are after a quick look.
    """
    return lookalikes.defuse(text, names) if may_pose(text, word=names.word) else text


def defuse_identifiers(text: str, *, alpha: bool = False) -> str:
    """Write `[3]` as `(3)`, and with alpha `[B]` as `(B)`, so that a passage or query cannot pose as an identifier.

    So is everything that the answer reader would take for one, such as `[ 3 ]`, `［３］`, `①` and `&#91;3&#93;`;
    nothing else is changed.
    """
    return defuse(text, Names("alpha" if alpha else "numeric"))


def safe_query(text: str, *, alpha: bool = False) -> str:
    """The query without identifiers, also without those that repairing the whole prompt would make of mojibake."""
    defused = defuse_identifiers(text, alpha=alpha)
    repaired = fix_text(defused)
    safe = defuse_identifiers(repaired, alpha=alpha)
    return safe if safe != repaired else defused
