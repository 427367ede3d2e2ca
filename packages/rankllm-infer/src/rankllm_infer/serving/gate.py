"""Gate in front of all handlers: request ids, access checks, one log line per request, and a response to every
error."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rankllm_core.files.json_text import dumps
from rankllm_infer.serving.access import Access, check_host, check_origins
from rankllm_infer.serving.dialects.errors import FramingError, ServingError, error_body
from rankllm_infer.serving.dialects.questions import dialect_of
from rankllm_infer.serving.observing import Observer, Record, where_raised
from rankllm_infer.serving.tracing import Tracer

_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def record_of(request: Request) -> Record:
    """Return the log record of a request, which the gate has attached."""
    record: Record = request.scope["rankllm.record"]
    return record


def json_response(content: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Build a JSON response. Lone surrogates in a document are returned escaped, as they were sent."""
    return Response(dumps(content), status_code=status, headers=headers, media_type="application/json")


class Gate:
    """ASGI middleware.

    hosts: allowed Host values. origins: allowed web origins. paths: reported by name; all others are reported as
    `other`, because callers choose them.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        observer: Observer,
        keys: Access,
        hosts: tuple[str, ...],
        origins: tuple[str, ...],
        paths: frozenset[str],
    ) -> None:
        self._app = app
        self._observer = observer
        self._keys = keys
        self._hosts = hosts
        self._origins = origins
        self._paths = paths
        self._tracer = Tracer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        headers = Headers(scope=scope)
        record = self._record(scope, headers)
        scope["rankllm.record"] = record

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = record.request_id
            await send(message)

        try:
            with self._tracer.span(record, headers):
                await self._pass(scope, receive, send_with_id, headers)
        finally:
            self._observer.finished(record, time.monotonic() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        record: Record = scope["rankllm.record"]
        try:
            _check_framing(headers, scope.get("http_version", "1.1"))
            check_host(headers.get("host"), self._hosts)
            check_origins(headers.getlist("origin"), headers.get("host"), self._origins)
            self._keys.check(record.path, headers.get("authorization"))
            await self._app(scope, receive, send)
        except ServingError as error:
            await _respond(record, error, scope, receive, send)
        except Exception as error:
            record.error = where_raised(error)
            if record.status:  # The response has started and cannot be replaced.
                return
            message = f"internal error; see request id {record.request_id} in the log"
            await _respond(record, ServingError(500, message), scope, receive, send)

    def _record(self, scope: Scope, headers: Headers) -> Record:
        given = headers.get("x-request-id", "")
        path: Any = scope["path"].removeprefix(scope.get("root_path", ""))
        path = path if path in self._paths else "other"
        return Record(
            request_id=given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex,
            method=scope["method"] if scope["method"] in _METHODS else "other",
            path=path,
            dialect=dialect_of(path).name,
        )


def _check_framing(headers: Headers, http_version: str) -> None:
    """Raise FramingError if another server on the path may see the end of the request elsewhere.

    A body with both kinds of length, or chunks in HTTP/1.0, can smuggle requests past a proxy. RFC 9112, section 6.1,
    requires servers that accept them to close the connection, which h11 does not.
    """
    if "transfer-encoding" in headers and ("content-length" in headers or http_version == "1.0"):
        raise FramingError


async def _respond(record: Record, error: ServingError, scope: Scope, receive: Receive, send: Send) -> None:
    body = error_body(record.dialect, error, status=error.status)
    await json_response(body, status=error.status, headers=error.headers)(scope, receive, send)
