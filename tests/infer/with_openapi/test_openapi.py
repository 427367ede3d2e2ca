"""/openapi.json is valid, and the server's requests and responses match it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys

import pytest
from hostile_requests import SERVED, odd_request
from serving_fakes import Served, listwise, pointwise

DOCUMENTS = ["worth 1", {"text": "worth 2", "id": 7}]
ASKED = [
    ("/v2/rerank", {"query": "q", "documents": DOCUMENTS, "top_n": 1, "model": "tiny"}),
    ("/v1/rerank", {"query": "q", "documents": DOCUMENTS, "return_documents": True}),
    ("/rerank", {"query": "q", "documents": DOCUMENTS, "max_tokens_per_doc": 9}),
    ("/v2/rerank", {"query": "q", "documents": DOCUMENTS, "explain": True}),
    ("/rerank", {"query": "q", "texts": ["worth 1"], "return_text": True}),
    ("/rerank", {"query": "q", "texts": ["worth 1"], "raw_scores": True}),
    ("/score", {"text_1": "q", "text_2": ["worth 1", "worth 2"]}),
    ("/v1/score", {"queries": ["q", "r"], "documents": ["worth 1", "worth 2"]}),
]
WRONG = [
    ("/v2/rerank", {"documents": DOCUMENTS}),
    ("/v2/rerank", {"query": "q", "documents": []}),
    ("/v2/rerank", {"query": "q", "documents": [3]}),
    ("/v2/rerank", {"query": "q", "documents": DOCUMENTS, "top_n": -1}),
    ("/rerank", {"query": "q", "documents": DOCUMENTS, "strategy": "magic"}),
    ("/rerank", {"query": 3, "texts": ["a"]}),
    ("/score", {"text_1": "q"}),
    ("/score", {"text_1": "q", "text_2": []}),
]


@pytest.fixture(scope="module")
def served():
    """A pointwise model."""
    return Served(pointwise())


@pytest.fixture(scope="module")
def description(served):
    """The document."""
    return served.ask("GET", "/openapi.json").json()


def schema(description, path, *, status=None):
    """Schema of a request or response."""
    operation = description["paths"][path]["post"]
    held = operation["requestBody"] if status is None else operation["responses"][str(status)]
    return held["content"]["application/json"]["schema"] | {"components": description["components"]}


def test_the_description_is_valid(description, tmp_path):
    """OpenAPI 3.1, also with keys and a root path."""
    from openapi_spec_validator import validate

    validate(description)
    closed = Served(pointwise(), root_path="/r", api_key_file=tmp_path / "k", protect=("metrics",))
    described = closed.ask("GET", "/openapi.json").json()
    validate(described)
    assert described["servers"] == [{"url": "/r"}]
    security = {path: next(iter(methods.values()))["security"] for path, methods in described["paths"].items()}
    assert security["/rerank"] == security["/metrics"] == [{"key": []}]
    assert security["/health"] == security["/ready"] == []


@pytest.mark.parametrize(("path", "body"), ASKED)
def test_what_is_taken_and_given_is_described(served, description, path, body):
    """Request and response."""
    from jsonschema import ValidationError, validate

    validate(body, schema(description, path))
    for server in (served, Served(listwise())) if "rerank" in path and "raw_scores" not in body else (served,):
        done = server.post(path, body)
        assert done.status_code == 200
        described = server.ask("GET", "/openapi.json").json()
        validate(done.json(), schema(described, path, status=200))
        described["components"]["schemas"]["Ranking"]["required"].append("missing")
        if path.endswith("rerank") and "documents" in body:
            with pytest.raises(ValidationError):
                validate(done.json(), schema(described, path, status=200))


@pytest.mark.parametrize("reranker", [pointwise, listwise])
def test_the_list_of_models_is_as_described(description, reranker):
    """With the capabilities of requests."""
    from jsonschema import validate

    operation = description["paths"]["/v1/models"]["get"]
    body = Served(reranker()).ask("GET", "/v1/models").json()
    held = operation["responses"]["200"]["content"]["application/json"]["schema"]
    validate(body, held | {"components": description["components"]})


@pytest.mark.parametrize(("path", "body"), WRONG)
def test_what_is_refused_is_described_as_wrong(served, description, path, body):
    """By both the server and the description."""
    from jsonschema import ValidationError, validate

    with pytest.raises(ValidationError):
        validate(body, schema(description, path))
    status = served.post(path, body).status_code
    assert status in (400, 422)
    assert str(status) in description["paths"][path]["post"]["responses"]


@pytest.mark.parametrize("make", SERVED.values(), ids=SERVED)
def test_a_request_is_taken_where_the_description_allows_it(make):
    """And nowhere else: 400 requests with odd fields, judged by both.

    What depends on the texts, no schema says: raw scores of a model that has not scored all of them, and pairs of which
    one half is longer than the other.
    """
    from jsonschema import Draft202012Validator

    served, draw = Served(make()), random.Random("described")
    description = served.ask("GET", "/openapi.json").json()
    paths = [path for path, methods in description["paths"].items() if "post" in methods]
    judges = {path: Draft202012Validator(schema(description, path)) for path in paths}
    taken = set()

    async def ask_all():
        async with served.client() as client:
            for _ in range(400):
                path, body = draw.choice(paths), odd_request(draw)
                status = (await client.post(path, content=json.dumps(body))).status_code
                if not has_odd_pairs(path, body):
                    assert judges[path].is_valid(body) == (status == 200), (path, body, status)
                assert status in (200, 400, 404, 422), (path, body, status)
                taken.add(status == 200)

    asyncio.run(ask_all())
    assert taken == {True, False}


def has_odd_pairs(path, body):
    """Return whether a request to /score contains two lists of different lengths, both with several texts."""
    halves = [value for value in body.values() if isinstance(value, list) and len(value) > 1]
    return path.endswith("/score") and len({len(half) for half in halves}) > 1


def test_a_query_of_blanks_is_what_python_takes_for_one():
    """Character by character."""
    from rankllm_infer.serving.dialects.schemas import NOT_BLANK

    characters = map(chr, range(sys.maxunicode + 1))
    assert [c for c in characters if bool(re.search(NOT_BLANK, c)) == c.isspace()] == []


def test_only_a_model_that_scores_pairs_has_score_described():
    """The others reject it."""
    paths = Served(listwise()).ask("GET", "/openapi.json").json()["paths"]
    assert [path for path in paths if "score" in path] == []


def test_listed_models_are_linked_to_what_takes_them(description):
    """So that a client or test can follow the link."""
    links = description["paths"]["/v1/models"]["get"]["responses"]["200"]["links"]
    named = {operation["operationId"] for methods in description["paths"].values() for operation in methods.values()}
    assert set(links) == {"rerank", "v1_rerank", "v2_rerank", "score", "v1_score"} <= named
