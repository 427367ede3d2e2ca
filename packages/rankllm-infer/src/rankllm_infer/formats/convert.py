"""Convert between runs, requests, results and rerank-input files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, cast, get_args

from rankllm_core.data.records import read_requests, read_rerank_input
from rankllm_core.errors import ConfigError, DataError
from rankllm_core.files import read_lines
from rankllm_core.trec import DEFAULT_TAG, Ranking, RunFormat, RunOutput, read_run, write_results
from rankllm_core.types import Request
from rankllm_infer.formats.prepare import PreparedFormat, PrepareReport, build_requests, write_prepared
from rankllm_infer.watching import count, examples

Source = Literal["auto", "requests", "rerank-input", "tsv", "trec", "msmarco"]
Target = Literal["requests", "rerank-input", "tsv", "trec", "msmarco"]
_Kind = Literal["requests", "rerank-input", "run"]
ENDINGS: Mapping[str, Target] = {"trec": "trec", "tsv": "tsv", "msmarco": "msmarco", "marco": "msmarco"}
"""File extension -> format. `.txt` and `.jsonl` are ambiguous."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """What a conversion wrote, and where it changed more than the format."""

    n_queries: int
    n_candidates: int
    n_removed: int
    """Number of candidates dropped because their docid equals the qid (`remove_query`)."""
    reordered_qids: tuple[str, ...] = ()
    """Queries of a run whose lines were not sorted by score; they were sorted."""
    rescored_qids: tuple[str, ...] = ()
    """Queries of a requests or rerank-input file whose scores increase down the list or are all equal; in a run written
    from them, scores are n - rank + 1."""
    emptied_qids: tuple[str, ...] = ()
    """Queries without (remaining) candidates; runs and rerank-input files cannot represent them."""
    prepared: PrepareReport | None = None
    """Report of joining a run with its texts; None if nothing was joined."""

    def lines(self, *, to: Target) -> list[str]:
        """Format the report for the terminal. to: format written."""
        if self.prepared is not None:
            return self.prepared.lines()
        lines = [f"converted {count(self.n_queries, 'query')} with {count(self.n_candidates, 'candidate')}"]
        if self.n_removed:
            lines.append(f"dropped {count(self.n_removed, 'candidate')} whose docid equals the qid")
        if qids := self.reordered_qids:
            lines.append(f"sorted {count(len(qids), 'query')} whose lines were not in score order ({examples(qids)})")
        if (qids := self.rescored_qids) and to in ("trec", "tsv"):
            why = "because their scores are all equal or increase down the list"
            lines.append(f"set the scores of {count(len(qids), 'query')} to n - rank + 1, {why} ({examples(qids)})")
        if qids := self.emptied_qids:
            where = "" if to == "requests" else ", omitted from the output"
            lines.append(f"without candidates: {count(len(qids), 'query')} ({examples(qids)}){where}")
        return lines


@dataclass(slots=True)
class _Tally:
    """Running counts while the output is written."""

    n_queries: int = 0
    n_candidates: int = 0
    n_removed: int = 0
    reordered_qids: list[str] = field(default_factory=list)
    rescored_qids: list[str] = field(default_factory=list)
    emptied_qids: list[str] = field(default_factory=list)

    def count(self, qid: str, *, kept: int, read: int) -> None:
        self.n_queries += 1
        self.n_candidates += kept
        self.n_removed += read - kept
        if not kept:
            self.emptied_qids.append(qid)

    def report(self) -> ConvertReport:
        return ConvertReport(
            n_queries=self.n_queries,
            n_candidates=self.n_candidates,
            n_removed=self.n_removed,
            reordered_qids=tuple(self.reordered_qids),
            rescored_qids=tuple(self.rescored_qids),
            emptied_qids=tuple(self.emptied_qids),
        )


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: Target,
    source_format: Source = "auto",
    queries: str | Path | None = None,
    corpus: str | Path | None = None,
    remove_query: bool = False,
    tag: str = DEFAULT_TAG,
) -> ConvertReport:
    """Read `source` in one format and write `target` in another.

    A run is sorted by score, per query, with ties in file order, so a sorted file keeps its order. In requests, results
    and rerank-input files, the order of the list is the ranking; their scores are kept unless they contradict it.
    Scores of a written run strictly decrease as float32.

    queries, corpus: texts; required, and only allowed, to convert a run to requests or rerank-input. remove_query: drop
    candidates whose docid equals the qid, before ranks are counted. tag: last column of a TREC run. Raises ConfigError
    for an impossible conversion, DataError for an unreadable file.
    """
    _check_formats(source_format, to)
    kind = _kind(source, source_format)
    run_format = cast(RunFormat, source_format if kind == "run" else "auto")
    if kind == "run" and to not in get_args(RunOutput):
        return _join_run(
            source, target, to=to, run_format=run_format, queries=queries, corpus=corpus, remove_query=remove_query
        )
    if queries is not None or corpus is not None:
        raise ConfigError(f"queries and corpus have no effect from {kind} to {to}; leave them out")
    tally = _Tally()
    if kind == "run":
        rankings = _sorted_rankings(source, run_format, tally, remove_query=remove_query)
        write_results(target, rankings, format=cast(RunOutput, to), tag=tag)
    else:
        requests = _kept_requests(_read_requests(source, kind), tally, remove_query=remove_query)
        _write_lists(target, requests, to=to, tag=tag, tally=tally)
    return tally.report()


def _check_formats(source_format: str, to: str) -> None:
    if to not in get_args(Target):
        raise ConfigError(f"target format {to!r}: expected one of {', '.join(get_args(Target))}")
    if source_format not in get_args(Source):
        raise ConfigError(f"source format {source_format!r}: expected one of {', '.join(get_args(Source))}")


def layout_of_name(path: str | Path) -> Target | None:
    """Return the format by a file's extension, ignoring compression; None if it is ambiguous."""
    name = Path(path).name.lower().removesuffix(".gz").removesuffix(".xz")
    return ENDINGS.get(name.rpartition(".")[2]) if "." in name else None


def detect_format(path: str | Path) -> _Kind:
    """Detect requests (or results), rerank-input and runs from the first line. Raises DataError for other JSON."""
    number, line = next(read_lines(path), (0, ""))
    if not number:
        raise DataError("is empty; nothing to convert", path=path)
    if line.lstrip().startswith("["):
        return "requests"
    if not line.lstrip().startswith("{"):
        return "run"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise DataError("not JSON Lines: expected one complete object per line", path=path, line=number) from None
    if "candidates" in record or "hits" in record:
        return "requests"
    if "query_id" in record and "docid" in record:
        return "rerank-input"
    found = ", ".join(map(repr, record)) or "none"
    problem = f"expected the keys of requests (query, candidates) or rerank-input (query_id, docid, ...), found {found}"
    raise DataError(problem, path=path, line=number)


def _kind(path: str | Path, source_format: Source) -> _Kind:
    if source_format == "auto":
        return detect_format(path)
    if source_format == "requests" or source_format == "rerank-input":
        return source_format
    return "run"


def _join_run(
    source: str | Path,
    target: str | Path,
    *,
    to: Target,
    run_format: RunFormat,
    queries: str | Path | None,
    corpus: str | Path | None,
    remove_query: bool,
) -> ConvertReport:
    if queries is None or corpus is None:
        raise ConfigError(
            f"{source}: is a run, which contains no texts; converting it to {to} needs queries and corpus"
        )
    requests, prepared = build_requests(
        source, queries=queries, corpus=corpus, depth=sys.maxsize, remove_query=remove_query, run_format=run_format
    )
    write_prepared(target, requests, format=cast(PreparedFormat, to))
    return ConvertReport(
        n_queries=prepared.queries,
        n_candidates=prepared.candidates,
        n_removed=prepared.removed_queries,
        emptied_qids=prepared.emptied_qids,
        prepared=prepared,
    )


def _read_requests(path: str | Path, kind: _Kind) -> Iterator[Request]:
    return read_requests(path) if kind == "requests" else read_rerank_input(path)


def _write_lists(path: str | Path, requests: Iterator[Request], *, to: Target, tag: str, tally: _Tally) -> None:
    if to in get_args(RunOutput):
        rankings = ((request.query.qid, _list_ranking(request, tally)) for request in requests)
        write_results(path, rankings, format=cast(RunOutput, to), tag=tag)
    else:
        write_prepared(path, requests, format=cast(PreparedFormat, to))


def _kept_requests(requests: Iterator[Request], tally: _Tally, *, remove_query: bool) -> Iterator[Request]:
    for request in requests:
        kept = request.candidates
        if remove_query:
            kept = tuple(candidate for candidate in kept if candidate.docid != request.query.qid)
        tally.count(request.query.qid, kept=len(kept), read=len(request.candidates))
        yield replace(request, candidates=kept)


def _list_ranking(request: Request, tally: _Tally) -> Ranking:
    """Return the candidates in list order, with their scores or, if these contradict the order, n - rank + 1."""
    scores = [candidate.score for candidate in request.candidates]
    contradict = any(later > earlier for earlier, later in pairwise(scores))
    if contradict or (len(scores) > 1 and scores[0] == scores[-1]):
        tally.rescored_qids.append(request.query.qid)
        scores = [float(rank) for rank in range(len(scores), 0, -1)]
    return [(candidate.docid, score) for candidate, score in zip(request.candidates, scores, strict=True)]


def _sorted_rankings(
    path: str | Path, run_format: RunFormat, tally: _Tally, *, remove_query: bool
) -> Iterator[tuple[str, Ranking]]:
    for qid, candidates in read_run(path, format=run_format).items():
        kept = [(docid, score) for docid, score in candidates if not (remove_query and docid == qid)]
        ranking = sorted(kept, key=lambda candidate: -candidate[1])
        if ranking != kept:
            tally.reordered_qids.append(qid)
        tally.count(qid, kept=len(ranking), read=len(candidates))
        yield qid, ranking
