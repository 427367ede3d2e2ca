"""Load a model the way its checkpoint is made: full, merged or LoRA adapter; and never with a head nobody trained."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.config import one_of
from rankllm_core.errors import ContractError, RankLLMError
from rankllm_core.files.manifest import check_intact
from rankllm_core.nn.model_parts import quiet_transformers, readable_load
from rankllm_infer.checkpoints.model_files import ModelFiles, load_tokenizer
from rankllm_infer.engines.base import ModelKind
from rankllm_infer.engines.transformers.adapters import HEAD_NAMES, merge_adapter, readable_misfits
from rankllm_infer.engines.transformers.batches import TransformersSettings
from rankllm_infer.engines.transformers.layers import check_flash, choose_attention


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to run, with its tokenizer."""

    model: Any
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device


def load_model(files: ModelFiles, kind: ModelKind, settings: TransformersSettings | None = None) -> LoadedModel:
    """Load a checkpoint. kind: with a language-model head or a `score` head.

    Raises RankLLMError when it is damaged, ContractError when its head is missing.
    """
    settings = settings or TransformersSettings()
    device = pick_device(settings.device, num_gpus=settings.num_gpus)
    dtype = pick_dtype(settings.dtype, device)
    if settings.attn_implementation == "flash_attention_2":
        check_flash(device, dtype)
    files = files.with_weights()
    _check_kind(files, kind)
    source = files.base.path
    for folder in dict.fromkeys((source, files.own.path)):
        read_weight_headers(folder)
        check_intact(folder)
    placement = spread_over_gpus(device, settings.num_gpus)
    trusted = settings.trust_remote_code
    options = {"dtype": dtype, "trust_remote_code": trusted, **placement}
    with quiet_transformers(hide_warnings=True):
        model = _load_base(source, kind, options, is_adapter=files.own.adapter is not None)
        if files.own.adapter is not None:
            has_head = kind == "sequence-classification"
            model = merge_adapter(model, files.own, has_head=has_head)
        tokenizer = load_tokenizer(files.tokenizer_folder, trust_remote_code=trusted)
    if not placement:
        with readable_load(source):
            model.to(device)
    model.eval()
    model.requires_grad_(False)
    choose_attention(model, settings.attn_implementation)
    return LoadedModel(model=model, tokenizer=tokenizer, dtype=dtype, device=device)


def _check_kind(files: ModelFiles, kind: ModelKind) -> None:
    """Raise ContractError where a score head is to be read as a language model."""
    if kind != "causal":
        return
    if files.own.adapter is not None and files.own.has_score_head:
        raise ContractError(f"{files.own.path}: the adapter was trained with a score head; use --method pointwise")
    if files.base.has_score_head:
        raise ContractError(f"{files.base.path}: has a score head and no language model; use --method pointwise")


def _load_base(source: Path, kind: ModelKind, options: dict[str, Any], *, is_adapter: bool) -> Any:
    """options: for `from_pretrained`."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if kind == "causal":
        with readable_load(source):
            model, report = AutoModelForCausalLM.from_pretrained(str(source), output_loading_info=True, **options)
        _check_complete(report["missing_keys"], source)
        return model
    with (
        readable_load(source),
        readable_misfits(f"{source}: the weights do not fit a model that gives one score a passage"),
    ):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(source), num_labels=1, output_loading_info=True, **options
        )
    if not hasattr(model, "score"):
        raise ContractError(
            f"{source}: its head is not a `score` layer over a causal model ({type(model).__name__}); "
            "rankllm scores with decoder models such as RankLLaMA"
        )
    fresh = [key for key in report["missing_keys"] if key.endswith(HEAD_NAMES)]
    if fresh and not is_adapter:
        raise ContractError(
            f"{source}: no score head ({fresh[0]}) in the checkpoint; its scores would be random. "
            "Use a trained reranker, or --method pointwise with --prompt-template-path yes_no for a chat model"
        )
    _check_complete((key for key in report["missing_keys"] if not key.endswith(HEAD_NAMES)), source)
    return model


def _check_complete(missing: Iterable[str], source: Path) -> None:
    """transformers draws weights that a checkpoint lacks at random, and only notes it."""
    if names := sorted(missing):
        raise ContractError(
            f"{source}: the checkpoint lacks {len(names)} of the model's weights, such as {names[0]}; "
            "they would be random. Copy or convert it again"
        )


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype asked for; `auto` is bfloat16 where the hardware is fast at it, else float16 on a GPU, else float32."""
    if dtype != "auto":
        return _DTYPES[one_of(dtype, _DTYPES, where="dtype")]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
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
