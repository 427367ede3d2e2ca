"""The positive passages of a record in one form, whichever of the two kinds it is, and the keys that link records.

A pointwise record stores title and text; a listwise prompt shows `Title: ... Content: ...`, repaired, defused, and cut
to so many words. Compared are the words of the text alone, leniently (`normalised`), and of a text that may be cut,
those that are left of it.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rankllm_core.errors import RankLLMError
from rankllm_core.files.json_text import located
from rankllm_core.text import fix_text, passage_text
from rankllm_train.data.rankings import target_ranks
from rankllm_train.data.records import ListwiseRecord, PointwiseRecord, parse_listwise, parse_pointwise
from rankllm_train.data.sameness import digest, normalised
from rankllm_train.data.shortening import passage_spans

LEAST_WORDS = 8
"""A text that may be cut is the beginning of another one where it has so many words; a shorter one must equal it."""
_LONGEST_UNIT = 8
"""Characters. Longer words, and lines of a script without blanks, count as several."""
_CHARACTERS_A_WORD, _SPARE_CHARACTERS = 32, 256
"""Where `rankllm_core.text.first_words` cuts a text without blanks, inside a word."""
_TITLED = re.compile(r"Title:(?: (.*?))?? Content:(?: (.*))?\Z", re.DOTALL)
"""As `passage_text` writes it; where blanks were folded, nothing is left of a title of blanks."""
_QUERIES_IN_PROMPT = re.compile(r"^Search Query: (.*?)\.?$", re.MULTILINE)
"""Where the originals' listwise prompts repeat the query, behind the passages."""


class Positive(NamedTuple):
    """A passage that a record teaches to put first."""

    docid: str | None
    words: tuple[str, ...]
    """Of its text, or of its title where it has no text."""
    may_be_cut: bool
    """Whether the text may go on: a prompt shows its first words."""


class RecordKeys(NamedTuple):
    """What a record must not share with the other side of a split."""

    query: int
    """A digest."""
    positives: tuple[int, ...]
    """Digests of docids and whole texts."""
    passages: tuple[Positive, ...]

    def cut_lengths(self) -> Iterator[int]:
        """Word counts of the texts that others may begin with."""
        return (len(p.words) for p in self.passages if p.may_be_cut and len(p.words) >= LEAST_WORDS)

    def beginnings(self, lengths: Collection[int]) -> Iterator[int]:
        """The digests that whole texts of these numbers of words would have, of what each passage begins with."""
        for passage in self.passages:
            words = hashlib.blake2b(b"text", digest_size=8)
            for n, word in enumerate(passage.words[:-1], start=1):
                words.update(b" " + word.encode("utf-8", "surrogatepass"))
                if n in lengths:
                    yield int.from_bytes(words.copy().digest(), "big")


def record_keys(record: Mapping[str, object], *, path: str | Path, line: int) -> RecordKeys:
    """The query and the positives of a record; of a listwise one, what its target ranks first and `positive_docids`.

    Raises DataError naming `path` and `line` where it is neither a listwise nor a pointwise record, and where it does
    not tell its query.
    """
    with located(path, line):
        if "conversations" in record:
            return _listwise(parse_listwise(record, path=path, line=line))
        if "positive_passages" in record or "passages" in record:
            return _pointwise(parse_pointwise(record, path=path, line=line))
        raise RankLLMError(
            "expected a listwise record ('conversations') or a pointwise one ('positive_passages'), found "
            f"{', '.join(map(repr, record)) or 'no key at all'}"
        )


def _pointwise(record: PointwiseRecord) -> RecordKeys:
    positives = tuple(
        # As a prompt would show it, since repairing a text may change its words.
        Positive(p.docid, _words(passage_text({"title": p.title, "text": p.text})), may_be_cut=False)
        for p in record.positives
    )
    return _keys(record.query, positives)


def _listwise(record: ListwiseRecord) -> RecordKeys:
    query = record.query
    if query is None:
        told = _QUERIES_IN_PROMPT.findall(record.prompt)
        if not told:
            raise record.error("does not tell its query, under 'query' or behind 'Search Query: ' in the prompt")
        query = told[-1]
    best = target_ranks(record).index(1)
    docids, relevant = dict(enumerate(record.docids)), set(record.positive_docids)
    positives = tuple(
        Positive(docids.get(place), _words(record.prompt[start:end], may_be_cut=True), may_be_cut=True)
        for place, (start, end) in enumerate(passage_spans(record.prompt))
        if place == best or docids.get(place) in relevant
    )
    return _keys(query, positives)


def _keys(query: str, passages: tuple[Positive, ...]) -> RecordKeys:
    keys = []
    for passage in passages:
        if passage.docid is not None:
            keys.append(digest("docid " + passage.docid))
        if passage.words:
            keys.append(digest("text " + " ".join(passage.words)))
    return RecordKeys(digest("query " + normalised(fix_text(query))), tuple(keys), passages)


def _words(shown: str, *, may_be_cut: bool = False) -> tuple[str, ...]:
    """The words of a passage as a prompt shows it, without its title. may_be_cut: the last one may be half a word."""
    titled = _TITLED.match(shown)
    content = shown if titled is None else titled[2] or titled[1] or ""
    words = [
        word[start : start + _LONGEST_UNIT]
        for word in normalised(content.translate(_invisible())).split()
        for start in range(0, len(word), _LONGEST_UNIT)
    ]
    # Only texts with very few blanks reach this length, and are cut inside a word.
    if may_be_cut and len(words) > 1 and len(shown) >= _CHARACTERS_A_WORD * len(shown.split()) + _SPARE_CHARACTERS:
        words.pop()
    return tuple(words)


@cache
def _invisible() -> dict[int, None]:
    """Format characters, such as zero-width blanks, which a prompt may not hold where the record does."""
    return {code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"}
