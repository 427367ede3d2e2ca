"""Packing rows of different lengths into one row of tokens, and the CPU attention that reads them.

With packing, every layer computes real tokens only, without padding, and attention separates the rows. On a CPU this is
`attend_in_rows`, which also lets every row attend to a prefix that occurs in the pack once. On a GPU it is
flash-attention with the cumulative lengths that transformers passes on to it; it supports no shared prefix.

Attention on a CPU: torch's implementation takes more than half of the time of a long prompt in bfloat16. For long
prompts, blocks of queries attend to the keys up to their end, and heads that share keys form one matrix: two large
matrix products per block, which run at the speed of bfloat16 hardware. As in transformers' `eager` attention, scores
are rounded to bfloat16 before the softmax, which sums in float32. For a few tokens behind a cached prompt, heads that
share keys are rows of one matrix as well, whereas transformers would copy the cache for each of them.

Shapes: T tokens of the pack, B rows of at most L tokens each, K keys that a row sees, H query heads, G key heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rankllm_core.nn.model_parts import causal_shares, changes_attention, use_attention_function
from rankllm_infer.engines.transformers.batches import rotation_limit

CPU_ATTENTION = "rankllm_blocks"
"""Name of this attention among the attention implementations of transformers."""
FLASH_ATTENTIONS = ("flash_attention_2",)
"""Attention implementations of transformers that accept cumulative lengths."""

_ROTARY_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures whose layers derive a token's position from `position_ids`, interact between tokens only through
attention, and pass arguments through to it."""
_SCORES_AT_ONCE = 1 << 19
"""Maximum number of attention scores of rows that attend together: 1 MB in bfloat16, which fits in a core's cache."""
_BLOCK_QUERIES = 128
_SHORTEST_IN_BLOCKS = 512
"""Shorter prompts do not benefit from blocks."""
_MOST_ANSWER_TOKENS = 32
"""Upper bound on the tokens decoded in one pass of an answer."""


def packing_of(model: Any) -> Packing | None:
    """Return how a model runs packed rows; None if it does not support packing and rows are padded.

    The model must have a known architecture, be on one device, and use an attention that separates rows.
    """
    config = model.config
    implementation = str(config._attn_implementation)
    is_flash = implementation in FLASH_ATTENTIONS
    if config.model_type not in _ROTARY_FAMILIES or not (is_flash or implementation == CPU_ATTENTION):
        return None
    if rotation_limit(config) is not None:
        return None
    if hasattr(model, "hf_device_map") and len(set(model.hf_device_map.values())) > 1:
        return None
    return Packing(
        kind="flash" if is_flash else "cpu",
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        longest=getattr(config, "sliding_window", None) or math.inf,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How a model runs packed rows."""

    kind: Literal["cpu", "flash"]
    heads: int
    key_heads: int
    longest: float
    """Length of the longest row: the sliding window of the attention, else infinite."""

    @property
    def shares_prefix(self) -> bool:
        """True if all rows can attend to a prefix that occurs in the pack once."""
        return self.kind == "cpu"

    def pack(
        self, rows: Sequence[Sequence[int]], *, n_shared: int, device: torch.device
    ) -> tuple[dict[str, Any], Tensor]:
        """Return the model's inputs, and last_B: the index of each row's last token in the pack.

        rows: ids, none empty. n_shared: number of leading ids common to all rows, computed once; less than the length
        of any row.
        """
        lengths = [len(row) - n_shared for row in rows]
        ids = [*rows[0][:n_shared], *(token for row in rows for token in row[n_shared:])]
        places = [*range(n_shared), *(place for n in lengths for place in range(n_shared, n_shared + n))]
        ends = list(accumulate(lengths, initial=n_shared))
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([ids], device=device),
            "position_ids": torch.tensor([places], device=device),
            "use_cache": False,
        }
        if self.kind == "cpu":
            inputs["packed_rows"] = self._rows(lengths, n_shared)
            # Never read, but must be present: otherwise transformers would build a mask over all tokens from the
            # position jumps.
            inputs["attention_mask"] = torch.zeros(1, 1, 1, 1, device=device)
        else:
            bounds = torch.tensor(ends, dtype=torch.int32, device=device)
            inputs |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
            inputs |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
        return inputs, torch.tensor(ends[1:], device=device) - 1

    def _rows(self, lengths: Sequence[int], n_shared: int) -> PackedRows:
        groups, results = [], []
        start = n_results = 0
        parts = [([n_shared], 0)] if n_shared else []
        parts += [(part, n_shared) for part in self._parts(lengths, n_shared)]
        for part, before in parts:
            length_B1, place_L = torch.tensor(part)[:, None], torch.arange(max(part))
            start_B1 = length_B1.cumsum(0) - length_B1 + start
            # Padding repeats the row's last token, which no real token attends to, and is omitted from the results.
            token_BL = start_B1 + torch.minimum(place_L, length_B1 - 1)
            key_BK = torch.cat([torch.arange(before).expand(len(part), -1), token_BL], dim=1)
            queries, keys = _of_heads(token_BL, self.heads), _of_heads(key_BK, self.key_heads)
            groups.append(RowGroup(n_rows=len(part), queries=queries.flatten(), keys=keys.flatten()))
            result_BLH = (torch.arange(queries.numel()) + n_results).view_as(queries).transpose(1, 2)
            results.append(result_BLH[place_L < length_B1].flatten())
            start += sum(part)
            n_results += queries.numel()
        return PackedRows(groups=tuple(groups), results=torch.cat(results))

    def _parts(self, lengths: Sequence[int], n_shared: int) -> Iterator[list[int]]:
        """Yield lengths of consecutive rows that attend together, as many as are efficient."""
        part: list[int] = []
        for length in lengths:
            longest = max([*part, length])
            if part and (len(part) + 1) * longest * (n_shared + longest) * self.heads > _SCORES_AT_ONCE:
                yield part
                part = []
            part.append(length)
        yield part


def _of_heads(token_BL: Tensor, n_heads: int) -> Tensor:
    """Return the indices of some tokens' states for each head, in the order B, head, L, into states TH."""
    return token_BL[:, None] * n_heads + torch.arange(n_heads)[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Packed rows that attend together: B rows, padded to the longest. Indices are into states TH (tokens, heads)."""

    n_rows: int
    queries: Tensor
    """Indices of the queries, in the order BHL."""
    keys: Tensor
    """Indices of keys and values, in the order BGK: the shared prefix, then the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRows:
    """Layout of the rows in a pack."""

    groups: tuple[RowGroup, ...]
    results: Tensor
    """Index of each token's and head's result, in the order TH, into the results of all groups, each in the order
    BHL."""


def use_block_attention(model: Any) -> None:
    """Use this attention for a model on a CPU that would use torch's attention, in bfloat16 or float32."""
    if model.device.type == "cpu" and model.dtype in (torch.bfloat16, torch.float32):
        # It may already be registered, hidden from the compiler for another model.
        use_attention_function(model, CPU_ATTENTION, _attend, keep_registered=True)


def hide_from_compiler(model: Any) -> None:
    """Exclude this attention from compilation, which would recompile it for the rows of each pack."""
    from transformers import AttentionInterface

    if model.config._attn_implementation == CPU_ATTENTION:
        AttentionInterface.register(CPU_ATTENTION, torch.compiler.disable(_attend))


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_rows: PackedRows | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention function that transformers calls for each layer: states BHTD of H heads, keys and values BGTD of G
    heads."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if packed_rows is not None:
        query_THD, key_TGD, value_TGD = (states[0].transpose(0, 1) for states in (query, key, value))
        return attend_in_rows(query_THD, key_TGD, value_TGD, packed_rows, scale=scale)[None], None
    n_tokens = query.shape[2]
    is_plain = getattr(module, "is_causal", True) and not changes_attention(options)
    is_plain = is_plain and query.dtype == torch.bfloat16  # torch's attention is as fast in float32
    n_shared = query.shape[1] // key.shape[1]
    if is_plain and attention_mask is None and key.shape[2] == n_tokens >= _SHORTEST_IN_BLOCKS:
        mixed = causal_blocks(query * scale, key, value)
    elif (
        is_plain
        and attention_mask is not None
        and attention_mask.shape[1] == 1 < n_shared
        and n_tokens <= _MOST_ANSWER_TOKENS
    ):
        mixed = shared_rows(query, key, value, mask=attention_mask, scale=scale)
    else:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    return mixed.transpose(1, 2).contiguous(), None


def shared_rows(query_BHTD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, *, mask: Tensor, scale: float) -> Tensor:
    """Return attention BHTD of a few tokens under a mask B1TK, without copying the keys for each head that shares
    them."""
    B, H, T, D = query_BHTD.shape
    G = key_BGKD.shape[1]
    rows = query_BHTD.reshape(B, G, H // G * T, D)
    mixed = scaled_dot_product_attention(
        rows, key_BGKD, value_BGKD, attn_mask=mask.repeat(1, 1, H // G, 1), scale=scale
    )
    return mixed.reshape(B, H, T, -1)


def attend_in_rows(
    query_THD: Tensor, key_TGD: Tensor, value_TGD: Tensor, packed: PackedRows, *, scale: float
) -> Tensor:
    """Return attention THD of packed rows, each over itself and the prefix."""
    T, H, D = query_THD.shape
    G, E = key_TGD.shape[1], value_TGD.shape[-1]
    query, key, value = query_THD.reshape(-1, D), key_TGD.reshape(-1, D), value_TGD.reshape(-1, E)
    mixed = []
    for group in packed.groups:
        # index_select copies whole rows; indexing would copy single numbers.
        queries = query.index_select(0, group.queries).view(group.n_rows, H, -1, D)
        keys = key.index_select(0, group.keys).view(group.n_rows, G, -1, D)
        values = value.index_select(0, group.keys).view(group.n_rows, G, -1, E)
        if queries.shape[2] <= _BLOCK_QUERIES:
            found = causal_block(queries, keys, values, scale=scale)
        else:
            found = causal_blocks(queries * scale, keys, values)
        mixed.append(found.reshape(-1, E))
    return torch.cat(mixed).index_select(0, packed.results).view(T, H, E)


def causal_block(query_BHTD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor, *, scale: float) -> Tensor:
    """Return causal attention BHTD to the last T of K keys and all before them, in one piece, for short rows."""
    B, H, T, D = query_BHTD.shape
    G, K = key_BGKD.shape[1:3]
    rows = query_BHTD.reshape(B * G, H // G * T, D)
    shares = causal_shares(rows, key_BGKD.view(B * G, K, D), n_queries=T, scale=scale)
    return (shares @ value_BGKD.view(B * G, K, -1)).view(B, H, T, -1)


def causal_blocks(query_BHTD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor) -> Tensor:
    """Return causal attention BHTD of scaled queries to the last T of K keys and all before them.

    H is a multiple of G: neighbouring heads share keys and values.
    """
    B, H, T, D = query_BHTD.shape
    G, K = key_BGKD.shape[1:3]
    before = K - T
    query = query_BHTD.reshape(B * G, H // G, T, D)
    key = key_BGKD.reshape(B * G, K, D).transpose(1, 2)
    if T > _BLOCK_QUERIES:
        key = key.contiguous()
    value = value_BGKD.reshape(B * G, K, -1)
    mixed = query.new_empty(B * G, H // G, T, value.shape[-1])
    is_later = torch.ones(_BLOCK_QUERIES, _BLOCK_QUERIES, dtype=torch.bool).triu_(1)
    for start in range(0, T, _BLOCK_QUERIES):
        end = min(T, start + _BLOCK_QUERIES)
        n = end - start
        scores = query[:, :, start:end].reshape(B * G, H // G * n, D) @ key[:, :, : before + end]
        scores.view(B * G, H // G, n, -1)[..., before + start :].masked_fill_(is_later[:n, :n], float("-inf"))
        mixed[:, :, start:end] = (scores.softmax(-1) @ value[:, : before + end]).view(B * G, H // G, n, -1)
    return mixed.view(B, H, T, -1)
