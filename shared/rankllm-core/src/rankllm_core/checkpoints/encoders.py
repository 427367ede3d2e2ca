"""Encoders that cross-encoders are made of, recognised by their configuration alone, and how much they can read."""

from __future__ import annotations

from collections.abc import Mapping

ENCODERS = (
    "albert",
    "bert",
    "camembert",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
)
"""Architectures of transformers whose tokens see each other both ways, and which it gives a classification head."""

_OFFSET_POSITIONS = ("camembert", "mpnet", "roberta", "xlm-roberta")
"""Encoders that number positions from behind the padding token's id, as fairseq does: 514 positions hold 512 tokens."""
_USUAL_POSITIONS = 512
"""Where a configuration does not say."""
_HEADED = "ForSequenceClassification"


def is_encoder(config: Mapping[str, object]) -> bool:
    """Whether a model of this configuration sees both ways. BERT with `is_decoder` does not."""
    return config.get("model_type") in ENCODERS and not config.get("is_decoder")


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


def has_classification_head(config: Mapping[str, object]) -> bool:
    """Whether a configuration names an architecture with a sequence-classification head."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and any(str(name).endswith(_HEADED) for name in architectures)


def n_labels(config: Mapping[str, object]) -> int:
    """Labels of the classification head, as transformers counts them: two where the configuration does not say."""
    names = config.get("id2label")
    if isinstance(names, Mapping):
        return len(names)
    found = config.get("num_labels", 2)
    return found if isinstance(found, int) else 2


def architecture(config: Mapping[str, object]) -> str:
    """The name of the model's class, for messages; its `model_type` where the configuration names no class."""
    architectures = config.get("architectures")
    return str(architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type"))


def pair_limits(positions: int) -> tuple[int, int]:
    """Token limits of query and passage where nothing else is asked for: at most half of the pair is query.

    sentence-transformers' CrossEncoder cuts the longer text first: the same, unless a query takes over half.
    """
    return positions // 2, positions
