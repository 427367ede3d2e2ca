"""The server's OpenAPI description, from the tables that requests are read with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankllm_infer import __version__
from rankllm_infer.serving.dialects.fields import FIELDS
from rankllm_infer.serving.dialects.pairs import SPELLINGS
from rankllm_infer.serving.dialects.questions import DIALECTS, RERANK_PATHS
from rankllm_infer.serving.settings import ServerOptions

_NUMBER = {"type": "number", "minimum": 0, "maximum": 1}
_INDEX = {"type": "integer", "minimum": 0, "description": "Position of the document in the request, from 0."}
_ERRORS = {
    400: "Not JSON, no documents, or a value that cannot be used (Cohere, vLLM).",
    401: "No API key, or an unknown one.",
    404: "Another model than the one that is served.",
    413: "Too many documents, or too many bytes.",
    422: "A value that cannot be used (Jina, TEI), or a request that the model cannot answer.",
    429: "The queue is full; see Retry-After.",
    503: "The server is shutting down, or the model is gone.",
    504: "The request took too long.",
}


def describe(options: ServerOptions) -> dict[str, Any]:
    """The OpenAPI document. options: their limits are part of it."""
    n = options.max_documents
    rerank = {
        path: {"post": _operation("Rank documents", _rerank_request(n), _rerank_response())} for path in RERANK_PATHS
    }
    scores = {
        path: {"post": _operation("Score pairs of texts", _score_request(n), _score_response())}
        for path in ("/score", "/v1/score")
    }
    pages = {
        "/v1/models": "Names of the served model",
        "/health": "Whether the process answers",
        "/ready": "Whether requests are taken: 503 while the server drains",
        "/metrics": "Prometheus metrics",
        "/openapi.json": "This document",
    }
    gets = {
        path: {"get": {"summary": text, "responses": {"200": {"description": "OK"}}}} for path, text in pages.items()
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "rankllm", "version": __version__},
        "paths": {**rerank, **scores, **gets},
    }
    if options.root_path:
        document["servers"] = [{"url": options.root_path}]
    if options.api_key_file is not None:
        document["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        for path, methods in document["paths"].items():
            is_open = path.strip("/") in ("health", "ready", "metrics") and path.strip("/") not in options.protect
            for operation in methods.values():
                operation["security"] = [] if is_open else [{"key": []}]
    return document


def _operation(summary: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    errors = {str(status): {"description": text} for status, text in _ERRORS.items()}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": response}}},
            **errors,
        },
    }


def _rerank_request(max_documents: int) -> dict[str, Any]:
    document = {"oneOf": [{"type": "string"}, {"type": "object"}]}
    documents = {"type": "array", "items": document, "minItems": 1, "maxItems": max_documents}
    keys = sorted({dialect.documents for dialect in DIALECTS})
    return {
        "type": "object",
        "properties": {**{name: field.schema for name, field in FIELDS.items()}, **dict.fromkeys(keys, documents)},
        "required": ["query"],
        "oneOf": [{"required": [key]} for key in keys],
    }


def _rerank_response() -> dict[str, Any]:
    result = {"index": _INDEX, "relevance_score": _NUMBER, "document": {"type": "object"}}
    tei = {"index": _INDEX, "score": {"type": "number"}, "text": {"type": "string"}}
    ranking = {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "results": {"type": "array", "items": _object(result, optional=("document",))},
        "usage": _USAGE,
        "meta": _META,
    }
    return {"oneOf": [_object(ranking), {"type": "array", "items": _object(tei, optional=("text",))}]}


def _score_request(max_documents: int) -> dict[str, Any]:
    texts = {
        "oneOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": max_documents},
        ]
    }
    own = {name: FIELDS[name].schema for name in ("model", "instruction", "max_tokens_per_doc")}
    return {
        "type": "object",
        "properties": {**own, **{key: texts for keys in SPELLINGS for key in keys}},
        "oneOf": [{"required": list(keys)} for keys in SPELLINGS],
    }


def _score_response() -> dict[str, Any]:
    score = {"index": _INDEX, "object": {"const": "score"}, "score": _NUMBER}
    return _object(
        {
            "id": {"type": "string"},
            "object": {"const": "list"},
            "created": {"type": "integer"},
            "model": {"type": "string"},
            "data": {"type": "array", "items": _object(score)},
            "usage": _USAGE,
            "meta": _META,
        }
    )


def _object(properties: Mapping[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}


_USAGE = _object({name: {"type": "integer"} for name in ("prompt_tokens", "completion_tokens", "total_tokens")})
_META = {
    "type": "object",
    "properties": {
        "status": {"enum": ["ok", "repaired", "fallback"]},
        "score_kind": {"enum": ["probability", "sigmoid", "softmax", "preference", "rank", "raw"]},
        "defects": {"type": "array", "items": {"type": "string"}},
        "warnings": {"type": "array", "items": {"type": "string"}},
        **{name: {"type": "integer"} for name in ("calls", "rounds")},
        **{name: {"type": "number"} for name in ("queued_s", "computed_s")},
    },
}
