"""Rankings to be explained: runs, and results of `rerank` with their additional information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import cast, get_args

from rankllm_core.data.records import parse_request, read_requests, read_rerank_input
from rankllm_core.errors import RankLLMError
from rankllm_core.files import read_jsonl, read_lines
from rankllm_core.files.json_text import as_array, as_object, as_score, as_string, found, located
from rankllm_core.trec import Run, RunFormat, format_beside_others, holds_ranks, read_run, trec_order
from rankllm_core.types import Request, Status, Usage
from rankllm_infer.formats.convert import detect_format

_GREATEST_COUNT = 1 << 53


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is known about one query of a run besides its ranking."""

    status: Status | None = None
    """None: unknown."""
    defects: tuple[str, ...] = ()
    usage: Usage | None = None
    """None: unknown."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """docid -> model score, or the run's score for a run; empty if it only contains ranks (MS MARCO)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedFile:
    """A run or results file, ranked like `evaluate` does."""

    path: Path
    run: Run
    """qid -> (docid, score), best first."""
    outcomes: Mapping[str, Outcome]
    has_texts: bool
    """True if the file contains queries and passages, so that it can be read as a requests file."""


def read_ranked(path: Path, *, run_format: RunFormat = "auto") -> RankedFile:
    """Read a run (TREC, TSV, MS MARCO), or JSON Lines of `rerank --output-jsonl`, whose order is the ranking.

    Requests and rerank-input files are supported too, but contain neither statuses nor usage. Texts are not kept.
    run_format: how to read a run with three columns. Raises RankLLMError (DataError with the line) for anything else.
    """
    kind = detect_format(path)
    if kind == "rerank-input" or (kind == "requests" and _is_array(path)):
        read = read_rerank_input if kind == "rerank-input" else read_requests
        run = {request.query.qid: list_ranking(request) for request in read(path)}
        return RankedFile(path=path, run=run, outcomes={}, has_texts=True)
    if kind == "run":
        run_format = format_beside_others(path, run_format)
        run = {qid: trec_order(ranking) for qid, ranking in read_run(path, format=run_format).items()}
        if holds_ranks(path, format=run_format):
            return RankedFile(path=path, run=run, outcomes={}, has_texts=False)
        outcomes = {qid: Outcome(scores=dict(ranking)) for qid, ranking in run.items()}
        return RankedFile(path=path, run=run, outcomes=outcomes, has_texts=False)
    run, outcomes = {}, {}
    for line, record in read_jsonl(path):
        with located(path, line):
            request = parse_request(record)
            qid = request.query.qid
            if qid in run:
                raise RankLLMError(f"query {qid!r} occurs twice; list each query once")
            run[qid] = list_ranking(request)
            outcomes[qid] = _outcome(record)
    return RankedFile(path=path, run=run, outcomes=outcomes, has_texts=True)


def _is_array(path: Path) -> bool:
    """Return whether the file is a single JSON array, which `rerank` never writes."""
    return any(line.lstrip().startswith("[") for _, line in islice(read_lines(path), 1))


def list_ranking(request: Request) -> list[tuple[str, float]]:
    """Return the candidates in list order. Their scores, which may contradict it, are replaced by n - rank + 1."""
    n = len(request.candidates)
    return [(candidate.docid, float(n - place)) for place, candidate in enumerate(request.candidates)]


def _outcome(record: Mapping[str, object]) -> Outcome:
    """Read the fields of a result that a request lacks; all are optional."""
    return Outcome(
        status=_status(record.get("status")),
        defects=_strings(record.get("defects"), what="defects"),
        usage=_usage(record.get("usage")),
        scores=_model_scores(as_array(record.get("candidates", []), what="candidates")),
    )


def _status(value: object) -> Status | None:
    if value is None or value in get_args(Status):
        return cast("Status | None", value)
    raise RankLLMError(f"status: expected one of {', '.join(get_args(Status))}; found {found(value)}")


def _strings(value: object, *, what: str) -> tuple[str, ...]:
    return tuple(as_string(item, what=what) for item in as_array([] if value is None else value, what=what))


def _usage(value: object) -> Usage | None:
    if value is None:
        return None
    told = as_object(value, what="usage")
    return Usage(**{name: as_count(told.get(name, 0), what=f"usage.{name}") for name in Usage.__dataclass_fields__})


def _model_scores(candidates: Sequence[object]) -> dict[str, float]:
    told = (as_object(entry, what="candidate") for entry in candidates)
    return {
        str(entry["docid"]): as_score(entry["model_score"]) for entry in told if entry.get("model_score") is not None
    }


def as_count(value: object, *, what: str) -> int:
    """Parse a non-negative whole number. Raises RankLLMError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _GREATEST_COUNT:
        return value
    shown = value if isinstance(value, int) and abs(value) < _GREATEST_COUNT else found(value)
    raise RankLLMError(f"{what}: expected a whole number from 0, found {shown}")
