"""What makes a score of a model's last states, by the names of its modules; torch is not needed to tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rankllm_core.checkpoints.encoders import is_encoder
from rankllm_core.nn.model_parts import backbone_of

_POOLER = "pooler"
_SCORE = "score"
_OLD_NAMES = frozenset({"LayerNorm.gamma", "LayerNorm.beta"})


def is_encoder_model(model: Any) -> bool:
    """Whether a loaded model sees both ways."""
    return is_encoder(model.config.to_dict())


def head_parts(model: Any) -> tuple[str, ...]:
    """Names of the modules that make a score of a model's last states: they are trained in full beside adapters.

    Of an encoder, all that stands behind its backbone, and the pooler, which some count to the backbone; of a decoder,
    its score layer, if any.
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
    """Whether a module or a weight of this path belongs to the head. parts: see `head_parts`."""
    return not set(parts).isdisjoint(path.split("."))


def save_by_present_names(model: Any) -> None:
    """Have a model saved by the names that its layers have, where its checkpoint has those of TensorFlow's BERT.

    transformers reads `LayerNorm.gamma` as `LayerNorm.weight` and turns it back when it saves: always, where a
    checkpoint had it, and under ZeRO-3 in any case. Not every library reads such names.
    """
    conversions = getattr(model, "_weight_conversions", None) or []
    model._weight_conversions = [known for known in conversions if not _OLD_NAMES & set(known.source_patterns)]
