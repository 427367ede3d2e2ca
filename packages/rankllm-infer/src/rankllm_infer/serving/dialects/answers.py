"""Rankings as JSON in each dialect. Pure functions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankllm_core.card import Card
from rankllm_core.text import title_and_text
from rankllm_core.types import Result, Usage, worst
from rankllm_infer.ranking.relevance import ScoreKind, relevance_scores
from rankllm_infer.serving.dialects.explanation import explanation_json, renamed
from rankllm_infer.serving.dialects.questions import TEI, Dialect, Document, Question


@dataclass(slots=True)
class Clock:
    """When a request was accepted and when its ranking started, on the clock of `time.monotonic`."""

    taken: float
    begun: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """Results of one HTTP request, with timings."""

    results: tuple[Result, ...]
    queued_s: float
    computed_s: float

    @property
    def usage(self) -> Usage:
        """Total usage of all results."""
        return sum((result.usage for result in self.results), Usage())

    @property
    def status(self) -> str:
        """Worst status of all results."""
        return worst([result.status for result in self.results])


def ranked(results: Sequence[Result], clock: Clock) -> Ranked:
    """Combine results with the time elapsed until now."""
    now = time.monotonic()
    begun = now if clock.begun is None else clock.begun
    return Ranked(results=tuple(results), queued_s=begun - clock.taken, computed_s=now - begun)


def rerank_body(question: Question, answer: Ranked, card: Card, *, model: str, request_id: str) -> object:
    """Build the JSON of a ranking. model: name that the model is served under."""
    (result,) = answer.results
    kind, scores = relevance_scores(result, card, raw=question.raw_scores)
    positions = [int(candidate.docid) for candidate in result.candidates]
    best = list(zip(positions, scores, strict=True))[: question.top_n]
    if question.dialect is TEI:
        return [_tei_item(question, position, score) for position, score in best]
    body: dict[str, object] = {
        "id": request_id,
        "model": model,
        "results": [_item(question, position, score) for position, score in best],
        "usage": usage_json(answer.usage),
        "meta": _meta(question.dialect, answer, kind, question.warnings),
    }
    if question.explains:
        body["explanation"] = explanation_json(result)
    return body


def _item(question: Question, position: int, score: float) -> dict[str, object]:
    item: dict[str, object] = {"index": position, "relevance_score": score}
    if question.returns_documents:
        item["document"] = _as_object(question.documents[position])
    return item


def _tei_item(question: Question, position: int, score: float) -> dict[str, object]:
    item: dict[str, object] = {"index": position, "score": score}
    if question.returns_documents:
        document = question.documents[position]
        item["text"] = document if isinstance(document, str) else title_and_text(document)[1]
    return item


def _as_object(document: Document) -> Mapping[str, object]:
    """Wrap a string in an object with its text; return objects unchanged."""
    return {"text": document} if isinstance(document, str) else document


def usage_json(usage: Usage) -> dict[str, int]:
    """Format token counts in OpenAI's layout."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _meta(dialect: Dialect, answer: Ranked, kind: ScoreKind, warnings: Sequence[str]) -> dict[str, object]:
    """Build Cohere's `meta`, extended with information about this ranking."""
    return {
        "api_version": {"version": "1" if dialect.name == "cohere-v1" else "2"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": answer.usage.prompt_tokens, "output_tokens": answer.usage.completion_tokens},
        **meta_of(answer, kind, warnings),
    }


def meta_of(answer: Ranked, kind: ScoreKind, warnings: Sequence[str] = ()) -> dict[str, object]:
    """Build status, defects, calls and timings of a ranking."""
    notes = [f"the ranking is not entirely the model's: status {answer.status}"] if answer.status != "ok" else []
    return {
        "status": answer.status,
        "defects": renamed([defect for result in answer.results for defect in result.defects]),
        "warnings": [*warnings, *notes],
        "score_kind": kind,
        "calls": answer.usage.calls,
        "rounds": answer.usage.rounds,
        "queued_s": round(answer.queued_s, 6),
        "computed_s": round(answer.computed_s, 6),
    }


def answer_headers(answer: Ranked, kind: str | None = None) -> dict[str, str]:
    """Return headers for what text-embeddings-inference's plain array cannot contain; times in milliseconds, with its
    names.

    Source: huggingface/text-embeddings-inference@02506d0 router/src/http/server.rs.
    """
    queued, computed = round(1000 * answer.queued_s), round(1000 * answer.computed_s)
    return {
        "x-queue-time": str(queued),
        "x-inference-time": str(computed),
        "x-total-time": str(queued + computed),
        "x-compute-tokens": str(answer.usage.prompt_tokens + answer.usage.completion_tokens),
        "x-rankllm-status": answer.status,
        **({} if kind is None else {"x-rankllm-score-kind": kind}),
    }
