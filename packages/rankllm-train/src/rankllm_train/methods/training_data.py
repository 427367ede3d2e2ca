"""Components that a method derives from a recipe: data set, collator, objective and card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rankllm_core.card import Card
from rankllm_train.models.base_names import base_name
from rankllm_train.recipe.recipe import Recipe

Track = Callable[[Sequence[Any]], Iterable[Any]]
"""Yields the records unchanged, and may show progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Inputs of the training loop, and the card that follows from them."""

    dataset: Any
    collator: Any
    objective: Any
    card: Card
    notes: tuple[str, ...] = ()
    """Notes for the user, such as skipped records."""


def pad_id(tokenizer: Any) -> int:
    """Return the id for padding. Its value does not matter, since padding is never read."""
    return next(int(i) for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)


def base_of_adapters(recipe: Recipe) -> str | None:
    """Return the base model for the card; None for a fully fine-tuned model, which has no separate base."""
    return base_name(recipe.model.name_or_path) if recipe.lora.enabled else None


def collator_of_both(data: TrainingData, dev: TrainingData | None) -> Any:
    """Return one collator for training and dev data: the one with more identifiers, unless either has none."""

    def n_identifiers(collator: Any) -> int:
        return len(getattr(collator, "identifier_ids", ()))

    collators = [part.collator for part in (data, dev) if part]
    shortest = min(collators, key=n_identifiers)
    return max(collators, key=n_identifiers) if n_identifiers(shortest) else shortest
