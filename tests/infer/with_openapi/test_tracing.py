"""Spans of requests, as collected by OpenTelemetry's own SDK."""

from __future__ import annotations

import pytest
from serving_fakes import Served, pointwise


@pytest.fixture(scope="module")
def spans():
    """Collects exported spans."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def test_a_request_is_a_span_below_its_callers(spans):
    """With the same attributes as the log, and no text."""
    served = Served(pointwise())
    trace_id, parent_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace_id}-{parent_id}-01"}
    served.post("/v2/rerank", {"query": "secret", "documents": ["secret worth 1"]}, headers=headers)
    (span,) = spans.get_finished_spans()
    assert span.name == "POST /v2/rerank"
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (trace_id, parent_id)
    attributes = dict(span.attributes)
    assert attributes["http.response.status_code"] == 200
    assert (attributes["rankllm.documents"], attributes["rankllm.status"]) == (1, "ok")
    assert "secret" not in span.to_json()


def test_a_bug_is_an_error_without_its_message(spans):
    """The message may quote a document."""

    def answer(prompt):
        raise ValueError(prompt.text)

    spans.clear()
    Served(pointwise(answer)).post("/v2/rerank", {"query": "secret", "documents": ["a"]})
    (span,) = spans.get_finished_spans()
    assert span.status.status_code.name == "ERROR"
    assert "secret" not in span.to_json()
