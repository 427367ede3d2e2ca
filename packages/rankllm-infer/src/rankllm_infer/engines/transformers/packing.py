"""Rows of different lengths as one row of tokens: every layer computes real tokens only, and no padding.

Attention keeps the rows apart. On a CPU it is `cpu_attention.attend_in_rows`, which also lets every row see a prefix
that stands in the pack once. On a GPU it is flash-attention, by the cumulative lengths that transformers hands on to
it; it knows no shared prefix.
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

from rankllm_infer.engines.transformers.cpu_attention import CPU_ATTENTION, PackedRows, RowGroup
from rankllm_infer.engines.transformers.heads import rotation_limit

_ROTARY = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures whose layers learn a token's place from `position_ids` and the other tokens from attention alone, and
which hand its arguments through to attention."""
FLASH_ATTENTIONS = ("flash_attention_2",)
"""Those of transformers' attention implementations that take cumulative lengths."""
_SCORES_AT_ONCE = 1 << 19
"""Attention scores of the rows that attend together: a megabyte in bfloat16, which a core's own cache holds."""


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


def packing_of(model: Any) -> Packing | None:
    """How a model takes packed rows; None where it does not, and rows are padded.

    It must be of a known architecture, on one device, with attention that keeps rows apart.
    """
    config = model.config
    implementation = str(config._attn_implementation)
    is_flash = implementation in FLASH_ATTENTIONS
    if config.model_type not in _ROTARY or not (is_flash or implementation == CPU_ATTENTION):
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
