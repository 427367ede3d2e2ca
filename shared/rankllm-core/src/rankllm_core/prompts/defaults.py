"""Which shipped template goes with a card that names none: one table, for training and for inference."""

from __future__ import annotations

from collections.abc import Mapping

from rankllm_core.errors import ConfigError
from rankllm_core.identifiers import IdentifierKind
from rankllm_core.prompts.template import ListwiseTemplate, PointwiseTemplate, load_template

LISTWISE_DEFAULTS: Mapping[IdentifierKind, str] = {"numeric": "rank_zephyr", "alpha": "rank_zephyr_alpha"}
"""Identifiers -> name of RankZephyr's prompt that speaks of them."""
POINTWISE_DEFAULTS: Mapping[str, str] = {"sequence-classification": "rankllama", "yes-no": "yes_no"}
"""Head -> name of the prompt whose score it gives."""


def default_listwise_template(identifiers: IdentifierKind = "numeric") -> ListwiseTemplate:
    """Return the template for a listwise card with these identifiers."""
    return listwise_template(LISTWISE_DEFAULTS[identifiers])


def default_pointwise_template(head: str) -> PointwiseTemplate:
    """Return the template for a pointwise card with this head."""
    return pointwise_template(POINTWISE_DEFAULTS[head])


def listwise_template(name_or_path: str, *, where: str = "") -> ListwiseTemplate:
    """Load a listwise template. where: what the message of another kind begins with. Raises ConfigError."""
    template = load_template(name_or_path)
    if not isinstance(template, ListwiseTemplate):
        raise ConfigError(f"{where}{template.name} is a pointwise template; expected a listwise one")
    return template


def pointwise_template(name_or_path: str, *, where: str = "") -> PointwiseTemplate:
    """Load a pointwise template. where: what the message of another kind begins with. Raises ConfigError."""
    template = load_template(name_or_path)
    if not isinstance(template, PointwiseTemplate):
        raise ConfigError(f"{where}{template.name} is a listwise template; expected a pointwise one")
    return template
