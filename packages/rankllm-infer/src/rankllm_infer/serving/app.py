"""ASGI application: routes behind a gate that identifies, authorizes and logs requests and answers unexpected
errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from rankllm_core.errors import DataError
from rankllm_core.files.json_text import parse_json
from rankllm_infer.ranking.relevance import NoModelScoresError, relevance_scores
from rankllm_infer.serving.access import Access, allowed_hosts
from rankllm_infer.serving.capabilities import capabilities
from rankllm_infer.serving.desk import Desk, timed_out
from rankllm_infer.serving.dialects.answers import Clock, answer_headers, rerank_body
from rankllm_infer.serving.dialects.errors import (
    ClientGoneError,
    InvalidRequestError,
    ServingError,
    error_body,
)
from rankllm_infer.serving.dialects.openapi import SCORE_PATHS, describe
from rankllm_infer.serving.dialects.pairs import read_pairs, score_body
from rankllm_infer.serving.dialects.questions import RERANK_PATHS, TEI, check_media_type, dialect_of, read_question
from rankllm_infer.serving.gate import Gate, json_response, record_of
from rankllm_infer.serving.observing import CONTENT_TYPE_LATEST, Observer
from rankllm_infer.serving.page.content import make_content

_EXPOSED = ("x-request-id", "retry-after")


def make_app(desk: Desk, observer: Observer, *, keys: Access) -> Starlette:
    """Build the application for one reranker."""
    options = desk.options
    pages = _Pages(desk, observer)
    routes = [
        *(Route(path, pages.rerank, methods=["POST"]) for path in RERANK_PATHS),
        *(Route(path, pages.score, methods=["POST"]) for path in SCORE_PATHS),
        Route("/", pages.page),
        Route("/v1/models", pages.models),
        Route("/health", pages.health),
        Route("/ready", pages.ready),
        Route("/metrics", pages.metrics),
        Route("/openapi.json", pages.openapi),
    ]
    gate = Middleware(
        Gate,
        observer=observer,
        keys=keys,
        hosts=allowed_hosts(options.allowed_host, listens_on=options.host),
        origins=options.cors_origin,
        paths=frozenset(route.path for route in routes),
    )
    cors = Middleware(
        CORSMiddleware,
        allow_origins=options.cors_origin,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "x-request-id"],
        expose_headers=_EXPOSED,
    )
    return Starlette(
        routes=routes,
        middleware=[*([cors] if options.cors_origin else []), gate],
        exception_handlers={HTTPException: _no_such_page, ServingError: _refused},
    )


class _Pages:
    """Handlers of all paths."""

    def __init__(self, desk: Desk, observer: Observer) -> None:
        self._desk = desk
        self._observer = observer
        self._started = int(time.time())
        self._page = make_content()
        self._capabilities = capabilities(desk.reranker.method, desk.abilities, desk.options)

    async def rerank(self, request: Request) -> Response:
        desk, record = self._desk, record_of(request)
        record.dialect = dialect_of(record.path).name
        with desk.slot() as clock:
            body = await self._read_json(request, clock)
            dialect = dialect_of(record.path, body)
            record.dialect = dialect.name
            try:
                question = read_question(record.path, body, max_documents=desk.options.max_documents)
                record.n_documents = len(question.documents)
                answer = await desk.rank(question, clock, _gone(request))
                record.answer = answer
                card, name = desk.reranker.card, self._name(question.model)
                content = rerank_body(question, answer, card, model=name, request_id=record.request_id)
                kind = None
                if dialect is TEI:
                    kind, _ = relevance_scores(answer.results[0], card, raw=question.raw_scores)
            except (InvalidRequestError, NoModelScoresError) as error:
                raise ServingError(dialect.invalid_status, str(error)) from None
            return json_response(content, headers=answer_headers(answer, kind))

    async def score(self, request: Request) -> Response:
        desk, record = self._desk, record_of(request)
        record.dialect = "vllm"
        with desk.slot() as clock:
            body = await self._read_json(request, clock)
            try:
                question = read_pairs(body, max_documents=desk.options.max_documents)
                record.n_documents = sum(len(documents) for _, documents in question.groups)
                answer = await desk.score(question, clock, _gone(request))
                record.answer = answer
                name = self._name(question.model)
                content = score_body(question, answer, desk.reranker.card, model=name, request_id=record.request_id)
            except InvalidRequestError as error:
                raise ServingError(400, str(error)) from None
            return json_response(content, headers=answer_headers(answer))

    async def page(self, request: Request) -> Response:
        content = self._page
        if content.is_known(request.headers.get("if-none-match")):
            return Response(status_code=304, headers=content.headers)
        return Response(content.body, headers=content.headers, media_type="text/html")

    async def models(self, request: Request) -> Response:
        return json_response(
            {
                "object": "list",
                "data": [
                    {
                        "id": name,
                        "object": "model",
                        "created": self._started,
                        "owned_by": "rankllm",
                        "ranking": self._capabilities,
                    }
                    for name in self._desk.names
                ],
            }
        )

    async def health(self, request: Request) -> Response:
        return json_response({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        if self._desk.is_draining:
            raise ServingError(503, "the server is shutting down", retry_after_s=1)
        return json_response({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        self._observer.unfinished.set(self._desk.n_unfinished)
        return Response(self._observer.metrics(), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        return json_response(describe(self._desk.options, self._desk.abilities))

    def _name(self, asked: str | None) -> str:
        """Return the model name for a response: the requested one, if any name is accepted."""
        return self._desk.names[0] if asked is None else asked

    async def _read_json(self, request: Request, clock: Clock) -> Any:
        """Read the body's JSON value. Raises ServingError: 400, 413, 415 or 504, and 499 if the client disconnects."""
        options = self._desk.options
        check_media_type(request.headers.get("content-type"))
        try:
            async with asyncio.timeout(options.request_timeout_s - (time.monotonic() - clock.taken)):
                content = await _read_body(request, options.max_body)
        except TimeoutError:
            raise timed_out(options) from None
        try:
            return parse_json(content.decode("utf-8-sig"), path="body")
        except UnicodeDecodeError:
            raise ServingError(400, "body: expected JSON in UTF-8") from None
        except DataError as error:
            raise ServingError(400, f"body: {error.problem}") from None


async def _read_body(request: Request, limit: int) -> bytes:
    too_large = ServingError(
        413, f"body: expected at most {limit} bytes (--max-body); send fewer documents per request"
    )
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and len(length) < 20 and int(length) > limit:
        raise too_large
    chunks: list[bytes] = []
    n = 0
    try:
        async for chunk in request.stream():
            n += len(chunk)
            if n > limit:
                raise too_large
            chunks.append(chunk)
    except ClientDisconnect:
        raise ClientGoneError from None
    return b"".join(chunks)


def _gone(request: Request) -> Callable[[], Awaitable[None]]:
    """Return a function that waits until the client closes the connection; the body has been read."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return gone


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServingError):
        raise error
    return refusal(record_of(request).dialect, error)


async def _no_such_page(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    text = {404: "no such path; see /openapi.json", 405: "method not allowed for this path; see /openapi.json"}
    body = error_body(
        record_of(request).dialect,
        ServingError(error.status_code, text.get(error.status_code, error.detail)),
        status=error.status_code,
    )
    return json_response(body, status=error.status_code, headers=error.headers)


def refusal(dialect: str, error: ServingError) -> Response:
    """Build the response for an error."""
    return json_response(error_body(dialect, error, status=error.status), status=error.status, headers=error.headers)
