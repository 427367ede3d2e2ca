"""Refused requests: reason and status, formatted in the caller's dialect."""

from __future__ import annotations

from collections.abc import Mapping

from rankllm_core.errors import RankLLMError

_KINDS: Mapping[int, tuple[str, str]] = {
    400: ("BadRequestError", "Validation"),
    401: ("AuthenticationError", "Unauthorized"),
    403: ("PermissionDeniedError", "Forbidden"),
    404: ("NotFoundError", "NotFound"),
    405: ("MethodNotAllowedError", "MethodNotAllowed"),
    413: ("RequestTooLargeError", "Validation"),
    415: ("UnsupportedMediaTypeError", "Validation"),
    422: ("UnprocessableEntityError", "Validation"),
    424: ("FailedDependencyError", "Backend"),
    429: ("RateLimitError", "Overloaded"),
    499: ("ClientClosedRequest", "Cancelled"),
    500: ("InternalServerError", "Backend"),
    503: ("ServiceUnavailableError", "Unhealthy"),
    504: ("GatewayTimeoutError", "Timeout"),
}
"""Status -> name of the error type in vLLM and in text-embeddings-inference."""


class ServingError(RankLLMError):
    """A request that is not answered with a ranking.

    status: status of the HTTP response. retry_after_s: seconds after which to retry; None: retrying does not help.
    """

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the status."""
        headers = {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


class InvalidRequestError(ServingError):
    """A request that can never be answered as it is; each dialect has its own status for it."""

    def __init__(self, message: str) -> None:
        super().__init__(422, message)


class FramingError(ServingError):
    """A request with an ambiguous end: what follows on the connection is not read."""

    def __init__(self) -> None:
        super().__init__(400, "expected either Content-Length or, in HTTP/1.1, Transfer-Encoding, but not both")

    @property
    def headers(self) -> dict[str, str]:
        """Headers that close the connection."""
        return super().headers | {"connection": "close"}


class ClientGoneError(ServingError):
    """The client has closed the connection, so there is no one to answer."""

    def __init__(self) -> None:
        super().__init__(499, "the client closed the connection")


def error_body(dialect: str, error: ServingError, *, status: int) -> dict[str, object]:
    """Build the JSON of an error.

    dialect: name of a dialect. Cohere's clients read `message`, Jina's `detail`, vLLM's an OpenAI error object, and
    those of text-embeddings-inference `error` with `error_type`.
    """
    message = str(error)
    openai_kind, tei_kind = _KINDS.get(status, _KINDS[500])
    if dialect == "tei":
        return {"error": message, "error_type": tei_kind}
    if dialect == "jina":
        return {"detail": message}
    if dialect.startswith("cohere"):
        return {"message": message}
    return {"error": {"message": message, "type": openai_kind, "param": None, "code": status}}
