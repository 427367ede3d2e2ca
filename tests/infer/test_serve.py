"""The dialects of `serve`: requests and responses of each client, written by hand from the API references."""

from __future__ import annotations

import math

import pytest
from serving_fakes import Served, listwise, pointwise

from rankllm_core.card import PointwiseCard
from rankllm_core.prompts.template import load_template

QUERY, DOCUMENTS = "what is it", ["worth 0", "worth 2", "worth -1"]
HIGH, MIDDLE, LOW = 1 / (1 + math.exp(-2)), 0.5, 1 / (1 + math.exp(1))
RANKED = [(1, HIGH), (0, MIDDLE), (2, LOW)]


@pytest.fixture
def served():
    """A pointwise model: its score is the number in the passage."""
    return Served(pointwise())


def rankings(results, score="relevance_score"):
    """(index, score) of each result."""
    return [(item["index"], pytest.approx(item[score])) for item in results]


def test_cohere_v2(served):
    """`results` without texts, `meta` with tokens, an id."""
    done = served.post("/v2/rerank", {"model": "tiny", "query": QUERY, "documents": DOCUMENTS, "top_n": 2})
    assert done.status_code == 200
    body = done.json()
    assert rankings(body["results"]) == RANKED[:2]
    assert [set(item) for item in body["results"]] == [{"index", "relevance_score"}] * 2
    assert body["id"] == done.headers["x-request-id"]
    assert body["meta"]["api_version"] == {"version": "2"}
    assert body["meta"]["billed_units"] == {"search_units": 1}
    assert body["meta"]["tokens"] == {"input_tokens": 6, "output_tokens": 0}
    assert body["meta"]["warnings"] == []


def test_cohere_v1(served):
    """Objects with a text, which are returned on request."""
    documents = [{"text": text, "number": n} for n, text in enumerate(DOCUMENTS)]
    sent = {"query": QUERY, "documents": documents, "max_chunks_per_doc": 10}
    body = served.post("/v1/rerank", sent).json()
    assert rankings(body["results"]) == RANKED
    assert all("document" not in item for item in body["results"])
    assert body["meta"]["api_version"] == {"version": "1"}
    assert body["meta"]["warnings"] == ["field 'max_chunks_per_doc' has no effect here"]
    body = served.post("/v1/rerank", sent | {"return_documents": True}).json()
    assert [item["document"] for item in body["results"]] == [documents[1], documents[0], documents[2]]


def test_jina(served):
    """Documents are returned by default; `usage` counts tokens."""
    sent = {"model": "tiny", "query": QUERY, "documents": DOCUMENTS}
    body = served.post("/v1/rerank", sent).json()
    assert (body["model"], body["usage"]["total_tokens"]) == ("tiny", 6)
    assert rankings(body["results"]) == RANKED
    assert body["results"][0]["document"] == {"text": "worth 2"}
    body = served.post("/v1/rerank", sent | {"return_documents": False}).json()
    assert all("document" not in item for item in body["results"])


def test_vllm(served):
    """Documents are always returned, a single document may be a string, and 0 means all."""
    body = served.post("/rerank", {"query": QUERY, "documents": DOCUMENTS, "top_n": 0}).json()
    assert rankings(body["results"]) == RANKED
    assert [item["document"]["text"] for item in body["results"]] == ["worth 2", "worth 0", "worth -1"]
    assert body["usage"] == {"prompt_tokens": 6, "completion_tokens": 0, "total_tokens": 6}
    body = served.post("/rerank", {"query": QUERY, "documents": "worth 0"}).json()
    assert rankings(body["results"]) == [(0, MIDDLE)]


def test_text_embeddings_inference(served):
    """A bare array; other information is in headers."""
    done = served.post("/rerank", {"query": QUERY, "texts": DOCUMENTS, "truncate": True})
    assert rankings(done.json(), "score") == RANKED
    assert all(set(item) == {"index", "score"} for item in done.json())
    assert (done.headers["x-rankllm-status"], done.headers["x-rankllm-score-kind"]) == ("ok", "sigmoid")
    assert done.headers["x-compute-tokens"] == "6"
    done = served.post("/rerank", {"query": QUERY, "texts": DOCUMENTS, "return_text": True, "raw_scores": True})
    assert done.json() == [
        {"index": 1, "score": 2.0, "text": "worth 2"},
        {"index": 0, "score": 0.0, "text": "worth 0"},
        {"index": 2, "score": -1.0, "text": "worth -1"},
    ]


def test_ties_come_back_in_the_order_they_came(served):
    """By index."""
    body = served.post("/rerank", {"query": QUERY, "texts": ["worth 1"] * 5}).json()
    assert [item["index"] for item in body] == [0, 1, 2, 3, 4]


def test_metadata_is_returned_unchanged(served):
    """Ids, nested values, and a title, which is also shown to the model."""
    document = {"title": "t", "text": "worth 3", "id": 7, "docid": "x", "more": {"a": [None, 1.5, "ü"]}}
    body = served.post("/rerank", {"query": QUERY, "documents": ["worth 1", document, dict(document)]}).json()
    assert [item["document"] for item in body["results"]] == [document, document, {"text": "worth 1"}]


def test_the_response_says_what_a_score_is():
    """A probability according to the card, a sigmoid, or a rank."""
    sent = {"query": QUERY, "documents": DOCUMENTS}
    card = PointwiseCard(template=load_template("rankllama"), probability_scale=2.0)
    body = Served(pointwise(card=card)).post("/v2/rerank", sent).json()
    assert body["meta"]["score_kind"] == "probability"
    assert body["results"][0]["relevance_score"] == pytest.approx(1 / (1 + math.exp(-1)))
    body = Served(pointwise()).post("/v2/rerank", sent).json()
    assert body["meta"]["score_kind"] == "sigmoid"
    body = Served(listwise()).post("/v2/rerank", {"query": QUERY, "documents": ["ccc", "a", "bb"]}).json()
    assert body["meta"]["score_kind"] == "rank"
    assert rankings(body["results"]) == [(1, 1.0), (2, 2 / 3), (0, 1 / 3)]


def test_the_answer_says_what_the_model_did():
    """Status, defects, calls and rounds: a fallback is not presented as a ranking."""
    from rankllm_infer.engines.base import Answer

    mad = Served(listwise(answer=lambda prompt: Answer(text="I cannot rank these.")))
    meta = mad.post("/v2/rerank", {"query": QUERY, "documents": ["a", "b"]}).json()["meta"]
    assert meta["status"] == "fallback"
    assert meta["defects"]
    assert meta["warnings"] == ["the ranking is not entirely the model's: status fallback"]
    meta = Served(listwise()).post("/v2/rerank", {"query": QUERY, "documents": list("abcdef")}).json()["meta"]
    assert (meta["status"], meta["calls"], meta["rounds"]) == ("ok", 2, 2)
    assert meta["queued_s"] >= 0
    assert meta["computed_s"] > 0


@pytest.mark.parametrize(
    ("one", "other"), [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")], ids=str
)
@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_score(served, path, one, other):
    """One against N, and N against N, in request order."""
    body = served.post(path, {one: "q", other: DOCUMENTS}).json()
    assert (body["object"], body["usage"]["prompt_tokens"]) == ("list", 6)
    assert [item["object"] for item in body["data"]] == ["score"] * 3
    assert rankings(body["data"], "score") == [(0, MIDDLE), (1, HIGH), (2, LOW)]
    body = served.post(path, {one: ["q", "r"], other: DOCUMENTS[:2]}).json()
    assert rankings(body["data"], "score") == [(0, MIDDLE), (1, HIGH)]


def test_score_is_refused_by_a_model_that_ranks_lists():
    """It has no score for a pair."""
    done = Served(listwise()).post("/score", {"text_1": "q", "text_2": "a"})
    assert done.status_code == 400
    assert "use /rerank" in done.json()["error"]["message"]


def test_a_request_chooses_strategy_and_windows():
    """Within the server's limits: six passages are one window of six, or sliding windows of two."""
    served = Served(listwise(size=6, stride=3))
    sent = {"query": QUERY, "documents": ["cccc", "a", "bb", "eeeee", "fff", "gggggg"]}
    calls = {
        (): 1,
        (("window_size", 2),): 5,
        (("window_size", 4), ("stride", 2)): 2,
        (("window_size", 3), ("strategy", "tournament")): 3,
    }
    for more, n in calls.items():
        body = served.post("/v2/rerank", sent | dict(more)).json()
        assert body["results"][0]["index"] == 1
        assert body["meta"]["calls"] == n, more


def test_a_document_is_cut_to_so_many_tokens():
    """In words if the tokenizer is on a server: 4 tokens are 3 words."""
    served = Served(pointwise())
    sent = {"query": QUERY, "documents": ["worth 1 2 3 4 5"], "raw_scores": True}
    assert served.post("/v2/rerank", sent).json()["results"] == [{"index": 0, "relevance_score": 5.0}]
    body = served.post("/v2/rerank", sent | {"max_tokens_per_doc": 4}).json()
    assert body["results"] == [{"index": 0, "relevance_score": 2.0}]


def test_the_model_is_listed(served):
    """Where OpenAI's clients look for it."""
    body = served.ask("GET", "/v1/models").json()
    assert body["object"] == "list"
    assert [(item["id"], item["object"]) for item in body["data"]] == [("tiny", "model")]
