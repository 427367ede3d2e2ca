"""Compiles a model's layers, which share one compiled form, instead of the model as a whole: seconds, not minutes."""

from __future__ import annotations

from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_infer.engines.transformers.cpu_attention import hide_from_compiler


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
