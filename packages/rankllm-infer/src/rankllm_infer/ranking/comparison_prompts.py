"""Prompts that compare two passages: writing them for an engine, sharing prefixes, and reading the preference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from rankllm_core.card import PairwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.pairs import ComparisonEncoder
from rankllm_core.prompts.template import Message, Span
from rankllm_core.text import first_words
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.ranking.pointwise import UNREPORTED_LOGPROB, sharing


class ComparisonWriter(Protocol):
    """Writes the prompt for two passages in the form that an engine takes."""

    def write(self, query: str, passage_a: str, passage_b: str) -> Prompt:
        """Return the prompt that shows two passages, each with its title, in this order."""


class TokenComparisonWriter:
    """Writes comparisons with the model's own tokenizer."""

    def __init__(self, encoder: ComparisonEncoder, card: PairwiseCard) -> None:
        self._encoder = encoder
        self._card = card

    def write(self, query: str, passage_a: str, passage_b: str) -> Prompt:
        """Return the prompt with its token ids."""
        text, ids = self._encoder.encode(query, passage_a, passage_b)
        return Prompt(text=text, read="first-token", identifiers=self._card.tokens_read, token_ids=ids)


class MessageComparisonWriter:
    """Writes comparisons as chat messages, for an unknown tokenizer: lengths are counted in words."""

    def __init__(self, card: PairwiseCard) -> None:
        """Raises ConfigError for a template without chat turns, since a chat server adds its own."""
        if not card.template.is_chat:
            raise ConfigError(
                f"template {card.template.name}: has no chat turns, but a chat server adds its own; "
                "use --engine transformers, or a chat template (--prompt-template-path pairwise)"
            )
        self._card = card

    def write(self, query: str, passage_a: str, passage_b: str) -> Prompt:
        """Return the prompt as messages."""
        template = self._card.template
        # Convert token limits to words at 4/3 tokens per word, the usual ratio for English text.
        n_query, n_passage = (max(1, n * 3 // 4) for n in (self._card.query_tokens, self._card.passage_tokens))
        messages = template.render(
            first_words(query, n_query), first_words(passage_a, n_passage), first_words(passage_b, n_passage)
        )
        if template.answer_prefix:
            messages = (*messages, Message("assistant", (Span(template.answer_prefix),)))
        return Prompt(
            text="\n".join(f"{message.role}: {message.content}" for message in messages),
            read="first-token",
            # Servers report tokens with or without the leading space; see `identifier_scores`.
            identifiers=tuple(token.strip() for token in self._card.tokens_read),
            messages=messages,
            max_new_tokens=1,
        )


def sharing_by_group(prompts: Sequence[Prompt], groups: Sequence[int]) -> tuple[Prompt, ...]:
    """Set the number of shared leading ids of each prompt.

    groups: for each prompt, the passage that it shows first. Prompts of one group share the query and that passage;
    prompts that are alone in their group share the query.
    """
    members: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    alone = [place for places in members.values() if len(places) == 1 for place in places]
    told = list(prompts)
    for places in (*(places for places in members.values() if len(places) > 1), alone):
        for place, prompt in zip(places, sharing([prompts[place] for place in places]), strict=True):
            told[place] = prompt
    return tuple(told)


def read_preference(answer: Answer, docids: tuple[str, str]) -> float:
    """Return the probability that the passage shown first is more relevant: the softmax over the two tokens read.

    Raises EngineError naming both docids if the answer does not contain two usable scores.
    """
    where = f"docids {docids[0]!r} and {docids[1]!r}"
    if len(answer.scores) != 2:
        raise EngineError(f"{where}: expected the scores of two tokens, the engine returned {list(answer.scores)}")
    first, second = (UNREPORTED_LOGPROB if score == -math.inf else score for score in answer.scores)
    margin = first - second
    if not math.isfinite(margin):
        raise EngineError(f"{where}: the model's scores are {list(answer.scores)}, expected finite numbers")
    odds = math.exp(-abs(margin))
    return 1 / (1 + odds) if margin >= 0 else odds / (1 + odds)


def unreported_tokens(answer: Answer, prompt: Prompt, docids: tuple[str, str]) -> tuple[str, ...]:
    """Return defects for tokens whose probabilities a server did not report."""
    return tuple(
        f"docids {docids[0]!r} and {docids[1]!r}: missing [{label}]"
        for label, score in zip(prompt.identifiers, answer.scores, strict=False)
        if score == -math.inf
    )
