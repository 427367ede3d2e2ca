"""Models supported by name, published or bundled: how each is prompted and scored, and how that was verified."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rankllm_core.card import CARD_NAME, Card, ListwiseCard, PairwiseCard, PointwiseCard, card_from_dict
from rankllm_core.config import load_yaml
from rankllm_core.errors import RankLLMError
from rankllm_core.known_models import KnownModel, known_model, known_model_from_dict
from rankllm_core.known_models import known_models as published_models
from rankllm_infer.checkpoints.hub import SHIPPED, shipped_models_folder

COLUMNS = ("model", "kind", "head", "prompt template", "engines", "licence", "verified")
"""Column headings of the model table."""
_PROMPT_PARTS = (
    *("system_message", "prefix", "prefix_user", "prefix_assistant", "body", "body_user", "body_assistant"),
    *("query", "instructed_query", "passage", "suffix", "suffix_user", "answer_prefix", "instruction"),
)
"""Parts of a template that appear in the prompt, in display order."""
_DESCRIBED = {
    "permutation": "the generated permutation",
    "first-token": "identifier logits after the first bracket",
    "sequence-classification": "the score head",
    "yes-no": "logit({positive!r}) - logit({negative!r})",
    "single-token": "logit({positive!r})",
    "two-tokens": "softmax over {first!r} and {second!r}, with the two passages in both orders",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Known model with its card."""

    known: KnownModel
    card: Card

    @property
    def head(self) -> str:
        """Model output that is used: a pointwise card's head, a listwise card's answer or a pairwise card's tokens."""
        if isinstance(self.card, PairwiseCard):
            return "two-tokens"
        return self.card.head if isinstance(self.card, PointwiseCard) else self.card.answer

    @property
    def limits(self) -> dict[str, int]:
        """Prompt limits, by name of the card's field."""
        names = ("query_tokens", "passage_tokens", "context_tokens", "max_passage_words", "window_size", "stride")
        return {name: getattr(self.card, name) for name in names if hasattr(self.card, name)}

    @property
    def probability_scale(self) -> float | None:
        """Score scale, for probability = sigmoid(score / scale); None if the model defines no probability."""
        scale = getattr(self.card, "probability_scale", None)
        return None if scale is None else float(scale)

    @property
    def prompt(self) -> dict[str, str]:
        """Text of the prompt template, by part."""
        parts = self.card.template.to_dict()
        return {name: str(parts[name]) for name in _PROMPT_PARTS if parts.get(name)}

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield a table row for each of its names."""
        template = self.card.template.name
        for pattern in self.known.patterns:
            engines = " ".join(self.known.engines)
            yield (pattern, self.card.kind, self.head, template, engines, self.known.licence, self.known.verified)

    def to_dict(self) -> dict[str, object]:
        """Convert to a JSON record."""
        known, card = self.known, self.card
        return {
            "name": known.name,
            "models": list(known.patterns),
            "kind": card.kind,
            "head": self.head,
            "probability_scale": self.probability_scale,
            "template": {"name": card.template.name} | card.template.to_dict(),
            "limits": self.limits,
            "bos": card.bos,
            "base": card.base_model or known.base,
            "is_adapter": card.base_model is not None,
            "engines": list(known.engines),
            "licence": known.licence,
            "parameters": known.parameters,
            "paper": known.paper,
            "source": known.source,
            "verified": known.verified,
            "how": known.how,
            "notes": list(known.notes),
            "unconfirmed": list(known.unconfirmed),
        }

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield everything except the prompt text, as labels and values."""
        known, card, scale = self.known, self.card, self.probability_scale
        layout = "" if isinstance(card, ListwiseCard) else f", layout {card.template.layout}"
        yield "kind", card.kind
        yield "output", _DESCRIBED[self.head].format_map(_Tokens(card))
        if scale is not None:
            yield "probability", "sigmoid(score)" if scale == 1 else f"sigmoid(score / {scale:g})"
        yield "template", f"{card.template.name}{layout}"
        yield "limits", ", ".join(f"{name} {value:,}" for name, value in self.limits.items())
        if base := card.base_model or known.base:
            yield "base", f"{base}{' (this is an adapter)' if card.base_model else ''}"
        yield "parameters", known.parameters
        yield "licence", known.licence
        yield "engines", ", ".join(known.engines)
        yield from ((name, text) for name in ("paper", "source") if (text := getattr(known, name)))
        yield "verified", f"{known.verified}. {known.how}"
        yield from (("note", note) for note in known.notes)
        yield from (("unconfirmed", text) for text in known.unconfirmed)

    def lines(self) -> list[str]:
        """Format everything for the terminal."""
        width = max(len(name) for name, _ in self.facts())
        lines = [*self.known.patterns, *(f"  {name:<{width}}  {text}" for name, text in self.facts()), "", "Prompt"]
        for name, text in self.prompt.items():
            lines.append(f"  {name}:")
            lines += [f"    {line}".rstrip() for line in text.splitlines()]
        return lines


class _Tokens(dict[str, object]):
    """Tokens whose logits a card uses, by their names in its template."""

    def __init__(self, card: Card) -> None:
        names = {"pointwise": ("positive", "negative"), "pairwise": ("first", "second")}.get(card.kind, ())
        super().__init__((name, getattr(card.template, name)) for name in names)


def known_models() -> tuple[ModelFacts, ...]:
    """Return every known model: the bundled rerankers, then the published models by name."""
    return tuple(_with_card(known) for known in (*_bundled(), *published_models()))


def find_known_model(name: str) -> ModelFacts:
    """Find a known model by its hub name, the last part of that name, or its card's file name. Raises RankLLMError."""
    bundled = {known.name: known for known in _bundled()}
    known = bundled.get(name.lower()) or known_model(name) or _by_file(name)
    if known is None:
        raise RankLLMError(f"{name}: unknown model; `rankllm-infer models` lists the known ones{_nearest(name)}")
    return _with_card(known)


def model_table(models: Iterable[ModelFacts]) -> list[str]:
    """Format the models as an aligned table with a header line."""
    rows = [COLUMNS, *(row for model in models for row in model.rows())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return [_aligned(row, widths) for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _with_card(known: KnownModel) -> ModelFacts:
    return ModelFacts(known=known, card=card_from_dict(known.card, where=known.name))


def _bundled() -> Iterator[KnownModel]:
    folder = shipped_models_folder()
    about = load_yaml(folder / "about.yaml")
    for name in SHIPPED.values():
        card = load_yaml(folder / name / CARD_NAME)
        yield known_model_from_dict({**card, "models": [name], "about": about.get(name)}, name=name)


def _by_file(name: str) -> KnownModel | None:
    return next((known for known in published_models() if known.name == name.lower()), None)


def _nearest(name: str) -> str:
    """Return `; did you mean 'x'?` for the nearest name, its last part or its card's file name; empty if none is
    close."""
    known = (*_bundled(), *published_models())
    names = {model.name: model.patterns[0] for model in known}
    for pattern in (pattern for model in known for pattern in model.patterns):
        names |= {pattern.lower(): pattern, pattern.rsplit("/", 1)[-1].lower(): pattern}
    whole, last = name.lower(), name.lower().rsplit("/", 1)[-1]
    near = [found for asked in (whole, last) for found in difflib.get_close_matches(asked, names, n=1)]
    return f"; did you mean {names[near[0]]!r}?" if near else ""
