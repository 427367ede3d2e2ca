"""Token ids of a (query, passage) pair for pointwise models, identical in training and inference, and of two passages.


Sources: RankLLaMA v1, texttron/tevatron@0545746 examples/rankllama/data.py; v2, texttron/tevatron@dd06310
src/tevatron/reranker/dataset.py.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.template import PairwiseTemplate, PointwiseTemplate
from rankllm_core.prompts.text_pairs import PairFormat
from rankllm_core.prompts.tokens import SafeTokenizer

_PASSAGE_MARGIN = 3
"""v1 truncates a passage at `passage_tokens - 3`, which leaves room for two BOS and one more special token."""
_PAIR_MARGIN = 4
"""v1 counts two BOS and two more special tokens in the pair's limit, and truncates the excess from the query's end."""
_SPARE = 8
"""Tokens in addition to text: BOS, EOS and spaces added by a tokenizer."""
_AMPLE = 8
"""Number of tokens that certainly show part of a passage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLimits:
    """Token limits of a pair."""

    query_tokens: int = 32
    passage_tokens: int = 164

    def __post_init__(self) -> None:
        if self.query_tokens < 1 or self.passage_tokens <= _PASSAGE_MARGIN:
            raise ConfigError(
                f"pair limits: need query_tokens >= 1 and passage_tokens > {_PASSAGE_MARGIN}, "
                f"got {self.query_tokens} and {self.passage_tokens}"
            )


class PairEncoder:
    """Encodes pairs into token ids with a pointwise template.

    append_eos: append EOS to the pair (`joined` only; the published adapters were trained without it).
    """

    def __init__(
        self,
        tokenizer: Any,
        template: PointwiseTemplate,
        *,
        limits: PairLimits,
        bos: str = "single",
        append_eos: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._limits = limits
        self._append_eos = append_eos
        self._safe = SafeTokenizer(tokenizer)
        # A query is shared by the pairs of all its passages.
        self._clipped_query = functools.lru_cache(maxsize=16)(lambda query: self._safe.clip(query, limits.query_tokens))
        self._chat = None
        self._pair = PairFormat(self._safe) if template.layout == "pair" else None
        if template.is_text:
            layout = "bare" if template.layout == "raw" else template.chat_layout
            self._chat = ChatEncoder(tokenizer, layout=layout, bos=bos, repair_text=False)
        elif template.layout == "segments" and tokenizer.bos_token_id is None:
            raise ContractError(
                f"template {template.name} puts BOS before each segment, but the tokenizer has no BOS token"
            )
        if append_eos and (template.layout != "joined" or tokenizer.eos_token_id is None):
            raise ConfigError("append_eos: needs the layout 'joined' and a tokenizer with an EOS token")

    def encode(self, query: str, *, title: str, text: str, instruction: str | None = None) -> tuple[int, ...]:
        """Return the ids of one pair, without padding. An empty title is written as the template specifies.

        instruction: for templates with a placeholder for one; None for their own.
        """
        if self._template.layout == "segments":
            return self._segments(query, title, text)
        if self._template.layout == "joined":
            return self._joined(query, title, text)
        if self._template.layout == "pair":
            return self.encode_typed(query, title=title, text=text)[0]
        return self.encode_question(query, title=title, text=text, instruction=instruction)[1]

    def encode_question(
        self, query: str, *, title: str, text: str, instruction: str | None = None
    ) -> tuple[str, tuple[int, ...]]:
        """Return text and ids of a pair in one text (`chat`, `raw`); its parts are truncated first, so that its end is
        kept."""
        if self._chat is None:
            raise ConfigError(f"template {self._template.name}: layout {self._template.layout!r} is not a single text")
        query = self._clipped_query(query)
        document = self._safe.clip(f"{title} {text}" if title else text, self._limits.passage_tokens)
        messages = self._template.render(query, document, instruction)
        prompt = self._chat.encode(messages, opening=self._template.answer_prefix)
        return prompt.text, prompt.token_ids

    def encode_texts(self, query: str, *, title: str, text: str) -> tuple[str, tuple[int, ...], int]:
        """Return text and ids of a pair (`pair` only), and the number of leading ids of the first token type (0: no
        types)."""
        if self._pair is None:
            raise ConfigError(
                f"template {self._template.name}: layout {self._template.layout!r} is not a pair of texts"
            )
        ids, n_first = self.encode_typed(query, title=title, text=text)
        return self._pair.show(query, f"{title} {text}" if title else text), ids, n_first

    def encode_typed(self, query: str, *, title: str, text: str) -> tuple[tuple[int, ...], int]:
        """Return the ids of one pair, and the number of leading ids of the first token type; 0 without token types."""
        if self._pair is None:
            return self.encode(query, title=title, text=text), 0
        limits = self._limits
        return self._pair.encode(
            query,
            f"{title} {text}" if title else text,
            query_tokens=limits.query_tokens,
            passage_tokens=limits.passage_tokens,
        )

    def passage_room(self, query: str) -> int:
        """Return a lower bound of the tokens for title and text with this query; 0 if nothing of them can be shown.

        Only in the layout `joined` can a long query take up a passage's tokens.
        """
        if self._template.is_text:
            return self._limits.passage_tokens
        if self._pair is not None:
            limits = self._limits
            return self._pair.passage_room(
                query, query_tokens=limits.query_tokens, passage_tokens=limits.passage_tokens
            )
        prefix = len(self._template.passage.encode())
        if self._template.layout == "segments":
            least = self._limits.passage_tokens - _PASSAGE_MARGIN - prefix
        else:
            least = self._limits.query_tokens + self._limits.passage_tokens - prefix
            # Hardly any tokenizer produces more tokens than bytes; where that might matter, the ids are compared.
            least -= len(self._template.query.encode()) + len(query.encode("utf-8", "replace")) + _SPARE
        if least >= _AMPLE:
            return least
        shown, other = (self.encode(query, title="", text=text) for text in ("0", "a"))
        return max(1, least) if shown != other else 0

    def _segments(self, query: str, title: str, text: str) -> tuple[int, ...]:
        limits = self._limits
        query_ids = self._safe.encode(self._template.query.format(query=query))[: limits.query_tokens]
        passage = self._template.passage.format(title=title, text=text)
        passage_ids = self._safe.encode(passage)[: limits.passage_tokens - _PASSAGE_MARGIN]
        total = limits.query_tokens + limits.passage_tokens
        over = max(0, len(query_ids) + len(passage_ids) + _PAIR_MARGIN - total)
        bos = self._tokenizer.bos_token_id
        return (bos, *query_ids[: len(query_ids) - over], bos, *passage_ids)

    def _joined(self, query: str, title: str, text: str) -> tuple[int, ...]:
        # v2 writes `-` in titles as a space, and joins the two parts with a space in addition to their own.
        title = title.replace("-", " ").strip()
        parts = (self._template.query.format(query=query), self._template.passage.format(title=title, text=text))
        joined = " ".join(parts).strip()
        room = self._limits.query_tokens + self._limits.passage_tokens - (1 if self._append_eos else 0)
        ids = [*self._safe.leading_ids(), *self._safe.encode(joined)][:room]
        return (*ids, self._tokenizer.eos_token_id) if self._append_eos else tuple(ids)


class ComparisonEncoder:
    """Encodes a query and two passages into text and token ids with a pairwise template.

    query_tokens, passage_tokens: limits of the query and of each passage. Raises ContractError if the tokenizer does
    not support the template's layout.
    """

    def __init__(
        self, tokenizer: Any, template: PairwiseTemplate, *, query_tokens: int, passage_tokens: int, bos: str = "single"
    ) -> None:
        self._template = template
        layout = "bare" if template.layout == "raw" else template.chat_layout
        self._chat = ChatEncoder(tokenizer, layout=layout, bos=bos, repair_text=False)
        safe = self._chat.safe
        # A query occurs in all prompts of a request, a passage once for each other passage.
        self._clipped_query = functools.lru_cache(maxsize=64)(lambda text: safe.clip(text, query_tokens))
        self._clipped_passage = functools.lru_cache(maxsize=4096)(lambda text: safe.clip(text, passage_tokens))

    def encode(self, query: str, passage_a: str, passage_b: str) -> tuple[str, tuple[int, ...]]:
        """Return text and ids of a prompt that ends where the answer is read; its parts are truncated beforehand."""
        messages = self._template.render(
            self._clipped_query(query), self._clipped_passage(passage_a), self._clipped_passage(passage_b)
        )
        prompt = self._chat.encode(messages, opening=self._template.answer_prefix)
        return prompt.text, prompt.token_ids
