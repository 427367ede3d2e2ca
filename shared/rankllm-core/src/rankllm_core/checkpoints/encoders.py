"""Encoders for cross-encoders, recognized by their configuration alone, and their input limits."""

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
"""Architectures of transformers that are bidirectional and have a sequence-classification class."""

_OFFSET_POSITIONS = ("camembert", "mpnet", "roberta", "xlm-roberta")
"""Encoders whose positions start after the padding token's id, as in fairseq: 514 positions hold 512 tokens."""
_USUAL_POSITIONS = 512
"""Used if a configuration does not specify it."""
_HEADED = "ForSequenceClassification"


def is_encoder(config: Mapping[str, object]) -> bool:
    """Whether a model with this configuration is bidirectional. BERT with `is_decoder` is not."""
    return config.get("model_type") in ENCODERS and not config.get("is_decoder")


def first_position(config: Mapping[str, object]) -> int:
    """Return the position of an encoder's first token."""
    if config.get("model_type") not in _OFFSET_POSITIONS:
        return 0
    pad = config.get("pad_token_id", 1)
    return pad + 1 if isinstance(pad, int) else 2


def encoder_positions(config: Mapping[str, object]) -> int:
    """Return the maximum number of tokens that an encoder has positions for."""
    found = config.get("max_position_embeddings")
    return (found if isinstance(found, int) else _USUAL_POSITIONS) - first_position(config)


def has_classification_head(config: Mapping[str, object]) -> bool:
    """Whether a configuration names an architecture with a sequence-classification head."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and any(str(name).endswith(_HEADED) for name in architectures)


def n_labels(config: Mapping[str, object]) -> int:
    """Return the number of labels of the classification head; two by default, as in transformers."""
    names = config.get("id2label")
    if isinstance(names, Mapping):
        return len(names)
    found = config.get("num_labels", 2)
    return found if isinstance(found, int) else 2


def architecture(config: Mapping[str, object]) -> str:
    """Return the name of the model's class, for messages; its `model_type` if the configuration names no class."""
    architectures = config.get("architectures")
    return str(architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type"))


def pair_limits(positions: int) -> tuple[int, int]:
    """Return the default token limits of query and passage: the query gets at most half of the pair.

    sentence-transformers' CrossEncoder truncates the longer text first, which is the same unless a query exceeds half.
    """
    return positions // 2, positions
