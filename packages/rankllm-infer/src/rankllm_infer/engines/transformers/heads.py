"""Reads of a model at few places and for few tokens: the rest of its logits are never made.

Shapes: B rows, T new tokens, U places that are read, R tokens whose logits are wanted.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class _ExactRows(torch.nn.Linear):
    """Some rows of a head, in float32. In bf16 close logits tie: from 16 to 32, where many are, its step is 1/8."""

    def forward(self, states: Tensor) -> Tensor:
        """logits of the rows. states: in the model's type."""
        return torch.nn.functional.linear(states.float(), self.weight, self.bias)


class NarrowHead:
    """A model whose head gives the logits of some tokens only."""

    def __init__(self, model: Any, tokens: Sequence[int]) -> None:
        self.model = model
        self.tokens = tuple(tokens)
        self._column_of = {token: column for column, token in enumerate(tokens)}
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def columns(self, tokens: Sequence[int]) -> list[int]:
        """Where the logits of some of its tokens stand."""
        return [self._column_of[token] for token in tokens]

    def logits(self, places_U: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """logits_BUR at some places of the new tokens. inputs: what the model is given."""
        if self._keeps_logits:
            logits = self.model(**inputs, logits_to_keep=places_U).logits
        else:
            logits = self.model(**inputs).logits[:, places_U]
        if logits.shape[-1] != len(self.tokens):  # the model has its own way to its logits
            logits = logits[..., list(self.tokens)]
        return logits


@contextlib.contextmanager
def narrow_head(model: Any, tokens: Sequence[int]) -> Iterator[NarrowHead]:
    """Let the model's head give only the logits of some tokens, in float32; its own way from states to logits stays.

    A head that is no plain product, or whose device is chosen as it runs, stays as it is, in the model's type.
    """
    narrowed = NarrowHead(model, tokens)
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or hasattr(head, "_hf_hook"):  # spread over devices: the hook moves states
        yield narrowed
        return
    rows = torch.tensor(narrowed.tokens, device=head.weight.device)
    narrow = _ExactRows(head.in_features, len(rows), bias=head.bias is not None, device="meta")
    narrow.weight = torch.nn.Parameter(head.weight[rows].float(), requires_grad=False)
    if head.bias is not None:
        narrow.bias = torch.nn.Parameter(head.bias[rows].float(), requires_grad=False)
    model.set_output_embeddings(narrow)
    try:
        yield narrowed
    finally:
        model.set_output_embeddings(head)


def cache_argument(model: Any) -> str:
    """What the model's forward pass calls its cache; state-space models call it `cache_params`."""
    parameters = inspect.signature(model.forward).parameters
    return "cache_params" if "cache_params" in parameters else "past_key_values"


def can_share_prefix(model: Any) -> bool:
    """Whether the model's memory of a prefix can be handed to several rows: keys and values, and nothing else."""
    if rotation_limit(model.config) is not None:
        return False
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def rotation_limit(config: Any) -> int | None:
    """The length beyond which the model turns every token of a pass differently; None where length changes nothing.

    LongRoPE (arXiv:2402.13753) has factors for short and for long texts, and transformers chooses by the longest row of
    a pass: such a model's rows cannot share one with others, nor a cache across the limit.
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if part.get("rope_type", part.get("type")) == "longrope":
            limit = part.get("original_max_position_embeddings")
            return limit or getattr(config, "original_max_position_embeddings", config.max_position_embeddings)
    return None
