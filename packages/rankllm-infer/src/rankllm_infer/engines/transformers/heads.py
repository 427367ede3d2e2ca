"""Reads of a model at few places and for few tokens: the rest of its logits are never made.

Shapes: B rows, T new tokens, U places that are read, R tokens whose logits are wanted.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from rankllm_infer.engines.transformers.layers import CPU_ATTENTION, PackedRows, RowGroup


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
