"""How a checkpoint's card and what was asked for become one effective card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rankllm_core.card import CARD_NAME, Card, ListwiseCard, PointwiseCard, load_card, published_card
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import ListwiseTemplate, PointwiseTemplate, load_template
from rankllm_infer.checkpoints.hub import split_revision
from rankllm_infer.option_checks import refuse
from rankllm_infer.option_table import LISTWISE
from rankllm_infer.options import RerankOptions, card_option, card_overrides, inapplicable, option_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedCard:
    """The card in force, where it came from, and what in it the options have changed."""

    card: Card
    origin: str
    warnings: tuple[str, ...]


def resolve_card(model: str, options: RerankOptions, *, folder: Path | None, score_head: bool) -> ResolvedCard:
    """Find the model's card, or the default one, and put the options over it.

    model: as the user names it. folder: where its files are; None for a server's model. score_head: whether the
    checkpoint has one; decides the default card. A contradiction to a card that the model brings is honoured, with a
    warning that names both values. Raises ConfigError.
    """
    found = load_card(folder) if folder is not None else None
    origin = f"{model}/{CARD_NAME}"
    if found is None:
        found, origin = published_card(split_revision(model)[0]), f"the card that ships for {model}"
    warnings: list[str] = []
    if found is not None and options.method not in ("auto", found.kind):
        warnings.append(f"--method {options.method}: {origin} says {found.kind}; its settings are not used")
        found = None
    own = found is not None
    if found is None:
        found, origin = _default_card(options, score_head=score_head), "no card; defaults"
    if isinstance(found, ListwiseCard) and options.identifier_prior:
        n_identifiers = options.window_size or found.window_size
        if len(options.identifier_prior) != n_identifiers:
            raise ConfigError(
                f"--identifier-prior: {len(options.identifier_prior)} numbers, but a window has {n_identifiers} "
                "identifiers; measure it with these windows (rankllm-infer calibrate)"
            )
    changed = {name: value for name, value in _overrides(found, options).items() if value != getattr(found, name)}
    if own:
        # A template that was not asked for goes with the identifiers that were, a stride with the window.
        # A card that speaks of no fusing is not contradicted by it.
        follows = {"template": options.template is None, "stride": options.stride is None}
        follows["fuse_weight"] = not found.fuse_weight
        follows["identifier_prior"] = options.identifier_prior is None or not found.identifier_prior  # type: ignore[union-attr]
        if "identifier_prior" in changed and options.identifier_prior is None:
            warnings.append(f"identifier_prior of {origin} is of other windows than these are, and is not used")
        asked = {name: value for name, value in changed.items() if not follows.get(name)}
        warnings += [_contradiction(found, name, value, origin) for name, value in asked.items()]
    card: Card = replace(found, **changed)  # type: ignore[arg-type]
    if isinstance(card, ListwiseCard):
        if card.answer == "first-token":
            refuse(options, inapplicable("FIRST"), why="with FIRST, which generates nothing")
        else:
            refuse(options, inapplicable("generation", "pointwise"), why="with generation, only with FIRST")
            why = "with generation, only where scores are read (pointwise, FIRST)"
            refuse(options, inapplicable("generation"), why=why)
        warnings += _doubts_about(card)
    return ResolvedCard(card=card, origin=origin, warnings=tuple(warnings))


def _doubts_about(card: ListwiseCard) -> list[str]:
    """What in a card does not go together. Raises ConfigError where it cannot work at all."""
    template = card.template
    if card.answer == "first-token" and not template.is_chain:
        raise ConfigError(
            f"--use-logits: the answers that template {template.name} asks for do not begin with an identifier in "
            "brackets; use another template, or generation (--no-use-logits)"
        )
    doubts = []
    if template.identifiers not in (None, card.identifiers):
        doubts.append(
            f"template {template.name} speaks of {template.identifiers} identifiers, but the passages are called by "
            f"{card.identifiers} ones; use {'--no-use-alpha' if template.identifiers == 'numeric' else '--use-alpha'}"
        )
    if card.answer == "permutation" and "<answer>" in (template.system_message or ""):
        doubts.append(
            f"template {template.name} lets the model reason first, but an answer has room for the ranking alone; "
            "answers will be cut off"
        )
    return doubts


def _default_card(options: RerankOptions, *, score_head: bool) -> Card:
    asked = load_template(options.template) if options.template else None
    pointwise = options.method == "pointwise" or (options.method == "auto" and (score_head or _is_pointwise(asked)))
    if not pointwise:
        return ListwiseCard(template=_listwise("rank_zephyr"))
    if isinstance(asked, PointwiseTemplate):
        head = "yes-no" if asked.layout == "yes-no" else "sequence-classification"
        return PointwiseCard(template=asked, head=head)
    if score_head:
        return PointwiseCard(template=_pointwise("rankllama"))
    return PointwiseCard(template=_pointwise("yes_no"), head="yes-no")


def _overrides(card: Card, options: RerankOptions) -> Mapping[str, object]:
    values: dict[str, object]
    template = load_template(options.template) if options.template else None
    if template is not None and _is_pointwise(template) != isinstance(card, PointwiseCard):
        raise ConfigError(
            f"--prompt-template-path {options.template}: is a {template.method} template, but the method is {card.kind}"
        )
    if isinstance(card, PointwiseCard):
        _refuse_half_a_limit(template if isinstance(template, PointwiseTemplate) else card.template, options)
        refuse(options, inapplicable("pointwise"), why=f"on a {card.kind} reranker")
        values = {"template": template, **card_overrides(options, "pointwise")}
    else:
        refuse(options, inapplicable(*LISTWISE), why=f"on a {card.kind} reranker")
        values = {"template": template, **card_overrides(options, *LISTWISE)}
        if options.strategy != "sliding" and options.window_size is not None:
            # Only the sliding window has a stride; the card's need not fit another window.
            values["stride"] = min(card.stride, options.window_size)
        if template is None and values["identifiers"] not in (None, card.identifiers):
            values["template"] = _twin(card.template, str(values["identifiers"]))
        if isinstance(template, ListwiseTemplate) and values["identifiers"] is None:
            values["identifiers"] = template.identifiers
        is_other = any(values[name] not in (None, getattr(card, name)) for name in _PRIOR_IS_OF)
        if is_other and options.identifier_prior is None:
            values["identifier_prior"] = ()
    return {name: value for name, value in values.items() if value is not None}


def _refuse_half_a_limit(template: PointwiseTemplate, options: RerankOptions) -> None:
    """The layout `joined` cuts query and passage as one text, as the original does: one of two limits says nothing."""
    given = [name for name in ("q_max_len", "p_max_len") if getattr(options, name) is not None]
    if template.layout == "joined" and len(given) == 1:
        raise ConfigError(
            f"{option_of(given[0])} has no effect of its own: template {template.name} cuts query and passage "
            "together, at the sum of --q-max-len and --p-max-len (the original's --rerank_max_len); give both"
        )


_PRIOR_IS_OF = ("template", "identifiers", "window_size")
"""What an identifier prior was measured with: with others it is another one."""


def _twin(template: ListwiseTemplate, kind: str) -> ListwiseTemplate | None:
    """RankZephyr's prompt speaks of numerical or alphabetical identifiers: the one that goes with the identifiers."""
    twins = {"numeric": "rank_zephyr", "alpha": "rank_zephyr_alpha"}
    return _listwise(twins[kind]) if template.name in twins.values() else None


def _contradiction(card: Card, name: str, value: object, origin: str) -> str:
    if name == "identifier_prior":
        return f"--identifier-prior: {'another' if value else 'none'} is used, {origin} has one of its own"
    said, wanted = (getattr(v, "name", v) for v in (getattr(card, name), value))
    return f"{card_option(name, value)}: {name} {wanted} is used, {origin} says {said}"


def _is_pointwise(template: object) -> bool:
    return isinstance(template, PointwiseTemplate)


def _listwise(name: str) -> ListwiseTemplate:
    template = load_template(name)
    if not isinstance(template, ListwiseTemplate):
        raise ConfigError(f"{name}: expected a listwise template, found a {template.method} one")
    return template


def _pointwise(name: str) -> PointwiseTemplate:
    template = load_template(name)
    if not isinstance(template, PointwiseTemplate):
        raise ConfigError(f"{name}: expected a pointwise template, found a {template.method} one")
    return template
