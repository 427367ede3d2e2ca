"""Cohere's own client, both versions of the API, synchronous and asynchronous, and its typed errors."""

from __future__ import annotations

import asyncio

import pytest
from serving_process import BODY, server

KEY = "k" * 32
BEST = [1, 2, 0]
RANKS = [1.0, 2 / 3, 1 / 3]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A server with a key and small limits."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    with server("--api-key-file", keys, "--max-documents", 5, "--served-model-name", "rerank-v4") as (_, url, _):
        yield url


def ranking(done):
    """Indices and scores."""
    return [item.index for item in done.results], [pytest.approx(item.relevance_score) for item in done.results]


def test_version_2(url):
    """With `top_n`, id, tokens and no texts."""
    import cohere

    client = cohere.ClientV2(KEY, base_url=url)
    done = client.rerank(model="rerank-v4", **BODY)
    assert ranking(done) == (BEST, RANKS)
    assert done.id
    assert done.meta.api_version.version == "2"
    assert done.meta.tokens.input_tokens > 0
    done = client.rerank(model="rerank-v4", top_n=1, max_tokens_per_doc=100, **BODY)
    assert ranking(done) == (BEST[:1], RANKS[:1])


def test_version_1(url):
    """With documents as objects, returned."""
    import cohere

    client = cohere.Client(KEY, base_url=url)
    documents = [{"text": text} for text in BODY["documents"]]
    done = client.rerank(query="q", documents=documents, return_documents=True)
    assert ranking(done) == (BEST, RANKS)
    assert [item.document.text for item in done.results] == [BODY["documents"][index] for index in BEST]


def test_asynchronous(url):
    """Several at once."""
    import cohere

    async def ask_all():
        client = cohere.AsyncClientV2(KEY, base_url=url)
        return await asyncio.gather(*(client.rerank(model="rerank-v4", **BODY) for _ in range(8)))

    assert [ranking(done) for done in asyncio.run(ask_all())] == [(BEST, RANKS)] * 8


def test_errors_are_typed(url):
    """By their status, with the message in the body."""
    import cohere

    once = {"max_retries": 0}
    client = cohere.ClientV2(KEY, base_url=url)
    with pytest.raises(cohere.NotFoundError) as caught:
        client.rerank(model="another", request_options=once, **BODY)
    assert "'rerank-v4'" in caught.value.body["message"]
    with pytest.raises(cohere.UnauthorizedError):
        cohere.ClientV2("wrong", base_url=url).rerank(model="rerank-v4", request_options=once, **BODY)
    with pytest.raises(cohere.BadRequestError):
        client.rerank(model="rerank-v4", query="q", documents=[], request_options=once)
    with pytest.raises(cohere.core.api_error.ApiError) as caught:
        client.rerank(model="rerank-v4", query="q", documents=["a"] * 6, request_options=once)
    assert caught.value.status_code == 413
