"""How a loaded model's layers run: with which attention, and compiled or not."""

from __future__ import annotations

from typing import Any

import torch

from rankllm_core.errors import RankLLMError, first_line
from rankllm_core.nn.model_parts import quiet_transformers
from rankllm_infer.engines.transformers.cpu_attention import hide_from_compiler, use_block_attention

_HALF = (torch.bfloat16, torch.float16)
_FLASH_CAPABILITY = 8
"""Flash-attention 2 runs on NVIDIA's Ampere GPUs and later ones."""


def choose_attention(model: Any, asked: str = "auto") -> None:
    """Let a model use one of transformers' attention implementations.

    asked: auto is flash-attention on a CUDA device of compute capability 8 or more where it is installed and the model
    takes it, `cpu_attention` on a CPU, and else what transformers chooses. Raises RankLLMError where what is asked for
    is not to be had.
    """
    if asked == "auto":
        use_block_attention(model)
        if not _takes_flash(model):
            return
        asked = "flash_attention_2"
    try:
        with quiet_transformers(hide_warnings=True):
            model.set_attn_implementation(asked)
        reason = "" if model.config._attn_implementation == asked else f"{type(model).__name__} does not take it"
    except (ImportError, ValueError) as error:
        reason = first_line(error, with_kind=False)
    if reason:
        raise RankLLMError(f"--attn-implementation {asked}: {reason}; use sdpa")


def _takes_flash(model: Any) -> bool:
    """Whether flash-attention 2 itself, and no kernel of the hub in its place, runs this model here."""
    from transformers.utils import is_flash_attn_2_available

    if model.device.type != "cuda" or model.dtype not in _HALF or not is_flash_attn_2_available():
        return False
    if torch.cuda.get_device_capability(model.device)[0] < _FLASH_CAPABILITY:
        return False
    supports = getattr(model, "_supports_flash_attn", False)
    return supports and not getattr(model, "_compatible_flash_implementations", None)


def check_flash(device: torch.device, dtype: torch.dtype) -> None:
    """Raise RankLLMError where flash-attention 2 was asked for and cannot run."""
    from transformers.utils import is_flash_attn_2_available

    problem = ""
    if device.type != "cuda" or dtype not in _HALF:
        found = f"{device.type} and {str(dtype).removeprefix('torch.')}"
        problem = f"needs a CUDA device and bfloat16 or float16, found {found}"
    elif (capability := torch.cuda.get_device_capability(device)[0]) < _FLASH_CAPABILITY:
        problem = f"needs a GPU of compute capability {_FLASH_CAPABILITY} or more, found {capability}"
    elif not is_flash_attn_2_available():
        problem = "the package flash-attn is not installed (uv add flash-attn)"
    if problem:
        raise RankLLMError(f"--attn-implementation flash_attention_2: {problem}; use auto")


def compile_layers(model: Any) -> None:
    """Let a model's layers be compiled when they are first run, for any number of tokens.

    Raises RankLLMError where there is no C++ compiler to do it on a CPU, or the model has no layers of a known kind.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    if model.device.type == "cpu":
        _check_compiler()
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise RankLLMError(
            f"--compile: {type(model).__name__} has no layers that transformers marks as such; leave it out"
        )
    hide_from_compiler(model)
    for layer in layers:
        layer.compile(dynamic=True)


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise RankLLMError("--compile: needs a C++ compiler on a CPU; install g++, or leave it out") from None
