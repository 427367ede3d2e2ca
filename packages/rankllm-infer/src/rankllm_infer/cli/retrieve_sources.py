"""What `retrieve` searches: a corpus of one's own, a Lucene index, or a data set known by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.errors import RankLLMError
from rankllm_infer.cli import say
from rankllm_infer.cli.progress import counter
from rankllm_infer.jobs.inputs import check_judged
from rankllm_infer.retrieval.bm25 import K1, B

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels, Run
    from rankllm_core.types import Request
    from rankllm_infer.retrieval.pyserini_library import PyseriniLibrary
    from rankllm_infer.retrieval.retrieval_data import Method

_Check = Callable[[Mapping[str, str]], None]
"""Given the queries before they are asked; raises where none of them is judged."""
_NEEDED = {"corpus": {"queries"}, "index": {"queries"}, "dataset": {"retrieval_method"}}
_ALLOWED = {
    "corpus": {"queries", "index_dir", "k1", "b"},
    "index": {"queries", "retrieval_method", "k1", "b"},
    "dataset": {"retrieval_method", "k1", "b"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """What a search came to."""

    queries: Mapping[str, str]
    """qid -> text of the queries that were asked."""
    run: Run
    requests: Callable[[], list[Request]]
    """Join the run with its texts."""
    tag: str
    qrels: Qrels | None = None
    """Judgements that belong to the data set."""


def source_kind(given: Mapping[str, Any]) -> str:
    """`corpus`, `index` or `dataset`. Raises UsageError where it is not one, or its options do not go with it."""
    kinds = [name for name in _ALLOWED if given[name] is not None]
    if len(kinds) != 1:
        raise click.UsageError("give one of --corpus, --index and --dataset")
    (kind,) = kinds
    for name in ("queries", "retrieval_method", "index_dir", "k1", "b"):
        option = "--" + name.replace("_", "-")
        if given[name] is None and name in _NEEDED[kind]:
            raise click.UsageError(f"--{kind} needs {option}")
        if given[name] is not None and name not in _ALLOWED[kind]:
            raise click.UsageError(f"--{kind} does not go with {option}")
    return kind


def search(kind: str, given: Mapping[str, Any], *, qrels: Qrels | None) -> Retrieved:
    """Search what is given for all queries.

    qrels: those of --qrels. Raises RankLLMError for what cannot be read, found or fetched, and, as soon as the queries
    are known, where none of them is judged.
    """

    def check(queries: Mapping[str, str]) -> None:
        if qrels is not None:
            check_judged(qrels, queries, source=given["qrels"])

    return {"corpus": _search_corpus, "index": _search_index, "dataset": _search_dataset}[kind](given, check)


def start_pyserini() -> PyseriniLibrary:
    """Pyserini, which takes a while to come up."""
    from rankllm_infer.retrieval.pyserini_library import PyseriniLibrary

    say("Starting Pyserini ...")
    return PyseriniLibrary()


def _search_corpus(given: Mapping[str, Any], check: _Check) -> Retrieved:
    from rankllm_infer.formats.prepare import requests_of_run
    from rankllm_infer.retrieval.bm25_cache import open_index

    queries = _read_queries(given)
    check(queries)
    with counter("index", unit=" passages", delay_s=2.0) as show:
        index = open_index(given["corpus"], folder=given["index_dir"], tell=say, progress=show, **_bm25(given))

    def join() -> list[Request]:
        with counter("corpus", unit=" passages", delay_s=2.0) as show:
            return requests_of_run(run, queries=queries, corpus=given["corpus"], progress=show)

    run = _retrieve(index, queries, given)
    return Retrieved(queries=queries, run=run, requests=join, tag="bm25")


def _search_index(given: Mapping[str, Any], check: _Check) -> Retrieved:
    from rankllm_infer.retrieval.dataset_retrieval import requests_from_index

    method = _method(given)
    is_file = Path(given["queries"]).exists()
    queries = _read_queries(given) if is_file else {}
    if is_file:
        check(queries)
    library = start_pyserini()
    if not is_file:
        queries = dict(islice(library.topics(given["queries"]).items(), given["max_queries"]))
        check(queries)
    index = library.open_index(given["index"], method, **_bm25(given))
    run = _retrieve(index, queries, given)
    return Retrieved(
        queries=queries, run=run, requests=lambda: requests_from_index(index, queries, run), tag=method.name
    )


def _search_dataset(given: Mapping[str, Any], check: _Check) -> Retrieved:
    from rankllm_infer.retrieval.dataset_retrieval import requests_from_index, search_dataset, text_index
    from rankllm_infer.retrieval.retrieval_data import find_dataset, index_of

    dataset, method = find_dataset(given["dataset"]), _method(given)
    index_of(dataset, method)  # what cannot be searched is refused before Pyserini is started
    library = start_pyserini()
    with counter("retrieve", unit=" queries", delay_s=2.0) as show:
        found = search_dataset(
            library,
            dataset,
            method,
            depth=given["depth"],
            max_queries=given["max_queries"],
            remove_query=given["remove_query"],
            check=check,
            progress=show,
            **_bm25(given),
        )
    return Retrieved(
        queries=found.queries,
        run=found.run,
        requests=lambda: requests_from_index(text_index(library, dataset), found.queries, found.run),
        tag=method.name,
        qrels=found.qrels,
    )


def _method(given: Mapping[str, Any]) -> Method:
    from rankllm_infer.retrieval.retrieval_data import find_method

    method = find_method(given["retrieval_method"] or "bm25")
    if given["index"] is not None and method.kind == "stored":
        raise click.UsageError(f"--index cannot be searched with {method.name}, which is read from stored results only")
    if method.kind != "bm25":
        for name in ("k1", "b"):
            if given[name] is not None:
                raise click.UsageError(f"--{name} is a setting of BM25; it has no effect on {method.name}")
    return method


def _bm25(given: Mapping[str, Any]) -> dict[str, float]:
    return {
        "k1": K1 if given["k1"] is None else given["k1"],
        "b": B if given["b"] is None else given["b"],
    }


def _read_queries(given: Mapping[str, Any]) -> dict[str, str]:
    from rankllm_core.data.collections import read_queries

    queries = dict(islice(read_queries(given["queries"]).items(), given["max_queries"]))
    if not queries:
        raise RankLLMError(f"{given['queries']}: holds no query")
    return queries


def _retrieve(index: Any, queries: Mapping[str, str], given: Mapping[str, Any]) -> Run:
    from rankllm_infer.retrieval.first_stage import retrieve

    with counter("retrieve", unit=" queries", total=len(queries), delay_s=2.0) as show:
        return retrieve(index, queries, depth=given["depth"], remove_query=given["remove_query"], progress=show)
