"""A tokenizer's own format for two texts, which encoders are trained on: `[CLS] query [SEP] passage [SEP]`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.tokens import SafeTokenizer

_PROBES = ("a", "b")
"""Any two texts; the tokenizer puts the same tokens around all of them."""


class PairFormat:
    """Special tokens that a tokenizer puts before, between and after two texts, and their token types.

    safe: the tokenizer. Raises ContractError if it has no such format: without a separator, a model cannot tell where
    the first text ends.
    """

    def __init__(self, safe: SafeTokenizer) -> None:
        self._safe = safe
        tokenizer = safe.tokenizer
        probe = tokenizer(*_PROBES, return_token_type_ids=True)
        segments: list[int | None] = probe.sequence_ids()
        order = [segment for segment, _ in groupby(segments) if segment is not None]
        if order != [0, 1] or (between := segments.index(1) - _end(segments, 0)) == 0:
            raise ContractError(
                f"tokenizer {type(tokenizer).__name__} has no format for two texts (no separator between them), which "
                "the layout 'pair' needs; use another prompt template"
            )
        ids: list[int] = probe["input_ids"]
        first, second = segments.index(0), segments.index(1)
        parts = (ids[:first], ids[second - between : second], ids[_end(segments, 1) :])
        self._before, self._between, self._behind = map(tuple, parts)
        self._shown = tuple("".join(tokenizer.convert_ids_to_tokens(part)) for part in parts)
        # A query is shared by the pairs of all its passages.
        self._query_ids = functools.lru_cache(maxsize=16)(safe.encode)
        # Tokenizers may return token types even if the model does not use them.
        types: list[int] = probe["token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else []
        is_typed = 1 in types
        self._n_typed_first = sum(kind == 0 for kind in types[second - between : second]) if is_typed else None

    def encode(
        self, query: str, passage: str, *, query_tokens: int, passage_tokens: int
    ) -> tuple[tuple[int, ...], int]:
        """Return the ids of a pair, and the number of leading ids of the first token type; 0 if the tokenizer has no
        types.

        Each text is truncated to its own limit, and the passage further if the pair would exceed the tokenizer's
        `model_max_length`. Control tokens written in either text remain text. Raises ConfigError if that length leaves
        no room for a passage.
        """
        query_ids = self._query_ids(query)[:query_tokens]
        room = self._most_tokens - self._n_around - len(query_ids)
        if room < 1:
            raise ConfigError(
                f"a query of {len(query_ids)} tokens leaves no room for a passage: the model accepts "
                f"{self._most_tokens} tokens per pair; use a smaller --q-max-len"
            )
        passage_ids = self._safe.encode(passage)[: min(passage_tokens, room)]
        ids = (*self._before, *query_ids, *self._between, *passage_ids, *self._behind)
        if self._n_typed_first is None:
            return ids, 0
        return ids, len(self._before) + len(query_ids) + self._n_typed_first

    def passage_room(self, query: str, *, query_tokens: int, passage_tokens: int) -> int:
        """Return the tokens left for a passage with this query, truncated to `query_tokens`; 0 if none."""
        n_query = min(len(self._query_ids(query)), query_tokens)
        return max(0, min(passage_tokens, self._most_tokens - self._n_around - n_query))

    def show(self, query: str, passage: str) -> str:
        """Return the pair as text with special tokens, not truncated."""
        before, between, behind = self._shown
        return " ".join(part for part in (before, query, between, passage, behind) if part)

    @property
    def _n_around(self) -> int:
        return len(self._before) + len(self._between) + len(self._behind)

    @property
    def _most_tokens(self) -> int:
        # transformers uses 1e30 if no limit is configured.
        return int(self._safe.tokenizer.model_max_length)


def _end(segments: Sequence[Any], segment: int) -> int:
    """Return the index after the last token of a text."""
    return len(segments) - list(reversed(segments)).index(segment)
