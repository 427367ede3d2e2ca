"""Rerank requests in each dialect: JSON to a validated question. Pure functions.

Sources: Cohere's API reference (`/v1/rerank`, `/v2/rerank`), Jina's reranker API, vLLM (vllm-project/vllm
vllm/entrypoints/pooling/scoring/protocol.py) and text-embeddings-inference
(huggingface/text-embeddings-inference@02506d0 router/src/http/types.rs).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_core.files.json_text import found
from rankllm_core.text import title_and_text
from rankllm_infer.serving.dialects.errors import InvalidRequestError, ServingError
from rankllm_infer.serving.dialects.fields import FIELDS, read_field

Document = str | Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one API formats requests, answers and errors."""

    name: str
    documents: str = "documents"
    """Key of the documents."""
    returns: str = "return_documents"
    """Key that requests the documents' texts in the response."""
    returns_by_default: bool = False
    invalid_status: int = 400
    """Status of a well-formed request with invalid values."""
    may_ask_for_none: bool = False
    """True if `top_n: 0` means all documents, as in vLLM; otherwise it is an error."""


COHERE_V1 = Dialect(name="cohere-v1")
COHERE_V2 = Dialect(name="cohere-v2")
JINA = Dialect(name="jina", returns_by_default=True, invalid_status=422)
VLLM = Dialect(name="vllm", returns_by_default=True, may_ask_for_none=True)
TEI = Dialect(name="tei", documents="texts", returns="return_text", invalid_status=422)
DIALECTS = (COHERE_V1, COHERE_V2, JINA, VLLM, TEI)

_OF_PATH = {"/rerank": VLLM, "/v1/rerank": JINA, "/v2/rerank": COHERE_V2}
RERANK_PATHS = tuple(_OF_PATH)
_OF_COHERE_V1 = {"max_chunks_per_doc", "rank_fields"}
VLLM_FIELDS = ("chat_template_kwargs", "max_tokens_per_query", "truncate_prompt_tokens")
"""Fields that identify a request as vLLM's on any path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One validated rerank request."""

    dialect: Dialect
    query: str
    documents: tuple[Document, ...]
    """Documents as sent."""
    returns_documents: bool
    model: str | None = None
    top_n: int | None = None
    """None: all."""
    raw_scores: bool = False
    explains: bool = False
    """True if the response shows each model call."""
    instruction: str | None = None
    max_tokens_per_doc: int | None = None
    strategy: str | None = None
    window_size: int | None = None
    stride: int | None = None
    warnings: tuple[str, ...] = ()
    """Messages about fields without effect."""


def dialect_of(path: str, body: object = None) -> Dialect:
    """Determine the dialect of a request from its fields or else its path. body: its JSON value, if readable."""
    keys = {key for key, value in body.items() if value is not None} if isinstance(body, Mapping) else set()
    if "texts" in keys and "documents" not in keys:
        return TEI
    if path in _OF_PATH and not keys.isdisjoint(VLLM_FIELDS):
        return VLLM
    if path == "/v1/rerank" and keys & _OF_COHERE_V1:
        return COHERE_V1
    return _OF_PATH.get(path, VLLM)


def check_media_type(header: str | None) -> None:
    """Raise ServingError with status 415 if the Content-Type header announces anything but JSON.

    A request without the header is read as JSON.
    """
    media_type = (header or "").partition(";")[0].strip().lower()
    if media_type and media_type != "application/json" and not re.fullmatch(r"application/\S+\+json", media_type):
        raise ServingError(415, "expected the header Content-Type: application/json")


def read_question(path: str, body: object, *, max_documents: int) -> Question:
    """Parse the question of a request's JSON.

    max_documents: requests with more are refused. Raises InvalidRequestError for invalid values, and ServingError with
    status 400 or 413 if the body is not an object, or has no documents or too many.
    """
    dialect = dialect_of(path, body)
    if not isinstance(body, Mapping):
        raise ServingError(400, f"body: expected a JSON object, found {found(body)}")
    fields = {key: value for key, value in body.items() if value is not None}
    documents = _documents(fields, dialect, max_documents=max_documents)
    wanted = {key: read_field(key, fields[key]) for key in FIELDS if key in fields}
    query = wanted.get("query")
    if not isinstance(query, str) or not query.strip():
        raise InvalidRequestError("query: expected a non-empty string")
    known = {"query", dialect.documents, dialect.returns, *FIELDS}
    question = Question(
        dialect=dialect,
        query=query,
        documents=documents,
        returns_documents=bool(wanted.get(dialect.returns, dialect.returns_by_default)),
        warnings=tuple(f"field {_shown(key)} has no effect here" for key in fields if key not in known),
    )
    return _with_values(question, wanted)


def _with_values(question: Question, wanted: Mapping[str, Any]) -> Question:
    top_n = wanted.get("top_n")
    if top_n == 0 and not question.dialect.may_ask_for_none:
        raise InvalidRequestError("top_n: expected an integer of at least 1, found the number 0")
    names = ("model", "instruction", "max_tokens_per_doc", "strategy", "window_size", "stride")
    if str(wanted.get("truncation_direction", "right")).lower() != "right":
        raise InvalidRequestError("truncation_direction: expected 'right'; documents are always truncated at the end")
    explains = bool(wanted.get("explain", False))
    if explains and question.dialect is TEI:
        raise InvalidRequestError('explain: responses to "texts" are arrays and cannot contain it; use "documents"')
    return replace(
        question,
        top_n=top_n or None,
        raw_scores=bool(wanted.get("raw_scores", False)),
        explains=explains,
        # vLLM uses 0 for no limit.
        **{name: wanted.get(name) or None for name in names},
    )


def _documents(fields: Mapping[str, object], dialect: Dialect, *, max_documents: int) -> tuple[Document, ...]:
    key = dialect.documents
    given = fields.get(key)
    if isinstance(given, str) and dialect is not TEI:
        given = [given]
    if not isinstance(given, list):
        what = "nothing" if key not in fields else found(given)
        raise InvalidRequestError(f"{key}: expected an array of documents, found {what}")
    if not given:
        raise ServingError(400, f"{key}: expected at least one document, found none")
    if len(given) > max_documents:
        raise ServingError(
            413, f"{key}: expected at most {max_documents} documents, found {len(given)}; send them in several requests"
        )
    for number, document in enumerate(given):
        _check_document(document, where=f"{key}[{number}]")
    return tuple(given)


def _check_document(document: object, *, where: str) -> None:
    if isinstance(document, str):
        return
    if not isinstance(document, Mapping):
        raise InvalidRequestError(f"{where}: expected a string or an object with its text, found {found(document)}")
    try:
        title_and_text(document)
    except RankLLMError:
        # The library's message would use other names than the caller's keys.
        raise InvalidRequestError(f'{where}: expected an object with a string under "text"') from None
    try:
        json.dumps(document, allow_nan=False)
    except ValueError:  # Could not be returned as JSON.
        raise InvalidRequestError(f"{where}: contains a number that is infinite or NaN") from None


def _shown(key: str) -> str:
    return repr(key if len(key) <= 40 else key[:40] + "...")
