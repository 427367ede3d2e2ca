"""Attention functions of our own among those of transformers: where they give way to torch's, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_CHANGES = ("softcap", "s_aux", "position_bias", "cache", "is_causal")
"""What some models have attention do beside the usual; torch's way is left to them."""


def use_attention_function(model: Any, name: str, attend: Callable[..., Any], *, keep_registered: bool = False) -> None:
    """Let a model that uses torch's attention (`sdpa`) use this function, under this name.

    keep_registered: leave a function that the name already has, such as one that is hidden from a compiler.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation != "sdpa":
        return
    if not keep_registered or name not in AttentionInterface().valid_keys():
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def changes_attention(options: Mapping[str, Any]) -> bool:
    """Whether a layer asks its attention for more than the usual (softcapping, sinks, position biases)."""
    return any(options.get(name) is not None for name in _CHANGES)


def causal_shares(rows_NQD: Tensor, key_NKD: Tensor, *, n_queries: int, scale: float) -> Tensor:
    """How each of the last n_queries tokens divides its attention among the K tokens up to it (NQK, sums of 1).

    N: batch and shared keys. Q: the heads that share keys, one under the other, n_queries rows each.
    """
    Q, K = rows_NQD.shape[1], key_NKD.shape[1]
    is_later = torch.ones(n_queries, K, dtype=torch.bool).triu_(K - n_queries + 1)
    hidden = rows_NQD.new_zeros(n_queries, K).masked_fill_(is_later, float("-inf")).repeat(Q // n_queries, 1)
    return torch.baddbmm(hidden, rows_NQD, key_NKD.transpose(1, 2), alpha=scale).softmax(-1)
