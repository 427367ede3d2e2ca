"""What runs a model: its device and dtype, its attention, and a head that gives the logits of few tokens.

Shapes: B rows, T new tokens, U positions that are read, R tokens whose logits are wanted.
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
"""Flash-attention 2 runs on NVIDIA's Ampere GPUs and later ones."""
KERNELS_KEPT = 64
"""A layer multiplies matrices of four shapes or so: these are a few batches'."""


class ScoresRows(Protocol):
    """Runs a model whose tokens see each other both ways, and whose head gives one score."""

    positions: int
    """How many tokens a row may have."""

    def scores(self, rows: Sequence[Sequence[int]], n_first: Sequence[int]) -> Tensor:
        """scores_B in float32. rows: ids, none empty. n_first: leading ids of each row that are of the first type."""

    def try_it(self, source: str) -> None:
        """Raise RankLLMError in one line where the model cannot be run. source: the model, for messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to run, with its tokenizer."""

    model: Any
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device
    notes: tuple[str, ...] = ()
    """What a user should know of how the weights were loaded."""
    encoder: ScoresRows | None = None
    """How a model with bidirectional attention is run (`encoders`, `bidirectional`); None for other models."""
    encoder_decoder: Any = None
    """How an encoder-decoder is read (`encoder_decoders.EncoderDecoder`); None for other models."""


def pick_device(device: str, *, num_gpus: int = 1) -> torch.device:
    """The device asked for, or the best one here. Raises RankLLMError when it is not there."""
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
    """The dtype asked for; `auto` is bfloat16 where the hardware is fast at it, else float16 on a GPU, else float32.

    takes_float16: whether `auto` may be float16, which T5's activations overflow (huggingface/transformers#9295).
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
    """Whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16 on x86, BF16 on Arm)."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_bf16_supported")
    found = [getattr(torch.cpu, name, None) for name in checks]
    return any(check() for check in found if check is not None) or capabilities == "SVE256"


def spread_over_gpus(device: torch.device, num_gpus: int) -> dict[str, object]:
    """Arguments that let accelerate spread the layers over the first `num_gpus` devices."""
    if device.type != "cuda" or num_gpus <= 1:
        return {}
    free = {index: torch.cuda.mem_get_info(index)[0] * 9 // 10 for index in range(num_gpus)}
    return {"device_map": "auto", "max_memory": free}


def cap_threads() -> None:
    """Let torch use as many threads as this process may really run at once, not as many as the machine has."""
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
    """Keep few of the kernels that oneDNN compiles for matrices of one shape: batches hardly ever share their length.

    torch and oneDNN keep 1,024 each by default, which come to 1.3 GB in a long run. Not in float32, whose kernels are
    small, and where prompts run alone and lengths recur. A value that is set in the environment stays; without effect
    in a process that has multiplied such matrices before.
    """
    if dtype == torch.float32:
        return
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(KERNELS_KEPT))


def choose_attention(model: Any, asked: str = "auto") -> None:
    """Let a model use one of transformers' attention implementations.

    asked: auto is flash-attention on a CUDA device of compute capability 8 or more where it is installed and the model
    takes it, that of `packing` on a CPU, and else what transformers chooses. Raises RankLLMError where what is asked
    for is not to be had.
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

    if model.device.type != "cuda" or model.dtype not in _HALF_DTYPES or not is_flash_attn_2_available():
        return False
    if torch.cuda.get_device_capability(model.device)[0] < _FLASH_CAPABILITY:
        return False
    supports = getattr(model, "_supports_flash_attn", False)
    return supports and not getattr(model, "_compatible_flash_implementations", None)


def check_flash(device: torch.device, dtype: torch.dtype) -> None:
    """Raise RankLLMError where flash-attention 2 was asked for and cannot run."""
    from transformers.utils import is_flash_attn_2_available

    problem = ""
    if device.type != "cuda" or dtype not in _HALF_DTYPES:
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


class ExactRows(torch.nn.Linear):
    """Some rows of a head, in float32. In bf16 close logits tie: from 16 to 32, where many are, its step is 1/8."""

    def forward(self, states: Tensor) -> Tensor:
        """logits of the rows. states: in the model's type."""
        return torch.nn.functional.linear(states.float(), self.weight, self.bias)


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
