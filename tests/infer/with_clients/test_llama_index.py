"""LlamaIndex's node postprocessors for Cohere, Jina and text-embeddings-inference."""

from __future__ import annotations

import asyncio

import pytest
from client_server import BEST, DOCUMENTS, KEY, MODEL, QUERY, RANKS, TOO_MANY

pytest.importorskip("llama_index.postprocessor", reason="needs LlamaIndex: scripts/test-clients llama-index")

WRONG = [
    ({"key": "wrong"}, QUERY, DOCUMENTS, 401, "Authorization: Bearer KEY"),
    ({"model": "another"}, QUERY, DOCUMENTS, 404, f"'{MODEL}'"),
    ({}, " ", DOCUMENTS, 400, "query: expected a non-empty string"),
    ({}, QUERY, TOO_MANY, 413, "at most 5 documents"),
]


def cohere(served, *, key=KEY, model=MODEL, top_n=3, **more):
    """Cohere's postprocessor."""
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    return CohereRerank(base_url=served.url, api_key=key, model=model, top_n=top_n, **more)


def jina(served, *, key=KEY, model=MODEL, top_n=3):
    """Jina's."""
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    return JinaRerank(base_url=f"{served.url}/v1", api_key=key, model=model, top_n=top_n)


def tei(served, *, key=KEY, top_n=3):
    """The one for text-embeddings-inference, which names no model and takes the whole header."""
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    return TextEmbeddingInference(base_url=served.url, auth_token=f"Bearer {key}", top_n=top_n)


CLIENTS = pytest.mark.parametrize("client", [cohere, jina, tei], ids=["cohere", "jina", "tei"])


def nodes(texts):
    """In first-stage order."""
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text, id_=str(n)), score=-float(n)) for n, text in enumerate(texts)]


def ranking(ranked):
    """Positions, scores and texts."""
    return [int(node.node_id) for node in ranked], [node.score for node in ranked], [node.text for node in ranked]


@CLIENTS
def test_nodes_are_ranked(served, client):
    """The top ones with their scores; also asynchronously."""
    expected = (BEST, RANKS, [DOCUMENTS[index] for index in BEST])
    assert ranking(client(served).postprocess_nodes(nodes(DOCUMENTS), query_str=QUERY)) == expected
    asked = client(served).apostprocess_nodes(nodes(DOCUMENTS), query_str=QUERY)
    assert ranking(asyncio.run(asked)) == expected
    best = client(served, top_n=1).postprocess_nodes(nodes(DOCUMENTS), query_str=QUERY)
    assert ranking(best)[0] == BEST[:1]


@pytest.mark.parametrize(("more", "query", "texts", "status", "words"), WRONG)
def test_coheres_errors_are_typed(served, more, query, texts, status, words):
    """They are those of Cohere's client."""
    from cohere.core.api_error import ApiError

    with pytest.raises(ApiError) as caught:
        cohere(served, **more).postprocess_nodes(nodes(texts), query_str=query)
    assert caught.value.status_code == status
    assert words in caught.value.body["message"]


@pytest.mark.parametrize(("more", "query", "texts", "status", "words"), WRONG)
def test_jinas_errors_say_what_is_wrong(served, more, query, texts, status, words):
    """With the message under `detail`, where this client looks; it has no error types."""
    with pytest.raises(RuntimeError, match=words):
        jina(served, **more).postprocess_nodes(nodes(texts), query_str=query)


def test_errors_in_the_dialect_of_tei_never_look_like_a_ranking(served):
    """This client ignores the status: it fails on parsing the scores, without showing our message."""
    with pytest.raises((AssertionError, TypeError)):
        tei(served, key="wrong").postprocess_nodes(nodes(DOCUMENTS), query_str=QUERY)
    with pytest.raises((AssertionError, TypeError)):
        tei(served).postprocess_nodes(nodes(DOCUMENTS[:2]), query_str=" ")


def test_a_full_queue_is_asked_again_with_cohere(served):
    """By Cohere's client."""
    with served.busy():
        ranked = cohere(served).postprocess_nodes(nodes(DOCUMENTS), query_str=QUERY)
    assert ranking(ranked)[0] == BEST


def test_a_full_queue_is_an_error_with_jina(served):
    """It does not retry, and shows our message."""
    with served.busy(), pytest.raises(RuntimeError, match="try again later"):
        jina(served).postprocess_nodes(nodes(DOCUMENTS), query_str=QUERY)


def test_a_server_that_drains(leaving):
    """Jina's shows the reason; Cohere's, which would retry ten times, raises the client's own error once it gives
    up."""
    from cohere import ServiceUnavailableError

    with leaving.draining():
        with pytest.raises(RuntimeError, match="shutting down"):
            jina(leaving).postprocess_nodes(nodes(DOCUMENTS), query_str=QUERY)
        with pytest.raises(ServiceUnavailableError):
            cohere(leaving, max_retries=1).postprocess_nodes(nodes(DOCUMENTS), query_str=QUERY)


def test_coheres_postprocessor_asks_again_by_itself(hasty):
    """After 504, 500 and 503: four seconds later, when Cohere's client has given up after three requests."""
    with hasty.stalling(3):
        ranked = cohere(hasty).postprocess_nodes(nodes(DOCUMENTS), query_str=QUERY)
    assert ranking(ranked)[0] == BEST
    assert hasty.count(504) == 3
