"""The server's OpenAPI description, from the tables that requests are read with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankllm_infer import __version__
from rankllm_infer.serving.access import is_open
from rankllm_infer.serving.dialects.explanation import MAX_EXPLAINED_CALLS
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
        "/": "A web page to try the model",
        "/v1/models": "Names of the served model, and what requests to it may hold",
        "/health": "Whether the process answers",
        "/ready": "Whether requests are taken: 503 while the server drains",
        "/metrics": "Prometheus metrics",
        "/openapi.json": "This document",
    }
    gets = {
        path: {"get": {"summary": text, "responses": {"200": {"description": "OK"}}}} for path, text in pages.items()
    }
    gets["/v1/models"]["get"]["responses"]["200"] = _answer(_MODELS)
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
            for operation in methods.values():
                operation["security"] = [] if is_open(path, options.protect) else [{"key": []}]
    return document


def _operation(summary: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    errors = {str(status): {"description": text} for status, text in _ERRORS.items()}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": _answer(response),
            **errors,
        },
    }


def _answer(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": "OK", "content": {"application/json": {"schema": schema}}}


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
        "explanation": _EXPLANATION,
    }
    return {
        "oneOf": [
            _object(ranking, optional=("explanation",)),
            {"type": "array", "items": _object(tei, optional=("text",))},
        ]
    }


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


def _array(items: Mapping[str, Any], about: str = "") -> dict[str, Any]:
    return {"type": "array", "items": items, **({"description": about} if about else {})}


_COUNT = {"type": "integer", "minimum": 0}
_CALL = _object(
    {
        "start": {
            "type": ["integer", "null"],
            "description": "Rank of the first document shown, from 0; null where the documents were no slice of the "
            "ranking.",
        },
        "indices": _array(_INDEX, "Documents shown, in the order of the prompt."),
        "order": _array(_COUNT, "Positions in `indices`, best first, as the answer was read."),
        "scores": {
            "type": ["array", "null"],
            "items": {"type": ["number", "null"]},
            "description": "What the order was read off: one score per document shown, or those of yes and no.",
        },
        "response": {"type": "string", "description": "What the model wrote; the middle of a long answer is left out."},
        "status": {"enum": ["ok", "repaired", "fallback"]},
        "defects": _array({"type": "string"}),
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
    }
)
_EXPLANATION = {
    **_object(
        {
            "calls": {**_array(_CALL, "Model calls in the order they were made."), "maxItems": MAX_EXPLAINED_CALLS},
            "n_omitted": {**_COUNT, "description": "Further calls that are not shown."},
            "n_ranked": {
                "type": ["integer", "null"],
                "description": "Documents at the head of the ranking whose order the model gave; those below keep the "
                "order of the request, or one that no answer tells.",
            },
        }
    ),
    "description": "With `explain`: what the model was asked and what it answered.",
}
_USAGE = _object({name: {"type": "integer"} for name in ("prompt_tokens", "completion_tokens", "total_tokens")})
_MODELS = _object(
    {
        "object": {"const": "list"},
        "data": _array(
            _object(
                {
                    "id": {"type": "string"},
                    "object": {"const": "model"},
                    "created": {"type": "integer"},
                    "owned_by": {"type": "string"},
                    "ranking": _object(
                        {
                            "method": {"enum": ["listwise", "pointwise", "pairwise"]},
                            "strategies": _array({"type": "string"}, "Those that a request may choose."),
                            "strategy": {"type": ["string", "null"], "description": "The server's own."},
                            "window_size": {"type": ["integer", "null"], "description": "The largest; listwise only."},
                            "stride": {"type": ["integer", "null"]},
                            "instruction": {"type": "boolean", "description": "Whether the model takes one."},
                            "raw_scores": {"type": "boolean", "description": "Whether the model scores documents."},
                            "max_documents": _COUNT,
                            "max_body": {**_COUNT, "description": "Bytes."},
                        }
                    ),
                }
            )
        ),
    }
)
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
