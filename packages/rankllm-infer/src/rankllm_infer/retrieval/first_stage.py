"""The first stage: from queries to ranked candidates, whatever it is that searches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from rankllm_core.trec import Run, decreasing_scores


class Searcher(Protocol):
    """Finds candidates for one query; `bm25.BM25Index` is one."""

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """The best `depth` (docid, score), best first; fewer or none where no more match."""


def retrieve(
    searcher: Searcher,
    queries: Mapping[str, str],
    *,
    depth: int,
    remove_query: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Run:
    """Search every query: qid -> (docid, score), best first, in the order of the queries.

    queries: qid -> text. remove_query: leave out a hit whose docid is the qid (as ArguAna wants). progress: is called
    with the number of queries done. Scores strictly decrease as float32, as a run holds them. A query that finds
    nothing has an empty list.
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
