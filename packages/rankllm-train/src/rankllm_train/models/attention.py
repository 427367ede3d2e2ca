"""Choice of the attention implementation for training: flash-attention on GPUs that support it, else torch's or, on a
CPU, ours.

Weights are loaded on the CPU, where flash-attention has no kernels. A model is therefore loaded and checked with
torch's attention, and switched afterwards.
"""

from __future__ import annotations

from typing import Any

from rankllm_core.errors import ConfigError, first_line
from rankllm_train.models.heads import is_encoder_model
from rankllm_train.recipe.sections import ModelSection

FLASH = "flash_attention_2"
_MIN_CAPABILITY = 8
"""CUDA compute capability (Ampere) below which flash-attention 2 has no kernels."""


def loading_attention(choice: str) -> str:
    """Return the attention implementation to load a model with, which runs on any device.

    Raises ConfigError if flash-attention is requested on a machine without it.
    """
    if choice == FLASH:
        _check_flash_is_here()
    return "eager" if choice == "eager" else "sdpa"


def use_attention(model: Any, section: ModelSection) -> None:
    """Switch a loaded model to the attention implementation for training.

    `auto` uses flash-attention if the machine, the recipe's precision and the model support it, else torch's; on a CPU
    in bfloat16, `cpu_attention`. Raises ConfigError if flash-attention is requested and the model does not support it.
    """
    from rankllm_train.models.cpu_attention import use_block_attention

    choice = section.attn_implementation
    if choice == "auto":
        if not is_encoder_model(model):
            use_block_attention(model)
        takes_flash = getattr(model, "_supports_flash_attn", False)
        # A model may name kernels on the hub, which transformers would download instead of using the installed package.
        names_kernels = getattr(model, "_compatible_flash_implementations", None)
        if takes_flash and not names_kernels and not flash_problem(section.precision):
            choice = FLASH
    if choice != FLASH:
        return
    if problem := flash_problem(section.precision):
        raise ConfigError(f"model.attn_implementation: {FLASH} {problem}; use auto or sdpa")
    try:
        model.set_attn_implementation(FLASH)
        reason = "" if model.config._attn_implementation == FLASH else "the model does not support it"
    except (ImportError, ValueError) as error:
        reason = first_line(error, with_kind=False)
    if reason:
        raise ConfigError(f"model.attn_implementation: {FLASH}: {reason}; use sdpa")


def flash_problem(precision: str) -> str:
    """Return why flash-attention 2 cannot train here in a precision (`fp32`, `bf16`, `fp16`); empty if it can."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    if not torch.cuda.is_available():
        return "needs a CUDA GPU, but none is available"
    capability = torch.cuda.get_device_capability()
    if capability[0] < _MIN_CAPABILITY:
        found = ".".join(map(str, capability))
        return f"needs a GPU of compute capability {_MIN_CAPABILITY} or more, found {found}"
    if precision == "fp32":
        return "computes in bf16 or fp16, but model.precision is fp32"
    if not is_flash_attn_2_available():
        return "is not installed (uv add 'rankllm-train[flash-attn]')"
    return ""


def _check_flash_is_here() -> None:
    """Raise ConfigError before the weights are loaded if flash-attention cannot run at all."""
    if problem := flash_problem("bf16"):
        raise ConfigError(f"model.attn_implementation: {FLASH} {problem}; use auto or sdpa")
