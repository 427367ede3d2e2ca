"""The ranking methods there are, by the kind of card that each of them goes with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rankllm_core.card import Card
from rankllm_infer.engines.base import Read
from rankllm_infer.ranking.flow import RankingMethod, RankingSettings
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.pointwise import PointwiseMethod


class MethodKind(Protocol):
    """What makes methods of one kind: a class with these two."""

    def check(self, card: Any, settings: RankingSettings) -> Read:
        """How prompts will be read, as far as is known without the model. Raises ConfigError."""

    def with_tokenizer(self, card: Any, settings: RankingSettings, tokenizer: Any) -> RankingMethod:
        """The method of a card of this kind. tokenizer: the model's own; None for a server's model."""


METHODS: Mapping[str, MethodKind] = {
    "listwise": ListwiseMethod,
    "pointwise": PointwiseMethod,
}
"""Kind of card -> what makes its method."""


def make_method(card: Card, settings: RankingSettings, tokenizer: Any) -> RankingMethod:
    """The method of a card. tokenizer: the model's own; None for a server's model.

    Raises ContractError where the tokenizer does not keep what the card promises.
    """
    return METHODS[card.kind].with_tokenizer(card, settings, tokenizer)


def check_settings(card: Card, settings: RankingSettings) -> Read:
    """How a card's prompts will be read, as far as is known without the model. Raises ConfigError.

    What does not go together is said here, before a model is loaded in vain.
    """
    return METHODS[card.kind].check(card, settings)
