"""Combine a checkpoint's card and the given options into the card that is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rankllm_core.card import CARD_NAME, Card, ListwiseCard, PairwiseCard, PointwiseCard, load_card, published_card
from rankllm_core.checkpoints.encoders import pair_limits
from rankllm_core.checkpoints.model_folder import split_revision
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import (
    LISTWISE_DEFAULTS,
    ListwiseTemplate,
    PairwiseTemplate,
    PointwiseTemplate,
    Template,
    default_listwise_template,
    default_pairwise_template,
    default_pointwise_template,
    load_template,
    pointwise_template,
)
from rankllm_infer.option_table import LISTWISE
from rankllm_infer.options import RerankOptions, card_option, inapplicable, option_of


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveCard:
    """Card in effect, its origin, and warnings about options that changed it."""

    card: Card
    origin: str
    warnings: tuple[str, ...]
    is_context_asked: bool = False
    """True if the context size was given explicitly; a size that the model cannot hold is then an error."""


def resolve_card(
    model: str,
    options: RerankOptions,
    *,
    folder: Path | None,
    score_head: bool,
    pair_tokens: int | None = None,
    is_encoder_decoder: bool = False,
) -> EffectiveCard:
    """Find the model's card, or choose a default one, and apply the options to it.

    model: name given by the user. folder: folder of the model's files; None for a server's model. score_head,
    pair_tokens, is_encoder_decoder: properties of the checkpoint that determine the default card (it has a score head;
    maximum tokens of a pair for an encoder, else None; it is an encoder-decoder). Options that contradict the model's
    own card take precedence, with a warning that names both values. Raises ConfigError.
    """
    found, origin = _own_card(model, folder)
    warnings: list[str] = []
    if found is not None and options.method not in ("auto", found.kind):
        warnings.append(f"--method {options.method}: {origin} says {found.kind}; the card's settings are ignored")
        found = None
    own = found is not None
    if found is None:
        default = _default_encoder_decoder_card if is_encoder_decoder else _default_card
        found, origin = default(options, score_head=score_head, pair_tokens=pair_tokens), "no card; defaults"
    _check_prior(found, options)
    changed = {name: value for name, value in _overrides(found, options).items() if value != getattr(found, name)}
    if own:
        warnings += _contradictions(found, options, changed, origin)
    card: Card = replace(found, **changed)  # type: ignore[arg-type]
    if isinstance(card, ListwiseCard):
        _refuse_for(card, options)
        warnings += _card_warnings(card)
    return EffectiveCard(
        card=card, origin=origin, warnings=tuple(warnings), is_context_asked=options.context_size is not None
    )


def _own_card(model: str, folder: Path | None) -> tuple[Card | None, str]:
    """Return the model's own card, or the bundled card of a published model, and its origin."""
    found = load_card(folder) if folder is not None else None
    if found is not None:
        return found, f"{model}/{CARD_NAME}"
    return published_card(split_revision(model)[0]), f"the bundled card of {model}"


def _check_prior(found: Card, options: RerankOptions) -> None:
    """Raise ConfigError if the prior was measured with windows of a different size."""
    if isinstance(found, ListwiseCard) and options.identifier_prior:
        n_identifiers = options.window_size or found.window_size
        if len(options.identifier_prior) != n_identifiers:
            raise ConfigError(
                f"--identifier-prior: found {len(options.identifier_prior)} values, expected {n_identifiers}, one per "
                "identifier of a window; measure the prior for this window size (rankllm-infer calibrate)"
            )


def _contradictions(found: Card, options: RerankOptions, changed: Mapping[str, object], origin: str) -> list[str]:
    """Return warnings for options that contradict the model's own card. changed: field -> value that differs from the
    card."""
    # Defaults follow explicit options: the template follows the identifiers, the stride follows the window size. A
    # card without a fuse weight is not contradicted by setting one.
    follows = {"template": options.template is None, "stride": options.stride is None}
    follows["fuse_weight"] = not found.fuse_weight
    has_prior = isinstance(found, ListwiseCard) and bool(found.identifier_prior)
    follows["identifier_prior"] = options.identifier_prior is None or not has_prior
    warnings = []
    if "identifier_prior" in changed and options.identifier_prior is None:
        warnings.append(f"identifier_prior of {origin} was measured with other windows and is ignored")
    asked = {name: value for name, value in changed.items() if not follows.get(name)}
    return [*warnings, *(_contradiction(found, name, value, origin) for name, value in asked.items())]


def _refuse_for(card: ListwiseCard, options: RerankOptions) -> None:
    """Raise ConfigError for options that have no effect on this type of answer."""
    if card.answer == "first-token":
        options.refuse(inapplicable("FIRST"), why="with FIRST, which generates no text")
    else:
        options.refuse(inapplicable("generation", "pointwise"), why="with generation, only with FIRST")
        why = "with generation, only for models that output scores (pointwise, pairwise, FIRST)"
        options.refuse(inapplicable("generation"), why=why)


def fit_card(effective: EffectiveCard, positions: int | None) -> tuple[Card, tuple[str, ...]]:
    """Limit the card's context to the positions of the model; return the card and notes for the user.

    positions: None if the model has no limit. Raises ConfigError if an explicitly requested context or a pair does not
    fit.
    """
    card = effective.card
    if isinstance(card, PointwiseCard):
        # In the tokenizer's own pair format, the passage is truncated in favour of the query.
        is_pair = card.template.layout == "pair"
        least = max(card.query_tokens + 1, card.passage_tokens) if is_pair else card.query_tokens + card.passage_tokens
        if positions is not None and least > positions:
            raise ConfigError(
                f"pairs of {card.query_tokens} + {card.passage_tokens} tokens: the model has {positions} positions; "
                "use a smaller --q-max-len or --p-max-len"
            )
        return card, ()
    if isinstance(card, PairwiseCard):
        if positions is not None and card.query_tokens + 2 * card.passage_tokens > positions:
            raise ConfigError(
                f"comparisons of {card.query_tokens} + 2 x {card.passage_tokens} tokens: the model has {positions} "
                "positions; use a smaller --q-max-len or --p-max-len"
            )
        return card, ()
    if positions is None or card.context_tokens <= positions:
        return card, ()
    if effective.is_context_asked:
        raise ConfigError(f"--context-size {card.context_tokens}: the model has {positions} positions")
    note = f"the context is limited to {positions} tokens, the model's maximum (requested: {card.context_tokens})"
    return replace(card, context_tokens=positions), (note,)


def _card_warnings(card: ListwiseCard) -> list[str]:
    """Return warnings about inconsistent settings of a card. Raises ConfigError if they cannot work at all."""
    template = card.template
    if card.answer == "first-token" and not template.is_chain:
        raise ConfigError(
            f"--use-logits: template {template.name} asks for answers that do not start with an identifier in "
            "brackets; use another template, or generation (--no-use-logits)"
        )
    warnings = []
    if template.identifiers not in (None, card.identifiers):
        warnings.append(
            f"template {template.name} describes {template.identifiers} identifiers, but passages are labelled with "
            f"{card.identifiers} ones; use {'--no-use-alpha' if template.identifiers == 'numeric' else '--use-alpha'}"
        )
    if card.answer == "permutation" and "<answer>" in (template.system_message or ""):
        warnings.append(
            f"template {template.name} makes the model reason first, but answers are limited to a ranking's length; "
            "they will be truncated"
        )
    return warnings


def _default_card(options: RerankOptions, *, score_head: bool, pair_tokens: int | None) -> Card:
    asked = load_template(options.template) if options.template else None
    has_head = score_head or pair_tokens is not None
    if options.method == "pairwise" or (options.method == "auto" and not has_head and _is_pairwise(asked)):
        return PairwiseCard(template=asked if isinstance(asked, PairwiseTemplate) else default_pairwise_template())
    pointwise = options.method == "pointwise" or (options.method == "auto" and (has_head or _is_pointwise(asked)))
    if not pointwise:
        return ListwiseCard(template=default_listwise_template())
    if isinstance(asked, PointwiseTemplate) and (pair_tokens is None or asked.layout != "pair"):
        return PointwiseCard(template=asked, head=_head_behind(asked, score_head=score_head))
    if pair_tokens is not None:
        query_tokens, passage_tokens = pair_limits(pair_tokens)
        return PointwiseCard(
            template=pointwise_template("pair"), query_tokens=query_tokens, passage_tokens=passage_tokens
        )
    if score_head:
        return PointwiseCard(template=default_pointwise_template("sequence-classification"))
    return PointwiseCard(template=default_pointwise_template("yes-no"), head="yes-no")


def _default_encoder_decoder_card(options: RerankOptions, *, score_head: bool, pair_tokens: int | None) -> Card:
    """Return the default card of an encoder-decoder: monoT5's prompt, or pairwise comparison if requested."""
    asked = load_template(options.template) if options.template else None
    if options.method == "pairwise" or (options.method == "auto" and _is_pairwise(asked)):
        is_given = isinstance(asked, PairwiseTemplate)
        return PairwiseCard(template=asked if is_given else default_pairwise_template(is_chat=False))
    if isinstance(asked, PointwiseTemplate) or options.method == "listwise":
        return _default_card(options, score_head=score_head, pair_tokens=pair_tokens)
    # Together with the prompt's own words, this adds up to the 512 tokens that monoT5 was trained with
    # (arXiv:2003.06713).
    return PointwiseCard(template=pointwise_template("monot5"), head="yes-no", query_tokens=64, passage_tokens=436)


def _head_behind(template: PointwiseTemplate, *, score_head: bool) -> str:
    """Return the head that a template is read with. score_head: True if the checkpoint has a score head."""
    if score_head or not template.is_text:
        return "sequence-classification"
    return "yes-no" if template.negative else "single-token"


def _overrides(card: Card, options: RerankOptions) -> Mapping[str, object]:
    """Return the card's fields that the options override."""
    template = load_template(options.template) if options.template else None
    if template is not None and template.kind != card.kind:
        raise ConfigError(
            f"--prompt-template-path {options.template}: is a {template.method} template, but the method is {card.kind}"
        )
    if isinstance(card, PointwiseCard):
        values = _pointwise_values(card, options, template)
    elif isinstance(card, PairwiseCard):
        options.refuse(inapplicable("pairwise"), why=f"on a {card.kind} reranker")
        values = {"template": template, **options.card_overrides("pairwise")}
    else:
        values = _listwise_values(card, options, template)
    return {name: value for name, value in values.items() if value is not None}


def _pointwise_values(card: PointwiseCard, options: RerankOptions, template: Template | None) -> dict[str, object]:
    _refuse_half_a_limit(template if isinstance(template, PointwiseTemplate) else card.template, options)
    options.refuse(inapplicable("pointwise"), why=f"on a {card.kind} reranker")
    return {"template": template, **options.card_overrides("pointwise")}


def _listwise_values(card: ListwiseCard, options: RerankOptions, template: Template | None) -> dict[str, object]:
    options.refuse(inapplicable(*LISTWISE), why=f"on a {card.kind} reranker")
    values: dict[str, object] = {"template": template, **options.card_overrides(*LISTWISE)}
    if options.strategy not in (None, "sliding") and options.window_size is not None:
        # Only the sliding strategy uses a stride; with other strategies the card's stride need not fit the window.
        values["stride"] = min(card.stride, options.window_size)
    if template is None and values["identifiers"] not in (None, card.identifiers):
        values["template"] = _twin(card.template, str(values["identifiers"]))
    if isinstance(template, ListwiseTemplate) and values["identifiers"] is None:
        values["identifiers"] = template.identifiers
    is_other = any(values[name] not in (None, getattr(card, name)) for name in _PRIOR_IS_OF)
    if is_other and options.identifier_prior is None:
        values["identifier_prior"] = ()
    return values


def _refuse_half_a_limit(template: PointwiseTemplate, options: RerankOptions) -> None:
    """Raise ConfigError for a single length limit with layout `joined`, which truncates query and passage together."""
    given = [name for name in ("q_max_len", "p_max_len") if getattr(options, name) is not None]
    if template.layout == "joined" and len(given) == 1:
        raise ConfigError(
            f"{option_of(given[0])} has no effect alone: template {template.name} truncates query and passage "
            "together, to the sum of --q-max-len and --p-max-len (Tevatron's --rerank_max_len); give both"
        )


_PRIOR_IS_OF = ("template", "identifiers", "window_size")
"""Fields that an identifier prior depends on: it is invalid for other values."""


def _twin(template: ListwiseTemplate, kind: str) -> ListwiseTemplate | None:
    """Return RankZephyr's prompt for the other kind of identifiers, numeric or alphabetic; None for other templates."""
    if template.name not in LISTWISE_DEFAULTS.values():
        return None
    return default_listwise_template("alpha" if kind == "alpha" else "numeric")


def _contradiction(card: Card, name: str, value: object, origin: str) -> str:
    if name == "identifier_prior":
        return f"--identifier-prior: {'a different prior' if value else 'no prior'} is used; {origin} contains one"
    said, wanted = (getattr(v, "name", v) for v in (getattr(card, name), value))
    return f"{card_option(name, value)}: using {name} {wanted}, {origin} says {said}"


def _is_pointwise(template: object) -> bool:
    return isinstance(template, PointwiseTemplate)


def _is_pairwise(template: object) -> bool:
    return isinstance(template, PairwiseTemplate)
