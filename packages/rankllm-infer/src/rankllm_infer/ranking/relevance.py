"""Relevance scores in [0, 1] by kind of model; they never increase from one rank to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from rankllm_core.card import Card, ListwiseCard, PairwiseCard
from rankllm_core.errors import RankLLMError
from rankllm_core.types import Candidate, Result

ScoreKind = Literal["probability", "sigmoid", "softmax", "preference", "rank", "raw"]
"""`probability`: probability of relevance as defined by the pointwise model's card. `sigmoid`: sigmoid of a pointwise
model's score, if the card defines no probability. `softmax`: softmax over the identifiers' logits of the single window
that FIRST read. `preference`: mean preference over all other documents (pairwise, all pairs). `rank`: (n - rank) / n,
where the best document has rank 0. `raw`: the model's own score."""


class NoModelScoresError(RankLLMError):
    """Raw scores were requested from a model that has none."""


def relevance_scores(result: Result, card: Card, *, raw: bool = False) -> tuple[ScoreKind, list[float]]:
    """Return (kind, score of each candidate in ranked order). raw: the model's own scores.

    Raises NoModelScoresError if raw scores are requested from a model that has none.
    """
    said = [candidate.model_score for candidate in result.candidates]
    scores = [score for score in said if score is not None]
    if raw:
        if len(scores) < len(said):
            raise NoModelScoresError("raw_scores: this model ranks documents without a score for each; leave it out")
        return "raw", scores
    n = len(said)
    # With first-stage scores fused in, the order no longer follows the model's scores.
    if len(scores) < n or card.fuse_weight:
        return "rank", _by_rank(n)
    if isinstance(card, ListwiseCard):
        # Logits of several windows come from different prompts and are not comparable.
        return ("softmax", _softmax(scores)) if result.usage.calls == 1 else ("rank", _by_rank(n))
    if isinstance(card, PairwiseCard):
        return "preference", _preferences(scores)
    probabilities = _probabilities(result.candidates)
    return ("probability", probabilities) if probabilities else ("sigmoid", [_sigmoid(score) for score in scores])


def _by_rank(n: int) -> list[float]:
    return [(n - rank) / n for rank in range(n)]


def _softmax(scores: Sequence[float]) -> list[float]:
    greatest = max(scores, default=0.0)
    weights = [math.exp(score - greatest) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]


def _preferences(scores: Sequence[float]) -> list[float]:
    """Scale SYM-SUM scores, which add two preferences in [0, 1] per other document, to [0, 1]."""
    most = 2 * max(1, len(scores) - 1)
    return [min(1.0, max(0.0, score / most)) for score in scores]


def _probabilities(candidates: Sequence[Candidate]) -> list[float]:
    """Return the candidates' probabilities; empty if any candidate has none."""
    known = [candidate.probability for candidate in candidates]
    return [value for value in known if value is not None] if None not in known else []


def _sigmoid(score: float) -> float:
    odds = math.exp(-abs(score))
    return 1 / (1 + odds) if score >= 0 else odds / (1 + odds)
