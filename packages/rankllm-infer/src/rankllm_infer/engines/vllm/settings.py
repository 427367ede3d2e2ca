"""vLLM settings: options of rankllm, and `--vllm-arg KEY=VALUE` for all others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from rankllm_core.errors import ConfigError

_OURS = {
    "model": "--model-path",
    "tokenizer": "--model-path",
    "dtype": "--dtype",
    "tensor_parallel_size": "--num-gpus",
    "max_model_len": "--context-size (listwise), or --q-max-len and --p-max-len (otherwise)",
    "max_num_seqs": "--batch-size",
    "max_num_batched_tokens": "--batch-tokens",
    "trust_remote_code": "--trust-remote-code",
}
"""vLLM arguments that have an option of their own in rankllm."""
_FIXED = (
    "runner",
    "convert",
    "skip_tokenizer_init",
    "logprobs_mode",
    "enable_lora",
    "max_loras",
    "max_lora_rank",
    "pooler_config",
    "data_parallel_size",
)
"""Arguments determined by the model and how it is read: other values would make answers wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """Settings for running a model with vLLM. None and 0: vLLM's own default."""

    dtype: str = "auto"
    num_gpus: int = 1
    """Tensor parallel size: number of GPUs that each layer is sharded across."""
    batch_size: int | None = None
    """Maximum number of prompts in flight (`max_num_seqs`)."""
    batch_tokens: int = 0
    """Maximum number of tokens per step (`max_num_batched_tokens`)."""
    trust_remote_code: bool = False
    """Run code that comes with a full model or an adapter's base; see `check_remote_code`."""
    more: tuple[str, ...] = ()
    """Further arguments of vLLM's engine, as KEY=VALUE."""


def engine_arguments(texts: Iterable[str]) -> dict[str, object]:
    """Parse arguments given as `KEY=VALUE`; a value is read as JSON if possible, else as text.

    Raises ConfigError for a text without value, a repeated argument, and an argument that rankllm sets itself.
    """
    found: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name = key.strip().removeprefix("--").replace("-", "_")
        if not equals or not name or not value.strip():
            raise ConfigError(f"--vllm-arg {text!r}: expected KEY=VALUE, such as gpu_memory_utilization=0.8")
        if name in found:
            raise ConfigError(f"--vllm-arg {name}: given twice; leave one out")
        if name in _OURS:
            raise ConfigError(f"--vllm-arg {name}: has an option of its own; use {_OURS[name]}")
        if name in _FIXED:
            raise ConfigError(f"--vllm-arg {name}: is determined by the model; leave it out")
        found[name] = _value(value.strip())
    return found


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        # Python's spelling of words that JSON spells differently.
        return {"True": True, "False": False, "None": None}.get(text, text)
