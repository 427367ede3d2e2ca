"""Truncate the passages of an overlong listwise record to fewer words, as inference does to fit its context."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from rankllm_core.prompts.template import ListwiseTemplate
from rankllm_core.text import first_words, words_in
from rankllm_train.data.passage_ends import last_passage_end, text_end
from rankllm_train.data.rankings import passage_identifiers
from rankllm_train.data.records import ListwiseRecord


def passage_spans(prompt: str, template: ListwiseTemplate | None = None) -> list[tuple[int, int]]:
    """Return the span of each passage's text, after its identifier and over all its lines.

    template: the template of the prompt, if known; it tells what follows each passage and the last one (see `text_end`,
    `last_passage_end`). Line breaks after a passage do not belong to it.
    """
    starts, breaks = [], []
    position = 0
    for label in passage_identifiers(prompt):
        match = re.compile(rf"^\[{label}\] ?", re.MULTILINE).search(prompt, position)
        if match is None:  # impossible: the identifiers were found at line starts, in this order
            raise ValueError(f"no line begins with [{label}]")
        position = match.end()
        starts.append(position)
        breaks.append(match.start())
    ends = [*breaks[1:], last_passage_end(prompt, starts[-1], template)]
    return [(start, text_end(prompt, start, end, template)) for start, end in zip(starts, ends, strict=True)]


def shortened(record: ListwiseRecord, words: int, *, template: ListwiseTemplate | None = None) -> ListwiseRecord:
    """Return the record with every passage truncated to this many words; shorter passages are unchanged.

    A truncated passage of several lines becomes one line, as at inference.
    """
    parts, position = [], 0
    for start, end in passage_spans(record.prompt, template):
        text = record.prompt[start:end]
        parts += [record.prompt[position:start], first_words(text, words) if words_in(text) > words else text]
        position = end
    return replace(record, prompt="".join(parts) + record.prompt[position:])


def fit(
    record: ListwiseRecord,
    count: Callable[[ListwiseRecord], int],
    *,
    limit: int,
    template: ListwiseTemplate | None = None,
) -> ListwiseRecord | None:
    """Return the record with the most words per passage that keep it within the limit; None if one word is too many.

    count: returns the tokens of a record, prompt and answer.
    """
    longest = max(words_in(record.prompt[start:end]) for start, end in passage_spans(record.prompt, template))
    fits, too_many = 0, longest + 1
    while too_many - fits > 1:
        words = (fits + too_many) // 2
        if count(shortened(record, words, template=template)) <= limit:
            fits = words
        else:
            too_many = words
    return shortened(record, fits, template=template) if fits else None
