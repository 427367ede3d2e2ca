"""Encoders with a sequence-classification head (cross-encoders), recognized by their configuration."""

from __future__ import annotations

from rankllm_core.card import Card
from rankllm_core.checkpoints.encoders import architecture, encoder_positions, n_labels
from rankllm_core.checkpoints.head_modules import module_head
from rankllm_core.errors import ConfigError, ContractError
from rankllm_infer.checkpoints.model_files import ModelFolder


def pair_tokens(folder: ModelFolder, *, has_adapter: bool = False) -> int | None:
    """Return the maximum number of tokens of a pair; None if the model is not an encoder with a score head.

    has_adapter: True if an adapter, which may contain the head, is applied to it.
    """
    if not folder.is_encoder:
        return None
    if not has_adapter and not folder.has_score_head and not _has_module_head(folder):
        return None
    return encoder_positions(folder.config)


def check_encoder(own: ModelFolder, *, method: str, compiles: bool, adapter: ModelFolder | None = None) -> None:
    """Raise ConfigError or ContractError, before weights are read, if an encoder does not support what is requested.

    own: the encoder. adapter: applied to it; its weights may contain the score head.
    """
    kind = architecture(own.config)
    has_modules = _has_module_head(own)
    if adapter is not None and has_modules:
        raise ContractError(
            f"{adapter.name}: is an adapter of {own.name}, which stores its score head as modules (modules.json); "
            "adapters are not supported for such heads; use a fully trained model"
        )
    if adapter is None and not own.has_score_head and not has_modules:
        raise ContractError(
            f"{own.name}: {kind} is not a decoder and has no sequence-classification head; rankllm supports decoder "
            "language models, and encoders with such a head"
        )
    what = f"{own.name} is an encoder ({kind})"
    if method in ("listwise", "pairwise"):
        raise ConfigError(f"--method {method}: {what}, which scores one passage at a time; leave it out")
    if compiles:
        raise ConfigError(f"--compile: {what}, which cannot be compiled; leave it out")
    if adapter is None and not has_modules and (labels := n_labels(own.config)) != 1:
        raise ContractError(f"{own.name}: its head returns {labels} labels per passage, expected one score")


def check_encoder_card(own: ModelFolder, card: Card) -> None:
    """Raise ConfigError if a card does not prompt an encoder in its tokenizer's format for two texts."""
    if card.kind != "pointwise":
        raise ConfigError(f"{own.name}: is an encoder, which scores one passage at a time, but its card is {card.kind}")
    if card.template.layout != "pair":
        raise ConfigError(
            f"template {card.template.name}: {own.name} is an encoder, which reads pairs in its tokenizer's own "
            "format; use --prompt-template-path pair"
        )


def _has_module_head(folder: ModelFolder) -> bool:
    """Return whether an encoder without an own head stores one as separate modules. Raises ContractError if
    unsupported."""
    if folder.has_score_head or module_head(folder.path) is None:
        return False
    if folder.config.get("model_type") != "modernbert":
        raise ContractError(
            f"{folder.name}: its score head is a list of modules, which is only supported for ModernBERT, found "
            f"{folder.config.get('model_type')}"
        )
    return True
