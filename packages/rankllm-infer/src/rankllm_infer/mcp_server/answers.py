"""Answers of tools: a result as a JSON object, with its status and the meaning of its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rankllm_core.card import Card, ListwiseCard, PointwiseCard
from rankllm_core.types import Candidate, Request, Result

_STATUS_NOTES = {
    "repaired": "some of the model's answers had to be repaired (see defects); the ranking is mostly the model's",
    "fallback": "some of the model's answers could not be read (see defects); the affected documents are in "
    "first-stage order",
}


def answer(
    result: Result, request: Request, *, top_n: int | None, with_documents: bool, card: Card
) -> Mapping[str, Any]:
    """Build the structured content of a tool's answer; `schemas.OUTPUT` describes it.

    request: the reranked request; `index` refers to its order. top_n: number of results to return; None: all.
    """
    index_of = {candidate.docid: index for index, candidate in enumerate(request.candidates)}
    shown = result.candidates[:top_n]
    return {
        "results": [
            _entry(candidate, rank=rank, index=index_of[candidate.docid], with_document=with_documents)
            for rank, candidate in enumerate(shown, start=1)
        ],
        "status": result.status,
        "defects": list(result.defects),
        "warnings": list(_warnings(result)),
        "score_meaning": score_meaning(card, has_scores=any(c.model_score is not None for c in result.candidates)),
        "n_documents": len(result.candidates),
        "usage": asdict(result.usage),
    }


def score_meaning(card: Card, *, has_scores: bool) -> str:
    """Describe this model's scores and what they may be compared with."""
    if not has_scores:
        return "none: this model returns an order without scores; use the rank"
    meaning = _meaning(card)
    return f"{meaning}; the rank also depends on the order before reranking" if card.fuse_weight else meaning


def _meaning(card: Card) -> str:
    match card:
        case PointwiseCard(head="yes-no"):
            return (
                "logit difference between relevant and not relevant; higher is more relevant, comparable across calls"
            )
        case PointwiseCard():
            return "logit of relevance; higher is more relevant, comparable across calls"
        case ListwiseCard():
            return "logit within a window; use the rank, because scores are not comparable across windows"
        case _:
            return "sum of preferences over the other documents; higher is more relevant, comparable within one call"


def _entry(candidate: Candidate, *, rank: int, index: int, with_document: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"index": index, "id": candidate.docid, "rank": rank, "score": candidate.model_score}
    if candidate.probability is not None:
        entry["probability"] = candidate.probability
    if with_document:
        entry["document"] = dict(candidate.doc)
    return entry


def _warnings(result: Result) -> list[str]:
    notes = [_STATUS_NOTES[result.status]] if result.status in _STATUS_NOTES else []
    n, n_ranked = len(result.candidates), result.n_ranked
    if n_ranked is not None and n_ranked < n:
        notes.append(f"the model ranked the first {n_ranked} of {n} documents; the others are in first-stage order")
    return notes
