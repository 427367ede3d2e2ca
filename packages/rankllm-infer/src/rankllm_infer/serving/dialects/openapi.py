"""OpenAPI description of the server, generated from the tables that parse requests and the model's capabilities."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rankllm_infer import __version__
from rankllm_infer.serving.access import is_open
from rankllm_infer.serving.dialects.abilities import Abilities
from rankllm_infer.serving.dialects.questions import RERANK_PATHS
from rankllm_infer.serving.dialects.schemas import (
    Schema,
    error_schema,
    request_schemas,
    rerank_request,
    response_schemas,
)
from rankllm_infer.serving.settings import ServerOptions

SCORE_PATHS = ("/score", "/v1/score")
_WHOLE = {"type": "string", "pattern": "^[0-9]+$"}
_HEADERS: Mapping[str, tuple[str, Schema]] = {
    "x-request-id": (
        "Id of the request, as sent or generated.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    ),
    "x-queue-time": ("Milliseconds before ranking started.", _WHOLE),
    "x-inference-time": ("Milliseconds spent ranking.", _WHOLE),
    "x-total-time": ("Milliseconds in total.", _WHOLE),
    "x-compute-tokens": ("Tokens, as the engine counts them.", _WHOLE),
    "x-rankllm-status": ("As in `meta.status`.", {"enum": ["ok", "repaired", "fallback"]}),
    "retry-after": ("Seconds after which to try again.", _WHOLE),
    "www-authenticate": ("How to send an API key.", {"const": "Bearer"}),
}
_OF_RANKINGS = ("x-queue-time", "x-inference-time", "x-total-time", "x-compute-tokens", "x-rankllm-status")
_ERRORS = {
    400: "Not JSON, no documents, a Host that is not allowed, or an invalid value (Cohere, vLLM).",
    401: "Missing or unknown API key.",
    403: "Request from a web page whose origin is not allowed.",
    404: "A model that is not served here.",
    413: "Too many documents or bytes.",
    415: "Content-Type is not JSON.",
    422: "An invalid value (Jina, TEI), or a request that the model cannot answer.",
    424: "A request that the model cannot answer (TEI).",
    429: "The queue is full.",
    500: "Internal error; see the request's id in the log.",
    503: "The server is shutting down, or the model is gone.",
    504: "The request took too long.",
}
_OF_ANY_PATH = (400, 403, 500)


def describe(options: ServerOptions, abilities: Abilities) -> dict[str, Any]:
    """Build the OpenAPI document. options: options of the server. abilities: abilities of the served model."""
    paths = {path: {"post": _ranking(path)} for path in RERANK_PATHS}
    if abilities.scores_pairs:
        paths |= {path: {"post": _scoring(path)} for path in SCORE_PATHS}
    paths |= {path: {"get": operation} for path, operation in _pages(abilities).items()}
    components: dict[str, Any] = {
        "schemas": request_schemas(abilities) | response_schemas(abilities),
        "headers": {name: {"description": text, "schema": schema} for name, (text, schema) in _HEADERS.items()},
    }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "rankllm", "version": __version__},
        "paths": paths,
        "components": components,
    }
    if options.root_path:
        document["servers"] = [{"url": options.root_path}]
    if options.api_key_file is not None:
        _close(document, protect=options.protect)
    return document


def _close(document: dict[str, Any], *, protect: Collection[str]) -> None:
    """Require a key for all paths that are not open."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            operation["security"] = [] if is_open(path, protect) else [{"key": []}]
            if not is_open(path, protect):
                operation["responses"]["401"] = _error(path, 401)


def _ranking(path: str) -> dict[str, Any]:
    ranking = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Ranking", "TeiRanking")]}
    score_kind = {"description": "As `meta.score_kind`, in TEI's dialect.", "schema": {"type": "string"}}
    response = _response("The documents, best first.", ranking, headers=_OF_RANKINGS)
    response["headers"]["x-rankllm-score-kind"] = score_kind
    statuses = (404, 413, 415, 422, 424, 429, 503, 504)
    return {
        "operationId": _name_of(path),
        "summary": "Rank documents",
        "requestBody": _body(rerank_request(path)),
        "responses": {"200": response, **_errors(path, statuses)},
    }


def _scoring(path: str) -> dict[str, Any]:
    scores = {"$ref": "#/components/schemas/Scores"}
    return {
        "operationId": _name_of(path),
        "summary": "Score pairs of texts: one against N, or N against N (a rule that JSON Schema cannot express)",
        "requestBody": _body({"$ref": "#/components/schemas/ScoreRequest"}),
        "responses": {
            "200": _response("The scores, in the order of the request.", scores, headers=_OF_RANKINGS),
            **_errors(path, (404, 413, 415, 422, 429, 503, 504)),
        },
    }


def _pages(abilities: Abilities) -> dict[str, dict[str, Any]]:
    """Describe the GET paths."""
    models = _page(
        "/v1/models",
        "Names of the served model, and what requests may contain",
        {"$ref": "#/components/schemas/Models"},
    )
    paths = (*RERANK_PATHS, *(SCORE_PATHS if abilities.scores_pairs else ()))
    # Listed models can be requested.
    models["responses"]["200"]["links"] = {
        _name_of(path): {"operationId": _name_of(path), "requestBody": {"model": "$response.body#/data/0/id"}}
        for path in paths
    }
    state = {"$ref": "#/components/schemas/State"}
    metrics = _page("/metrics", "Prometheus metrics", {"type": "string"}, media_type="text/plain")
    page = _page("/", "A web page to try the model", {"type": "string"}, media_type="text/html")
    return {
        "/": page,
        "/v1/models": models,
        "/health": _page("/health", "Whether the process responds", state),
        "/ready": _page("/ready", "Whether requests are accepted: 503 while the server drains", state, statuses=(503,)),
        "/metrics": metrics,
        "/openapi.json": _page("/openapi.json", "This document", {"type": "object"}),
    }


def _page(
    path: str,
    summary: str,
    schema: Schema,
    *,
    statuses: tuple[int, ...] = (),
    media_type: str = "application/json",
) -> dict[str, Any]:
    response = _response("OK", schema, media_type=media_type)
    return {
        "operationId": _name_of(path),
        "summary": summary,
        "responses": {"200": response, **_errors(path, statuses)},
    }


def _errors(path: str, statuses: Iterable[int]) -> dict[str, Any]:
    return {str(status): _error(path, status) for status in sorted({*_OF_ANY_PATH, *statuses})}


def _error(path: str, status: int) -> dict[str, Any]:
    headers = {401: ("www-authenticate",), 429: ("retry-after",)}.get(status, ())
    response = _response(_ERRORS[status], error_schema(path), headers=headers)
    if status == 503:  # It is unknown when a model that is gone comes back.
        response["headers"]["retry-after"] = {"schema": _WHOLE, "description": "While the server drains."}
    return response


def _response(
    text: str, schema: Schema, *, headers: Iterable[str] = (), media_type: str = "application/json"
) -> dict[str, Any]:
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in ("x-request-id", *headers)}
    return {"description": text, "headers": named, "content": {media_type: {"schema": schema}}}


def _body(schema: Schema) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _name_of(path: str) -> str:
    """Return the name of an operation: `v2_rerank` for /v2/rerank."""
    return path.strip("/").partition(".")[0].replace("/", "_") or "page"
