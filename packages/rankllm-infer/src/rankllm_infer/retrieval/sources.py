"""Search a corpus, a Lucene index or a test collection for a set of queries, and write the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rankllm_core.data.collections import read_queries
from rankllm_core.data.records import write_requests
from rankllm_core.errors import RankLLMError
from rankllm_core.trec import Qrels, Run, RunOutput, write_results
from rankllm_core.types import Request
from rankllm_infer.formats.prepare import requests_of_run
from rankllm_infer.retrieval.bm25 import K1, B
from rankllm_infer.retrieval.bm25_cache import open_index
from rankllm_infer.retrieval.dataset_retrieval import requests_from_index, search_dataset, text_index
from rankllm_infer.retrieval.first_stage import Searcher, retrieve
from rankllm_infer.retrieval.pyserini_library import start_pyserini
from rankllm_infer.retrieval.retrieval_data import Method, find_dataset, index_of
from rankllm_infer.watching import SILENT, Watcher, count, examples

Check = Callable[[Mapping[str, str]], None]
"""Receives the queries, qid -> text, before they are searched, and may raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSource:
    """Own corpus, searched with the built-in BM25."""

    corpus: Path
    """JSONL or TSV, see `read_corpus`."""
    queries: str | Path
    index_dir: Path | None = None
    """Folder of the index; by default a folder in the user's cache."""
    k1: float = K1
    b: float = B

    @property
    def name(self) -> str:
        """Name of the corpus, for messages."""
        return str(self.corpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSource:
    """Lucene index, searched with Pyserini."""

    name: str
    """Folder, or name of a prebuilt Pyserini index."""
    queries: str
    """File, or name of Pyserini topics."""
    method: Method
    k1: float = K1
    b: float = B


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSource:
    """Test collection known by name, searched with Pyserini over its judged queries."""

    name: str
    """See `find_dataset`."""
    method: Method
    k1: float = K1
    b: float = B


Source = CorpusSource | IndexSource | DatasetSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Limits of a search."""

    depth: int = 100
    """Maximum number of candidates per query."""
    max_queries: int | None = None
    """Maximum number of queries, from the start."""
    remove_query: bool = False
    """Drop candidates whose docid equals the qid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """Run of a search, with its queries and texts."""

    queries: Mapping[str, str]
    """qid -> text of the queries searched."""
    run: Run
    requests: Callable[[], list[Request]]
    """Joins the run with its texts."""
    tag: str
    """Name of the method for the last column of a TREC run."""
    qrels: Qrels | None = None
    """Judgements of the dataset, if any."""

    def lines(self) -> list[str]:
        """Format the report for the terminal: number of candidates, and queries without any."""
        rankings = self.run.values()
        n_candidates, n_queries = sum(map(len, rankings)), sum(map(bool, rankings))
        lines = [f"retrieved {count(n_candidates, 'candidate')} for {count(n_queries, 'query')}"]
        if without := [qid for qid, ranking in self.run.items() if not ranking]:
            lines.append(f"no results for {count(len(without), 'query')} ({examples(without)})")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievedFiles:
    """Outputs of a search; a path of None is not written."""

    run: Path | None = None
    run_format: RunOutput = "trec"
    tag: str | None = None
    """Last column of a TREC run; by default the method's name."""
    requests: Path | None = None


def search(
    source: Source,
    settings: SearchSettings | None = None,
    *,
    check: Check = lambda queries: None,
    watcher: Watcher = SILENT,
) -> Retrieved:
    """Search a source for all its queries.

    check: receives the queries before the search, and may raise. Raises RankLLMError for anything that cannot be read,
    found or downloaded, and if no query finds a passage.
    """
    settings = settings or SearchSettings()
    match source:
        case CorpusSource():
            found = _search_corpus(source, settings, check, watcher)
        case IndexSource():
            found = _search_index(source, settings, check, watcher)
        case DatasetSource():
            found = _search_dataset(source, settings, check, watcher)
    if not any(found.run.values()):
        raise RankLLMError(f"{source.name}: found no passage for any of {count(len(found.run), 'query')}")
    return found


def write_retrieved(found: Retrieved, files: RetrievedFiles, *, watcher: Watcher = SILENT) -> None:
    """Write the run, and the requests with their texts. The watcher receives a line for each file."""
    # Everything that may fail comes first, so that outputs are written completely or not at all.
    requests = found.requests() if files.requests is not None else []
    if files.run is not None:
        tag = files.tag or found.tag
        write_results(files.run, found.run.items(), format=files.run_format, tag=tag)
        watcher.say(f"Wrote {files.run}")
    if files.requests is not None:
        write_requests(files.requests, requests)
        watcher.say(f"Wrote {files.requests} (requests)")


def _search_corpus(source: CorpusSource, settings: SearchSettings, check: Check, watcher: Watcher) -> Retrieved:
    queries = _read_queries(source.queries, settings.max_queries)
    check(queries)
    with watcher.counter("index", unit=" passages") as show:
        index = open_index(
            source.corpus, folder=source.index_dir, k1=source.k1, b=source.b, tell=watcher.say, progress=show
        )

    def join() -> list[Request]:
        with watcher.counter("corpus", unit=" passages") as show:
            return requests_of_run(run, queries=queries, corpus=source.corpus, progress=show)

    run = _retrieve(index, queries, settings, watcher)
    return Retrieved(queries=queries, run=run, requests=join, tag="bm25")


def _search_index(source: IndexSource, settings: SearchSettings, check: Check, watcher: Watcher) -> Retrieved:
    is_file = Path(source.queries).exists()
    queries = _read_queries(source.queries, settings.max_queries) if is_file else {}
    if is_file:
        check(queries)
    library = start_pyserini(tell=watcher.say)
    if not is_file:
        queries = dict(islice(library.topics(source.queries).items(), settings.max_queries))
        check(queries)
    index = library.open_index(source.name, source.method, k1=source.k1, b=source.b)
    run = _retrieve(index, queries, settings, watcher)
    return Retrieved(
        queries=queries, run=run, requests=lambda: requests_from_index(index, queries, run), tag=source.method.name
    )


def _search_dataset(source: DatasetSource, settings: SearchSettings, check: Check, watcher: Watcher) -> Retrieved:
    dataset = find_dataset(source.name)
    index_of(dataset, source.method)  # reports an unsupported method before Pyserini is started
    library = start_pyserini(tell=watcher.say)
    with watcher.counter("retrieve", unit=" queries") as show:
        found = search_dataset(
            library,
            dataset,
            source.method,
            depth=settings.depth,
            max_queries=settings.max_queries,
            remove_query=settings.remove_query,
            check=check,
            progress=show,
            k1=source.k1,
            b=source.b,
        )
    return Retrieved(
        queries=found.queries,
        run=found.run,
        requests=lambda: requests_from_index(text_index(library, dataset), found.queries, found.run),
        tag=source.method.name,
        qrels=found.qrels,
    )


def _read_queries(path: str | Path, most: int | None) -> dict[str, str]:
    queries = dict(islice(read_queries(path).items(), most))
    if not queries:
        raise RankLLMError(f"{path}: contains no queries")
    return queries


def _retrieve(index: Searcher, queries: Mapping[str, str], settings: SearchSettings, watcher: Watcher) -> Run:
    with watcher.counter("retrieve", unit=" queries", total=len(queries)) as show:
        return retrieve(index, queries, depth=settings.depth, remove_query=settings.remove_query, progress=show)
