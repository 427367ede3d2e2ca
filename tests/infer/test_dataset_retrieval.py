"""Datasets by name: stored results, the hub's cache, searching as a fallback, judgements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankllm_core.data.records import read_requests
from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_infer.retrieval.bm25 import BM25Index
from rankllm_infer.retrieval.dataset_retrieval import (
    dataset_requests_file,
    default_folder,
    requests_from_index,
    search_dataset,
    stored_qrels,
)
from rankllm_infer.retrieval.retrieval_data import find_dataset, find_method
from rankllm_infer.retrieval.stored_retrieval import find_stored, stored_path

NFC, BM25 = find_dataset("nfc"), find_method("bm25")
TEXTS = {"d1": "cats purr", "d2": "dogs and cats", "q2": "fish swim", "d4": "fish"}


class SmallIndex:
    """In-memory index with stored texts."""

    def __init__(self):
        self._index = BM25Index.build(TEXTS.items())

    def search(self, query, depth):
        return self._index.search(query, depth)

    def document(self, docid):
        return {"_id": docid, "text": TEXTS[docid]}


class SmallLibrary:
    """Knows one dataset; records which indexes are opened."""

    def __init__(self):
        self.opened = []

    def open_index(self, name, method, *, k1=0.9, b=0.4, language=None):
        self.opened.append((name, method.name, k1, b, language))
        return SmallIndex()

    def topics(self, name):
        return {"beir-v1.0.0-nfcorpus-test": {"q1": "cats", "q2": "fish", "q3": "zebra", "q4": "dogs"}}[name]

    def qrels(self, name):
        return {"beir-v1.0.0-nfcorpus-test": {"q1": {"d2": 1}, "q2": {"d4": 2}, "q3": {"d1": 1}}}[name]


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write_stored(folder, name, *docids, method="BM25"):
    candidates = [{"docid": docid, "score": 9 - rank, "doc": {"text": "x"}} for rank, docid in enumerate(docids)]
    path = folder / method / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"query": {"qid": "q1", "text": "t"}, "candidates": candidates}) + "\n", "utf-8")
    return path


def requests_file(folder, library, *, depth=10, method=BM25):
    told = []
    path = dataset_requests_file(NFC, method, depth=depth, folder=folder, library=library, tell=told.append)
    return path, "\n".join(told)


def test_judged_queries_are_searched(monkeypatch):
    """q4 has no judgements, q3 finds nothing; settings and language are passed to the index."""
    library = SmallLibrary()
    found = search_dataset(library, NFC, BM25, depth=2, k1=1.2, b=0.75)
    assert list(found.queries) == ["q1", "q2", "q3"]
    assert {qid: [docid for docid, _ in ranking] for qid, ranking in found.run.items()} == {
        "q1": ["d1", "d2"],
        "q2": ["d4", "q2"],
        "q3": [],
    }
    assert library.opened == [("beir-v1.0.0-nfcorpus.flat", "bm25", 1.2, 0.75, None)]
    assert list(search_dataset(library, NFC, BM25, depth=2, max_queries=1).queries) == ["q1"]
    assert [docid for docid, _ in search_dataset(library, NFC, BM25, depth=2, remove_query=True).run["q2"]] == ["d4"]


def test_requests_have_the_texts_of_the_index():
    """A query without candidates yields no request."""
    found = search_dataset(SmallLibrary(), NFC, BM25, depth=2)
    requests = requests_from_index(SmallIndex(), found.queries, found.run)
    assert [request.query.qid for request in requests] == ["q1", "q2"]
    assert requests[0].candidates[0].doc == {"_id": "d1", "text": "cats purr"}


def test_a_method_without_an_index_opens_none():
    """Rejected before anything is downloaded."""
    library = SmallLibrary()
    with pytest.raises(ConfigError, match="has no prebuilt index for dataset mrtydi-ar"):
        search_dataset(library, find_dataset("mrtydi-ar"), find_method("splade_v3"), depth=2)
    assert library.opened == []


def test_stored_results_come_first(tmp_path):
    """The deepest results of sufficient depth; none of other datasets or methods."""
    write_stored(tmp_path, "retrieve_results_nfc_top20.jsonl")
    deep = write_stored(tmp_path, "retrieve_results_nfc_top1000.jsonl")
    write_stored(tmp_path, "retrieve_results_covid_top5000.jsonl")
    write_stored(tmp_path, "retrieve_results_nfc_top5000.jsonl", method="SPLADE_V3")
    path, told = requests_file(tmp_path, library=None)
    assert path == deep
    assert told == f"First stage: {deep}"
    assert find_stored(tmp_path, NFC, BM25, 1001) is None
    assert find_stored(tmp_path / "nowhere", NFC, BM25, 1) is None


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("retrieve_results_nfc_top100.json", 1, 100), ("retrieve_results_nfc.json", 1, 100)],
)
def test_older_layouts_are_found(tmp_path, name, least, most):
    """Arrays, and files of the first releases without a depth, which hold 100 candidates."""
    path = write_stored(tmp_path, name)
    assert find_stored(tmp_path, NFC, BM25, least) == find_stored(tmp_path, NFC, BM25, most) == path
    assert find_stored(tmp_path, NFC, BM25, most + 1) is None


def test_what_is_not_stored_is_searched_and_stored(tmp_path):
    """The reason is reported; the next time the results are available, with the judgements."""
    folder = tmp_path / "retrieve_results"
    path, told = requests_file(folder, SmallLibrary, depth=1)
    assert path == stored_path(folder, NFC, BM25, 1) == folder / "BM25" / "retrieve_results_nfc_top1.jsonl"
    assert "no stored results" in told
    assert "castorini/rank_llm_data" in told
    assert [[c.docid for c in request.candidates] for request in read_requests(path)] == [["d1"], ["d4"]]
    assert requests_file(folder, library=None, depth=1)[0] == path
    assert stored_qrels(NFC, folder)["q2"] == {"d4": 2}
    assert f"Wrote {path} for reuse; wrote its judgements to {tmp_path}/qrels/qrels_nfc.json" in told


def test_judgements_that_are_there_stay(tmp_path):
    """An existing user file next to the results is not overwritten, and is named."""
    path = tmp_path / "qrels" / "qrels_nfc.json"
    path.parent.mkdir()
    path.write_text('{"q1": {"d1": 3}}', encoding="utf-8")
    _, told = requests_file(tmp_path / "retrieve_results", SmallLibrary)
    assert path.read_text(encoding="utf-8") == '{"q1": {"d1": 3}}'
    assert told.endswith(f"; kept the existing judgements in {path}")


def test_requests_are_not_stored_without_judgements(tmp_path):
    """They would be found the next time, and the judgements never written."""
    (tmp_path / "qrels").write_text("a file where a folder is wanted", encoding="utf-8")
    folder = tmp_path / "retrieve_results"
    with pytest.raises(RankLLMError, match="qrels_nfc"):
        requests_file(folder, SmallLibrary)
    assert find_stored(folder, NFC, BM25, 10) is None


def test_what_cannot_be_searched_says_what_can(tmp_path):
    """RepLLaMA's results can only be read: the message says where they were searched for and what is available."""
    with pytest.raises(
        RankLLMError, match=r"no stored results in .*rank_llm_data.*, and .*rep-llama is available only as stor"
    ):
        requests_file(tmp_path, library=None, method=find_method("rep-llama"))


def test_the_hubs_cache_is_read_without_a_network(tmp_path):
    """A file downloaded earlier; 100 candidates if sufficient, else 1,000."""
    repository = tmp_path / "datasets--castorini--rank_llm_data"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    fetched = write_stored(repository / "snapshots" / "abc" / "retrieve_results", "retrieve_results_nfc_top100.jsonl")
    program = """
from rankllm_core.errors import RankLLMError
from rankllm_infer.retrieval.retrieval_data import find_dataset, find_method
from rankllm_infer.retrieval.stored_retrieval import fetch_stored
print(fetch_stored(find_dataset("nfc"), find_method("bm25"), 100))
for depth in (101, 1001):
    try:
        fetch_stored(find_dataset("nfc"), find_method("bm25"), depth)
    except RankLLMError as error:
        print(error)
"""
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    found, too_deep, beyond = done.stdout.splitlines()
    assert Path(found) == fetched
    assert "retrieve_results_nfc_top1000.jsonl could not be downloaded" in too_deep
    assert beyond == "castorini/rank_llm_data: contains at most 1000 candidates per query, not 1001"


def test_stored_judgements_are_read_or_named(tmp_path):
    """rank_llm writes grades as strings; a file of a different kind is named."""
    assert stored_qrels(NFC, tmp_path / "retrieve_results") is None
    path = tmp_path / "qrels" / "qrels_nfc.json"
    path.parent.mkdir()
    path.write_text('{"q1": {"d1": "2"}}', encoding="utf-8")
    assert stored_qrels(NFC, tmp_path / "retrieve_results") == {"q1": {"d1": 2}}
    for text in ("{", "[1]", '{"q1": {"d1": "x"}}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"qrels_nfc\.json: expected an object of query -> docid -> grade"):
            stored_qrels(NFC, tmp_path / "retrieve_results")


def test_stored_results_are_looked_for_where_rank_llm_keeps_them(monkeypatch):
    """RANK_LLM_CACHE, or the current folder."""
    monkeypatch.delenv("RANK_LLM_CACHE", raising=False)
    assert default_folder() == Path("retrieve_results")
    monkeypatch.setenv("RANK_LLM_CACHE", "cache")
    assert default_folder() == Path("cache/retrieve_results")


def test_without_pyserini_there_is_one_line(tmp_path):
    """If it is not installed, the message says how to install it."""
    import importlib.util

    if importlib.util.find_spec("pyserini") is not None:
        pytest.skip("Pyserini is installed here")
    from rankllm_infer.retrieval.pyserini_library import PyseriniLibrary

    with pytest.raises(RankLLMError, match=r"which is not installed. Install it with: uv add 'rankllm-infer\[pyserini"):
        requests_file(tmp_path, PyseriniLibrary)
