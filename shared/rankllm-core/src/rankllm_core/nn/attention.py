"""Attention functions of our own among those of transformers, and where each gives way to torch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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
