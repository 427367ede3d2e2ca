"""The complete pipeline on a small scale: retrieve with BM25, rerank with a language model, evaluate both lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from rankllm_core.data.records import write_requests
from rankllm_core.files import write_text
from rankllm_core.trec import decreasing_scores, write_run
from rankllm_core.types import Candidate, Query, Request, Result
from rankllm_infer.api import Reranker
from rankllm_infer.demo.collection import DemoCollection, demo_folder, load_demo_collection
from rankllm_infer.evaluation.evaluate import evaluate
from rankllm_infer.jobs.outputs import OutputFiles, Summary, open_outputs
from rankllm_infer.retrieval.bm25 import BM25Index, title_and_text

DEPTH = 20
"""Number of candidates per query: one window."""
MEASURE = "nDCG@10"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFiles:
    """Output files of the demo."""

    folder: Path
    model: str = ""
    """Name of the reranker, which names its files, so that the demo of another one leaves them as they are."""

    @property
    def first_stage(self) -> Path:
        """BM25 run."""
        return self.folder / "bm25.trec"

    @property
    def requests(self) -> Path:
        """Reranked requests: each query with its candidates."""
        return self.folder / "requests.jsonl"

    @property
    def reranked(self) -> Path:
        """Reranked run."""
        return self.folder / f"{self.model or 'reranked'}.trec"

    @property
    def results(self) -> Path:
        """Reranked lists with texts, scores and statuses."""
        return self.folder / f"{self.model or 'results'}.jsonl"

    @property
    def qrels(self) -> Path:
        """Judgements."""
        return self.folder / "qrels.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """Measurements of the demo."""

    first_stage: float
    """nDCG@10 of BM25."""
    reranked: float
    """nDCG@10 after reranking."""
    rerank_s: float
    summary: Summary


def demo_requests(collection: DemoCollection, *, depth: int = DEPTH) -> list[Request]:
    """Return the BM25 candidates of every query in the collection."""
    texts = ((docid, title_and_text(doc["title"], doc["text"])) for docid, doc in collection.corpus.items())
    index = BM25Index.build(texts)
    return [
        Request(query=Query(qid=qid, text=text), candidates=_candidates(index.search(text, depth), collection.corpus))
        for qid, text in collection.queries.items()
    ]


def run_demo(
    reranker: Reranker,
    files: DemoFiles,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    on_finished: Callable[[Result], None] = lambda result: None,
    on_answered: Callable[[str], None] = lambda qid: None,
) -> DemoReport:
    """Retrieve, rerank, evaluate and write everything.

    progress: receives the number of queries reranked so far and the total. on_finished, on_answered: as in
    `Reranker.stream`.
    """
    collection = load_demo_collection()
    requests = demo_requests(collection)
    first_stage = {r.query.qid: _as_written(r.candidates) for r in requests}
    write_run(files.first_stage, first_stage.items(), tag="bm25")
    write_requests(files.requests, requests)
    with write_text(files.qrels) as stream:
        stream.write((demo_folder() / "qrels.txt").read_text(encoding="utf-8"))
    began = time.monotonic()
    summary = Summary()
    finished = count(1)
    reranked: dict[str, list[tuple[str, float]]] = {}
    with open_outputs(OutputFiles(run=files.reranked, results=files.results)) as writer:

        def finish(result: Result) -> None:
            on_finished(result)
            progress(next(finished), len(requests))

        for result in reranker.stream(requests, on_finished=finish, on_answered=on_answered):
            summary.add(result)
            writer.write(result)
            if result.status != "failed":
                reranked[result.query.qid] = [(c.docid, c.score) for c in result.candidates]
    rerank_s = time.monotonic() - began
    scores = [evaluate(collection.qrels, run, [MEASURE]).means[MEASURE] for run in (first_stage, reranked)]
    return DemoReport(first_stage=scores[0], reranked=scores[1], rerank_s=rerank_s, summary=summary)


def _as_written(candidates: Sequence[Candidate]) -> list[tuple[str, float]]:
    """Return a ranking with distinct scores, as in a run; trec_eval's handling of ties would change the measures."""
    scores = decreasing_scores([candidate.score for candidate in candidates])
    return [(candidate.docid, score) for candidate, score in zip(candidates, scores, strict=True)]


def _candidates(hits: list[tuple[str, float]], corpus: Mapping[str, Mapping[str, str]]) -> tuple[Candidate, ...]:
    return tuple(Candidate(docid=docid, score=score, doc=dict(corpus[docid])) for docid, score in hits)
