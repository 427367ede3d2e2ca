"""First stage: from queries to ranked candidates, with any searcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from rankllm_core.trec import Run, decreasing_scores


class Searcher(Protocol):
    """Finds candidates for a query, such as `bm25.BM25Index`."""

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """Return the best `depth` (docid, score), best first; fewer or none if fewer match."""


def retrieve(
    searcher: Searcher,
    queries: Mapping[str, str],
    *,
    depth: int,
    remove_query: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Run:
    """Search every query: qid -> (docid, score), best first, in the order of the queries.

    queries: qid -> text. remove_query: drop a hit whose docid equals the qid (needed for ArguAna). progress: receives
    the number of queries done. Scores strictly decrease as float32, as in a run. A query without results has an empty
    list.
    """
    run: Run = {}
    for done, (qid, text) in enumerate(queries.items(), start=1):
        hits = searcher.search(text, depth + remove_query)
        if remove_query:
            hits = [hit for hit in hits if hit[0] != qid][:depth]
        scores = decreasing_scores([score for _, score in hits])
        run[qid] = [(docid, score) for (docid, _), score in zip(hits, scores, strict=True)]
        progress(done)
    return run
