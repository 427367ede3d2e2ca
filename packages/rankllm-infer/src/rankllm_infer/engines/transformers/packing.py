"""Rows of different lengths as one row of tokens, and the attention on a CPU that reads them.

Packing: every layer computes real tokens only, and no padding. Attention keeps the rows apart. On a CPU it is
`attend_in_rows`, which also lets every row see a prefix that stands in the pack once. On a GPU it is flash-attention,
by the cumulative lengths that transformers hands on to it; it knows no shared prefix.

Attention on a CPU: torch's own takes, in bfloat16, more than half of the time of a long prompt. Long prompts: queries
go in blocks against the keys up to their end, and the heads that share keys are one matrix: two large matrix products a
block, which run at the speed of bfloat16 hardware. As in the `eager` attention of transformers, the scores are rounded
to bfloat16 before the softmax, whose sums are in float32. A few tokens behind a cached prompt: heads that share keys
are rows of one matrix too; transformers would copy the cache for each of them.

Shapes: T tokens of the pack, B rows of at most L tokens each, K keys that a row sees, H query heads, G heads of keys.
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
"""What it is called among the attention implementations of transformers."""
FLASH_ATTENTIONS = ("flash_attention_2",)
"""Those of transformers' attention implementations that take cumulative lengths."""

_ROTARY_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures whose layers learn a token's place from `position_ids` and the other tokens from attention alone, and
which hand its arguments through to attention."""
_SCORES_AT_ONCE = 1 << 19
"""Attention scores of the rows that attend together: a megabyte in bfloat16, which a core's own cache holds."""
_BLOCK_QUERIES = 128
_SHORTEST_IN_BLOCKS = 512
"""Prompts of fewer tokens gain nothing."""
_MOST_ANSWER_TOKENS = 32
"""More tokens than an answer needs at once."""


def packing_of(model: Any) -> Packing | None:
    """How a model takes packed rows; None where it does not, and rows are padded.

    It must be of a known architecture, on one device, with attention that keeps rows apart.
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
    """How a model takes packed rows."""

    kind: Literal["cpu", "flash"]
    heads: int
    key_heads: int
    longest: float
    """Longest row: where the model does not look back further, else infinite."""

    @property
    def shares_prefix(self) -> bool:
        """Whether a prefix that stands in the pack once can be seen by all rows."""
        return self.kind == "cpu"

    def pack(
        self, rows: Sequence[Sequence[int]], *, n_shared: int, device: torch.device
    ) -> tuple[dict[str, Any], Tensor]:
        """What the model is given, and last_B: where in the pack the last token of each row stands.

        rows: ids, none empty. n_shared: leading ids that all rows begin with, to be computed once; less than any row.
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
            # Not read, but there: transformers would make one of all tokens by all, from the jumps of the positions.
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
            # Padding reads the row's last token again, which no real token sees, and is left out of the results.
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
        """Lengths of rows that attend together: neighbours, as many as are fast."""
        part: list[int] = []
        for length in lengths:
            longest = max([*part, length])
            if part and (len(part) + 1) * longest * (n_shared + longest) * self.heads > _SCORES_AT_ONCE:
                yield part
                part = []
            part.append(length)
        yield part


def _of_heads(token_BL: Tensor, n_heads: int) -> Tensor:
    """Where the states of some tokens stand for each head, in the order B, head, L, where states are TH."""
    return token_BL[:, None] * n_heads + torch.arange(n_heads)[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Packed rows that attend together: B rows, padded to the longest. Places are in states TH (tokens, heads)."""

    n_rows: int
    queries: Tensor
    """Where to read the queries, in the order BHL."""
    keys: Tensor
    """Where to read keys and values, in the order BGK: the shared prefix, then the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRows:
    """Where the rows of a pack are."""

    groups: tuple[RowGroup, ...]
    results: Tensor
    """Where the result of each token and head, in the order TH, is in those of all groups, each in the order BHL."""


def use_block_attention(model: Any) -> None:
    """Let a model on a CPU that uses torch's attention use this one, in bfloat16 or float32."""
    if model.device.type == "cpu" and model.dtype in (torch.bfloat16, torch.float32):
        # It may be registered already, hidden from a compiler for another model.
        use_attention_function(model, CPU_ATTENTION, _attend, keep_registered=True)


def hide_from_compiler(model: Any) -> None:
    """Where a model uses this attention, keep the compiler out of it: it would compile each pack's rows anew."""
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
    """What transformers calls for each layer: states BHTD of H heads, keys and values BGTD of G shared ones."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if packed_rows is not None:
        query_THD, key_TGD, value_TGD = (states[0].transpose(0, 1) for states in (query, key, value))
        return attend_in_rows(query_THD, key_TGD, value_TGD, packed_rows, scale=scale)[None], None
    n_tokens = query.shape[2]
    is_plain = getattr(module, "is_causal", True) and not changes_attention(options)
    is_plain = is_plain and query.dtype == torch.bfloat16  # torch's own is as fast in float32
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
    """Attention BHTD of a few tokens under a mask B1TK, without a copy of the keys for each head that shares them."""
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
    """Attention THD of packed rows, each to itself and the prefix."""
    T, H, D = query_THD.shape
    G, E = key_TGD.shape[1], value_TGD.shape[-1]
    query, key, value = query_THD.reshape(-1, D), key_TGD.reshape(-1, D), value_TGD.reshape(-1, E)
    mixed = []
    for group in packed.groups:
        # index_select copies whole rows; indexing would go number by number.
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
    """Causal attention BHTD to the T last of K keys and to all before them, in one piece: for short rows."""
    B, H, T, D = query_BHTD.shape
    G, K = key_BGKD.shape[1:3]
    rows = query_BHTD.reshape(B * G, H // G * T, D)
    shares = causal_shares(rows, key_BGKD.view(B * G, K, D), n_queries=T, scale=scale)
    return (shares @ value_BGKD.view(B * G, K, -1)).view(B, H, T, -1)


def causal_blocks(query_BHTD: Tensor, key_BGKD: Tensor, value_BGKD: Tensor) -> Tensor:
    """Causal attention BHTD of scaled queries to the T last of K keys and to all before them.

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
