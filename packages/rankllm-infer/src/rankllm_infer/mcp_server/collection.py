"""Collection searched by `retrieve_and_rerank`: an index with its texts, of any kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.data.collections import read_corpus
from rankllm_core.errors import RankLLMError
from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.retrieval.bm25 import K1, B
from rankllm_infer.retrieval.bm25_cache import is_bm25_index, open_index, stored_settings
from rankllm_infer.retrieval.first_stage import Searcher
from rankllm_infer.watching import SILENT, Watcher

Texts = Callable[[str], Mapping[str, object]]
"""Returns the stored document of a docid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A searchable collection. Searches may come from any thread and are serialized."""

    name: str
    searcher: Searcher
    text_of: Texts
    lock: threading.Lock

    def find(self, query: str, *, k: int, instruction: str | None = None) -> Request:
        """Return a request with the best k documents, best first; fewer or none if fewer match.

        Raises RankLLMError if the index refuses the query or stores no text.
        """
        with self.lock:
            hits = self.searcher.search(query, k)
            candidates = tuple(Candidate(docid=docid, score=score, doc=self.text_of(docid)) for docid, score in hits)
        return Request(query=Query(qid="1", text=query, instruction=instruction), candidates=candidates)


def open_collection(corpus: Path | None, index: str | None, *, watcher: Watcher = SILENT) -> Collection:
    """Open an index with its texts.

    corpus: passages, JSONL or TSV (`read_corpus`), kept in memory and searched with the built-in BM25. index: with a
    corpus, the folder of its BM25 index, built if missing and searched with the k1 and b that it was built with; by
    default a folder in the user's cache. Without a corpus, a Lucene index for Pyserini: a folder or a name. Raises
    RankLLMError for anything that cannot be read or searched.
    """
    if corpus is not None:
        return _of_corpus(corpus, None if index is None else Path(index), watcher)
    if index is None:
        raise RankLLMError("nothing to search: expected a corpus, an index, or both")
    return _of_lucene(index, watcher)


def _of_corpus(corpus: Path, folder: Path | None, watcher: Watcher) -> Collection:
    k1, b = (stored_settings(folder) if folder is not None else None) or (K1, B)
    with watcher.counter("index", unit=" passages") as show:
        searcher = open_index(corpus, folder=folder, k1=k1, b=b, tell=watcher.say, progress=show)
    with watcher.counter("corpus", unit=" passages") as show:
        texts: dict[str, Mapping[str, object]] = {}
        for number, (docid, doc) in enumerate(read_corpus(corpus), start=1):
            texts[docid] = doc
            show(number)
    return Collection(name=corpus.name, searcher=searcher, text_of=texts.__getitem__, lock=threading.Lock())


def _of_lucene(index: str, watcher: Watcher) -> Collection:
    from rankllm_infer.retrieval.pyserini_library import start_pyserini
    from rankllm_infer.retrieval.retrieval_data import find_method

    folder = Path(index)
    if is_bm25_index(folder):
        raise RankLLMError(f"{index}: is a BM25 index, which contains no texts; also give its corpus: --corpus FILE")
    found = start_pyserini(tell=watcher.say).open_index(index, find_method("bm25"))
    return Collection(name=folder.name, searcher=found, text_of=found.document, lock=threading.Lock())
