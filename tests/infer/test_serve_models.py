"""`serve` with tiny models: scores of an offline run, documents truncated by the model's tokenizer, FIRST's softmax."""

from __future__ import annotations

import asyncio
import math

import pytest
from serving_fakes import Served

from rankllm_infer.api import load_reranker
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.flow import make_request

QUERY = "how do plants make sugar"
DOCUMENTS = [
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "The stock market closed higher on Friday.",
    "Bread is baked from flour, water and salt for about forty minutes.",
]


@pytest.fixture(scope="module")
def classifier(tiny_classifier):
    """A random score head."""
    options = RerankOptions(device="cpu", dtype="float32", fuse_weight=0.0)
    with load_reranker(tiny_classifier, options) as reranker:
        yield reranker


def logits(reranker, query, documents):
    """Offline scores of the documents, in the given order."""
    (result,) = reranker.rerank([make_request(query, documents)])
    said = {candidate.docid: candidate.model_score for candidate in result.candidates}
    return [said[str(number)] for number in range(1, len(documents) + 1)]


def by_index(items, score="relevance_score"):
    """Scores of a response, in request order."""
    return [item[score] for item in sorted(items, key=lambda item: item["index"])]


def test_scores_are_those_of_an_offline_run(classifier):
    """With a sigmoid, or raw; also for many concurrent requests."""
    served = Served(classifier)
    expected = logits(classifier, QUERY, DOCUMENTS)
    body = served.post("/v2/rerank", {"query": QUERY, "documents": DOCUMENTS}).json()
    assert by_index(body["results"]) == pytest.approx([1 / (1 + math.exp(-logit)) for logit in expected])
    assert body["usage"]["prompt_tokens"] > 30

    async def ask_all():
        sent = {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True}
        async with served.client() as client:
            return await asyncio.gather(*(client.post("/rerank", json=sent) for _ in range(20)))

    for done in asyncio.run(ask_all()):
        assert by_index(done.json(), "score") == expected


def test_documents_are_cut_by_the_models_tokenizer(classifier, smollm2_tokenizer):
    """To their first tokens; shorter ones are unchanged, and a document beyond the model's limit causes no failure."""
    ids = smollm2_tokenizer(DOCUMENTS[0], add_special_tokens=False)["input_ids"]
    cut = smollm2_tokenizer.decode(ids[:6])
    assert DOCUMENTS[0].startswith(cut)
    served = Served(classifier)
    sent = {"query": QUERY, "documents": [DOCUMENTS[0], "short"], "raw_scores": True, "max_tokens_per_doc": 6}
    body = served.post("/v2/rerank", sent).json()
    assert by_index(body["results"]) == logits(classifier, QUERY, [cut, "short"])
    long = served.post("/v2/rerank", {"query": QUERY * 500, "documents": [DOCUMENTS[0] * 500, "short"]})
    assert long.status_code == 200


def test_first_gives_a_softmax_over_its_window(tiny_causal):
    """For a single window; several windows give ranks."""
    options = RerankOptions(
        device="cpu", dtype="float32", method="listwise", use_logits=True, use_alpha=True, window_size=3, stride=1
    )
    with load_reranker(tiny_causal, options) as reranker:
        (offline,) = reranker.rerank([make_request(QUERY, DOCUMENTS)])
        weights = [math.exp(candidate.model_score) for candidate in offline.candidates]
        served = Served(reranker)
        body = served.post("/v2/rerank", {"query": QUERY, "documents": DOCUMENTS}).json()
        assert body["meta"]["score_kind"] == "softmax"
        order = [int(candidate.docid) - 1 for candidate in offline.candidates]
        assert [item["index"] for item in body["results"]] == order
        scores = [item["relevance_score"] for item in body["results"]]
        assert scores == pytest.approx([weight / sum(weights) for weight in weights])
        body = served.post("/v2/rerank", {"query": QUERY, "documents": DOCUMENTS, "window_size": 2}).json()
        assert (body["meta"]["score_kind"], body["meta"]["calls"]) == ("rank", 2)
        assert [item["relevance_score"] for item in body["results"]] == pytest.approx([1, 2 / 3, 1 / 3])
