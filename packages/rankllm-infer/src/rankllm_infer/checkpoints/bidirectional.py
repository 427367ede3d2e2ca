"""Decoders with bidirectional attention, recognized by their configuration or card.

Each token attends to the whole prompt, and a score head reads the pooled states. Source of the settings:
NVIDIA-NeMo/Automodel nemo_automodel/components/models/llama_bidirectional/model.py, whose checkpoints
(llama-nemotron-rerank) have the model type `llama_bidirec`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rankllm_core.card import Card
from rankllm_core.errors import ConfigError, ContractError

_OWN_TYPES = {"llama_bidirec": "llama"}
"""Model types unknown to transformers -> transformers architecture with the same weights."""
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures that transformers runs with bidirectional attention if `is_causal` is false."""
POOLINGS = {"avg": "mean", "cls": "first", "last": "last"}
"""NVIDIA's names -> names used in cards."""
_USUAL_POOLING = "avg"
"""Default of `llama_bidirec` if its configuration names no pooling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bidirectional:
    """How a decoder with bidirectional attention is read."""

    architecture: str
    """transformers' model type with the same layers."""
    pooling: str
    """`mean`, `first` or `last`."""
    temperature: float = 1.0
    """Divisor of the head's output."""


def bidirectional_of(config: Mapping[str, object], *, name: str, card: Card | None = None) -> Bidirectional | None:
    """Return how a bidirectional model is read; None if its attention is causal or it is not a decoder.

    config: its `config.json`. name: name of the model, for messages. card: its card, which may add settings. Raises
    ContractError if configuration and card contradict each other, or if neither names a pooling.
    """
    model_type = str(config.get("model_type"))
    is_declared = _declares(config)
    asked = getattr(card, "attention", None)
    if is_declared and asked == "causal":
        raise ContractError(
            f"{name}: config.json declares bidirectional attention, but the card causal attention; correct the card"
        )
    if not is_declared and asked != "bidirectional":
        return None
    architecture = _OWN_TYPES.get(model_type, model_type)
    if architecture not in _FAMILIES:
        raise ContractError(
            f"{name}: bidirectional attention is supported for {', '.join(_FAMILIES)}, found model type {model_type!r}"
        )
    return Bidirectional(
        architecture=architecture,
        pooling=_pooling(config, name=name, asked=getattr(card, "pooling", None)),
        temperature=_temperature(config, name=name),
    )


def _declares(config: Mapping[str, object]) -> bool:
    """Return whether a configuration declares bidirectional attention."""
    if config.get("model_type") in _OWN_TYPES:
        return True
    is_asked = config.get("is_causal") is False or config.get("use_bidirectional_attention") is True
    return is_asked and config.get("model_type") in _FAMILIES


def _pooling(config: Mapping[str, object], *, name: str, asked: str | None) -> str:
    usual = _USUAL_POOLING if config.get("model_type") in _OWN_TYPES else None
    declared = config.get("pooling", usual)
    if declared is not None and declared not in POOLINGS:
        raise ContractError(f"{name}: config.json: pooling: expected {', '.join(POOLINGS)}, found {declared!r}")
    found = None if declared is None else POOLINGS[str(declared)]
    if found is None and asked is None:
        raise ContractError(f"{name}: neither config.json nor the card names a pooling; add one to rankllm.yaml")
    if None not in (found, asked) and found != asked:
        raise ContractError(f"{name}: config.json names pooling {found!r}, but the card {asked!r}; correct the card")
    return str(asked if found is None else found)


def _temperature(config: Mapping[str, object], *, name: str) -> float:
    found = config.get("temperature", 1.0) if config.get("model_type") in _OWN_TYPES else 1.0
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not is_number or not math.isfinite(found) or found <= 0:  # type: ignore[operator, arg-type]
        raise ContractError(f"{name}: config.json: temperature: expected a number above 0, found {found!r}")
    return float(found)  # type: ignore[arg-type]


def check_bidirectional(card: Card, *, name: str, compiles: bool, trust_remote_code: bool) -> None:
    """Raise ConfigError if a decoder with bidirectional attention does not support what is requested."""
    what = f"{name} has bidirectional attention"
    if card.kind != "pointwise" or card.head != "sequence-classification":
        how = card.kind if card.kind != "pointwise" else f"read by {card.head}"
        raise ConfigError(
            f"{what} and predicts no next token; it needs a card for its score head, found a card that is {how}"
        )
    if compiles:
        raise ConfigError(f"--compile: {what}, which cannot be compiled; leave it out")
    if trust_remote_code:
        raise ConfigError(f"--trust-remote-code has no effect: {what}, which is run without its own code; leave it out")
