"""Encoders with a sequence-classification head (cross-encoders), recognised by their configuration alone."""

from __future__ import annotations

from rankllm_core.card import Card
from rankllm_core.checkpoints.encoders import architecture, encoder_positions, n_labels
from rankllm_core.checkpoints.head_modules import module_head
from rankllm_core.errors import ConfigError, ContractError
from rankllm_infer.checkpoints.model_files import ModelFolder


def pair_tokens(folder: ModelFolder, *, has_adapter: bool = False) -> int | None:
    """The most tokens of a pair that a checkpoint takes; None where it is no encoder with a score head.

    has_adapter: whether an adapter is applied to it, which may bring the head.
    """
    if not folder.is_encoder:
        return None
    if not has_adapter and not folder.has_score_head and not _has_module_head(folder):
        return None
    return encoder_positions(folder.config)


def check_encoder(own: ModelFolder, *, method: str, compiles: bool, adapter: ModelFolder | None = None) -> None:
    """Raise ConfigError or ContractError, before weights are read, where an encoder cannot do what it is asked for.

    own: the encoder. adapter: applied to it; its weights may hold the score head.
    """
    kind = architecture(own.config)
    has_modules = _has_module_head(own)
    if adapter is not None and has_modules:
        raise ContractError(
            f"{adapter.name}: is an adapter over {own.name}, which keeps its score head as modules (modules.json); "
            "such a head takes no adapter here, so use a model that was trained in full"
        )
    if adapter is None and not own.has_score_head and not has_modules:
        raise ContractError(
            f"{own.name}: {kind} is no decoder and has no sequence-classification head; rankllm reranks with decoder "
            "language models, and with encoders that have such a head"
        )
    what = f"{own.name} is an encoder ({kind})"
    if method in ("listwise", "pairwise"):
        raise ConfigError(f"--method {method}: {what}, which scores one passage at a time; leave it out")
    if compiles:
        raise ConfigError(f"--compile: {what}, whose layers are not compiled here; leave it out")
    if adapter is None and not has_modules and (labels := n_labels(own.config)) != 1:
        raise ContractError(f"{own.name}: its head gives {labels} labels a passage, expected one score")


def check_encoder_card(own: ModelFolder, card: Card) -> None:
    """Raise ConfigError where a card prompts an encoder otherwise than in its tokenizer's format of two texts."""
    if card.kind != "pointwise":
        raise ConfigError(f"{own.name}: is an encoder, which scores one passage at a time, but its card is {card.kind}")
    if card.template.layout != "pair":
        raise ConfigError(
            f"template {card.template.name}: {own.name} is an encoder, which reads pairs in its tokenizer's own "
            "format; use --prompt-template-path pair"
        )


def _has_module_head(folder: ModelFolder) -> bool:
    """Whether an encoder without a head of its own keeps one as modules. Raises ContractError where it is not known."""
    if folder.has_score_head or module_head(folder.path) is None:
        return False
    if folder.config.get("model_type") != "modernbert":
        raise ContractError(
            f"{folder.name}: its score head is a list of modules, which is read over ModernBERT alone, and this is "
            f"{folder.config.get('model_type')}"
        )
    return True
