"""Finds listwise records whose prompt does not show its passages, or shows different ones alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from rankllm_core.prompts.content import find_same
from rankllm_train.data.records import ListwiseRecord
from rankllm_train.data.shortening import passage_spans


class Encoded(Protocol):
    """A record as ids, of which the first `n_prompt` are the prompt's."""

    token_ids: object
    n_prompt: int


class WindowWatch:
    """Looks at records one by one. Only the first is encoded again, and one whose ids an earlier one had.

    encode: gives a record as ids. Memory: a number for each record.
    """

    def __init__(self, encode: Callable[[ListwiseRecord], Encoded]) -> None:
        self._encode = encode
        self._seen: set[int] = set()

    def check(self, record: ListwiseRecord, encoded: Encoded) -> None:
        """Raise DataError where any other passages would give the same prompt, as a chat template can bring about."""
        ids = _prompt_ids(encoded)
        is_suspect = not self._seen or hash(ids) in self._seen
        self._seen.add(hash(ids))
        if is_suspect and _prompt_ids(self._encode(_with_other_passages(record))) == ids:
            raise record.error(
                "the prompt holds nothing of the passages; look at the tokenizer's chat template, or give the prompt "
                "template a chat_layout"
            )


def n_alike(record: ListwiseRecord, shorter: ListwiseRecord) -> int:
    """Passages that a shortened record shows exactly as another one, from which they differ in the record itself."""
    whole, shown = ([r.prompt[start:end] for start, end in passage_spans(r.prompt)] for r in (record, shorter))
    if len(whole) != len(shown):
        return 0
    return len(find_same(shown, range(len(shown)), lambda position: whole[position]))


def _prompt_ids(encoded: Encoded) -> tuple[int, ...]:
    return tuple(encoded.token_ids[: encoded.n_prompt])  # type: ignore[index]


def _with_other_passages(record: ListwiseRecord) -> ListwiseRecord:
    parts, position = [], 0
    for start, end in passage_spans(record.prompt):
        other = "a" if record.prompt[start:end].startswith("0") else "0"
        parts += [record.prompt[position:start], other if record.prompt[start:end].strip() else ""]
        position = end
    return replace(record, prompt="".join(parts) + record.prompt[position:])
