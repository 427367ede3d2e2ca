"""Labelled lists in the order of a reranker's results, as far as the reranker has ranked them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, get_args

from rankllm_core.data.records import parse_request
from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files.json_text import found, located
from rankllm_core.text import title_and_text
from rankllm_core.types import SEVERITY, Request, Status
from rankllm_train.data.json_records import read_json_records
from rankllm_train.preparation.labelled import LabelledList
from rankllm_train.preparation.ranked_queries import RunFile, read_ranked_queries
from rankllm_train.preparation.tally import Tally, Track


class _Ranked(NamedTuple):
    """Parsed line of results."""

    request: Request
    status: Status
    n_ranked: int
    """Number of leading candidates that the reranker has ordered."""
    is_told: bool
    """Whether the line tells that number."""


def result_lists(
    results: str | Path,
    tally: Tally,
    *,
    depth: int,
    worst_status: Status,
    run: str | Path | RunFile | None,
    track: Track,
) -> Iterator[LabelledList]:
    """Yield the lists of a reranker's results, one query at a time; the order of its candidates is the target order.

    results: results JSONL, or a requests file in the same format. depth: maximum candidates per list. worst_status:
    lists with a worse status (`rankllm_core.types.Status`) are skipped. run: provides the first-stage order.
    Candidates below those that the reranker ranked are in first-stage order; they are dropped and counted.
    Raises DataError naming the line of an unreadable record.
    """
    first_stage = None if run is None else _places(run, track)
    n_untold = 0
    for request, status, n_ranked, is_told in _results(results, depth):
        qid, n_kept = request.query.qid, min(depth, n_ranked)
        tally.see("queries")
        if SEVERITY[status] > SEVERITY[worst_status]:
            tally.leave_out("queries", f"results of status {status}", qid)
        elif first_stage is not None and qid not in first_stage:
            tally.leave_out("queries", "not in the run", qid)
        else:
            n_untold += not is_told
            unranked = request.candidates[n_kept:depth]
            tally.see("candidates", n_kept + len(unranked))
            name = unranked[0].docid if unranked else ""
            tally.leave_out("candidates", "not ranked by the reranker", name, n=len(unranked))
            yield _result_list(request, n_kept, None if first_stage is None else first_stage[qid])
    if n_untold:
        tally.notes.append(
            f"Warning: {n_untold:,} results do not tell how many candidates were reranked (n_ranked, which an earlier "
            "version did not write); all are assumed to be. If --top-k-candidates was used, pass the same number as "
            "--depth"
        )


def _results(results: str | Path, depth: int) -> Iterator[_Ranked]:
    """Yield the lines of a results file. Raises DataError for an unreadable line and for a repeated query."""
    lines: dict[str, int] = {}
    for line, value in read_json_records(results):
        if isinstance(value, DataError):
            raise value
        with located(results, line):
            ranked = _ranked(value)
            _check_texts(ranked.request, min(depth, ranked.n_ranked))
            qid = ranked.request.query.qid
            if qid in lines:
                raise RankLLMError(f"query {qid!r} occurs again (first on line {lines[qid]}); list each query once")
        lines[qid] = line
        yield ranked


def _ranked(record: Mapping[str, object]) -> _Ranked:
    request, status = parse_request(record), _status(record)
    n = len(request.candidates)
    told = record.get("n_ranked")
    if told is not None:
        if not isinstance(told, int) or isinstance(told, bool) or not 0 <= told <= n:
            raise RankLLMError(
                f"n_ranked: expected an integer from 0 to {n}, the number of candidates, found {found(told)}"
            )
        return _Ranked(request, status, told, is_told=True)
    # Only ranked candidates have scores.
    scored = [rank for rank, entry in enumerate(_entries(record), start=1) if entry.get("model_score") is not None]
    if scored:
        return _Ranked(request, status, scored[-1], is_told=True)
    if SEVERITY[status] >= SEVERITY["fallback"]:  # An answer was not a ranking: the order is partly the first stage's.
        return _Ranked(request, status, 0, is_told=True)
    # A list without a status was made by hand or by another program: its whole order is the target.
    return _Ranked(request, status, n, is_told="status" not in record or n < 2)


def _entries(record: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the candidates as stored in the file; `parse_request` has validated them."""
    entries = record.get("candidates")
    return entries if isinstance(entries, list) else []


def _check_texts(request: Request, depth: int) -> None:
    """Raise RankLLMError if a candidate has no text field."""
    for candidate in request.candidates[:depth]:
        try:
            title_and_text(candidate.doc)
        except RankLLMError as error:
            raise RankLLMError(f"query {request.query.qid!r}, docid {candidate.docid!r}: {error}") from None


def _places(run: str | Path | RunFile, track: Track) -> dict[str, dict[str, int]]:
    """Map qid -> docid -> 0-based rank in a run."""
    return {
        ranked.qid: {sys.intern(docid): place for place, (docid, _) in enumerate(ranked.candidates)}
        for ranked in track(read_ranked_queries(run), "queries of the run")
    }


def _status(record: Mapping[str, object]) -> Status:
    status = record.get("status", "ok")
    for known in get_args(Status):
        if status == known:
            return known
    raise RankLLMError(f"status: expected one of {', '.join(get_args(Status))}, found {found(status)}")


def _result_list(request: Request, depth: int, places: Mapping[str, int] | None) -> LabelledList:
    docs = {candidate.docid: candidate.doc for candidate in request.candidates[:depth]}
    best_first = list(docs)
    # Candidates missing from the run come last.
    shown = best_first if places is None else sorted(docs, key=lambda docid: places.get(docid, len(places)))
    rank_of = {docid: rank for rank, docid in enumerate(best_first)}
    return LabelledList(
        qid=request.query.qid,
        query=request.query.text,
        docids=tuple(shown),
        ranks=tuple(rank_of[docid] for docid in shown),
        relevant=frozenset(),
        doc=docs.__getitem__,
    )
