"""OpenTelemetry spans for requests, if OpenTelemetry is installed; exporting them is configured in OpenTelemetry.

Attribute names follow OpenTelemetry's conventions for HTTP servers, with own names for rankings. None contains text of
a query or document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankllm_infer.serving.observing import Record


class Tracer:
    """Spans of the tracer `rankllm`; does nothing without opentelemetry-api."""

    def __init__(self) -> None:
        self._tracer: Any = None
        try:
            from opentelemetry import propagate, trace
        except ModuleNotFoundError:
            return
        self._trace, self._propagate = trace, propagate
        self._tracer = trace.get_tracer("rankllm")

    @contextmanager
    def span(self, record: Record, headers: Mapping[str, str]) -> Iterator[None]:
        """Context of a request's span, a child of the caller's span if the `traceparent` header names one.

        record: read when the span ends, because it is filled while the request is processed.
        """
        if self._tracer is None:
            yield
            return
        parent = self._propagate.extract(headers)
        kind = self._trace.SpanKind.SERVER
        # Exception messages may quote a document.
        quiet = {"record_exception": False, "set_status_on_exception": False}
        name = f"{record.method} {record.path}"
        with self._tracer.start_as_current_span(name, context=parent, kind=kind, **quiet) as span:
            try:
                yield
            finally:
                for key, value in _attributes(record).items():
                    span.set_attribute(key, value)
                if record.status >= 500:
                    span.set_status(self._trace.StatusCode.ERROR)


def _attributes(record: Record) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {
        "http.request.method": record.method,
        "http.route": record.path,
        "http.response.status_code": record.status,
        "rankllm.request_id": record.request_id,
    }
    if record.n_documents is not None:
        found |= {"rankllm.dialect": record.dialect, "rankllm.documents": record.n_documents}
    if record.answer is not None:
        usage = record.answer.usage
        found |= {
            "rankllm.status": record.answer.status,
            "rankllm.calls": usage.calls,
            "rankllm.prompt_tokens": usage.prompt_tokens,
            "rankllm.completion_tokens": usage.completion_tokens,
            "rankllm.queued_s": record.answer.queued_s,
            "rankllm.computed_s": record.answer.computed_s,
        }
    return found
