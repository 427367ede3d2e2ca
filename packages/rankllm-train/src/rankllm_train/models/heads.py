"""Scoring heads identified by module names; does not import torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rankllm_core.checkpoints.encoders import is_encoder
from rankllm_core.nn.model_parts import backbone_of

_POOLER = "pooler"
_SCORE = "score"
_OLD_NAMES = frozenset({"LayerNorm.gamma", "LayerNorm.beta"})


def is_encoder_model(model: Any) -> bool:
    """Whether a loaded model is a bidirectional encoder."""
    return is_encoder(model.config.to_dict())


def head_parts(model: Any) -> tuple[str, ...]:
    """Return the names of the modules that compute the score; they are trained in full next to adapters.

    In an encoder, everything after the backbone, and the pooler, which some architectures place inside it; in a
    decoder, the score layer, if any.
    """
    if not is_encoder_model(model):
        return (_SCORE,) if hasattr(model, _SCORE) else ()
    backbone = backbone_of(model)
    behind = [
        name
        for name, child in model.named_children()
        if child is not backbone and next(child.parameters(), None) is not None
    ]
    return tuple(behind) if getattr(backbone, _POOLER, None) is None else (_POOLER, *behind)


def is_in_head(path: str, parts: Iterable[str]) -> bool:
    """Whether the module or weight at this path belongs to the head. parts: see `head_parts`."""
    return not set(parts).isdisjoint(path.split("."))


def save_by_present_names(model: Any) -> None:
    """Save a model under its layers' own names if its checkpoint has those of TensorFlow's BERT.

    transformers reads `LayerNorm.gamma` as `LayerNorm.weight` and renames it back on saving, if the checkpoint used
    that name and always under ZeRO-3. Not every library reads such names.
    """
    conversions = getattr(model, "_weight_conversions", None) or []
    model._weight_conversions = [known for known in conversions if not _OLD_NAMES & set(known.source_patterns)]
