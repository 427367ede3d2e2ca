"""Cohere's own client: both API versions, synchronous and asynchronous, typed errors and retries."""

from __future__ import annotations

import asyncio

import pytest
from client_server import BEST, DOCUMENTS, KEY, MODEL, QUERY, RANKS, TOO_MANY

cohere = pytest.importorskip("cohere", reason="needs Cohere's client: scripts/test-clients cohere")

BODY = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS}
ONCE = {"max_retries": 0}


def ranking(done):
    """Indices and scores."""
    return [item.index for item in done.results], [item.relevance_score for item in done.results]


def test_version_2(served):
    """With `top_n`, id, tokens and no texts."""
    client = cohere.ClientV2(KEY, base_url=served.url)
    done = client.rerank(**BODY)
    assert ranking(done) == (BEST, RANKS)
    assert done.id
    assert done.meta.api_version.version == "2"
    assert done.meta.tokens.input_tokens > 0
    done = client.rerank(top_n=1, max_tokens_per_doc=100, **BODY)
    assert ranking(done) == (BEST[:1], RANKS[:1])


def test_version_1(served):
    """With documents as objects, returned."""
    client = cohere.Client(KEY, base_url=served.url)
    documents = [{"text": text} for text in DOCUMENTS]
    done = client.rerank(query=QUERY, documents=documents, return_documents=True)
    assert ranking(done) == (BEST, RANKS)
    assert [item.document.text for item in done.results] == [DOCUMENTS[index] for index in BEST]


def test_asynchronous(served):
    """Both versions, several at once."""

    async def ask_all():
        clients = [make(KEY, base_url=served.url) for make in (cohere.AsyncClientV2, cohere.AsyncClient)]
        return await asyncio.gather(*(client.rerank(**BODY) for client in clients for _ in range(2)))

    assert [ranking(done) for done in asyncio.run(ask_all())] == [(BEST, RANKS)] * 4


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"model": "another"}, 404, f"'{MODEL}'"),
        ({"documents": []}, 400, "documents: expected at least one"),
        ({"query": " "}, 400, "query: expected a non-empty string"),
        ({"top_n": 0}, 400, "top_n: expected an integer of at least 1"),
        ({"documents": TOO_MANY}, 413, "at most 5 documents"),
    ],
)
def test_errors_are_typed(served, more, status, words):
    """By status, with the message in the body; 413 has no class of its own."""
    typed = {400: cohere.BadRequestError, 404: cohere.NotFoundError, 413: cohere.core.api_error.ApiError}
    with pytest.raises(typed[status]) as caught:
        cohere.ClientV2(KEY, base_url=served.url).rerank(request_options=ONCE, **BODY | more)
    assert caught.value.status_code == status
    assert words in caught.value.body["message"]


def test_a_wrong_key(served):
    """It is reported, synchronously and asynchronously."""
    with pytest.raises(cohere.UnauthorizedError) as caught:
        cohere.ClientV2("wrong", base_url=served.url).rerank(**BODY)
    assert "Authorization: Bearer KEY" in caught.value.body["message"]
    with pytest.raises(cohere.UnauthorizedError):
        asyncio.run(cohere.AsyncClientV2("wrong", base_url=served.url).rerank(**BODY))


def test_version_1_reads_the_errors_of_the_same_path(served):
    """The path is shared with Jina, whose message is under `detail`."""
    with pytest.raises(cohere.UnprocessableEntityError) as caught:
        cohere.Client(KEY, base_url=served.url).rerank(query=" ", documents=DOCUMENTS)
    assert "query: expected a non-empty string" in caught.value.body["detail"]


def test_a_full_queue_is_asked_again(served):
    """According to Retry-After; without retries, it is a TooManyRequestsError."""
    client = cohere.ClientV2(KEY, base_url=served.url)
    with served.busy(), pytest.raises(cohere.TooManyRequestsError):
        client.rerank(request_options=ONCE, **BODY)
    with served.busy():
        assert ranking(client.rerank(**BODY)) == (BEST, RANKS)


def test_a_server_that_drains(leaving):
    """It is unavailable, although another server with the same name may be available."""
    with leaving.draining(), pytest.raises(cohere.ServiceUnavailableError):
        cohere.ClientV2(KEY, base_url=leaving.url).rerank(request_options=ONCE, **BODY)


def test_a_request_that_takes_too_long(hasty):
    """A GatewayTimeoutError, which the client retries by itself."""
    client = cohere.ClientV2(KEY, base_url=hasty.url)
    with hasty.stalling(1), pytest.raises(cohere.GatewayTimeoutError):
        client.rerank(request_options=ONCE, **BODY)
    with hasty.stalling(1):
        assert ranking(client.rerank(**BODY)) == (BEST, RANKS)
