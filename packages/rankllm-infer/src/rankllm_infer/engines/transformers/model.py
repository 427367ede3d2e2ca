"""Model setup: device and dtype, attention, and a head that only computes the logits of a few tokens.

Shapes: B rows, T new tokens, U positions that are read, R tokens whose logits are needed.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rankllm_core.config import one_of
from rankllm_core.errors import RankLLMError, first_line
from rankllm_core.nn.model_parts import quiet_transformers
from rankllm_infer.engines.transformers.batches import rotation_limit
from rankllm_infer.engines.transformers.packing import hide_from_compiler, use_block_attention

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HALF_DTYPES = (torch.bfloat16, torch.float16)
_FLASH_CAPABILITY = 8
"""Minimum compute capability for flash-attention 2: NVIDIA's Ampere GPUs and later."""
KERNELS_KEPT = 64
"""A layer multiplies matrices of about four shapes, so this covers a few batches."""


class ScoresRows(Protocol):
    """Runs a model with bidirectional attention and a head that returns one score."""

    positions: int
    """Maximum number of tokens per row."""

    def scores(self, rows: Sequence[Sequence[int]], n_first: Sequence[int]) -> Tensor:
        """Return scores_B in float32. rows: ids, none empty. n_first: number of leading ids with the first token type,
        per row."""

    def try_it(self, source: str) -> None:
        """Raise RankLLMError in one line if the model cannot be run. source: name of the model, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """Model ready to run, with its tokenizer."""

    model: Any
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device
    notes: tuple[str, ...] = ()
    """Warnings about how the weights were loaded."""
    encoder: ScoresRows | None = None
    """Runner of a model with bidirectional attention (`encoders`, `bidirectional`); None for other models."""
    encoder_decoder: Any = None
    """Runner of an encoder-decoder (`encoder_decoders.EncoderDecoder`); None for other models."""


def pick_device(device: str, *, num_gpus: int = 1) -> torch.device:
    """Return the given device, or the best one available. Raises RankLLMError if it does not exist."""
    if num_gpus > 1 and torch.cuda.device_count() < num_gpus:
        raise RankLLMError(f"--num-gpus {num_gpus}: found {torch.cuda.device_count()} CUDA devices")
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise RankLLMError(f"--device {device}: expected auto, cpu, cuda, cuda:N or mps") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise RankLLMError(f"--device {device}: found {torch.cuda.device_count()} CUDA devices; use --device cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise RankLLMError("--device mps: not available on this machine; use --device cpu")
    return chosen


def pick_dtype(dtype: str, device: torch.device, *, takes_float16: bool = True) -> torch.dtype:
    """Return the given dtype; `auto` is bfloat16 if the hardware is fast at it, else float16 on a GPU, else float32.

    takes_float16: False if `auto` must not be float16, which T5's activations overflow (huggingface/transformers#9295).
    """
    if dtype != "auto":
        return _DTYPES[one_of(dtype, _DTYPES, where="dtype")]
    half = torch.float16 if takes_float16 else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else half
    if device.type == "mps":
        return half
    return torch.bfloat16 if cpu_is_fast_at_bf16() else torch.float32


def cpu_is_fast_at_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16 on x86, BF16 on Arm)."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_bf16_supported")
    found = [getattr(torch.cpu, name, None) for name in checks]
    return any(check() for check in found if check is not None) or capabilities == "SVE256"


def spread_over_gpus(device: torch.device, num_gpus: int) -> dict[str, object]:
    """Return arguments that let accelerate shard the layers across the first `num_gpus` devices."""
    if device.type != "cuda" or num_gpus <= 1:
        return {}
    free = {index: torch.cuda.mem_get_info(index)[0] * 9 // 10 for index in range(num_gpus)}
    return {"device_map": "auto", "max_memory": free}


def cap_threads() -> None:
    """Limit torch's threads to those this process may run concurrently, instead of all of the machine's."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        allowed = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        allowed = min(allowed, max(1, int(quota) // int(period))) if quota != "max" else allowed
    except (OSError, ValueError):
        pass  # no cgroup limit to read: not Linux, or cgroup v1
    torch.set_num_threads(min(torch.get_num_threads(), allowed))


def cap_kernel_caches(dtype: torch.dtype) -> None:
    """Limit oneDNN's caches of compiled matrix kernels, because batches rarely repeat a shape.

    By default, torch and oneDNN keep 1,024 each, which add up to 1.3 GB in a long run. Not limited in float32, whose
    kernels are small and whose prompts run alone with recurring lengths. Values set in the environment take precedence;
    no effect in a process that has already multiplied such matrices.
    """
    if dtype == torch.float32:
        return
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS_KEPT))


def choose_attention(model: Any, asked: str = "auto") -> None:
    """Set one of transformers' attention implementations on a model.

    asked: auto is flash-attention on a CUDA device of compute capability 8 or above if installed and supported by the
    model, the attention of `packing` on a CPU, and otherwise transformers' own choice. Raises RankLLMError if the
    requested implementation is not available.
    """
    if asked == "auto":
        use_block_attention(model)
        if not _takes_flash(model):
            return
        asked = "flash_attention_2"
    try:
        with quiet_transformers(hide_warnings=True):
            model.set_attn_implementation(asked)
        reason = "" if model.config._attn_implementation == asked else f"{type(model).__name__} does not support it"
    except (ImportError, ValueError) as error:
        reason = first_line(error, with_kind=False)
    if reason:
        raise RankLLMError(f"--attn-implementation {asked}: {reason}; use sdpa")


def _takes_flash(model: Any) -> bool:
    """Return whether flash-attention 2 itself, rather than a kernel from the hub, can run this model on this device."""
    from transformers.utils import is_flash_attn_2_available

    if model.device.type != "cuda" or model.dtype not in _HALF_DTYPES or not is_flash_attn_2_available():
        return False
    if torch.cuda.get_device_capability(model.device)[0] < _FLASH_CAPABILITY:
        return False
    supports = getattr(model, "_supports_flash_attn", False)
    return supports and not getattr(model, "_compatible_flash_implementations", None)


def check_flash(device: torch.device, dtype: torch.dtype) -> None:
    """Raise RankLLMError if flash-attention 2 was requested and cannot run."""
    from transformers.utils import is_flash_attn_2_available

    problem = ""
    if device.type != "cuda" or dtype not in _HALF_DTYPES:
        found = f"{device.type} and {str(dtype).removeprefix('torch.')}"
        problem = f"needs a CUDA device and bfloat16 or float16, found {found}"
    elif (capability := torch.cuda.get_device_capability(device)[0]) < _FLASH_CAPABILITY:
        problem = f"needs a GPU of compute capability {_FLASH_CAPABILITY} or above, found {capability}"
    elif not is_flash_attn_2_available():
        problem = "the package flash-attn is not installed (uv add flash-attn)"
    if problem:
        raise RankLLMError(f"--attn-implementation flash_attention_2: {problem}; use auto")


def compile_layers(model: Any) -> None:
    """Set up a model's layers to be compiled when first run, for any number of tokens.

    Raises RankLLMError if a CPU has no C++ compiler, or if the model has no layers of a known type.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    if model.device.type == "cpu":
        _check_compiler()
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise RankLLMError(f"--compile: {type(model).__name__} has no layers that can be compiled; leave it out")
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


@contextlib.contextmanager
def narrow_head(model: Any, tokens: Sequence[int]) -> Iterator[NarrowHead]:
    """Make the model's head compute the logits of only some tokens, in float32, keeping the model's own path to the
    logits.

    A head that is not a plain linear layer, or whose device is chosen at run time, is left unchanged, in the model's
    dtype.
    """
    narrowed = NarrowHead(model, tokens)
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or hasattr(head, "_hf_hook"):  # sharded across devices: the hook moves states
        yield narrowed
        return
    rows = torch.tensor(narrowed.tokens, device=head.weight.device)
    narrow = ExactRows(head.in_features, len(rows), bias=head.bias is not None, device="meta")
    narrow.weight = torch.nn.Parameter(head.weight[rows].float(), requires_grad=False)
    if head.bias is not None:
        narrow.bias = torch.nn.Parameter(head.bias[rows].float(), requires_grad=False)
    model.set_output_embeddings(narrow)
    try:
        yield narrowed
    finally:
        model.set_output_embeddings(head)


class NarrowHead:
    """Model whose head computes the logits of only some tokens."""

    def __init__(self, model: Any, tokens: Sequence[int]) -> None:
        self.model = model
        self.tokens = tuple(tokens)
        self._column_of = {token: column for column, token in enumerate(tokens)}
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def columns(self, tokens: Sequence[int]) -> list[int]:
        """Return the columns of some of its tokens in the logits."""
        return [self._column_of[token] for token in tokens]

    def logits(self, places_U: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Return logits_BUR at some positions of the new tokens. inputs: the model's inputs."""
        if self._keeps_logits:
            logits = self.model(**inputs, logits_to_keep=places_U).logits
        else:
            logits = self.model(**inputs).logits[:, places_U]
        if logits.shape[-1] != len(self.tokens):  # the model computes its logits in its own way
            logits = logits[..., list(self.tokens)]
        return logits


class ExactRows(torch.nn.Linear):
    """Some rows of a head, in float32. In bfloat16, close logits tie: its step is 1/8 between 16 and 32, where many
    are."""

    def forward(self, states: Tensor) -> Tensor:
        """Return the logits of the rows. states: in the model's dtype."""
        return torch.nn.functional.linear(states.float(), self.weight, self.bias)


def cache_argument(model: Any) -> str:
    """Return the name of the cache argument of the model's forward pass; state-space models call it `cache_params`."""
    parameters = inspect.signature(model.forward).parameters
    return "cache_params" if "cache_params" in parameters else "past_key_values"


def can_share_prefix(model: Any) -> bool:
    """Return whether the model's state after a prefix can be copied to several rows, i.e. consists of keys and values
    only."""
    if rotation_limit(model.config) is not None:
        return False
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    layers = DynamicCache(config=model.config).layers
    return bool(layers) and all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
