"""`retrieve` and `rerank` with Pyserini, from the command line."""

from __future__ import annotations

import json

import pytest
from chat_server import serving
from ranking_server import respond

from rankllm_infer.retrieval.stored_retrieval import FOLDER


@pytest.fixture
def folder(tmp_path, monkeypatch, library):
    """Current folder, empty except for two queries."""
    (tmp_path / "topics.tsv").write_text("q1\tcats\nq2\tdogs\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK_LLM_CACHE", raising=False)
    return tmp_path


def columns(path, *numbers):
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    return [tuple(fields[number] for number in numbers) for fields in lines]


def test_a_lucene_index_of_ones_own(folder, rankllm, pets):
    """--index with --topics yields a run, and requests with the texts stored in the index."""
    outputs = ["--output", "run.trec", "--output-requests", "requests.jsonl"]
    done = rankllm("retrieve", "--index", pets, "--topics", "topics.tsv", *outputs)
    assert (done.code, done.out) == (0, ""), done.err
    assert columns(folder / "run.trec", 0, 2, 3, 5) == [
        ("q1", "d1", "1", "bm25"),
        ("q2", "d2", "1", "bm25"),
        ("q2", "d1", "2", "bm25"),
    ]
    first = json.loads((folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["query"] == {"text": "cats", "qid": "q1"}
    assert first["candidates"][0]["doc"]["contents"] == "cat cat dog"


def test_both_first_stages_agree(folder, rankllm, pets, monkeypatch):
    """The built-in BM25 and Lucene's give the same rankings on three documents, with scores equal up to Lucene's
    rounding."""
    pytest.importorskip("bm25s")
    monkeypatch.setenv("RANKLLM_CACHE", str(folder / "cache"))
    (folder / "corpus.tsv").write_text("d1\tcat cat dog\nd2\tdog bird\nd3\tfish\n", encoding="utf-8")
    rankllm("retrieve", "--index", pets, "--queries", "topics.tsv", "--output", "lucene.tsv")
    rankllm("retrieve", "--corpus", "corpus.tsv", "--queries", "topics.tsv", "--output", "own.tsv")
    ours, lucenes = (columns(folder / name, 0, 1) for name in ("own.tsv", "lucene.tsv"))
    assert ours == lucenes
    scores = [[float(score) for (score,) in columns(folder / name, 2)] for name in ("own.tsv", "lucene.tsv")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)


def test_a_data_set_by_name(folder, rankllm, prebuilt):
    """Judged queries, index and figures of a dataset: PLAIN-1 finds its passage at rank 2, PLAIN-2 at rank 1."""
    done = rankllm("retrieve", "--dataset", "beir-nfcorpus", "--retrieval-method", "bm25", "--output", "run.trec")
    assert done.code == 0, done.err
    assert columns(folder / "run.trec", 0, 2) == [("PLAIN-1", "MED-1"), ("PLAIN-1", "MED-2"), ("PLAIN-2", "MED-3")]
    assert "retrieved\tMRR@10\t0.7500" in done.out.splitlines()


def test_topics_by_name_go_with_any_index(folder, rankllm, prebuilt, pets):
    """Without judgements all topics are used; here with another index."""
    options = ["--topics", "beir-v1.0.0-nfcorpus-test", "--output", "run.trec", "--max-queries", "1"]
    done = rankllm("retrieve", "--index", pets, *options)
    assert done.code == 0, done.err
    assert columns(folder / "run.trec", 0, 2) == [("PLAIN-1", "d1")]


def test_a_data_set_is_retrieved_reranked_and_scored_by_one_command(folder, rankllm, prebuilt, monkeypatch):
    """Like the original. Retrieval results are stored in its layout, and reused the next time without Pyserini."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with serving(respond) as server:
        model = ["--engine", "openai", "--base-url", server.base_url, "--model-path", "oracle"]
        arguments = ["rerank", *model, "--dataset", "nfc", "--retrieval-method", "bm25", "--top-k-candidates", "2"]
        done = rankllm(*arguments, "--output", "first.trec")
        again = rankllm(*arguments, "--output", "second.trec")
    assert done.code == 0, done.err
    assert "Scores of the 2 judged queries among the 2 ranked" in done.err
    assert len(done.out.splitlines()) == 3
    stored = folder / FOLDER / "BM25" / "retrieve_results_nfc_top2.jsonl"
    records = [json.loads(line) for line in stored.read_text(encoding="utf-8").splitlines()]
    assert [record["query"]["qid"] for record in records] == ["PLAIN-1", "PLAIN-2"]
    assert records[0]["candidates"][0]["doc"]["title"] == "Cats"
    assert sorted(columns(folder / "first.trec", 0, 2)) == sorted(
        [("PLAIN-1", "MED-1"), ("PLAIN-1", "MED-2"), ("PLAIN-2", "MED-3")]
    )
    assert again.code == 0, again.err
    assert "Starting Pyserini" not in again.err
    assert again.out == done.out
    assert (folder / "first.trec").read_bytes() == (folder / "second.trec").read_bytes()
