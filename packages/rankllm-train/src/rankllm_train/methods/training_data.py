"""What a method makes of a recipe: data set, collator, objective and card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rankllm_core.card import Card
from rankllm_train.models.base_names import base_name
from rankllm_train.recipe.recipe import Recipe

Track = Callable[[Sequence[Any]], Iterable[Any]]
"""Gives the records it is given, and may show how far they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """What the loop is fed with, and the card that follows from it."""

    dataset: Any
    collator: Any
    objective: Any
    card: Card
    notes: tuple[str, ...] = ()
    """What a user should know: records left out, and the like."""


def pad_id(tokenizer: Any) -> int:
    """The id that fills a batch. Any does: nothing looks at it."""
    return next(int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)


def base_of_adapters(recipe: Recipe) -> str | None:
    """What the card names as the base model; None where the model is trained in full, and is its own."""
    return base_name(recipe.model.name_or_path) if recipe.lora.enabled else None


def collator_of_both(data: TrainingData, dev: TrainingData | None) -> Any:
    """One collator for training and dev data: the longer lists need the longer row of identifiers, if both have one."""

    def n_identifiers(collator: Any) -> int:
        return len(getattr(collator, "identifier_ids", ()))

    collators = [part.collator for part in (data, dev) if part]
    shortest = min(collators, key=n_identifiers)
    return max(collators, key=n_identifiers) if n_identifiers(shortest) else shortest
