"""Card classes by kind of reranker: how the model is prompted and how its output is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rankllm_core.config import one_of
from rankllm_core.errors import ConfigError
from rankllm_core.probe import Probe
from rankllm_core.prompts.chat import BOS_RULES
from rankllm_core.prompts.template import ListwiseTemplate, PairwiseTemplate, PointwiseTemplate
from rankllm_core.types import MAX_ALPHA

HEADS = ("sequence-classification", "yes-no", "single-token")
ATTENTIONS = ("causal", "bidirectional")
POOLINGS = ("last", "mean", "first")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseCard:
    """Prompt and output format of a listwise reranker. Defaults are RankZephyr's (arXiv:2312.02724)."""

    template: ListwiseTemplate
    base_model: str | None = None
    """Base model, for an adapter."""
    identifiers: str = "numeric"
    answer: str = "permutation"
    """Source of the ranking. `permutation`: the generated text; `first-token`: the logits after `[` (FIRST,
    arXiv:2406.15657)."""
    bos: str = "single"
    context_tokens: int = 4096
    max_passage_words: int = 300
    window_size: int = 20
    stride: int = 10
    identifier_prior: tuple[float, ...] = ()
    """Positional bias of a FIRST model: logit offsets for the first, second, ... identifier in a full window,
    subtracted at inference. Empty: not measured. Source: PriDe, arXiv:2309.03882."""
    fuse_weight: float = 0.0
    """Weight of the first-stage score in the final ranking, from 0 (model only) to 1; tuned on development data."""
    probe: Probe | None = None
    """The model's scores for a few fixed prompts, which identify its weights; None: not recorded."""

    def __post_init__(self) -> None:
        one_of(self.identifiers, ("numeric", "alpha"), where="card: identifiers")
        one_of(self.answer, ("permutation", "first-token"), where="card: answer")
        one_of(self.bos, BOS_RULES, where="card: bos")
        _positive(self, "context_tokens", "max_passage_words")
        _share(self.fuse_weight)
        if not 0 < self.stride <= self.window_size:
            raise ConfigError(
                f"window: need 0 < stride <= size, got stride={self.stride}, size={self.window_size}; "
                "set --stride and --window-size"
            )
        if self.identifier_prior and len(self.identifier_prior) != self.window_size:
            raise ConfigError(
                f"card: identifier_prior: {len(self.identifier_prior)} numbers, but a window has {self.window_size} "
                "identifiers; measure it with these windows (rankllm-infer calibrate)"
            )
        if not all(map(math.isfinite, self.identifier_prior)):
            raise ConfigError(f"card: identifier_prior: expected finite numbers, found {list(self.identifier_prior)}")
        if self.identifiers == "alpha" and self.window_size > MAX_ALPHA:
            raise ConfigError(
                f"window: {self.window_size} passages per window, but there are {MAX_ALPHA} alphabetic identifiers; "
                f"use --window-size {MAX_ALPHA} or less, or numeric identifiers (--no-use-alpha)"
            )

    kind = "listwise"

    def to_dict(self) -> dict[str, object]:
        """Return the card as YAML values."""
        return {
            "format": 3 if self.probe else 2 if self.template.has_declarations else 1,
            "kind": self.kind,
            **({"base_model": self.base_model} if self.base_model else {}),
            "template": {"name": self.template.name} | self.template.to_dict(),
            "identifiers": self.identifiers,
            "answer": self.answer,
            "bos": self.bos,
            "context_tokens": self.context_tokens,
            "max_passage_words": self.max_passage_words,
            "window": {"size": self.window_size, "stride": self.stride},
            **({"identifier_prior": list(self.identifier_prior)} if self.identifier_prior else {}),
            **({"fuse_weight": self.fuse_weight} if self.fuse_weight else {}),
            **({"probe": self.probe.to_dict()} if self.probe else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseCard:
    """Prompt and output format of a pointwise reranker. Defaults are RankLLaMA's (arXiv:2310.08319)."""

    template: PointwiseTemplate
    base_model: str | None = None
    head: str = "sequence-classification"
    """Source of the score. `sequence-classification`: the `score` layer; `yes-no`: logit(positive) - logit(negative)
    for the template's tokens; `single-token`: logit(positive)."""
    bos: str = "single"
    append_eos: bool = False
    query_tokens: int = 32
    passage_tokens: int = 164
    attention: str | None = None
    """A decoder's attention: `causal`, or `bidirectional`, where tokens also attend to later ones. None: as in the
    model's configuration."""
    pooling: str | None = None
    """Pooling method for a score head with bidirectional attention: `last` token, `first` token, or `mean` pooling.
    None: as in the model's configuration."""
    probability_scale: float | None = None
    """The relevance probability is sigmoid(score / scale); None: the score does not represent a probability."""
    fuse_weight: float = 0.0
    """Weight of the first-stage score in the final ranking, from 0 (model only) to 1; tuned on development data."""
    probe: Probe | None = None
    """The model's scores for a few fixed prompts, which identify its weights; None: not recorded."""

    def __post_init__(self) -> None:
        one_of(self.head, HEADS, where="card: head")
        one_of(self.bos, BOS_RULES, where="card: bos")
        _positive(self, "query_tokens", "passage_tokens")
        _share(self.fuse_weight)
        self._check_head()
        self._check_attention()
        scale = self.probability_scale
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ConfigError(f"card: probability_scale: expected a finite number above 0, found {scale}")

    def _check_head(self) -> None:
        template = self.template
        if self.head != "sequence-classification" and not template.is_text:
            raise ConfigError(
                f"card: head {self.head!r} does not match template {template.name!r} (layout {template.layout!r}); "
                "token logits need one of the layouts chat, yes-no and raw, a score head works with any layout"
            )
        for name, token in zip(("positive", "negative"), self.tokens_read, strict=False):
            if not token:
                raise ConfigError(
                    f"card: head {self.head!r} reads the logit of a token that template {template.name!r} does not "
                    f"define ({name})"
                )

    def _check_attention(self) -> None:
        for name, value, allowed in (("attention", self.attention, ATTENTIONS), ("pooling", self.pooling, POOLINGS)):
            if value is not None:
                one_of(value, allowed, where=f"card: {name}")
        if self.pooling is not None and self.attention != "bidirectional":
            raise ConfigError(
                f"card: pooling {self.pooling!r} needs bidirectional attention; add attention: "
                "bidirectional, or leave it out"
            )
        if self.attention != "bidirectional":
            return
        if self.head != "sequence-classification" or self.template.layout == "pair":
            found = f"head {self.head!r} with layout {self.template.layout!r}"
            raise ConfigError(f"card: attention 'bidirectional' needs the score head of a decoder, found {found}")

    kind = "pointwise"

    @property
    def tokens_read(self) -> tuple[str, ...]:
        """Tokens whose logits form the score, the second subtracted from the first; empty for a score head."""
        tokens = {"yes-no": (self.template.positive, self.template.negative), "single-token": (self.template.positive,)}
        return tokens.get(self.head, ())

    def probability(self, score: float) -> float | None:
        """Return the relevance probability for a score, or None if the card defines none."""
        if self.probability_scale is None:
            return None
        odds = math.exp(-abs(score / self.probability_scale))
        return 1 / (1 + odds) if score >= 0 else odds / (1 + odds)

    @property
    def _format(self) -> int:
        is_new = (
            self.head == "single-token"
            or self.template.layout in ("chat", "raw", "pair")
            or bool(self.template.instructed_query)
            or (self.head == "sequence-classification" and self.template.is_text)
            or self.probability_scale is not None
            or self.attention is not None
            or self.probe is not None
        )
        return 3 if is_new else 1

    def to_dict(self) -> dict[str, object]:
        """Return the card as YAML values."""
        return {
            "format": self._format,
            "kind": self.kind,
            **({"base_model": self.base_model} if self.base_model else {}),
            "template": {"name": self.template.name} | self.template.to_dict(),
            "head": self.head,
            "bos": self.bos,
            "append_eos": self.append_eos,
            "query_tokens": self.query_tokens,
            "passage_tokens": self.passage_tokens,
            **({"attention": self.attention} if self.attention else {}),
            **({"pooling": self.pooling} if self.pooling else {}),
            **({"probability_scale": self.probability_scale} if self.probability_scale is not None else {}),
            **({"fuse_weight": self.fuse_weight} if self.fuse_weight else {}),
            **({"probe": self.probe.to_dict()} if self.probe else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseCard:
    """Prompt and output format of a pairwise reranker, which is read at one token. The default lengths fill duoT5's 512
    tokens (arXiv:2101.05667)."""

    template: PairwiseTemplate
    base_model: str | None = None
    """Base model, for an adapter."""
    bos: str = "single"
    query_tokens: int = 64
    passage_tokens: int = 216
    """Maximum number of tokens for each of the two passages."""
    fuse_weight: float = 0.0
    """Weight of the first-stage score in the final ranking, from 0 (model only) to 1; tuned on development data."""
    probe: Probe | None = None
    """The model's scores for a few fixed comparisons, recomputed when the model is loaded; None: not recorded."""

    def __post_init__(self) -> None:
        one_of(self.bos, BOS_RULES, where="card: bos")
        _positive(self, "query_tokens", "passage_tokens")
        _share(self.fuse_weight)

    kind = "pairwise"

    @property
    def tokens_read(self) -> tuple[str, str]:
        """Tokens whose logits are compared: the one for the first passage, then the one for the second."""
        return self.template.first, self.template.second

    def to_dict(self) -> dict[str, object]:
        """Return the card as YAML values."""
        return {
            "format": 3,
            "kind": self.kind,
            **({"base_model": self.base_model} if self.base_model else {}),
            "template": {"name": self.template.name} | self.template.to_dict(),
            "bos": self.bos,
            "query_tokens": self.query_tokens,
            "passage_tokens": self.passage_tokens,
            **({"fuse_weight": self.fuse_weight} if self.fuse_weight else {}),
            **({"probe": self.probe.to_dict()} if self.probe else {}),
        }


def _positive(card: object, *names: str) -> None:
    for name in names:
        if getattr(card, name) < 1:
            raise ConfigError(f"card: {name}: expected a positive number, found {getattr(card, name)}")


def _share(value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"card: fuse_weight: expected a number from 0 to 1, found {value}")
