"""What vLLM is told beside the model: the options that are ours, and `--vllm-arg KEY=VALUE` for the others."""

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
"""Arguments of vLLM that have an option of rankllm."""
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
"""Arguments that follow from the model and from how it is read: another value would make the answers wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """How vLLM runs a model. None and 0: vLLM's own choice."""

    dtype: str = "auto"
    num_gpus: int = 1
    """Tensor parallel size: each layer is split over so many GPUs."""
    batch_size: int | None = None
    """Prompts under way at once (`max_num_seqs`)."""
    batch_tokens: int = 0
    """Tokens of one step (`max_num_batched_tokens`)."""
    trust_remote_code: bool = False
    """Run code that comes with a full model, or with an adapter's base; see `check_remote_code`."""
    more: tuple[str, ...] = ()
    """KEY=VALUE of further arguments of vLLM's engine."""


def engine_arguments(texts: Iterable[str]) -> dict[str, object]:
    """The arguments in `KEY=VALUE` texts; a value is read as JSON where it is JSON, else as text.

    Raises ConfigError on a text without a value, an argument given twice, and one that rankllm sets itself.
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
            raise ConfigError(f"--vllm-arg {name}: is an option of its own; use {_OURS[name]}")
        if name in _FIXED:
            raise ConfigError(f"--vllm-arg {name}: follows from the model; leave it out")
        found[name] = _value(value.strip())
    return found


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        # Python's spelling of the three words that JSON writes otherwise.
        return {"True": True, "False": False, "None": None}.get(text, text)
