"""Observability of requests: one JSON log line each, and Prometheus metrics. Neither contains document text."""

from __future__ import annotations

import json
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_LATEST

from rankllm_infer.serving.dialects.answers import Ranked

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_DOCUMENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(slots=True, kw_only=True)
class Record:
    """Log record of one request."""

    request_id: str
    method: str
    path: str
    """One of the server's paths, or `other`."""
    dialect: str = ""
    status: int = 0
    n_documents: int | None = None
    answer: Ranked | None = None
    error: str = ""
    """Type of an unexpected exception and where it was raised; never its message, which may quote a document."""


class Observer:
    """Counts and logs requests.

    stream: destination of log lines. registry: metrics of this server only.
    """

    def __init__(self, *, stream: TextIO | None = None) -> None:
        self._stream = stream
        self.registry = CollectorRegistry()
        more = {"registry": self.registry}
        self.requests = Counter("rankllm_requests_total", "Requests answered.", ("path", "dialect", "status"), **more)
        self.seconds = Histogram(
            "rankllm_request_seconds", "From headers to response.", ("path",), buckets=_SECONDS, **more
        )
        self.queued = Histogram("rankllm_queued_seconds", "Time before ranking begins.", buckets=_SECONDS, **more)
        self.computed = Histogram("rankllm_computed_seconds", "Time spent ranking.", buckets=_SECONDS, **more)
        self.documents = Histogram("rankllm_documents", "Documents per request.", buckets=_DOCUMENTS, **more)
        self.rankings = Counter("rankllm_rankings_total", "Rankings by how answers were read.", ("status",), **more)
        self.calls = Counter("rankllm_model_calls_total", "Prompts sent to the model.", **more)
        self.tokens = Counter("rankllm_tokens_total", "Tokens, as the engine counts them.", ("kind",), **more)
        self.unfinished = Gauge("rankllm_requests_unfinished", "Requests accepted and not yet answered.", **more)

    def metrics(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def finished(self, record: Record, seconds: float) -> None:
        """Count a request and write its log line."""
        dialect = record.dialect if record.method == "POST" else "none"
        self.requests.labels(record.path, dialect, str(record.status)).inc()
        self.seconds.labels(record.path).observe(seconds)
        line: dict[str, object] = {
            "event": "request",
            "request_id": record.request_id,
            "method": record.method,
            "path": record.path,
            "status": record.status,
            "seconds": round(seconds, 6),
        }
        if record.n_documents is not None:
            self.documents.observe(record.n_documents)
            line |= {"dialect": record.dialect, "documents": record.n_documents}
        if record.answer is not None:
            line |= self._count(record.answer)
        if record.error:
            line["error"] = record.error
        self.log(line, level="error" if record.status >= 500 else "info")

    def _count(self, answer: Ranked) -> dict[str, object]:
        usage = answer.usage
        self.queued.observe(answer.queued_s)
        self.computed.observe(answer.computed_s)
        self.rankings.labels(answer.status).inc()
        self.calls.inc(usage.calls)
        self.tokens.labels("prompt").inc(usage.prompt_tokens)
        self.tokens.labels("completion").inc(usage.completion_tokens)
        return {
            "ranking": answer.status,
            "calls": usage.calls,
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "queued_s": round(answer.queued_s, 6),
            "computed_s": round(answer.computed_s, 6),
        }

    def log(self, fields: dict[str, object], *, level: str = "info") -> None:
        """Write one JSON line."""
        stream = self._stream or sys.stderr
        stream.write(self.line(fields, level=level))
        stream.flush()

    def line(self, fields: dict[str, object], *, level: str = "info") -> str:
        """Format one JSON line with a timestamp."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
        return json.dumps({"time": stamp, "level": level, **fields}) + "\n"


def where_raised(error: BaseException) -> str:
    """Describe an exception by its type and the frames it passed through, without its message."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return f"{type(error).__name__} at " + " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
