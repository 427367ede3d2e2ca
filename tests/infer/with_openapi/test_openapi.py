"""/openapi.json is a valid description, and what the server takes and gives is what it says."""

from __future__ import annotations

import pytest
from serving_fakes import Served, listwise, pointwise

DOCUMENTS = ["worth 1", {"text": "worth 2", "id": 7}]
ASKED = [
    ("/v2/rerank", {"query": "q", "documents": DOCUMENTS, "top_n": 1, "model": "tiny"}),
    ("/v1/rerank", {"query": "q", "documents": DOCUMENTS, "return_documents": True}),
    ("/rerank", {"query": "q", "documents": DOCUMENTS, "max_tokens_per_doc": 9}),
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
    """Of a request, or of a response."""
    operation = description["paths"][path]["post"]
    held = operation["requestBody"] if status is None else operation["responses"][str(status)]
    return held["content"]["application/json"]["schema"]


def test_the_description_is_valid(description, tmp_path):
    """OpenAPI 3.1, with keys and a root path as well."""
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
    from jsonschema import validate

    validate(body, schema(description, path))
    for server in (served, Served(listwise())) if "rerank" in path and "raw_scores" not in body else (served,):
        done = server.post(path, body)
        assert done.status_code == 200
        validate(done.json(), schema(description, path, status=200))


@pytest.mark.parametrize(("path", "body"), WRONG)
def test_what_is_refused_is_described_as_wrong(served, description, path, body):
    """By both."""
    from jsonschema import ValidationError, validate

    with pytest.raises(ValidationError):
        validate(body, schema(description, path))
    status = served.post(path, body).status_code
    assert status in (400, 422)
    assert str(status) in description["paths"][path]["post"]["responses"]
