"""Attention for bfloat16 training on a CPU, where torch's own is slow, especially in the backward pass.

Queries are processed in blocks against the keys up to the block's end, with the heads that share keys stacked in one
matrix: large matrix products, which run at full speed on bfloat16 hardware. For sequences longer than a block, the
backward pass recomputes the probabilities, as flash-attention does (arXiv:2205.14135), so that memory grows linearly
with length.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rankllm_core.nn.model_parts import causal_shares, changes_attention, use_attention_function

CPU_ATTENTION = "rankllm_train_blocks"
"""Name among the attention implementations of transformers."""
_BLOCK = 128


def use_block_attention(model: Any) -> None:
    """Make a model with torch's attention use this one wherever it computes in bfloat16 on a CPU.

    Models are always loaded on the CPU; the device is checked at each call, since the model may be moved later.
    """
    use_attention_function(model, CPU_ATTENTION, _attend)


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
    """Attention function that transformers calls in each layer: states BHTD with H heads, keys and values BGTD with G
    heads."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    is_causal = getattr(module, "is_causal", True) and attention_mask is None and key.shape[2] == query.shape[2]
    is_plain = is_causal and not dropout and not changes_attention(options)
    # Designed for bfloat16 hardware, and measured only there.
    is_ours = query.device.type == "cpu" and query.dtype == key.dtype == value.dtype == torch.bfloat16
    if not is_plain or not is_ours or key.shape[-1] != value.shape[-1]:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    mixed_BHTD: Tensor = CausalAttention.apply(
        query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling
    )
    return mixed_BHTD.transpose(1, 2).contiguous(), None


class CausalAttention(torch.autograd.Function):
    """Causal attention BHTD of queries BHTD over keys and values BGTD; H is a multiple of G, adjacent heads share keys.

    As in the `eager` attention of transformers, scores are rounded to the inputs' dtype before the softmax, which sums
    in float32.
    """

    @staticmethod
    def forward(ctx: Any, query_BHTD: Tensor, key_BGTD: Tensor, value_BGTD: Tensor, scale: float) -> Tensor:
        """Save the probabilities of a single block, but none of several, which are cheaper to recompute."""
        B, H, T, D = query_BHTD.shape
        G = key_BGTD.shape[1]
        query = query_BHTD.reshape(B * G, H // G, T, D)
        key, value = key_BGTD.reshape(B * G, T, D), value_BGTD.reshape(B * G, T, D)
        mixed = torch.empty_like(query)
        kept = []
        for start, end in _blocks(T):
            shares = causal_shares(_rows(query, start, end), key[:, :end], n_queries=end - start, scale=scale)
            mixed[:, :, start:end] = (shares @ value[:, :end]).view(B * G, H // G, end - start, D)
            kept = [shares] if T <= _BLOCK else []
        ctx.save_for_backward(query, key, value, mixed, *kept)
        ctx.scale = scale
        return mixed.view(B, H, T, D)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Return the gradients of queries, keys and values; those of shared keys and values are summed in float32."""
        query, key, value, mixed, *kept = ctx.saved_tensors
        N, R, T, D = query.shape
        B, H = gradients[0].shape[:2]
        d_mixed = gradients[0].reshape(N, R, T, D)
        # The softmax derivative subtracts a row's mean gradient: sum_j P_j dP_j = d_mixed . mixed.
        mean = (d_mixed.float() * mixed).sum(-1, keepdim=True)
        d_query = torch.empty_like(query)
        d_key, d_value = (torch.zeros(N, T, D, dtype=torch.float32) for _ in range(2))
        for start, end in _blocks(T):
            rows, d_rows = _rows(query, start, end), _rows(d_mixed, start, end)
            shares = kept[0] if kept else causal_shares(rows, key[:, :end], n_queries=end - start, scale=ctx.scale)
            d_value[:, :end] += shares.transpose(1, 2) @ d_rows
            d_scores = (d_rows @ value[:, :end].transpose(1, 2)).sub_(_rows(mean, start, end)).mul_(shares)
            d_query[:, :, start:end] = (d_scores @ key[:, :end]).view(N, R, end - start, D)
            d_key[:, :end] += d_scores.transpose(1, 2) @ rows
        return (
            d_query.mul_(ctx.scale).view(B, H, T, D),
            d_key.mul_(ctx.scale).to(key.dtype).view(B, H // R, T, D),
            d_value.to(value.dtype).view(B, H // R, T, D),
            None,
        )


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(length, start + _BLOCK)) for start in range(0, length, _BLOCK)]


def _rows(states_NRTD: Tensor, start: int, end: int) -> Tensor:
    """Return the block's rows of all heads that share keys, stacked."""
    return states_NRTD[:, :, start:end].flatten(1, 2)
