"""Arguments of vLLM's engine, derived from the model, the read, the machine and the settings."""

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
"""What vLLM takes for `max_lora_rank`."""
_CPU_CACHE_BYTES = 4 * 1024**3
"""KV cache on a CPU where nothing else is asked for: vLLM itself would take nine tenths of the machine's memory."""
_BIDIRECTIONAL = "LlamaBidirectionalForSequenceClassification"
"""vLLM's name of Llama with bidirectional attention and a score head."""


def choose_dtype(asked: str, platform: Any, *, quantization: Quantization | None) -> str:
    """As the engine `transformers` chooses it, without waking the GPU in this process."""
    from rankllm_infer.engines.transformers.model import pick_dtype

    if asked != "auto":
        return asked
    if platform.device_type == "cpu":
        import torch

        return str(pick_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    if quantization is not None and quantization.method in ("awq", "gptq"):
        return "float16"  # some of their kernels take nothing else
    # Best first: bfloat16 where the GPU has it, then float16.
    return str(platform.supported_dtypes[0]).removeprefix("torch.")


def engine_values(files: ModelFiles, kind: ModelKind, settings: VllmSettings, platform: Any) -> dict[str, object]:
    """Arguments of vLLM's engine that follow from the model, how it is read, the machine and the settings."""
    if kind == "causal":
        # Logits as the model gives them: reported logprobs would be limited to the likeliest tokens of a whole softmax.
        reading: dict[str, object] = {"runner": "generate", "logprobs_mode": "raw_logits"}
    else:
        reading = {"runner": "pooling", "convert": "classify"}
    more = engine_arguments(settings.more)
    return {
        **reading,
        "skip_tokenizer_init": True,
        "trust_remote_code": settings.trust_remote_code,
        # A prefix has other states where its tokens see what follows.
        "enable_prefix_caching": not (files.base.is_encoder or files.bidirectional is not None),
        "disable_log_stats": True,
        # Prompts for which somebody waits go before those of a run over files; equal ones in the order they came.
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
            f"{name}: an adapter of rank {rank}; vLLM takes {MAX_LORA_RANKS[-1]} at the most. Merge it "
            f"(train merge {name} MERGED) and rerank with MERGED, or use --engine transformers"
        )
    fitting = next(allowed for allowed in MAX_LORA_RANKS if allowed >= rank)
    # One label: the base of an adapter with a score head has no head, or one of another size.
    return {"enable_lora": True, "max_loras": 1, "max_lora_rank": fitting, "max_lora_cls_labels": 1}


def _cpu_values(platform: Any, more: dict[str, object]) -> dict[str, object]:
    if platform.device_type != "cpu":
        return {}
    # Compiling takes longer than most runs on a CPU.
    values: dict[str, object] = {"enforce_eager": True}
    if "gpu_memory_utilization" not in more and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        values["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
    return values


@contextlib.contextmanager
def known_configuration(files: ModelFiles) -> Iterator[dict[str, object]]:
    """Arguments that let vLLM know a decoder with bidirectional attention, whose own model type it does not.

    vLLM reads the file that they name while it starts.
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
