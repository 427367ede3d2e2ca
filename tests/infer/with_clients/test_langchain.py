"""`CohereRerank` of langchain-cohere, which pins a Cohere client before version 6."""

from __future__ import annotations

import asyncio

import pytest
from client_server import BEST, DOCUMENTS, KEY, MODEL, QUERY, RANKS, TOO_MANY

langchain_cohere = pytest.importorskip("langchain_cohere", reason="needs LangChain: scripts/test-clients langchain")


def reranker(served, *, key=KEY, **more):
    """The compressor, pointed at a server."""
    return langchain_cohere.CohereRerank(base_url=served.url, cohere_api_key=key, **{"model": MODEL, **more})


def make_documents(texts):
    """With user metadata."""
    from langchain_core.documents import Document

    return [Document(text, metadata={"number": number}) for number, text in enumerate(texts)]


def test_documents_are_compressed(served):
    """To the top ones with score, text and metadata."""
    kept = reranker(served, top_n=2).compress_documents(make_documents(DOCUMENTS), QUERY)
    assert [document.page_content for document in kept] == [DOCUMENTS[index] for index in BEST[:2]]
    assert [document.metadata["number"] for document in kept] == BEST[:2]
    assert [document.metadata["relevance_score"] for document in kept] == RANKS[:2]


def test_everything_is_ranked(served):
    """With None as `top_n`, and objects, which are sent as YAML."""
    ranked = reranker(served).rerank([{"text": text} for text in DOCUMENTS], QUERY, top_n=None, max_tokens_per_doc=100)
    assert ranked == [{"index": i, "relevance_score": score} for i, score in zip(BEST, RANKS, strict=True)]


def test_asynchronously(served):
    """In a thread, as LangChain does for compressors without an asynchronous implementation."""
    asked = reranker(served, top_n=None).acompress_documents(make_documents(DOCUMENTS), QUERY)
    assert [document.metadata["number"] for document in asyncio.run(asked)] == BEST


@pytest.mark.parametrize(
    ("more", "query", "texts", "status", "words"),
    [
        ({"key": "wrong"}, QUERY, DOCUMENTS, 401, "Authorization: Bearer KEY"),
        ({"model": "another"}, QUERY, DOCUMENTS, 404, f"'{MODEL}'"),
        ({}, " ", DOCUMENTS, 400, "query: expected a non-empty string"),
        ({}, QUERY, TOO_MANY, 413, "at most 5 documents"),
    ],
)
def test_errors_are_coheres(served, more, query, texts, status, words):
    """By class, with the message in the body; 413 has no class of its own."""
    from cohere import BadRequestError, NotFoundError, UnauthorizedError
    from cohere.core.api_error import ApiError

    typed = {400: BadRequestError, 401: UnauthorizedError, 404: NotFoundError, 413: ApiError}
    with pytest.raises(typed[status]) as caught:
        reranker(served, **more).compress_documents(make_documents(texts), query)
    assert caught.value.status_code == status
    assert words in caught.value.body["message"]


def test_a_full_queue_is_asked_again(served):
    """Cohere's client does so by itself."""
    with served.busy():
        kept = reranker(served, top_n=1).compress_documents(make_documents(DOCUMENTS), QUERY)
    assert [document.metadata["number"] for document in kept] == BEST[:1]


def test_a_server_that_drains(leaving):
    """It is unavailable, after the two retries of Cohere's client."""
    from cohere import ServiceUnavailableError

    with leaving.draining(), pytest.raises(ServiceUnavailableError):
        reranker(leaving).compress_documents(make_documents(DOCUMENTS), QUERY)
