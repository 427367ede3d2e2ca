"""Results and answers as the plain values of a journal's lines, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from rankllm_core.types import Request, Result, Usage, WindowTrace
from rankllm_infer.engines.base import Answer


def result_to_record(result: Result) -> dict[str, object]:
    """Return what a journal keeps of a finished query: its candidates by docid, without their texts."""
    is_failed = result.status == "failed"
    return {
        "qid": result.query.qid,
        "status": result.status,
        "ranking": [] if is_failed else [[c.docid, c.score, c.model_score] for c in result.candidates],
        "defects": result.defects,
        "usage": asdict(result.usage),
        "n_ranked": result.n_ranked,
        "trace": [asdict(call) for call in result.trace],
        "error": result.error,
    }


def result_from_record(record: Mapping[str, Any], request: Request) -> Result:
    """Return a finished query's result as it was kept. request: what was asked, with the passages."""
    given = {candidate.docid: candidate for candidate in request.candidates}
    ranking = (replace(given[docid], score=score, model_score=told) for docid, score, told in record["ranking"])
    return Result(
        query=request.query,
        candidates=request.candidates if record["status"] == "failed" else tuple(ranking),
        status=record["status"],
        defects=tuple(record["defects"]),
        usage=Usage(**record["usage"]),
        trace=tuple(_call(call) for call in record["trace"]),
        error=record["error"],
        n_ranked=record.get("n_ranked"),
    )


def answer_from_record(record: Mapping[str, Any]) -> Answer:
    """Return an answer as it was kept."""
    return Answer(**(record | {"scores": tuple(record["scores"]), "usage": Usage(**record["usage"])}))


def _call(record: Mapping[str, Any]) -> WindowTrace:
    tuples = {name: tuple(record[name]) for name in ("docids", "order", "defects")}
    scores = None if record["scores"] is None else tuple(record["scores"])
    return WindowTrace(**(record | tuples | {"scores": scores, "usage": Usage(**record["usage"])}))
