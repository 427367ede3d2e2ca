"""Attention on a CPU in bfloat16, where torch's own takes more than half of the time of a long prompt.

Long prompts: queries go in blocks against the keys up to their end, and the heads that share keys are one matrix: two
large matrix products a block, which run at the speed of bfloat16 hardware. As in the `eager` attention of transformers,
the scores are rounded to bfloat16 before the softmax, whose sums are in float32.
A few tokens behind a cached prompt: heads that share keys are rows of one matrix too; transformers would copy the cache
for each of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_NAME = "rankllm_blocks"
_BLOCK = 128
_SHORTEST = 512
"""Prompts of fewer tokens gain nothing."""
_FEW = 32
"""More tokens than an answer needs at once."""
_CHANGES = ("softcap", "s_aux", "position_bias", "cache", "is_causal")
"""What some models have attention do beside the usual; torch's way is left to them."""


def use_block_attention(model: Any) -> None:
    """Let a model on a CPU in bfloat16 that uses torch's attention use this one."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or model.config._attn_implementation != "sdpa":
        return
    AttentionInterface.register(_NAME, _attend)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for each layer: states BHTD of H heads, keys and values BGTD of G shared ones."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    n_tokens = query.shape[2]
    is_plain = getattr(module, "is_causal", True) and all(options.get(name) is None for name in _CHANGES)
    n_shared = query.shape[1] // key.shape[1]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if is_plain and attention_mask is None and key.shape[2] == n_tokens >= _SHORTEST:
        mixed = causal_blocks(query * scale, key, value)
    elif is_plain and attention_mask is not None and attention_mask.shape[1] == 1 < n_shared and n_tokens <= _FEW:
        mixed = shared_rows(query, key, value, mask=attention_mask, scale=scale)
    else:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    return mixed.transpose(1, 2).contiguous(), None


def shared_rows(query_BHTD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, *, mask: Tensor, scale: float) -> Tensor:
    """Attention BHTD of a few tokens under a mask B1TK, without a copy of the keys for each head that shares them."""
    B, H, T, D = query_BHTD.shape
    G = key_BGKD.shape[1]
    rows = query_BHTD.reshape(B, G, H // G * T, D)
    mixed = scaled_dot_product_attention(
        rows, key_BGKD, value_BGKD, attn_mask=mask.repeat(1, 1, H // G, 1), scale=scale
    )
    return mixed.reshape(B, H, T, -1)


def causal_blocks(query_BHTD: Tensor, key_BGTD: Tensor, value_BGTD: Tensor) -> Tensor:
    """Causal attention of scaled queries, BHTD. H is a multiple of G: neighbouring heads share keys and values."""
    B, H, T, D = query_BHTD.shape
    G = key_BGTD.shape[1]
    query = query_BHTD.reshape(B * G, H // G, T, D)
    key = key_BGTD.reshape(B * G, T, D).transpose(1, 2).contiguous()
    value = value_BGTD.reshape(B * G, T, -1)
    mixed = query.new_empty(B * G, H // G, T, value.shape[-1])
    is_later = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool).triu_(1)
    for start in range(0, T, _BLOCK):
        end = min(T, start + _BLOCK)
        n = end - start
        scores = query[:, :, start:end].reshape(B * G, H // G * n, D) @ key[:, :, :end]
        scores.view(B * G, H // G, n, end)[..., start:].masked_fill_(is_later[:n, :n], float("-inf"))
        mixed[:, :, start:end] = (scores.softmax(-1) @ value[:, :end]).view(B * G, H // G, n, -1)
    return mixed.view(B, H, T, -1)
