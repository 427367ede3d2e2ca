"""Encoders with a sequence-classification head (cross-encoders), recognised by their configuration alone."""

from __future__ import annotations

from collections.abc import Mapping

from rankllm_core.card import Card
from rankllm_core.errors import ConfigError, ContractError
from rankllm_infer.checkpoints.head_modules import module_head
from rankllm_infer.checkpoints.model_files import ModelFiles, ModelFolder

_OFFSET_POSITIONS = ("camembert", "mpnet", "roberta", "xlm-roberta")
"""Encoders that number positions from behind the padding token's id, as fairseq does: 514 positions hold 512 tokens."""
_USUAL_POSITIONS = 512
"""Where a configuration does not say."""


def first_position(config: Mapping[str, object]) -> int:
    """The position of an encoder's first token."""
    if config.get("model_type") not in _OFFSET_POSITIONS:
        return 0
    pad = config.get("pad_token_id", 1)
    return pad + 1 if isinstance(pad, int) else 2


def encoder_positions(config: Mapping[str, object]) -> int:
    """How many tokens an encoder has positions for."""
    found = config.get("max_position_embeddings")
    return (found if isinstance(found, int) else _USUAL_POSITIONS) - first_position(config)


def pair_tokens(folder: ModelFolder) -> int | None:
    """The most tokens of a pair that a checkpoint takes; None where it is no encoder with a score head."""
    if not folder.is_encoder:
        return None
    if not folder.has_score_head and not _has_module_head(folder):
        return None
    return encoder_positions(folder.config)


def check_encoder(own: ModelFolder, *, engine: str, method: str, compiles: bool) -> None:
    """Raise ConfigError or ContractError, before weights are read, where an encoder cannot do what it is asked for.

    own: the encoder.
    """
    architectures = own.config.get("architectures")
    kind = str(architectures[0] if isinstance(architectures, list) and architectures else own.config["model_type"])
    has_modules = _has_module_head(own)
    if not own.has_score_head and not has_modules:
        raise ContractError(
            f"{own.name}: {kind} is no decoder and has no sequence-classification head; rankllm reranks with decoder "
            "language models, and with encoders that have such a head"
        )
    what = f"{own.name} is an encoder ({kind})"
    if engine == "vllm":
        raise ConfigError(f"--engine vllm: {what}, which only the engine transformers runs; leave it out")
    if method in ("listwise", "pairwise"):
        raise ConfigError(f"--method {method}: {what}, which scores one passage at a time; leave it out")
    if compiles:
        raise ConfigError(f"--compile: {what}, whose layers are not compiled here; leave it out")
    if not has_modules and (n_labels := _n_labels(own.config)) != 1:
        raise ContractError(f"{own.name}: its head gives {n_labels} labels a passage, expected one score")


def encoder_adapter_error(files: ModelFiles) -> ContractError:
    """The error of an adapter whose base is an encoder."""
    return ContractError(
        f"{files.own.name}: is an adapter over an encoder ({files.base.name}), which is not merged here; merge it "
        "with PEFT's merge_and_unload and load the result"
    )


def check_encoder_card(own: ModelFolder, card: Card) -> None:
    """Raise ConfigError where a card prompts an encoder otherwise than in its tokenizer's format of two texts."""
    if pair_tokens(own) is None:
        return
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


def _n_labels(config: Mapping[str, object]) -> int:
    """Labels of the head, as transformers counts them: two where the configuration does not say."""
    names = config.get("id2label")
    if isinstance(names, Mapping):
        return len(names)
    found = config.get("num_labels", 2)
    return found if isinstance(found, int) else 2
