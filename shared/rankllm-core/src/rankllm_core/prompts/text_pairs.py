"""A tokenizer's own format of two texts, as encoders are trained on it: `[CLS] query [SEP] passage [SEP]`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.tokens import SafeTokenizer

_PROBES = ("a", "b")
"""Any two texts: what the tokenizer puts around them is the same for all."""


class PairFormat:
    """What a tokenizer puts before, between and behind two texts, and which ids are of the first one's type.

    safe: the tokenizer whose format it is. Raises ContractError where it has none: where nothing stands between the two
    texts, a model cannot tell where the first one ends.
    """

    def __init__(self, safe: SafeTokenizer) -> None:
        self._safe = safe
        tokenizer = safe.tokenizer
        probe = tokenizer(*_PROBES, return_token_type_ids=True)
        segments: list[int | None] = probe.sequence_ids()
        order = [segment for segment, _ in groupby(segments) if segment is not None]
        if order != [0, 1] or (between := segments.index(1) - _end(segments, 0)) == 0:
            raise ContractError(
                f"tokenizer {type(tokenizer).__name__} has no format of two texts (nothing separates them), which the "
                "layout 'pair' needs; use another prompt template"
            )
        ids: list[int] = probe["input_ids"]
        first, second = segments.index(0), segments.index(1)
        parts = (ids[:first], ids[second - between : second], ids[_end(segments, 1) :])
        self._before, self._between, self._behind = map(tuple, parts)
        self._shown = tuple("".join(tokenizer.convert_ids_to_tokens(part)) for part in parts)
        # A query stands in the pairs of all its passages.
        self._query_ids = functools.lru_cache(maxsize=16)(safe.encode)
        # Tokenizers of models without token types may still number the texts, for nobody to read.
        types: list[int] = probe["token_type_ids"] if "token_type_ids" in tokenizer.model_input_names else []
        is_typed = 1 in types
        self._n_typed_first = sum(kind == 0 for kind in types[second - between : second]) if is_typed else None

    def encode(
        self, query: str, passage: str, *, query_tokens: int, passage_tokens: int
    ) -> tuple[tuple[int, ...], int]:
        """The ids of a pair, and how many leading ones are of the first token type; 0 where the tokenizer has no types.

        Each text is cut at its own limit, and the passage further where the pair would be longer than the tokenizer's
        `model_max_length`. Control tokens written in either text stay text. Raises ConfigError where that length leaves
        no room for a passage.
        """
        query_ids = self._query_ids(query)[:query_tokens]
        room = self._most_tokens - self._n_around - len(query_ids)
        if room < 1:
            raise ConfigError(
                f"a query of {len(query_ids)} tokens leaves no room for a passage: the model takes "
                f"{self._most_tokens} tokens a pair; use a smaller --q-max-len"
            )
        passage_ids = self._safe.encode(passage)[: min(passage_tokens, room)]
        ids = (*self._before, *query_ids, *self._between, *passage_ids, *self._behind)
        if self._n_typed_first is None:
            return ids, 0
        return ids, len(self._before) + len(query_ids) + self._n_typed_first

    def passage_room(self, query: str, *, query_tokens: int, passage_tokens: int) -> int:
        """Tokens that a passage has beside this query, which is cut at `query_tokens`; 0 where it has none."""
        n_query = min(len(self._query_ids(query)), query_tokens)
        return max(0, min(passage_tokens, self._most_tokens - self._n_around - n_query))

    def show(self, query: str, passage: str) -> str:
        """The pair as text, special tokens included; nothing is cut."""
        before, between, behind = self._shown
        return " ".join(part for part in (before, query, between, passage, behind) if part)

    @property
    def _n_around(self) -> int:
        return len(self._before) + len(self._between) + len(self._behind)

    @property
    def _most_tokens(self) -> int:
        # Where nobody says, transformers gives 1e30.
        return int(self._safe.tokenizer.model_max_length)


def _end(segments: Sequence[Any], segment: int) -> int:
    """The position behind the last token of a text."""
    return len(segments) - list(reversed(segments)).index(segment)
