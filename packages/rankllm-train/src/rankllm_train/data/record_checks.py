"""Reasons why a record teaches nothing, or the opposite of its labels. Training and `check-data` share these checks."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from rankllm_train.data.rankings import target_ranks
from rankllm_train.data.records import ListwiseRecord, PointwiseRecord, TrainingPassage
from rankllm_train.data.sameness import exact_form
from rankllm_train.data.shortening import passage_spans

_INVISIBLE = ("Cc", "Cf")
"""Unicode categories of invisible characters, such as zero-width spaces."""
_PRESENTATION = "\ufe0e\ufe0f"
"""Text and emoji presentation selectors, which are marks but invisible by themselves."""
_FIRST_TEXT, _SECOND_TEXT = (re.compile(rf"^\[(?:{names})\] ?(.*)", re.MULTILINE) for names in ("1|A", "2|B"))


def checked_ranks(record: ListwiseRecord, *, objective: str = "generation") -> tuple[int, ...]:
    """Return the 1-based target rank of each passage of a trainable record, in prompt order.

    objective: generation, ranking or combined. Raises DataError naming file, line and record if the target does not
    rank the prompt's passages (`target_ranks`), if the number of docids differs from theirs, or if there is a single
    passage and the objective compares passages.
    """
    ranks = target_ranks(record)
    if record.docids and len(record.docids) != len(ranks):
        raise record.error(f"docids: expected {len(ranks)}, one per passage, found {len(record.docids)}")
    if len(ranks) == 1 and objective != "generation":
        raise record.error(f"a single passage has no order for --objective {objective} to learn; remove the record")
    return ranks


def check_texts(record: ListwiseRecord) -> None:
    """Raise DataError naming file, line and record if all passages have the same text.

    Meant for full records: truncated to the context, different passages may look the same.
    """
    if (n_passages := _n_copies(record.prompt)) > 1:
        raise record.error(f"all {n_passages} passages have the same text, so there is no order to learn")


def _n_copies(prompt: str) -> int:
    """Return the number of passages if all have the same text, else 0."""
    # Locating the end of each text is slow, and in nearly all prompts the first two start differently.
    firsts = {_first_word(match[1]) for match in (_FIRST_TEXT.search(prompt), _SECOND_TEXT.search(prompt)) if match}
    if len(firsts) > 1:
        return 0
    spans = passage_spans(prompt)
    if len({end - start for start, end in spans}) > 1:
        return 0
    return len(spans) if len({exact_form(prompt[start:end]) for start, end in spans}) == 1 else 0


def check_group(record: PointwiseRecord, *, needs_teacher: bool = False) -> None:
    """Raise DataError naming file, line and query if the record cannot be trained on.

    needs_teacher: whether every passage must have a teacher score. A record needs a positive and a negative that are
    not blank, and no text or docid may be on both sides: its score would be pushed up and down at the same time.
    """
    if not record.positives:
        raise record.error("no positive passage, expected at least one")
    if not record.negatives:
        raise record.error("no negative passage, expected at least one")
    blank = next((p for p in record.positives if _is_blank(p.title, p.text)), None)
    if blank is not None:
        raise record.error(f"the positive passage {blank.docid!r} is blank; remove it")
    if all(_is_blank(p.title, p.text) for p in record.negatives):
        raise record.error("all negative passages are blank, expected at least one with text")
    if needs_teacher and not record.has_teacher:
        raise record.error("no teacher scores, which the objectives kl and margin require; use cross-entropy")
    positives = {passage.docid for passage in record.positives}
    both = next((passage.docid for passage in record.negatives if passage.docid in positives), None)
    if both is not None:
        raise record.error(f"docid {both!r} is both a positive and a negative passage; remove one of them")
    _check_texts(record)


def _check_texts(record: PointwiseRecord) -> None:
    # Comparing whole texts is slow, and nearly all differ in their first word.
    firsts = [(_first_word(positive.text), positive) for positive in record.positives]
    words = {word for word, _ in firsts}
    copies = [
        (positive, negative)
        for negative in record.negatives
        if (word := _first_word(negative.text)) in words
        for first, positive in firsts
        if first == word and _is_same(positive, negative)
    ]
    if not copies:
        return
    if len(copies) == len(record.positives) * len(record.negatives):
        n_passages = len(record.positives) + len(record.negatives)
        raise record.error(f"all {n_passages} passages have the same text, so there is no order to learn")
    positive, negative = copies[0]
    raise record.error(
        f"the negative passage {negative.docid!r} has the same text as the positive {positive.docid!r}; remove one of "
        "them"
    )


def _is_blank(*texts: str) -> bool:
    """Whether the texts contain only whitespace and invisible characters."""
    return all(
        character.isspace() or character in _PRESENTATION or unicodedata.category(character) in _INVISIBLE
        for text in texts
        for character in text
    )


def _is_same(one: TrainingPassage, other: TrainingPassage) -> bool:
    if one.text == other.text and one.title == other.title:
        return True
    return exact_form(one.text) == exact_form(other.text) and exact_form(one.title) == exact_form(other.title)


def _first_word(text: str) -> str:
    # In scripts without spaces, compare the first letters: composing or folding cannot change more than the cut allows
    # for.
    words = text[:40].split(None, 1)
    return _folded(words[0]) if words else ""


@lru_cache(maxsize=1 << 16)
def _folded(word: str) -> str:
    return exact_form(word)[:8].rstrip(".,;:?!\u3002")
