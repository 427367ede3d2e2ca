"""Positive passages of either kind of record in one form, and the keys that link records.

A pointwise record stores title and text; a listwise prompt shows `Title: ... Content: ...`, repaired, defused and
truncated to a number of words. Only the words of the text are compared, leniently (`normalised`); of a text that may be
truncated, those that remain.
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
"""A text that may be truncated matches a longer one by prefix if it has this many words; shorter ones must be equal."""
_LONGEST_UNIT = 8
"""In characters. Longer words, and lines of scripts without spaces, count as several words."""
_CHARACTERS_A_WORD, _SPARE_CHARACTERS = 32, 256
"""Where `rankllm_core.text.first_words` truncates a text without spaces, inside a word."""
_TITLED = re.compile(r"Title:(?: (.*?))?? Content:(?: (.*))?\Z", re.DOTALL)
"""As written by `passage_text`; where whitespace was folded, nothing remains of a blank title."""
_QUERIES_IN_PROMPT = re.compile(r"^Search Query: (.*?)\.?$", re.MULTILINE)
"""Where the originals' listwise prompts repeat the query, after the passages."""


class Positive(NamedTuple):
    """Passage that a record teaches to rank first."""

    docid: str | None
    words: tuple[str, ...]
    """Words of its text, or of its title if it has no text."""
    may_be_cut: bool
    """Whether the text may be truncated, as a prompt shows only its first words."""


class RecordKeys(NamedTuple):
    """Keys of a record that the other side of a split must not share."""

    query: int
    """Digest of the query."""
    positives: tuple[int, ...]
    """Digests of docids and full texts."""
    passages: tuple[Positive, ...]

    def cut_lengths(self) -> Iterator[int]:
        """Yield the word counts of texts that may be prefixes of others."""
        return (len(p.words) for p in self.passages if p.may_be_cut and len(p.words) >= LEAST_WORDS)

    def beginnings(self, lengths: Collection[int]) -> Iterator[int]:
        """Yield digests of the passages' prefixes with these word counts, comparable with digests of full texts."""
        for passage in self.passages:
            words = hashlib.blake2b(b"text", digest_size=8)
            for n, word in enumerate(passage.words[:-1], start=1):
                words.update(b" " + word.encode("utf-8", "surrogatepass"))
                if n in lengths:
                    yield int.from_bytes(words.copy().digest(), "big")


def record_keys(record: Mapping[str, object], *, path: str | Path, line: int) -> RecordKeys:
    """Return the keys of a record's query and positives; in a listwise record, the top-ranked passage and
    `positive_docids`.

    Raises DataError naming `path` and `line` if it is neither a listwise nor a pointwise record, or has no recognizable
    query.
    """
    with located(path, line):
        if "conversations" in record:
            return _listwise(parse_listwise(record, path=path, line=line))
        if "positive_passages" in record or "passages" in record:
            return _pointwise(parse_pointwise(record, path=path, line=line))
        raise RankLLMError(
            "expected a listwise record (key 'conversations') or a pointwise one (key 'positive_passages'), found "
            f"{', '.join(map(repr, record)) or 'no keys'}"
        )


def _pointwise(record: PointwiseRecord) -> RecordKeys:
    positives = tuple(
        # As a prompt would show it, since text repair may change its words.
        Positive(p.docid, _words(passage_text({"title": p.title, "text": p.text})), may_be_cut=False)
        for p in record.positives
    )
    return _keys(record.query, positives)


def _listwise(record: ListwiseRecord) -> RecordKeys:
    query = record.query
    if query is None:
        told = _QUERIES_IN_PROMPT.findall(record.prompt)
        if not told:
            raise record.error("contains no query, neither under 'query' nor after 'Search Query: ' in the prompt")
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
    """Return the words of a passage as shown in a prompt, without title. may_be_cut: the last word may be
    incomplete."""
    titled = _TITLED.match(shown)
    content = shown if titled is None else titled[2] or titled[1] or ""
    words = [
        word[start : start + _LONGEST_UNIT]
        for word in normalised(content.translate(_invisible())).split()
        for start in range(0, len(word), _LONGEST_UNIT)
    ]
    # Only texts with very few spaces reach this length and are truncated inside a word.
    if may_be_cut and len(words) > 1 and len(shown) >= _CHARACTERS_A_WORD * len(shown.split()) + _SPARE_CHARACTERS:
        words.pop()
    return tuple(words)


@cache
def _invisible() -> dict[int, None]:
    """Format characters, such as zero-width spaces, which a prompt may lack although the record has them."""
    return {code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"}
