"""Haystack's rankers for Cohere and Jina."""

from __future__ import annotations

import asyncio

import pytest
from client_server import BEST, DOCUMENTS, KEY, MODEL, QUERY, RANKS, TOO_MANY

pytest.importorskip("haystack_integrations.components.rankers", reason="needs Haystack: scripts/test-clients haystack")

WRONG = [
    ({"key": "wrong"}, QUERY, DOCUMENTS, 401, "Authorization: Bearer KEY"),
    ({"model": "another"}, QUERY, DOCUMENTS, 404, f"'{MODEL}'"),
    ({}, " ", DOCUMENTS, 400, "query: expected a non-empty string"),
    ({}, QUERY, TOO_MANY, 413, "at most 5 documents"),
]


def cohere(served, *, key=KEY, model=MODEL):
    """Cohere's ranker."""
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    return CohereRanker(model=model, api_key=Secret.from_token(key), api_base_url=served.url)


def jina(served, *, key=KEY, model=MODEL):
    """Jina's, which takes the whole URL."""
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    return JinaRanker(model=model, api_key=Secret.from_token(key), base_url=f"{served.url}/v1/rerank")


CLIENTS = pytest.mark.parametrize("client", [cohere, jina], ids=["cohere", "jina"])


def documents(texts):
    """With user metadata."""
    from haystack import Document

    return [Document(content=text, meta={"number": number}) for number, text in enumerate(texts)]


def ranking(done):
    """Positions and scores."""
    return [found.meta["number"] for found in done["documents"]], [found.score for found in done["documents"]]


@CLIENTS
def test_documents_are_ranked(served, client):
    """The top ones with their scores; also asynchronously."""
    assert ranking(client(served).run(query=QUERY, documents=documents(DOCUMENTS))) == (BEST, RANKS)
    asked = client(served).run_async(query=QUERY, documents=documents(DOCUMENTS), top_k=2)
    assert ranking(asyncio.run(asked)) == (BEST[:2], RANKS[:2])


def test_jina_reports_model_and_tokens(served):
    """And drops documents below a threshold."""
    done = jina(served).run(query=QUERY, documents=documents(DOCUMENTS), score_threshold=0.5)
    assert ranking(done) == (BEST[:2], RANKS[:2])
    assert done["meta"]["model"] == MODEL
    assert done["meta"]["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(("more", "query", "texts", "status", "words"), WRONG)
def test_coheres_errors_are_typed(served, more, query, texts, status, words):
    """They are those of Cohere's client."""
    from cohere.core.api_error import ApiError

    with pytest.raises(ApiError) as caught:
        cohere(served, **more).run(query=query, documents=documents(texts))
    assert caught.value.status_code == status
    assert words in caught.value.body["message"]


@pytest.mark.parametrize(("more", "query", "texts", "status", "words"), WRONG)
def test_jinas_errors_say_what_is_wrong(served, more, query, texts, status, words):
    """With the message under `detail`, where this client looks; it has no error types."""
    with pytest.raises(RuntimeError, match=words):
        jina(served, **more).run(query=query, documents=documents(texts))


def test_a_full_queue(served):
    """Retried by Cohere's client; an error with Jina's, which shows our message."""
    with served.busy():
        assert ranking(cohere(served).run(query=QUERY, documents=documents(DOCUMENTS)))[0] == BEST
    with served.busy(), pytest.raises(RuntimeError, match="try again later"):
        jina(served).run(query=QUERY, documents=documents(DOCUMENTS))


def test_a_server_that_drains(leaving):
    """It is unavailable."""
    from cohere import ServiceUnavailableError

    with leaving.draining():
        with pytest.raises(ServiceUnavailableError):
            cohere(leaving).run(query=QUERY, documents=documents(DOCUMENTS))
        with pytest.raises(RuntimeError, match="shutting down"):
            jina(leaving).run(query=QUERY, documents=documents(DOCUMENTS))
