"""Open a checkpoint: load it according to its type, test it on a few tokens, and start it as an engine.

Supports full and merged models and LoRA adapters, and never a head with untrained weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankllm_core.errors import ContractError
from rankllm_core.nn.model_parts import quiet_transformers, readable_load
from rankllm_infer.checkpoints.model_files import ENCODERS, ModelFiles, load_tokenizer
from rankllm_infer.checkpoints.quantization import Quantization
from rankllm_infer.engines.base import ModelKind, Prompt, Read, kind_of
from rankllm_infer.engines.transformers.adapters import HEAD_NAMES, merge_adapter, readable_misfits
from rankllm_infer.engines.transformers.batches import BatchLimits, TransformersSettings, rotation_limit
from rankllm_infer.engines.transformers.encoders.bidirectional import (
    BidirectionalDecoder,
    bidirectional_config,
    ready_bidirectional,
)
from rankllm_infer.engines.transformers.encoders.cross_encoders import Encoder, load_encoder, ready_encoder
from rankllm_infer.engines.transformers.encoders.encoder_decoders import load_encoder_decoder, ready_encoder_decoder
from rankllm_infer.engines.transformers.engine import TransformersEngine
from rankllm_infer.engines.transformers.model import (
    LoadedModel,
    ScoresRows,
    cap_kernel_caches,
    cap_threads,
    check_flash,
    choose_attention,
    pick_device,
    pick_dtype,
    spread_over_gpus,
)
from rankllm_infer.engines.transformers.packing import FLASH_ATTENTIONS
from rankllm_infer.engines.transformers.permutation_ids import check_permutations
from rankllm_infer.engines.transformers.quantized import (
    check_quantization,
    quantization_notes,
    quantized_options,
    settle_quantized,
)
from rankllm_infer.engines.transformers.trying import check_is_decoder, try_model


def open_checkpoint(files: ModelFiles, settings: TransformersSettings, *, read: Read) -> TransformersCheckpoint:
    """Load a model's weights. read: how the model will be read. Raises RankLLMError; see `load_model`."""
    cap_threads()
    loaded = load_model(files, kind_of(read), settings)
    return TransformersCheckpoint(loaded, settings, name=files.own.name, read=read)


class TransformersCheckpoint:
    """A loaded model that has not been started yet."""

    def __init__(self, loaded: LoadedModel, settings: TransformersSettings, *, name: str, read: Read) -> None:
        self._loaded, self._settings, self._name = loaded, settings, name
        alone = _why_alone(loaded, read)
        self._batch_size = 1 if alone else settings.batch_size or 32
        self.warnings = (*loaded.notes, *(_without_effect(settings, alone) if alone else ()))
        self.tokenizer: Any = loaded.tokenizer
        self.positions: int | None = getattr(loaded.model.config, "max_position_embeddings", None)
        self._encoder: ScoresRows | None = loaded.encoder
        if self._encoder is not None:
            self.positions = self._encoder.positions
            # Pairs are truncated to the tokenizer's length, which in published tokenizers may exceed the model's.
            self.tokenizer.model_max_length = min(self.tokenizer.model_max_length, self.positions)
        # Like the device, the use of flash-attention affects the last bits of scores.
        attention = loaded.model.config._attn_implementation
        dtype = str(loaded.dtype).removeprefix("torch.")
        with_flash = f" with {attention}" if attention in FLASH_ATTENTIONS else ""
        self.place = f"{loaded.device.type} in {dtype}{with_flash}"
        self.where = f"on {self.place}" + (", running its own code" if settings.trust_remote_code else "")

    def start(self, read: Read, *, longest: int, sample: Prompt | None = None) -> TransformersEngine:
        """Start the engine after testing the model on a few tokens; `longest` is not needed here.

        Raises ContractError if the model, or with `permutation` its tokenizer, cannot be read this way.
        """
        if sample is not None:
            check_permutations(self.tokenizer, sample)
        if (runner := self._encoder or self._loaded.encoder_decoder) is not None:
            runner.try_it(self._name)
        else:
            check_is_decoder(self._loaded.model, self._name)
            try_model(self._loaded.model, read, source=self._name)
        limits = BatchLimits(max_prompts=self._batch_size, max_tokens=self._settings.batch_tokens)
        return TransformersEngine(self._loaded, limits=limits, compiles=self._settings.compile)


def _without_effect(settings: TransformersSettings, alone: str) -> tuple[str, ...]:
    """Return warnings about batch options that have no effect. alone: why prompts run one at a time."""
    asked = {"--batch-size": (settings.batch_size or 1) > 1, "--batch-tokens": settings.batch_tokens > 0}
    return tuple(f"{option} has no effect: {alone}" for option, is_asked in asked.items() if is_asked)


def _why_alone(loaded: LoadedModel, read: Read) -> str:
    """Return why prompts of this model run one at a time on this device; empty if they do not.

    A CPU's matrix kernels round differently for each batch shape: float32 logits of size 30 move by 3e-5
    (docs/measured.md). float32 is meant for reproducible numbers, and batching gains little there (at most a sixth), so
    scores are read one prompt at a time. LongRoPE: see `rotation_limit`.
    """
    reads_scores = read in ("first-token", "head")
    if reads_scores and loaded.device.type == "cpu" and str(loaded.dtype) == "torch.float32":
        return "float32 on a CPU runs one prompt at a time, so that scores do not depend on the batch"
    if rotation_limit(loaded.model.config) is not None:
        return "this model (LongRoPE) encodes a prompt by the longest one in its batch, so each runs alone"
    return ""


def load_model(files: ModelFiles, kind: ModelKind, settings: TransformersSettings | None = None) -> LoadedModel:
    """Load a checkpoint. kind: with a language-model head or a `score` head.

    Raises RankLLMError if it is damaged, ContractError if its head is missing.
    """
    settings = settings or TransformersSettings()
    device = pick_device(settings.device, num_gpus=settings.num_gpus)
    dtype = pick_dtype(settings.dtype, device, takes_float16=not files.base.is_encoder_decoder)
    cap_kernel_caches(dtype)
    if settings.attn_implementation == "flash_attention_2":
        check_flash(device, dtype)
    quantization = check_quantization(files, device) if files.base.is_quantized else None
    files = files.with_weights()
    if kind == "causal":
        files.check_language_model()
    source, held = files.base.path, files.check_weights()
    trusted = settings.trust_remote_code
    options = {"dtype": dtype, "trust_remote_code": trusted, **spread_over_gpus(device, settings.num_gpus)}
    notes: tuple[str, ...] = ()
    if files.bidirectional is not None:
        options["config"] = bidirectional_config(files.base, files.bidirectional)
    elif quantization is not None:
        options = quantized_options(quantization, files, kind, options=options, device=device, held=held)
        dtype = options["dtype"]
        notes = quantization_notes(quantization, files, asked=settings.dtype, dtype=dtype)
    with quiet_transformers(hide_warnings=True):
        model = _load_weights(files, kind, options, quantization)
        tokenizer = load_tokenizer(files.tokenizer_folder, trust_remote_code=trusted)
    if "device_map" not in options:
        with readable_load(source):
            model.to(device)
    model.eval()
    model.requires_grad_(False)
    return _ready(
        LoadedModel(model=model, tokenizer=tokenizer, dtype=dtype, device=device, notes=notes),
        files,
        attention=settings.attn_implementation,
    )


def _ready(loaded: LoadedModel, files: ModelFiles, *, attention: str) -> LoadedModel:
    """Set up attention and the runner of a loaded model. attention: as in `choose_attention`."""
    if files.base.is_encoder:
        ready_encoder(loaded.model, attention)
        return replace(loaded, encoder=Encoder(loaded.model))
    if files.bidirectional is not None:
        ready_bidirectional(loaded.model, attention)
        return replace(loaded, encoder=BidirectionalDecoder(loaded.model, files.bidirectional))
    if files.base.is_encoder_decoder:
        return replace(loaded, encoder_decoder=ready_encoder_decoder(loaded, attention, files.base.path))
    choose_attention(loaded.model, attention)
    return loaded


def _load_weights(
    files: ModelFiles, kind: ModelKind, options: dict[str, Any], quantization: Quantization | None
) -> Any:
    """Load the model with its adapter merged into it. options: for `from_pretrained`."""
    is_adapter = files.own.adapter is not None
    if files.base.is_encoder:
        if quantization is not None:
            raise ContractError(f"{files.base.name}: its weights are quantized; encoders are loaded with full weights")
        return load_encoder(files.base.path, options, adapter=files.own if is_adapter else None)
    if files.base.is_encoder_decoder:
        return load_encoder_decoder(files.base.path, options)
    model = _load_base(files.base.path, kind, options, is_adapter=is_adapter)
    if quantization is not None:
        model = settle_quantized(model, quantization, dtype=options["dtype"], files=files)
    return merge_adapter(model, files.own, has_head=kind == "sequence-classification") if is_adapter else model


def _load_base(source: Path, kind: ModelKind, options: dict[str, Any], *, is_adapter: bool) -> Any:
    """Load the base model. options: for `from_pretrained`."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if kind == "causal":
        with readable_load(source):
            model, report = AutoModelForCausalLM.from_pretrained(str(source), output_loading_info=True, **options)
        _check_complete(report["missing_keys"], source)
        return model
    with (
        readable_load(source),
        readable_misfits(f"{source}: the weights do not fit a model with one score per passage"),
    ):
        labels = {} if "config" in options else {"num_labels": 1}
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(source), **labels, output_loading_info=True, **options
        )
    if not hasattr(model, "score"):
        raise ContractError(
            f"{source}: its head is not a `score` layer over a causal model ({type(model).__name__}); "
            f"rankllm supports decoder models such as RankLLaMA, and encoders ({', '.join(ENCODERS)})"
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
    """Raise ContractError if weights are missing: transformers initializes them randomly with only a warning."""
    if names := sorted(missing):
        raise ContractError(
            f"{source}: the checkpoint lacks {len(names)} of the model's weights, such as {names[0]}; "
            "they would be random. Copy or convert the checkpoint again"
        )
