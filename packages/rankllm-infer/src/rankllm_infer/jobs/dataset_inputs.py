"""Inputs of `rerank --dataset`: a test collection's candidates with texts, and its judgements."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rankllm_core.errors import RankLLMError
from rankllm_core.trec import Qrels
from rankllm_infer.evaluation.judgements import check_judged
from rankllm_infer.jobs.fingerprint import StoredRequests
from rankllm_infer.retrieval import pyserini_library
from rankllm_infer.retrieval.dataset_retrieval import dataset_requests_file, default_folder, stored_qrels
from rankllm_infer.retrieval.retrieval_data import find_dataset, find_method
from rankllm_infer.watching import SILENT, Watcher


def dataset_requests(
    name: str,
    method: str,
    *,
    depth: int,
    max_queries: int | None = None,
    folder: Path | None = None,
    watcher: Watcher = SILENT,
) -> StoredRequests:
    """Return the requests of a dataset with the first `depth` candidates per query; see `dataset_requests_file`.

    name, method: Pyserini's names. folder: folder of stored results; None: `default_folder`. The watcher receives a
    line that names the source. Raises RankLLMError if the requests cannot be obtained.
    """
    with watcher.counter("retrieve", unit=" queries") as show:
        path = dataset_requests_file(
            find_dataset(name),
            find_method(method),
            depth=depth,
            folder=folder or default_folder(),
            library=lambda: pyserini_library.start_pyserini(tell=watcher.say),
            tell=watcher.say,
            progress=show,
        )
    return StoredRequests(path, is_pairs=False, max_queries=max_queries, depth=depth)


def dataset_qrels(
    name: str, qids: Iterable[str], *, folder: Path | None = None, watcher: Watcher = SILENT
) -> Qrels | None:
    """Return the judgements of a dataset: those stored next to its results, else Pyserini's.

    Returns None, with the reason sent to the watcher, if there are none for these queries; reranking needs no
    judgements.
    """
    dataset = find_dataset(name)
    try:
        qrels = stored_qrels(dataset, folder or default_folder())
        if qrels is None:
            qrels = pyserini_library.start_pyserini(tell=watcher.say).qrels(dataset.qrels)
        check_judged(qrels, qids, source=dataset.qrels)
    except RankLLMError as error:
        watcher.say(f"No scores: {error}; or give --qrels")
        return None
    return qrels
