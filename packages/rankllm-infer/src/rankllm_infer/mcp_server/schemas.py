"""Tool definitions: names, descriptions, and JSON schemas of arguments and results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankllm_core.text import TEXT_FIELDS
from rankllm_infer.mcp_server.arguments import DEFAULT_K, DEFAULT_TOP_N, Limits

_NUMBER_OR_NULL = {"type": ["number", "null"]}
_COUNT = {"type": "integer", "minimum": 0}
OUTPUT: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "results": {
            "type": "array",
            "description": "Best first.",
            "items": {
                "type": "object",
                "properties": {
                    "index": {**_COUNT, "description": "0-based position among the documents before reranking."},
                    "id": {"type": "string", "description": "The document's id; without one, its 1-based position."},
                    "rank": {"type": "integer", "minimum": 1},
                    "score": {**_NUMBER_OR_NULL, "description": "See score_meaning; null if there is none."},
                    "probability": {
                        "type": "number",
                        "description": "Probability of relevance, if the model defines one.",
                    },
                    "document": {"type": "object", "description": "The document's fields."},
                },
                "required": ["index", "id", "rank", "score"],
            },
        },
        "status": {
            "type": "string",
            "enum": ["ok", "repaired", "fallback"],
            "description": "Worst status of the model's answers: fallback means that some documents are in "
            "their order before reranking.",
        },
        "defects": {"type": "array", "items": {"type": "string"}, "description": "Problems of the model's answers."},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "score_meaning": {"type": "string"},
        "n_documents": {**_COUNT, "description": "Documents that were reranked."},
        "usage": {
            "type": "object",
            "properties": {name: _COUNT for name in ("calls", "rounds", "prompt_tokens", "completion_tokens")},
        },
    },
    "required": ["results", "status", "defects", "warnings", "score_meaning", "n_documents", "usage"],
}
_QUERY = {"type": "string", "minLength": 1, "description": "The question or search query, in natural language."}


def rerank_input(limits: Limits) -> dict[str, Any]:
    """Return the schema of `rerank`'s arguments."""
    document = {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {
                    "id": {"type": ["string", "integer"]},
                    "title": {"type": "string"},
                    "text": {"type": "string"},
                },
            },
        ]
    }
    properties = {
        "query": _QUERY,
        "documents": {
            "type": "array",
            "items": document,
            "minItems": 1,
            "maxItems": limits.max_documents,
            "description": "Texts, or objects with a text (under " + ", ".join(TEXT_FIELDS) + ") and optionally a "
            "title and a unique id. Their order is the fallback: best first, if known.",
        },
        "top_n": {"type": "integer", "minimum": 1, "description": "Results to return. Default: all."},
        "return_documents": {"type": "boolean", "description": "Repeat the documents in the results. Default: false."},
    }
    return _object(properties, limits, required=["query", "documents"])


def search_input(limits: Limits) -> dict[str, Any]:
    """Return the schema of `retrieve_and_rerank`'s arguments."""
    k, n = min(DEFAULT_K, limits.max_documents), DEFAULT_TOP_N
    properties = {
        "query": _QUERY,
        "k": {
            "type": "integer",
            "minimum": 1,
            "maximum": limits.max_documents,
            "description": f"Documents to retrieve and rerank. Default: {k}.",
        },
        "top_n": {"type": "integer", "minimum": 1, "description": f"Documents to return. Default: {n}."},
    }
    return _object(properties, limits, required=["query"])


def rerank_text() -> str:
    """Return the description of `rerank`."""
    return (
        "Rank documents by relevance to a query with a language model trained for it. Use it on candidates from "
        "a search, before reading or quoting the best of them. Every document gets a rank exactly once."
    )


def search_text(collection: str) -> str:
    """Return the description of `retrieve_and_rerank`. collection: name of what is searched."""
    return (
        f"Search {collection} by keywords (BM25), rerank the results with a language model, and return the best "
        "documents with their texts."
    )


def _object(properties: dict[str, Any], limits: Limits, *, required: list[str]) -> dict[str, Any]:
    if limits.takes_instruction:
        properties["instruction"] = {
            "type": "string",
            "minLength": 1,
            "description": "What counts as relevant, in one sentence. Default: the model's own.",
        }
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
