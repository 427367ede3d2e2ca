"""LiteLLM's `rerank` with four of its providers, each with its own dialect."""

from __future__ import annotations

import asyncio
import os

import pytest
from client_server import BEST, DOCUMENTS, KEY, MODEL, QUERY, RANKS, TOO_MANY

# Else it looks for its table of prices on the internet when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
litellm = pytest.importorskip("litellm", reason="needs LiteLLM: scripts/test-clients litellm")

# pydantic warns about LiteLLM's types.
pytestmark = pytest.mark.filterwarnings("ignore:Items? '.*ReadOnly:UserWarning")
PROVIDERS = pytest.mark.parametrize("provider", ["hosted_vllm", "cohere", "jina_ai", "infinity"])


def asking(served, provider, *, model=MODEL, key=KEY, **more):
    """Arguments of a request."""
    asked = {"model": f"{provider}/{model}", "query": QUERY, "documents": DOCUMENTS}
    return asked | {"api_base": served.url, "api_key": key} | more


def ranking(done):
    """Indices and scores."""
    return [item["index"] for item in done.results], [item["relevance_score"] for item in done.results]


@PROVIDERS
def test_documents_are_ranked(served, provider):
    """The top ones with scores and tokens; also asynchronously."""
    done = litellm.rerank(**asking(served, provider, return_documents=False))
    assert ranking(done) == (BEST, RANKS)
    counts = done.meta["billed_units"] if provider == "jina_ai" else done.meta["tokens"]
    assert max(counts.values()) > 0
    done = asyncio.run(litellm.arerank(**asking(served, provider, top_n=1, return_documents=False)))
    assert ranking(done) == (BEST[:1], RANKS[:1])


@pytest.mark.parametrize("provider", ["hosted_vllm", "jina_ai"])
def test_texts_come_back(served, provider):
    """If the dialect returns them."""
    done = litellm.rerank(**asking(served, provider))
    assert [item["document"]["text"] for item in done.results] == [DOCUMENTS[index] for index in BEST]


@PROVIDERS
@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"key": "wrong"}, 401, "Authorization: Bearer KEY"),
        ({"model": "another"}, 404, f"'{MODEL}'"),
        ({"query": " "}, 400, "query: expected a non-empty string"),
        ({"documents": TOO_MANY}, 413, "at most 5 documents"),
    ],
)
def test_errors_are_typed(served, provider, more, status, words):
    """By status, with our message. 413 has no class of its own, and providers differ."""
    from litellm.exceptions import APIError, AuthenticationError, BadRequestError, NotFoundError

    typed = {400: BadRequestError, 401: AuthenticationError, 404: NotFoundError, 413: (APIError, BadRequestError)}
    with pytest.raises(typed[status]) as caught:
        litellm.rerank(**asking(served, provider, **more))
    assert caught.value.status_code == (422 if status == 400 and provider == "jina_ai" else status)
    assert words in str(caught.value).replace('\\"', '"')


@PROVIDERS
def test_a_full_queue(served, provider):
    """A RateLimitError: `rerank` does not retry for any provider, whatever `num_retries` says."""
    with served.busy(), pytest.raises(litellm.exceptions.RateLimitError):
        litellm.rerank(**asking(served, provider, num_retries=2))


def test_a_router_asks_a_full_queue_again(served):
    """LiteLLM's router does retry."""
    params = {key: value for key, value in asking(served, "hosted_vllm").items() if key not in ("query", "documents")}
    router = litellm.Router(model_list=[{"model_name": "ours", "litellm_params": params}], num_retries=2)
    with served.busy():
        done = asyncio.run(router.arerank(model="ours", query=QUERY, documents=DOCUMENTS))
    assert ranking(done) == (BEST, RANKS)


def test_a_server_that_drains(leaving):
    """It is unavailable."""
    with leaving.draining(), pytest.raises(litellm.exceptions.ServiceUnavailableError):
        litellm.rerank(**asking(leaving, "hosted_vllm"))
