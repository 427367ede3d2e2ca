"""Arguments of vLLM's engine, derived from model, reading, machine and settings."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rankllm_core.errors import ContractError
from rankllm_infer.checkpoints.bidirectional import POOLINGS
from rankllm_infer.checkpoints.model_files import ModelFiles
from rankllm_infer.checkpoints.quantization import Quantization
from rankllm_infer.engines.base import ModelKind
from rankllm_infer.engines.vllm.checks import lora_rank
from rankllm_infer.engines.vllm.settings import VllmSettings, engine_arguments

MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for `max_lora_rank`."""
_CPU_CACHE_BYTES = 4 * 1024**3
"""Default KV cache size on a CPU; vLLM's own default would be nine tenths of the machine's memory."""
_BIDIRECTIONAL = "LlamaBidirectionalForSequenceClassification"
"""vLLM's name for Llama with bidirectional attention and a score head."""


def choose_dtype(asked: str, platform: Any, *, quantization: Quantization | None) -> str:
    """Choose the dtype like the transformers engine, without initializing the GPU in this process."""
    from rankllm_infer.engines.transformers.model import pick_dtype

    if asked != "auto":
        return asked
    if platform.device_type == "cpu":
        import torch

        return str(pick_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    if quantization is not None and quantization.method in ("awq", "gptq"):
        return "float16"  # some of their kernels accept nothing else
    # Best first: bfloat16 if the GPU supports it, then float16.
    return str(platform.supported_dtypes[0]).removeprefix("torch.")


def engine_values(files: ModelFiles, kind: ModelKind, settings: VllmSettings, platform: Any) -> dict[str, object]:
    """Return the arguments of vLLM's engine that follow from model, reading, machine and settings."""
    if kind == "causal":
        # Raw logits: reported logprobs would be limited to the most likely tokens of a full softmax.
        reading: dict[str, object] = {"runner": "generate", "logprobs_mode": "raw_logits"}
    else:
        reading = {"runner": "pooling", "convert": "classify"}
    more = engine_arguments(settings.more)
    return {
        **reading,
        "skip_tokenizer_init": True,
        "trust_remote_code": settings.trust_remote_code,
        # Prefix states cannot be reused if tokens attend to what follows.
        "enable_prefix_caching": not (files.base.is_encoder or files.bidirectional is not None),
        "disable_log_stats": True,
        # Prompts of waiting clients go before those of a run over files; equal priorities in submission order.
        "scheduling_policy": "priority",
        "seed": 0,
        "tensor_parallel_size": settings.num_gpus,
        "max_num_seqs": settings.batch_size,
        "max_num_batched_tokens": settings.batch_tokens or None,
        **_lora_values(files.own.name, files.own.adapter),
        **_cpu_values(platform, more),
        **more,
        "model": str(files.base.path),
    }


def _lora_values(name: str, settings: Mapping[str, object] | None) -> dict[str, object]:
    if settings is None:
        return {}
    rank = lora_rank(settings)
    if rank > MAX_LORA_RANKS[-1]:
        raise ContractError(
            f"{name}: an adapter of rank {rank}; vLLM supports at most {MAX_LORA_RANKS[-1]}. Merge it "
            f"(train merge {name} MERGED) and rerank with MERGED, or use --engine transformers"
        )
    fitting = next(allowed for allowed in MAX_LORA_RANKS if allowed >= rank)
    # One label: the base of an adapter with a score head has no head, or one of a different size.
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": fitting, "max_lora_cls_labels": 1}


def _cpu_values(platform: Any, more: dict[str, object]) -> dict[str, object]:
    if platform.device_type != "cpu":
        return {}
    # On a CPU, compiling takes longer than most runs.
    values: dict[str, object] = {"enforce_eager": True}
    if "gpu_memory_utilization" not in more and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        values["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
    return values


@contextlib.contextmanager
def known_configuration(files: ModelFiles) -> Iterator[dict[str, object]]:
    """Yield arguments that make vLLM recognize a decoder with bidirectional attention, whose model type it does not
    know.

    vLLM reads the file they name during startup.
    """
    both_ways = files.bidirectional
    if both_ways is None:
        yield {}
        return
    pooling = next(name for name, ours in POOLINGS.items() if ours == both_ways.pooling)
    kept = {key: value for key, value in files.base.config.items() if key != "auto_map"}
    known = {"model_type": both_ways.architecture, "architectures": [_BIDIRECTIONAL], "pooling": pooling}
    with tempfile.TemporaryDirectory(prefix="rankllm-") as folder:
        Path(folder, "config.json").write_text(json.dumps(kept | known | {"num_labels": 1}), encoding="utf-8")
        yield {"hf_config_path": folder}
