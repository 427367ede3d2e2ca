"""Load a model the way its checkpoint is made: full, merged or LoRA adapter; and never with a head nobody trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rankllm_core.checkpoints.load_failures import readable_load
from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.errors import ContractError
from rankllm_core.files.manifest import check_intact
from rankllm_core.nn.model_parts import quiet_transformers
from rankllm_infer.checkpoints.loading import load_tokenizer
from rankllm_infer.checkpoints.model_files import ModelFiles
from rankllm_infer.engines.base import ModelKind
from rankllm_infer.engines.transformers.adapters import HEAD_NAMES, merge_adapter, readable_misfits
from rankllm_infer.engines.transformers.devices import pick_device, pick_dtype, spread_over_gpus
from rankllm_infer.engines.transformers.layers import check_flash, choose_attention
from rankllm_infer.engines.transformers.settings import TransformersSettings


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
