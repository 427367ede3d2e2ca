"""Requests and judgements of a dataset known by name: from stored results, or by searching a prebuilt index."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from rankllm_core.data.records import write_requests
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.files import write_text
from rankllm_core.trec import Qrels, Run, read_qrels
from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.retrieval.bm25 import K1, B
from rankllm_infer.retrieval.first_stage import Searcher, retrieve
from rankllm_infer.retrieval.retrieval_data import Dataset, Method, find_method, index_of
from rankllm_infer.retrieval.stored_retrieval import FOLDER, fetch_stored, find_stored, stored_path


class DocumentIndex(Searcher, Protocol):
    """Index that also stores the documents."""

    def document(self, docid: str) -> Mapping[str, object]:
        """Return a stored document. Raises RankLLMError if it is not stored."""


class Library(Protocol):
    """Source of resources known by name, such as `pyserini_library.PyseriniLibrary`."""

    def open_index(
        self, name: str, method: Method, *, k1: float = K1, b: float = B, language: str | None = None
    ) -> DocumentIndex:
        """Open an index by name or folder."""

    def topics(self, name: str) -> dict[str, str]:
        """Return qid -> text."""

    def qrels(self, name: str) -> Qrels:
        """Return judgements."""


def default_folder() -> Path:
    """Return the default folder of stored results: `retrieve_results` in RANK_LLM_CACHE, or in the current folder."""
    return Path(os.environ.get("RANK_LLM_CACHE", "."), FOLDER)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchedDataset:
    """Result of searching a dataset."""

    queries: Mapping[str, str]
    """qid -> text of the queries searched."""
    run: Run
    qrels: Qrels
    """Judgements of all judged queries."""


def search_dataset(
    library: Library,
    dataset: Dataset,
    method: Method,
    *,
    depth: int,
    k1: float = K1,
    b: float = B,
    max_queries: int | None = None,
    remove_query: bool = False,
    check: Callable[[Mapping[str, str]], None] = lambda queries: None,
    progress: Callable[[int], None] = lambda done: None,
) -> SearchedDataset:
    """Search the dataset's judged queries; unjudged queries are omitted, as in rank_llm.

    check: receives the queries before the search, and may raise. Raises ConfigError if the method has no index for the
    dataset, RankLLMError if something cannot be downloaded.
    """
    name = index_of(dataset, method)
    qrels = library.qrels(dataset.qrels)
    judged = {qid: text for qid, text in library.topics(dataset.topics).items() if qid in qrels}
    queries = dict(islice(judged.items(), max_queries))
    check(queries)
    index = library.open_index(name, method, k1=k1, b=b, language=dataset.language)
    run = retrieve(index, queries, depth=depth, remove_query=remove_query, progress=progress)
    return SearchedDataset(queries=queries, run=run, qrels=qrels)


def requests_from_index(index: DocumentIndex, queries: Mapping[str, str], run: Run) -> list[Request]:
    """Build the requests of a run with texts from an index; queries without candidates are omitted."""
    return [
        Request(
            query=Query(qid=qid, text=queries[qid]),
            candidates=tuple(
                Candidate(docid=docid, score=score, doc=index.document(docid)) for docid, score in ranking
            ),
        )
        for qid, ranking in run.items()
        if ranking
    ]


def text_index(library: Library, dataset: Dataset) -> DocumentIndex:
    """Open the index that contains a dataset's passages; learned sparse indexes contain none."""
    return library.open_index(dataset.texts, find_method("bm25"))


def dataset_requests_file(
    dataset: Dataset,
    method: Method,
    *,
    depth: int,
    folder: Path,
    library: Callable[[], Library],
    tell: Callable[[str], None],
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Return a requests file with at least `depth` candidates per query: stored locally, else from the hub, else
    created now.

    library: only called if neither has it. tell: receives a line on which source is used. Raises RankLLMError with both
    reasons if it cannot be obtained.
    """
    if (path := find_stored(folder, dataset, method, depth)) is not None:
        tell(f"First stage: {path}")
        return path
    try:
        path = fetch_stored(dataset, method, depth)
    except RankLLMError as error:
        no_file = str(error)
    else:
        tell(f"First stage: {path}")
        return path
    try:
        index_of(dataset, method)
    except ConfigError as error:
        raise RankLLMError(f"no stored results in {folder} ({no_file}), and {error}") from None
    tell(f"First stage: no stored results in {folder} ({no_file}); searching with Pyserini")
    searched = library()
    found = search_dataset(searched, dataset, method, depth=depth, progress=progress)
    path = stored_path(folder, dataset, method, depth)
    requests = requests_from_index(text_index(searched, dataset), found.queries, found.run)
    # Requests are written last: their presence means nothing is searched again, so judgements must exist by then.
    judged = _keep_qrels(qrels_json(dataset, folder), found.qrels)
    write_requests(path, requests)
    tell(f"Wrote {path} for reuse; {judged}")
    return path


def _keep_qrels(path: Path, qrels: Qrels) -> str:
    """Write judgements unless the file exists. Returns a description for the user."""
    if path.exists():
        return f"kept the existing judgements in {path}"
    with write_text(path) as stream:
        json.dump(qrels, stream, indent=2)
    return f"wrote its judgements to {path}"


def qrels_json(dataset: Dataset, folder: Path) -> Path:
    """Return the path of rank_llm's judgements for a dataset whose results are in a folder."""
    return folder.absolute().parent / "qrels" / f"qrels_{dataset.name}.json"


def stored_qrels(dataset: Dataset, folder: Path) -> Qrels | None:
    """Return the judgements stored next to rank_llm's results, `qrels/qrels_DATASET.json`; None if there are none.

    folder: folder of the results. Raises DataError if the file cannot be read as qid -> docid -> grade.
    """
    path = qrels_json(dataset, folder)
    return read_qrels(path) if path.is_file() else None
