"""Decoders with bidirectional attention, recognized by their configuration or by their card.

Each token sees the whole prompt, and a score head reads the pooled states.
Source of the settings: NVIDIA-NeMo/Automodel nemo_automodel/components/models/llama_bidirectional/model.py, whose
checkpoints (llama-nemotron-rerank) have the model type `llama_bidirec`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rankllm_core.card import Card
from rankllm_core.errors import ConfigError, ContractError

_OWN_TYPES = {"llama_bidirec": "llama"}
"""Model types that transformers does not know -> its architecture of the same weights."""
_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures that transformers runs with bidirectional attention where `is_causal` is false."""
POOLINGS = {"avg": "mean", "cls": "first", "last": "last"}
"""NVIDIA's names -> those of the card."""
_USUAL_POOLING = "avg"
"""Of `llama_bidirec` where its configuration names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bidirectional:
    """How a decoder with bidirectional attention is read."""

    architecture: str
    """The model type of transformers that has its layers."""
    pooling: str
    """`mean`, `first` or `last`."""
    temperature: float = 1.0
    """The head's output is divided by it."""


def bidirectional_of(config: Mapping[str, object], *, name: str, card: Card | None = None) -> Bidirectional | None:
    """How a model reads both ways; None where its attention is causal, or where it is no decoder.

    config: its `config.json`. name: the model, for messages. card: its card, which may say more.
    Raises ContractError where configuration and card contradict each other, or where neither names a pooling.
    """
    model_type = str(config.get("model_type"))
    is_declared = _declares(config)
    asked = getattr(card, "attention", None)
    if is_declared and asked == "causal":
        raise ContractError(f"{name}: config.json declares bidirectional attention, the card causal; correct the card")
    if not is_declared and asked != "bidirectional":
        return None
    architecture = _OWN_TYPES.get(model_type, model_type)
    if architecture not in _FAMILIES:
        raise ContractError(
            f"{name}: bidirectional attention is read over {', '.join(_FAMILIES)}, found model type {model_type!r}"
        )
    return Bidirectional(
        architecture=architecture,
        pooling=_pooling(config, name=name, asked=getattr(card, "pooling", None)),
        temperature=_temperature(config, name=name),
    )


def _declares(config: Mapping[str, object]) -> bool:
    """Whether a configuration says that its tokens see those behind them."""
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
        raise ContractError(f"{name}: config.json names the pooling {found!r}, the card {asked!r}; correct the card")
    return str(asked if found is None else found)


def _temperature(config: Mapping[str, object], *, name: str) -> float:
    found = config.get("temperature", 1.0) if config.get("model_type") in _OWN_TYPES else 1.0
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    if not is_number or not math.isfinite(found) or found <= 0:  # type: ignore[operator, arg-type]
        raise ContractError(f"{name}: config.json: temperature: expected a number above 0, found {found!r}")
    return float(found)  # type: ignore[arg-type]


def check_bidirectional(card: Card, *, name: str, compiles: bool, trust_remote_code: bool) -> None:
    """Raise ConfigError where a decoder with bidirectional attention cannot do what it is asked for."""
    what = f"{name} has bidirectional attention"
    if card.kind != "pointwise" or card.head != "sequence-classification":
        how = card.kind if card.kind != "pointwise" else f"read by {card.head}"
        raise ConfigError(f"{what}, which predicts no next token; its score head is read, but its card is {how}")
    if compiles:
        raise ConfigError(f"--compile: {what}, whose layers are not compiled here; leave it out")
    if trust_remote_code:
        raise ConfigError(f"--trust-remote-code has no effect: {what}, which runs without its own code; leave it out")
