"""Join a first-stage run with its queries and passages into requests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankllm_core.data.collections import two_contents
from rankllm_core.data.records import write_requests, write_rerank_input
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.trec import Run, RunFormat, read_run
from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.formats.text_sources import is_file, load_corpus, load_queries
from rankllm_infer.watching import N_EXAMPLES, count, examples

PreparedFormat = Literal["rerank-input", "requests"]

_PROGRESS_STEP = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareReport:
    """What a join kept and what it had to drop."""

    queries: int
    """Number of requests created."""
    candidates: int
    """Total number of candidates in them."""
    unknown_qids: tuple[str, ...] = ()
    """Queries of the run without text; they get no request."""
    qids_without_hits: tuple[str, ...] = ()
    """Queries that do not occur in the run; they get no request."""
    emptied_qids: tuple[str, ...] = ()
    """Queries whose candidates were all dropped; they get no request."""
    missing_docids: tuple[str, ...] = ()
    """Docids of the run, within the depth, that are not in the corpus."""
    missing_candidates: int = 0
    """Number of candidates with a docid in `missing_docids`."""
    removed_queries: int = 0
    """Number of candidates dropped because their docid equals the qid."""

    def lines(self) -> list[str]:
        """Format the report for the terminal: totals, then one line per kind of loss with the first few ids."""
        losses = [
            (self.unknown_qids, "of the run without text"),
            (self.qids_without_hits, "without results in the run"),
            (self.emptied_qids, "without remaining candidates"),
        ]
        report = [f"prepared {count(self.queries, 'query')} with {count(self.candidates, 'candidate')}"]
        report += [f"dropped {count(len(qids), 'query')} {what} ({examples(qids)})" for qids, what in losses if qids]
        if self.missing_docids:
            docids = f"{count(len(self.missing_docids), 'docid')} not in the corpus"
            places = count(self.missing_candidates, "candidate")
            report.append(f"dropped {places}: {docids} ({examples(self.missing_docids)})")
        if self.removed_queries:
            report.append(f"dropped {count(self.removed_queries, 'candidate')} whose docid equals the qid")
        return report


def build_requests(
    run_path: str | Path,
    *,
    queries: str | Path,
    corpus: str | Path,
    query_split: str = "dev",
    depth: int = 100,
    max_queries: int | None = None,
    strict: bool = False,
    remove_query: bool = False,
    run_format: RunFormat = "auto",
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Request], PrepareReport]:
    """Join a first-stage run with the texts of its queries and passages.

    queries, corpus: a file (see `read_queries` and `read_corpus`) or the name of a Hugging Face dataset, with
    `NAME:CONFIG` for a configuration; the split is `query_split` for queries and `train` for the corpus. depth: number
    of top candidates per query by run score, ties in file order; a passage missing from the corpus is dropped after
    this cut. max_queries: keep only the first queries of the run. remove_query: before the cut, drop candidates whose
    docid equals the qid (needed for ArguAna). strict: raise RankLLMError for a qid or docid without text, instead of
    reporting it. run_format: format of the run (see `read_run`). progress: called occasionally with the number of
    passages read.

    Requests are in run order; `Candidate.score` is the run's score. Only the needed passages are held in memory. Raises
    RankLLMError (DataError with the position) for unusable files, and if nothing of the run can be joined.
    """
    _check_limits(depth, max_queries)
    run, texts = read_run(run_path, format=run_format), load_queries(queries, query_split)
    cut = _cut_run(run, texts, depth=depth, max_queries=max_queries, remove_query=remove_query)
    del run  # frees the candidates below the cut before the corpus is read
    _check_joined(cut.qids, cut.unknown_qids, where=queries, there=cut.texts, what="qids", is_strict=strict)
    needed = dict.fromkeys(docid for ranking in cut.rankings.values() for docid, _ in ranking)
    docs, sample = _collect_docs(corpus, needed, progress)
    missing = tuple(docid for docid in needed if docid not in docs)
    _check_joined(needed, missing, where=corpus, there=sample, what="docids", is_strict=strict)
    requests = [_request(Query(qid=qid, text=cut.texts[qid]), ranking, docs) for qid, ranking in cut.rankings.items()]
    return [request for request in requests if request.candidates], _report(cut, requests, missing)


def _check_limits(depth: int, max_queries: int | None) -> None:
    if depth < 1 or (max_queries is not None and max_queries < 1):
        raise ConfigError(f"prepare: expected depth and max_queries of at least 1, found {depth} and {max_queries}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _CutRun:
    """Part of a run that is kept."""

    qids: tuple[str, ...]
    """All queries of the run."""
    texts: Mapping[str, str]
    """qid -> text of all queries."""
    unknown_qids: tuple[str, ...]
    """Queries of the run without text."""
    rankings: Mapping[str, Sequence[tuple[str, float]]]
    """qid -> (docid, score) above the cut, for queries with text."""
    n_removed: int
    """Number of candidates dropped because their docid equals the qid."""


def _cut_run(run: Run, texts: Mapping[str, str], *, depth: int, max_queries: int | None, remove_query: bool) -> _CutRun:
    qids = [qid for qid in run if qid in texts][:max_queries]
    return _CutRun(
        qids=tuple(run),
        texts=texts,
        unknown_qids=tuple(qid for qid in run if qid not in texts),
        rankings={qid: _cut(run[qid], depth, without=qid if remove_query else None) for qid in qids},
        n_removed=sum(docid == qid for qid in qids for docid, _ in run[qid]) if remove_query else 0,
    )


def _report(cut: _CutRun, requests: Sequence[Request], missing: tuple[str, ...]) -> PrepareReport:
    n_candidates = sum(len(request.candidates) for request in requests)
    in_run = set(cut.qids)
    return PrepareReport(
        queries=sum(bool(request.candidates) for request in requests),
        candidates=n_candidates,
        unknown_qids=cut.unknown_qids,
        qids_without_hits=tuple(qid for qid in cut.texts if qid not in in_run),
        emptied_qids=tuple(request.query.qid for request in requests if not request.candidates),
        missing_docids=missing,
        missing_candidates=sum(map(len, cut.rankings.values())) - n_candidates,
        removed_queries=cut.n_removed,
    )


def requests_of_run(
    run: Run,
    *,
    queries: Mapping[str, str],
    corpus: str | Path,
    progress: Callable[[int], None] | None = None,
) -> list[Request]:
    """Convert a run over this corpus to requests, in run order; queries without candidates are omitted.

    queries: qid -> text of every query of the run. corpus, progress: as in `build_requests`.
    """
    needed = dict.fromkeys(docid for ranking in run.values() for docid, _ in ranking)
    docs, _ = _collect_docs(corpus, needed, progress)
    return [_request(Query(qid=qid, text=queries[qid]), ranking, docs) for qid, ranking in run.items() if ranking]


def write_prepared(path: str | Path, requests: Iterable[Request], *, format: PreparedFormat) -> None:
    """Write requests as Tevatron's rerank-input rows or as rank_llm's requests file."""
    if format == "rerank-input":
        write_rerank_input(path, requests)
    elif format == "requests":
        write_requests(path, requests)
    else:
        raise ConfigError(f"format {format!r}: expected 'rerank-input' or 'requests'")


def _cut(ranking: Iterable[tuple[str, float]], depth: int, *, without: str | None) -> list[tuple[str, float]]:
    # The originals cut in file order, which loses the best candidates of an unsorted run.
    kept = [(docid, score) for docid, score in ranking if docid != without]
    return sorted(kept, key=lambda candidate: -candidate[1])[:depth]


def _request(query: Query, ranking: Iterable[tuple[str, float]], docs: Mapping[str, Mapping[str, object]]) -> Request:
    return Request(
        query=query,
        candidates=tuple(
            Candidate(docid=docid, score=score, doc=docs[docid]) for docid, score in ranking if docid in docs
        ),
    )


def _check_joined(
    ids: Collection[str],
    missing: tuple[str, ...],
    *,
    where: str | Path,
    there: Iterable[str],
    what: str,
    is_strict: bool,
) -> None:
    """Raise RankLLMError if nothing can be joined or, if strict, if anything is missing."""
    if ids and len(missing) == len(ids):
        raise RankLLMError(
            f"{where}: contains none of the run's {len(ids)} {what} (the run has {examples(missing)}; "
            f"this file has {examples(there) or 'none'}); use the files that belong to the run"
        )
    if missing and is_strict:
        raise RankLLMError(
            f"{where}: lacks {len(missing)} of the run's {len(ids)} {what} ({examples(missing)}); "
            "add them, or omit --strict to continue without them"
        )


def _collect_docs(
    corpus: str | Path, needed: Collection[str], progress: Callable[[int], None] | None
) -> tuple[dict[str, Mapping[str, object]], list[str]]:
    """Return the needed passages, and the corpus's first docids for error messages."""
    docs: dict[str, Mapping[str, object]] = {}
    sample: list[str] = []
    for number, (docid, doc) in enumerate(load_corpus(corpus), start=1):
        if progress is not None and number % _PROGRESS_STEP == 0:
            progress(number)
        if number <= N_EXAMPLES:
            sample.append(docid)
        if docid in needed and docs.setdefault(docid, doc) != doc:
            if is_file(corpus):
                raise two_contents(corpus, docid)
            raise RankLLMError(f"{corpus}: docid {docid!r} occurs twice with different contents; docids must be unique")
    return docs, sample
