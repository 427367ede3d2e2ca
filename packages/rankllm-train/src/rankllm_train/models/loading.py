"""Loading of tokenizer, model and adapters for training, with a forward pass that computes only what a loss reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rankllm_core.checkpoints.encoders import ENCODERS, encoder_positions, has_classification_head, is_encoder
from rankllm_core.checkpoints.model_folder import (
    check_settings_files,
    check_trusted_source,
    own_code,
    read_model_json,
    split_revision,
)
from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.errors import ConfigError, ContractError, RankLLMError, first_line
from rankllm_core.files.manifest import check_intact
from rankllm_core.nn.model_parts import fast_tokenizer_options, quiet_transformers, readable_load
from rankllm_train.models.adapters import ADAPTER_NAME, start_from_adapter
from rankllm_train.models.attention import loading_attention, use_attention
from rankllm_train.models.base_names import findable_base
from rankllm_train.models.encoders import (
    check_module_head,
    check_scores,
    load_encoder,
    score_pairs,
)
from rankllm_train.models.heads import head_parts, is_encoder_model
from rankllm_train.models.lean_forward import check_lean, head_alone, is_zero3_sharded, make_lean
from rankllm_train.models.lora_targets import check_targets, encoder_layers
from rankllm_train.recipe.sections import ALL_LINEAR, LoraSection, ModelSection

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_tokenizer(section: ModelSection) -> Any:
    """Load the model's tokenizer. Raises RankLLMError if there is none, or if its code must not run."""
    from transformers import AutoTokenizer

    _check_trust(section)
    name, revision = split_revision(section.name_or_path)
    if Path(name).is_dir():
        check_settings_files(name)
    options = {"trust_remote_code": section.trust_remote_code, "revision": revision, **fast_tokenizer_options()}
    with quiet_transformers(), readable_failures(section.name_or_path):
        return AutoTokenizer.from_pretrained(name, **options)


def _check_trust(section: ModelSection) -> None:
    """Raise ConfigError if remote code is allowed for a model that is neither a folder nor pinned to a revision."""
    if section.trust_remote_code:
        check_trusted_source(section.name_or_path, folder=_small_files(section), option="model.trust_remote_code")


def _small_files(section: ModelSection) -> Path:
    """Return the folder with a model's settings and code, downloaded if the hub name is pinned to a revision."""
    name, revision = split_revision(section.name_or_path)
    if Path(name).is_dir() or revision is None:
        return Path(name)
    from huggingface_hub import snapshot_download

    with readable_failures(section.name_or_path):
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.py"]))


def base_config(section: ModelSection) -> Mapping[str, object]:
    """Return the model's `config.json`, downloaded for a hub name; empty if there is none.

    Raises RankLLMError if it is unavailable or its code must not run, ContractError for an encoder whose head would be
    lost.
    """
    _check_trust(section)
    name, revision = split_revision(section.name_or_path)
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        small = ["config.json", "modules.json", "*/config.json"]
        with readable_failures(section.name_or_path):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=small))
    config = read_model_json(folder / "config.json") or {}
    if is_encoder(config) and not has_classification_head(config):
        check_module_head(folder, section.name_or_path)
    return config


def limit_pairs(tokenizer: Any, config: Mapping[str, object]) -> None:
    """Make an encoder's tokenizer truncate pairs at the model's positions, which published tokenizers may not
    declare."""
    if is_encoder(config):
        tokenizer.model_max_length = min(tokenizer.model_max_length, encoder_positions(config))


def code_notes(section: ModelSection) -> tuple[str, ...]:
    """Return notes about the model's own code, before any of it runs.

    Raises ConfigError if code from there must not run.
    """
    _check_trust(section)
    folder = _small_files(section)
    if not folder.is_dir():
        return ()
    files, option = ", ".join(own_code(folder)), "--trust-remote-code"
    if not section.trust_remote_code:
        return (
            (f"{folder}: contains its own code ({files}), which is not run; transformers' implementation is used",)
            if files
            else ()
        )
    if not files:
        return (f"Warning: {option} has no effect: {folder} contains no code of its own",)
    return (f"{option}: code from {folder} runs with your permissions ({files})",)


def load_model(
    section: ModelSection,
    *,
    kind: str,
    lora: LoraSection,
    seed: int,
    deepspeed: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Any:
    """Load the model to train, with adapters and lean forward pass.

    kind: `causal`, or `sequence-classification` with one score per row (decoder or encoder). seed: for new layers. say:
    called with a note on an encoder's new weights. Trained weights are float32 (DeepSpeed keeps its own copy); frozen
    ones have the recipe's precision.
    Raises RankLLMError if there is no such model, ContractError if its head does not support the lean forward pass.
    """
    from transformers import set_seed

    half = _HALF.get(section.precision, torch.float32)
    dtype = half if lora.enabled or deepspeed else torch.float32
    set_seed(seed)
    with quiet_transformers(), readable_failures(section.name_or_path):
        model = _load(section, kind, dtype, say=say)
    _run_leanly(model, section)
    with quiet_transformers():
        use_attention(model, section)
    if kind != "causal" and not deepspeed:  # DeepSpeed needs a single dtype
        parts = head_parts(model)
        for path, module in model.named_modules():
            if path.rpartition(".")[2] in parts:
                module.float()  # trained, and computed in full precision as at inference
    # Seed again: under ZeRO-3 only the first process has drawn the new score layer, and adapters must be equal in all.
    set_seed(seed)
    return add_lora(model, lora, kind=kind, deepspeed=deepspeed) if lora.enabled else model


def _run_leanly(model: Any, section: ModelSection) -> None:
    """Bind the lean forward pass and check it. Raises ContractError; see `load_model`."""
    if is_encoder_model(model):
        score_pairs(model)
        if not is_zero3_sharded(model):  # sharded weights are unavailable until DeepSpeed wraps the model
            check_scores(model, name=section.name_or_path)
        return
    model.config.use_cache = False
    make_lean(model)
    with head_alone(model) if is_zero3_sharded(model) else contextlib.nullcontext():
        check_lean(model)


def _load(section: ModelSection, kind: str, dtype: torch.dtype, *, say: Callable[[str], None]) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    name, revision = section.name_or_path, None
    if Path(name).is_dir():
        _check_folder(Path(name), kind)
    else:
        name, revision = split_revision(name)
    options = {
        "dtype": dtype,
        "revision": revision,
        "attn_implementation": loading_attention(section.attn_implementation),
        "trust_remote_code": section.trust_remote_code,
        "output_loading_info": True,
    }
    if kind != "causal" and is_encoder(config := base_config(section)):
        return load_encoder(name, config, _encoder_options(options, section), say=say)
    if kind == "causal":
        model, report = AutoModelForCausalLM.from_pretrained(name, **options)
    else:
        model, report = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, **options)
    if kind != "causal" and not hasattr(model, "score"):
        raise ContractError(
            f"{name}: {type(model).__name__} has no score layer over a decoder, and is not a supported encoder "
            f"({', '.join(ENCODERS)})"
        )
    missing = sorted(key for key in report["missing_keys"] if kind == "causal" or not key.startswith("score."))
    if missing:
        raise ContractError(f"{name}: the checkpoint lacks {len(missing)} of the model's weights, such as {missing[0]}")
    return model


def _encoder_options(options: Mapping[str, Any], section: ModelSection) -> dict[str, Any]:
    """Adapt the options of decoders to encoders, whose default attention depends on the architecture."""
    kept = dict(options)
    if section.attn_implementation not in ("sdpa", "eager"):
        del kept["attn_implementation"]
    return kept


def _check_folder(folder: Path, kind: str) -> None:
    """Check a folder by its small files and weight headers. Raises RankLLMError."""
    if (folder / ADAPTER_NAME).exists():
        raise ConfigError(
            f"{folder}: is an adapter; give its base model here and the adapter with --start-from-adapter, or merge it "
            f"first (train merge {folder} OUT) and train the result"
        )
    check_settings_files(folder)
    if not (folder / "config.json").exists():
        raise RankLLMError(f"{folder}: config.json is missing; give a folder with a model as --model-name-or-path")
    score = read_weight_headers(folder).get("score.weight")
    check_intact(folder)
    if kind != "causal" and score is not None and score.shape[:1] != (1,):
        raise ContractError(
            f"{folder}: has a score layer with {score.shape[0]} labels, expected 1 score per pair; "
            "start from the model that it was fine-tuned from"
        )


def add_lora(model: Any, section: LoraSection, *, kind: str, deepspeed: bool = False) -> Any:
    """Add LoRA adapters to a model; its scoring head is trained in full.

    Adapters are float32, like all trained weights. Under DeepSpeed they keep the model's precision, since it flattens
    all trainable weights into one buffer (ZeRO-3 asserts that they share a dtype) and updates a float32 copy.
    Raises ConfigError if no layer has a given name.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    targets = section.target_modules
    check_targets(model, targets)
    is_classifier = kind != "causal"
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if is_classifier else TaskType.CAUSAL_LM,
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=_targets(model, targets),
        modules_to_save=list(head_parts(model)) if is_classifier else None,
        bias="none",
    )
    try:
        with quiet_transformers():
            adapted = get_peft_model(model, config, autocast_adapter_dtype=not deepspeed)
    except ValueError as error:
        raise ConfigError(f"lora.target_modules: {first_line(error, with_kind=False)}") from None
    adapted.peft_config["default"].base_model_name_or_path = findable_base(model.config.name_or_path)
    if section.start_from:
        start_from_adapter(adapted, section.start_from)
    return adapted


def _targets(model: Any, targets: Sequence[str]) -> str | list[str]:
    """Return the layers to adapt in PEFT's format. For an encoder, PEFT would only exclude the last layer of the
    head."""
    if tuple(targets) != (ALL_LINEAR,):
        return list(targets)
    return list(encoder_layers(model)) if is_encoder_model(model) else ALL_LINEAR


@contextlib.contextmanager
def readable_failures(source: str) -> Iterator[None]:
    """Turn any exception of transformers, tokenizers or the hub about a missing or damaged model into a one-line
    error."""
    try:
        with readable_load(source):
            yield
    except RankLLMError as error:
        cause = error.__cause__
        if Path(source).is_dir() or not isinstance(cause, OSError | ValueError):
            raise
        raise RankLLMError(
            f"model {source!r} cannot be loaded: there is no folder of that name with a complete model, and it is not "
            f"available from the hub ({first_line(cause, with_kind=False)}); give another --model-name-or-path"
        ) from None
