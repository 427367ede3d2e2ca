"""The records that flow through rankllm: queries, candidates, requests and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rankllm_core.errors import RankLLMError

Status = Literal["ok", "repaired", "fallback", "failed"]
"""How a model's answers were read, worst of all its windows; `failed` means that the engine gave no answer."""

SEVERITY: Mapping[str, int] = {"ok": 0, "repaired": 1, "fallback": 2, "failed": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked."""

    qid: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A passage with the score that its place comes from."""

    docid: str
    score: float
    """First-stage score before reranking; after it, a score that strictly falls with the rank."""
    doc: Mapping[str, object] = field(default_factory=dict)
    """Text fields as stored: `title` and one of `text`, `segment`, `contents`, `content`, `body`, `passage`."""
    model_score: float | None = None
    """What the model said, where it says a number: a logit, a log-probability, a relevance score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One query with its candidates in first-stage order."""

    query: Query
    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for candidate in self.candidates:
            if candidate.docid in seen:
                raise RankLLMError(
                    f"query {self.query.qid!r}: docid {candidate.docid!r} occurs twice; a candidate must be listed once"
                )
            seen.add(candidate.docid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a ranking cost. Tokens are counted by the engine."""

    calls: int = 0
    """Prompts sent to the model."""
    rounds: int = 0
    """How often one had to wait for the answer to another; the calls of one round may run together."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            calls=self.calls + other.calls,
            rounds=self.rounds + other.rounds,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowTrace:
    """One model call: what was asked, what came back, how it was read."""

    start: int | None
    """0-based rank of the window's first passage when it was asked; None where it was no slice of the ranking."""
    docids: tuple[str, ...]
    prompt: str
    response: str
    order: tuple[int, ...]
    status: Status
    defects: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One query with its candidates in the order the model gave."""

    query: Query
    candidates: tuple[Candidate, ...]
    status: Status = "ok"
    defects: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    trace: tuple[WindowTrace, ...] = ()
    error: str | None = None
    """Why the engine gave no answer, where `status` is `failed`; the candidates are then in first-stage order."""
    n_ranked: int | None = None
    """How many of the first candidates are in an order that the model gave; those behind them are in first-stage order,
    or in one that no answer tells. None: not known, as of results that other programs wrote."""


def worst(statuses: list[Status]) -> Status:
    """The worst of several statuses; `ok` when there is none."""
    return max(statuses, key=lambda status: SEVERITY[status], default="ok")
