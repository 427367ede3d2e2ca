"""Errors of an OpenAI-compatible server, described in one helpful line."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from rankllm_infer.engines.openai.secrets import without_secrets
from rankllm_infer.engines.openai.settings import OpenAISettings

RETRIED_STATUS = frozenset({408, 409, 425, 429})
"""HTTP statuses retried besides all of 5xx: timeout, conflict, too early, too many requests."""

MESSAGE_LENGTH = 300
_TOO_LONG = re.compile(r"context.{0,20}(length|size|window)|maximum model length|too (long|many tokens)", re.IGNORECASE)


class ServerProblem(Exception):
    """A single try failed.

    message: one line with what the server said, or why it did not answer. status: HTTP status, if any. is_retryable:
    True if the same request may succeed later. retry_after_s: delay requested by the server. is_silence: True if there
    was no reply at all.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        is_retryable: bool,
        retry_after_s: float | None = None,
        is_silence: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.is_retryable = is_retryable
        self.retry_after_s = retry_after_s
        self.is_silence = is_silence


def incomplete(expected: str) -> ServerProblem:
    """Return the problem of a reply with a missing part, as sent by overloaded servers."""
    return ServerProblem(f"the reply is incomplete: expected {expected}", is_retryable=True)


def refusal(status: int, headers: Mapping[str, str], reply: object, *, options: OpenAISettings) -> ServerProblem:
    """Return the problem for an HTTP status other than 2xx.

    headers: with lower-case names. reply: body as JSON, or as text if it is not JSON.
    """
    phrase = next((known.phrase for known in HTTPStatus if known == status), "")
    said = one_line(error_text(reply), options)
    message = f"{status} {phrase}".rstrip() + (f": {said}" if said else "")
    if "location" in headers:
        message += f" (redirected to {one_line(headers['location'], options)})"
    # OpenAI also returns 429 if the account has no credit left, which waiting does not fix.
    is_retryable = (status in RETRIED_STATUS or status >= 500) and "insufficient_quota" not in message
    retry_after_s = parse_retry_after(headers.get("retry-after"), now=datetime.now(UTC))
    return ServerProblem(message, status=status, is_retryable=is_retryable, retry_after_s=retry_after_s)


def error_text(reply: object, *, depth: int = 4) -> str:
    """Extract the message of a server's error reply in any of the usual formats; empty if there is none."""
    if isinstance(reply, str):
        return reply
    if depth == 0:
        return ""
    if isinstance(reply, list):
        return "; ".join(filter(None, (error_text(entry, depth=depth - 1) for entry in reply)))
    if not isinstance(reply, dict):
        return ""
    # OpenAI: error.message; older vLLM: message; FastAPI: detail, a list of msg. FastAPI's `input` repeats the
    # request and is omitted.
    for key in ("error", "message", "msg", "detail"):
        if said := error_text(reply.get(key), depth=depth - 1):
            return said + _marks(reply, said)
    return ""


def _marks(reply: Mapping[str, object], said: str) -> str:
    """Format what an error reply says besides its message: the parameter concerned and the error code."""
    place = reply.get("loc")
    steps = [str(step) for step in place if isinstance(step, str | int)] if isinstance(place, list) else []
    marks = (".".join(steps) or place, reply.get("param"), reply.get("code"))
    new = [mark for mark in marks if isinstance(mark, str) and mark not in said]
    return f" ({', '.join(new)})" if new else ""


def parse_retry_after(value: str | None, *, now: datetime) -> float | None:
    """Parse a Retry-After header into seconds: a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", value, re.ASCII):
        return float(value)
    try:
        then = parsedate_to_datetime(value)
        return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())
    except (ValueError, OverflowError):
        return None


def one_line(text: str, options: OpenAISettings) -> str:
    """Return at most MESSAGE_LENGTH printable characters of untrusted text, with the API key redacted."""
    text = str(without_secrets(text, options))
    text = " ".join("".join(c if c.isprintable() else " " for c in text[: 10 * MESSAGE_LENGTH]).split())
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 3] + "..."


def advice(problem: ServerProblem, options: OpenAISettings) -> str:
    """Return advice on a problem, to end a message with; empty if there is none."""
    if problem.status == 401:
        return (
            "; " + ("" if options.key else "no key was sent; ") + "set OPENAI_API_KEY to a key that the server accepts"
        )
    if problem.status == 403:
        return f"; check that the key may use model {options.model!r}"
    if problem.status == 413 or _TOO_LONG.search(problem.message):
        return "; the prompt is too long; use a smaller --max-passage-words or --context-size"
    if problem.status == 404:
        return f"; check the model name {options.model!r} and --base-url, which usually ends in /v1"
    return ""


def connection_reason(error: BaseException, options: OpenAISettings) -> str:
    """Explain briefly why a connection failed."""
    for cause in _causes(error):
        if isinstance(cause, ConnectionError) and cause.errno:
            return os.strerror(cause.errno).lower()
        if isinstance(cause, socket.gaierror):
            return "unknown host name"
    return one_line(str(error), options) or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all its causes."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    behind = error.__cause__ or error.__context__
    if behind is not None:
        yield from _causes(behind)
