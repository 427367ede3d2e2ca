"""Checks of a checkpoint that vLLM does not make: untrained heads, and adapters of another base."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.errors import ConfigError, ContractError, MissingPackageError
from rankllm_core.nn.model_parts import readable_load
from rankllm_infer.checkpoints.model_files import ModelFiles
from rankllm_infer.checkpoints.quantization import check_packages, quantization_of
from rankllm_infer.engines.base import ModelKind

_HEAD = "score.weight"
_ENCODER_HEADS = {
    "bert": "classifier.weight",
    "modernbert": "classifier.weight",
    "roberta": "classifier.out_proj.weight",
    "xlm-roberta": "classifier.out_proj.weight",
}
"""Encoders that vLLM supports with a classification head -> name of that head's last weights."""


def missing_vllm() -> MissingPackageError:
    """Build the error of an engine whose package is not installed."""
    return MissingPackageError(
        "engine 'vllm' needs vLLM, which is not installed. Install it with: uv add 'rankllm-infer[vllm]'"
    )


def check_installed() -> None:
    """Raise MissingPackageError without vLLM, which is not imported: that takes seconds."""
    if importlib.util.find_spec("vllm") is None:
        raise missing_vllm()


def check_kind(files: ModelFiles, kind: ModelKind, *, trust_remote_code: bool = False) -> None:
    """Check that the checkpoint has the head to be read and that its adapter matches the base. Raises ContractError."""
    own, base = files.own, files.base
    if base.is_encoder or files.bidirectional is not None:
        _check_both_ways(files)
        return
    if kind == "causal" and own.has_score_head:
        what = "the adapter was trained with a score head" if own.adapter else "has a score head and no language model"
        raise ContractError(f"{own.path}: {what}; use --method pointwise")
    if kind == "causal" and base.has_score_head:
        raise ContractError(f"{base.path}: has a score head and no language model; the adapter needs its own base")
    if kind == "sequence-classification" and own.adapter is None:
        _check_full_head(base.path)
    if own.adapter is not None:
        _check_adapter(own.path, base.path, own.adapter, kind, trust_remote_code=trust_remote_code)


def check_quantization(files: ModelFiles) -> None:
    """Raise MissingPackageError if a package for the quantized weights is missing; vLLM includes those for other
    methods."""
    found = quantization_of(files.base)
    if found is not None and found.method == "bitsandbytes":
        check_packages(files.base.name, found.method, found.packages)


def check_runs(files: ModelFiles) -> None:
    """Raise ConfigError, before weights are read, if vLLM does not support a model with bidirectional attention."""
    own, base, both_ways = files.own, files.base, files.bidirectional
    if not base.is_encoder and both_ways is None:
        return
    problem = ""
    if own.adapter is not None:
        problem = f"is an adapter; merge it first (train merge {own.name} MERGED)"
    elif base.is_encoder and base.config.get("model_type") not in _ENCODER_HEADS:
        problem = f"is an encoder whose scores vLLM does not support ({base.config.get('model_type')})"
    elif base.is_encoder and not base.has_score_head:
        problem = "stores its score head as separate modules, which vLLM does not read"
    elif both_ways is not None and both_ways.architecture != "llama":
        problem = f"has bidirectional attention, which vLLM supports for llama, not {both_ways.architecture}"
    elif both_ways is not None and both_ways.temperature != 1:
        problem = f"divides its scores by {both_ways.temperature}, which vLLM does not"
    if problem:
        raise ConfigError(f"--engine vllm: {own.name} {problem}; use --engine transformers")


def _check_both_ways(files: ModelFiles) -> None:
    check_runs(files)
    _check_full_head(files.base.path, _ENCODER_HEADS.get(str(files.base.config.get("model_type")), _HEAD))


def _check_full_head(folder: Path, head: str = _HEAD) -> None:
    """Check for a score head with one output: without one, vLLM silently uses uninitialized memory."""
    shape = _shapes(folder).get(head)
    if shape is None:
        raise ContractError(
            f"{folder}: no score head ({head}) in the checkpoint; its scores would be random. "
            "Use a trained reranker, or --method pointwise with --prompt-template-path yes_no for a chat model"
        )
    if shape[0] != 1:
        raise ContractError(f"{folder}: its head returns {shape[0]} scores per passage ({head}), expected one")


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Map the name of every weight in a folder to its shape, without reading weights."""
    found = {name: info.shape for name, info in read_weight_headers(folder).items()}
    if not found:
        import torch

        for path in sorted(folder.glob("*.bin")):
            with readable_load(path):
                weights = torch.load(path, map_location="meta", weights_only=True, mmap=True)
                found |= {name: tuple(tensor.shape) for name, tensor in weights.items() if hasattr(tensor, "shape")}
    return found


def _check_adapter(
    adapter: Path, base: Path, settings: Mapping[str, object], kind: str, *, trust_remote_code: bool
) -> None:
    from peft.utils import load_peft_weights

    read_weight_headers(adapter)
    with readable_load(adapter, problem="the adapter cannot be loaded"):
        weights = {name: tuple(tensor.shape) for name, tensor in load_peft_weights(str(adapter), device="cpu").items()}
    if kind == "sequence-classification":
        if not any(name.endswith(_HEAD) for name in weights):
            raise ContractError(
                f"{adapter}: the adapter contains no score head ({_HEAD}); its scores would be random. "
                "Save it with modules_to_save=['score']"
            )
        if "score" not in (settings.get("modules_to_save") or ()):  # type: ignore[operator]
            raise ContractError(
                f"{adapter}: vLLM only reads an adapter's score head that modules_to_save names, as PEFT now does. "
                f"Merge it (train merge {adapter} MERGED) and rerank with MERGED, or use --engine transformers"
            )
    found = {item for item in weights.items() if ".lora_" in item[0]}
    places = _places(adapter, base, kind, trust_remote_code=trust_remote_code)
    if odd := sorted(places ^ found):
        side = "the adapter" if odd[0] in found else "the base model"
        name, shape = odd[0]
        raise ContractError(
            f"{adapter}: the adapter was trained on another base model: only {side} has {name} of shape {list(shape)}"
        )


def _places(adapter: Path, base: Path, kind: str, *, trust_remote_code: bool) -> set[tuple[str, tuple[int, ...]]]:
    """Return name and shape of the matrices that the adapter adds to this base, without reading weights."""
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    with readable_load(base):
        config = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
    with readable_load(adapter, problem="the adapter cannot be loaded"):
        settings: Any = PeftConfig.from_pretrained(str(adapter))
    settings.init_lora_weights = False  # some adapters request an initialization that needs weights
    settings.base_model_name_or_path = str(base)  # avoids PEFT's warning about a moved base
    owner: Any = AutoModelForCausalLM
    if kind == "sequence-classification":
        owner, config.num_labels = AutoModelForSequenceClassification, 1
    with readable_load(adapter, problem="the adapter cannot be loaded"), torch.device("meta"):
        attached = get_peft_model(owner.from_config(config, trust_remote_code=trust_remote_code), settings)
    state = get_peft_model_state_dict(attached, save_embedding_layers=False)
    return {(name, tuple(tensor.shape)) for name, tensor in state.items() if ".lora_" in name}


def lora_rank(settings: Mapping[str, object]) -> int:
    """Return the largest rank in an adapter's `adapter_config.json`."""
    pattern = settings.get("rank_pattern")
    ranks = [settings.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    return max((rank for rank in ranks if isinstance(rank, int)), default=0)


def declared_end(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Return the end tokens named by the model's generation settings or, without these, by its configuration."""
    from transformers import AutoConfig, GenerationConfig

    with readable_load(folder):
        if (folder / "generation_config.json").exists():
            return GenerationConfig.from_pretrained(folder).eos_token_id
        return getattr(AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code), "eos_token_id", None)
