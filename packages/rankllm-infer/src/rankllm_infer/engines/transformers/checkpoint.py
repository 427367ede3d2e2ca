"""A checkpoint in transformers: opened by loading its weights, then started as an engine for one way of reading it."""

from __future__ import annotations

from typing import Any

from rankllm_infer.checkpoints.model_files import ModelFiles
from rankllm_infer.engines.base import Prompt, Read, kind_of
from rankllm_infer.engines.transformers.batches import BatchLimits
from rankllm_infer.engines.transformers.devices import cap_threads
from rankllm_infer.engines.transformers.engine import TransformersEngine
from rankllm_infer.engines.transformers.heads import rotation_limit
from rankllm_infer.engines.transformers.loading import LoadedModel, load_model
from rankllm_infer.engines.transformers.packing import FLASH_ATTENTIONS
from rankllm_infer.engines.transformers.permutation_ids import check_permutations
from rankllm_infer.engines.transformers.settings import TransformersSettings
from rankllm_infer.engines.transformers.trial import check_is_decoder, try_model


def open_checkpoint(files: ModelFiles, settings: TransformersSettings, *, read: Read) -> TransformersCheckpoint:
    """Load a model's weights. read: how it is going to be read. Raises RankLLMError; see `load_model`."""
    cap_threads()
    loaded = load_model(files, kind_of(read), settings)
    return TransformersCheckpoint(loaded, settings, name=files.own.name, read=read)


class TransformersCheckpoint:
    """A loaded model that is not running yet."""

    def __init__(self, loaded: LoadedModel, settings: TransformersSettings, *, name: str, read: Read) -> None:
        self._loaded, self._settings, self._name = loaded, settings, name
        alone = _why_alone(loaded, read)
        self._batch_size = 1 if alone else settings.batch_size or 32
        self.warnings = _without_effect(settings, alone) if alone else ()
        self.tokenizer: Any = loaded.tokenizer
        self.positions: int | None = getattr(loaded.model.config, "max_position_embeddings", None)
        # Whether flash-attention is found decides the last bits of scores, as the device does.
        attention = loaded.model.config._attn_implementation
        dtype = str(loaded.dtype).removeprefix("torch.")
        with_flash = f" with {attention}" if attention in FLASH_ATTENTIONS else ""
        self.place = f"{loaded.device.type} in {dtype}{with_flash}"
        self.where = f"on {self.place}" + (", running its own code" if settings.trust_remote_code else "")

    def start(self, read: Read, *, longest: int, sample: Prompt | None = None) -> TransformersEngine:
        """The engine, once the model has been tried on a few tokens; `longest` is found out by itself.

        Raises ContractError where the model, or with `permutation` its tokenizer, cannot be read this way.
        """
        if sample is not None:
            check_permutations(self.tokenizer, sample)
        check_is_decoder(self._loaded.model, self._name)
        try_model(self._loaded.model, read, source=self._name)
        limits = BatchLimits(max_prompts=self._batch_size, max_tokens=self._settings.batch_tokens)
        return TransformersEngine(self._loaded, limits=limits, compiles=self._settings.compile)


def _without_effect(settings: TransformersSettings, alone: str) -> tuple[str, ...]:
    """What a user who asked for larger batches should know. alone: why prompts run one at a time."""
    asked = {"--batch-size": (settings.batch_size or 1) > 1, "--batch-tokens": settings.batch_tokens > 0}
    return tuple(f"{option} has no effect: {alone}" for option, is_asked in asked.items() if is_asked)


def _why_alone(loaded: LoadedModel, read: Read) -> str:
    """Why prompts of this model run one at a time here; empty where they do not.

    A CPU's matrix kernels round by the shape of the batch: float32 logits of size 30 move by 3e-5 (docs/measured.md).
    float32 is for those who want the same number every time, and batches gain little there (at most a sixth): where
    scores are read, one at a time. LongRoPE: see `rotation_limit`.
    """
    reads_scores = read in ("first-token", "head")
    if reads_scores and loaded.device.type == "cpu" and str(loaded.dtype) == "torch.float32":
        return "float32 on a CPU runs one prompt at a time, so that no score depends on what runs beside it"
    if rotation_limit(loaded.model.config) is not None:
        return "this model (LongRoPE) reads a prompt by the longest one beside it, so each runs alone"
    return ""
