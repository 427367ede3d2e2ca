"""Joins a first-stage run with its queries and passages into requests."""

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
    """What a join kept and what it had to leave out."""

    queries: int
    """Requests made."""
    candidates: int
    """Candidates in them, all together."""
    unknown_qids: tuple[str, ...] = ()
    """In the run, not among the queries: no request."""
    qids_without_hits: tuple[str, ...] = ()
    """Among the queries, not in the run: no request."""
    emptied_qids: tuple[str, ...] = ()
    """Every candidate was left out: no request."""
    missing_docids: tuple[str, ...] = ()
    """In the run, above the depth cut, not in the corpus."""
    missing_candidates: int = 0
    """Places in rankings that `missing_docids` held."""
    removed_queries: int = 0
    """Candidates left out because their docid is the qid."""

    def lines(self) -> list[str]:
        """The report for people: what was made, then one line for each kind of loss, with the first few ids."""
        losses = [
            (self.unknown_qids, "of the run without a text"),
            (self.qids_without_hits, "without a hit in the run"),
            (self.emptied_qids, "without a candidate left"),
        ]
        report = [f"prepared {count(self.queries, 'query')} with {count(self.candidates, 'candidate')}"]
        report += [f"left out {count(len(qids), 'query')} {what} ({examples(qids)})" for qids, what in losses if qids]
        if self.missing_docids:
            docids = f"{count(len(self.missing_docids), 'docid')} not in the corpus"
            places = count(self.missing_candidates, "candidate")
            report.append(f"left out {places}: {docids} ({examples(self.missing_docids)})")
        if self.removed_queries:
            report.append(f"left out {count(self.removed_queries, 'candidate')} whose docid is the qid")
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

    queries, corpus: a file (see `read_queries` and `read_corpus`), or the name of a Hugging Face data set, with
    `NAME:CONFIG` for one configuration; its split is `query_split` for queries and `train` for the corpus.
    depth: candidates a query keeps, by falling run score (of equal ones, the first in the file comes first);
    a passage that the corpus lacks is left out after the cut. max_queries: keep the first queries of the run.
    remove_query: leave out, before the cut, a candidate whose docid is the qid (as ArguAna wants).
    strict: raise RankLLMError where a qid or a docid has no text, instead of reporting it.
    run_format: how the run is read (see `read_run`). progress: called now and then with the number of passages read.

    Requests come in the run's order; `Candidate.score` is the run's score. Only the passages needed are held.
    Raises RankLLMError (DataError with the place) for unusable files, and when nothing of the run can be joined.
    """
    _check_limits(depth, max_queries)
    run, texts = read_run(run_path, format=run_format), load_queries(queries, query_split)
    cut = _cut_run(run, texts, depth=depth, max_queries=max_queries, remove_query=remove_query)
    del run  # what is below the cut is not needed while the corpus is read
    _check_joined(cut.qids, cut.unknown_qids, where=queries, there=cut.texts, what="qids", is_strict=strict)
    needed = dict.fromkeys(docid for ranking in cut.rankings.values() for docid, _ in ranking)
    docs, sample = _collect_docs(corpus, needed, progress)
    missing = tuple(docid for docid in needed if docid not in docs)
    _check_joined(needed, missing, where=corpus, there=sample, what="docids", is_strict=strict)
    requests = [_request(Query(qid=qid, text=cut.texts[qid]), ranking, docs) for qid, ranking in cut.rankings.items()]
    return [request for request in requests if request.candidates], _report(cut, requests, missing)


def _check_limits(depth: int, max_queries: int | None) -> None:
    if depth < 1 or (max_queries is not None and max_queries < 1):
        raise ConfigError(f"prepare: need depth and max_queries of at least 1, got {depth} and {max_queries}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _CutRun:
    """The part of a run that is kept."""

    qids: tuple[str, ...]
    """All queries of the run."""
    texts: Mapping[str, str]
    """qid -> text of all queries."""
    unknown_qids: tuple[str, ...]
    """Queries of the run without a text."""
    rankings: Mapping[str, Sequence[tuple[str, float]]]
    """qid -> (docid, score) above the cut, of the queries that have a text."""
    n_removed: int
    """Candidates left out because their docid is the qid."""


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
    """The requests of a run over just this corpus, in the run's order; a query without candidates makes none.

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
    # The originals cut in file order; a run that is not sorted then loses its best candidates.
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
    """Raise where nothing can be joined, or, if strict, not everything."""
    if ids and len(missing) == len(ids):
        raise RankLLMError(
            f"{where}: holds none of the run's {len(ids)} {what} (the run has {examples(missing)}; "
            f"this has {examples(there) or 'nothing'}); use the files that belong to the run"
        )
    if missing and is_strict:
        raise RankLLMError(
            f"{where}: lacks {len(missing)} of the run's {len(ids)} {what} ({examples(missing)}); "
            "add them, or leave out --strict to go on without them"
        )


def _collect_docs(
    corpus: str | Path, needed: Collection[str], progress: Callable[[int], None] | None
) -> tuple[dict[str, Mapping[str, object]], list[str]]:
    """The passages needed, and the corpus's first docids, for errors."""
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
            raise RankLLMError(
                f"{corpus}: docid {docid!r} occurs twice, with different contents; a docid names one passage"
            )
    return docs, sample
