"""Bidirectional attention of packed rows: rows of different lengths as one row of tokens, without padding.

Each row only attends to itself, as a slice of the pack, without copies. Layers with a local window (ModernBERT's
sliding attention) process long rows in blocks of queries, each against the keys within its window.

Shapes: T tokens of the pack, L tokens of a row, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rankllm_core.nn.model_parts import use_attention_function

ROWS_ATTENTION = "rankllm_rows"
"""Name of this attention among the attention implementations of transformers."""
_BLOCK_QUERIES = 128


def use_rows_attention(model: Any) -> None:
    """Make a model that uses torch's attention use this one."""
    use_attention_function(model, ROWS_ATTENTION, _attend)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    row_ends: Sequence[int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention function that transformers calls for each layer: states 1HTD.

    row_ends: end of each row in the pack; None for any other input, which goes to torch's own attention.
    sliding_window: window of the layer, including the token itself; None for the whole row.
    """
    if row_ends is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    mixed_1THD = query.new_empty(1, query.shape[2], query.shape[1], value.shape[-1])
    start = 0
    for end in row_ends:
        row = (states[:, :, start:end] for states in (query, key, value))
        mixed_1THD[:, start:end] = attend_within(*row, window=sliding_window, scale=scaling).transpose(1, 2)
        start = end
    return mixed_1THD, None


def attend_within(
    query_1HLD: Tensor, key_1HLD: Tensor, value_1HLD: Tensor, *, window: int | None, scale: float | None
) -> Tensor:
    """Return attention 1HLD of one row over itself: over tokens less than `window` away, or over all.

    Neighbouring query heads may share keys and values.
    """
    n = query_1HLD.shape[2]
    shares = query_1HLD.shape[1] != key_1HLD.shape[1]
    if window is None or n <= window:
        return scaled_dot_product_attention(query_1HLD, key_1HLD, value_1HLD, scale=scale, enable_gqa=shares)
    blocks = []
    for start in range(0, n, _BLOCK_QUERIES):
        end = min(n, start + _BLOCK_QUERIES)
        first, last = max(0, start - window + 1), min(n, end + window - 1)
        distance_QK = torch.arange(start, end)[:, None] - torch.arange(first, last)
        is_seen_QK = (distance_QK.abs() < window).to(query_1HLD.device)
        keys, values = key_1HLD[:, :, first:last], value_1HLD[:, :, first:last]
        queries = query_1HLD[:, :, start:end]
        blocks.append(
            scaled_dot_product_attention(queries, keys, values, attn_mask=is_seen_QK, scale=scale, enable_gqa=shares)
        )
    return torch.cat(blocks, dim=2)
