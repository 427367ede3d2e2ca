"""Loading with transformers: quietly, with tokenizers of one interface, and where a model's backbone is."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from rankllm_core.errors import ContractError


@contextlib.contextmanager
def quiet_transformers(*, hide_warnings: bool = False) -> Iterator[None]:
    """Keep transformers' notes about loading off the user's screen; errors stay.

    hide_warnings: also those of torch, PEFT and transformers, where what is wrong with a checkpoint is checked here.
    """
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft asks for an attribute that transformers has renamed; nobody else can do anything about it.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            if hide_warnings:
                warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|peft|transformers)\.")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()


def fast_tokenizer_options() -> dict[str, Any]:
    """Return options for AutoTokenizer that keep it to tokenizer.json.

    With mistral_common installed it prefers a tekken.json, and gives a tokenizer without chat templates as text and
    without the interface that prompts are checked through.
    """
    has_option = importlib.util.find_spec("transformers.integrations.mistral.tokenizer") is not None
    return {"mistral_format": False} if has_option else {}


def backbone_of(model: Any) -> Any:
    """Return the model without its head. Its name is `base_model_prefix`, but not in every family (Llama 4).

    Raises ContractError where there is none.
    """
    for name in (model.base_model_prefix, "model", "transformer", "backbone"):
        if name and isinstance(backbone := getattr(model, name, None), torch.nn.Module):
            return backbone
    if isinstance(decoder := getattr(model, "get_decoder", lambda: None)(), torch.nn.Module) and decoder is not model:
        return decoder
    raise ContractError(f"{type(model).__name__} has no backbone apart from its head, so it cannot be run here")


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
