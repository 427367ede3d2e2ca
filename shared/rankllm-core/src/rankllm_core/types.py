"""rankllm's data types (queries, candidates, requests, results) and passage identifiers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from numbers import Real
from string import ascii_uppercase
from typing import Literal, get_args

from rankllm_core.errors import ConfigError, RankLLMError

Status = Literal["ok", "repaired", "fallback", "failed"]
"""How well the model's answers could be parsed, in the worst window; `failed` means that the engine returned no
answer."""
SEVERITY: Mapping[str, int] = {"ok": 0, "repaired": 1, "fallback": 2, "failed": 3}

IdentifierKind = Literal["numeric", "alpha"]
"""`numeric` counts from 1; `alpha` runs from A to Z, for at most 26 passages."""
MAX_ALPHA = len(ascii_uppercase)
"""Maximum number of passages in a window with alpha identifiers."""

_SHOWN_CHARACTERS = 60
_set = object.__setattr__
"""Sets a converted value in a frozen record during its initialization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Query with its id. Raises RankLLMError if a text or the qid is not a string, or the qid is empty."""

    qid: str
    text: str
    instruction: str | None = None
    """Relevance instruction, for models that support one; None: the one set for the run or in the model's card."""

    def __post_init__(self) -> None:
        _set(self, "qid", _plain_id(self.qid, "qid"))
        if type(self.text) is not str:
            _set(self, "text", _plain_string(self.text, f"query {self.qid!r}: text"))
        if self.instruction is not None and type(self.instruction) is not str:
            _set(self, "instruction", _plain_string(self.instruction, f"query {self.qid!r}: instruction"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Passage with the score that determines its rank.

    Raises RankLLMError if the docid is empty or not a string, a score is not a finite number, or the doc is not a
    mapping.
    """

    docid: str
    score: float
    """First-stage score before reranking; afterwards a score that strictly decreases with the rank."""
    doc: Mapping[str, object] = field(default_factory=dict)
    """Stored text fields: `title` and one of `text`, `segment`, `contents`, `content`, `body`, `passage`."""
    model_score: float | None = None
    """The model's own score, if it provides one: a logit, a log-probability or a relevance score."""
    probability: float | None = None
    """Relevance probability computed from `model_score`, if the model's card defines one."""

    def __post_init__(self) -> None:
        # Created by the million: valid values take a fast path.
        docid, score, said = self.docid, self.score, self.model_score
        if type(docid) is not str or not docid.isascii() or not docid or docid.isspace():
            _set(self, "docid", _plain_id(docid, "docid"))
        if type(score) is not float or not isfinite(score):
            _set(self, "score", _plain_number(score, f"docid {docid!r}: score"))
        if said is not None and (type(said) is not float or not isfinite(said)):
            _set(self, "model_score", _plain_number(said, f"docid {docid!r}: model_score"))
        if type(self.doc) is not dict and not isinstance(self.doc, Mapping):
            raise RankLLMError(
                f"docid {self.docid!r}: doc: expected a mapping such as {{'text': ...}}, found {_shown(self.doc)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Query with its candidates in first-stage order.

    candidates: any iterable of Candidate. Raises RankLLMError if an item is not a Candidate, or if a docid occurs
    twice.
    """

    query: Query
    candidates: tuple[Candidate, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.query, Query):
            raise RankLLMError(f"query: expected a Query, found {_shown(self.query)}")
        if type(self.candidates) is not tuple:
            if not isinstance(self.candidates, Iterable) or isinstance(self.candidates, str | bytes | Mapping):
                raise RankLLMError(
                    f"query {self.query.qid!r}: candidates: expected a sequence of Candidate, "
                    f"found {_shown(self.candidates)}"
                )
            _set(self, "candidates", tuple(self.candidates))
        are_candidates = set(map(type, self.candidates)) == {Candidate}
        if are_candidates and len({candidate.docid for candidate in self.candidates}) == len(self.candidates):
            return  # The usual case; the problem is located only if there is one.
        seen: set[str] = set()
        for number, candidate in enumerate(self.candidates, start=1):
            if not isinstance(candidate, Candidate):
                raise RankLLMError(
                    f"query {self.query.qid!r}, candidate {number}: expected a Candidate, found {_shown(candidate)}"
                )
            if candidate.docid in seen:
                raise RankLLMError(
                    f"query {self.query.qid!r}: docid {candidate.docid!r} occurs twice; list each candidate once"
                )
            seen.add(candidate.docid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Cost of a ranking. Tokens are counted by the engine."""

    calls: int = 0
    """Number of prompts sent to the model."""
    rounds: int = 0
    """Number of sequential rounds: calls in the same round do not depend on each other and may run concurrently."""
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
    """One model call: prompt, response and how the response was parsed."""

    start: int | None
    """0-based rank of the window's first passage at the time of the call; None if it was not a slice of the ranking."""
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
    """Query with its candidates in the model's order."""

    query: Query
    candidates: tuple[Candidate, ...]
    status: Status = "ok"
    defects: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    trace: tuple[WindowTrace, ...] = ()
    error: str | None = None
    """Why the engine returned no answer, if `status` is `failed`; the candidates are then in first-stage order."""
    n_ranked: int | None = None
    """Number of top candidates that the model ordered; the order of the rest is the first-stage order, or is not based
    on the model's answers. None: unknown, as in results from other programs."""

    def to_dicts(self) -> list[dict[str, object]]:
        """Return one flat row per candidate, best first, for `pandas.DataFrame` or `csv.DictWriter`.

        A row contains qid, query, docid, rank (from 1), score, model_score, probability and status, then the document's
        fields. A field with the same name as one of these columns is renamed to `doc.NAME`.
        """
        return [
            with_fields(
                {
                    "qid": self.query.qid,
                    "query": self.query.text,
                    "docid": candidate.docid,
                    "rank": rank,
                    "score": candidate.score,
                    "model_score": candidate.model_score,
                    "probability": candidate.probability,
                    "status": self.status,
                },
                candidate.doc,
            )
            for rank, candidate in enumerate(self.candidates, start=1)
        ]


def with_fields(row: Mapping[str, object], doc: Mapping[str, object]) -> dict[str, object]:
    """Return the row with a document's fields after its own columns; a name already in the row becomes `doc.NAME`."""
    return {**row, **{f"doc.{name}" if name in row else name: value for name, value in doc.items()}}


def worst(statuses: list[Status]) -> Status:
    """Return the worst of several statuses; `ok` if there are none."""
    return max(statuses, key=lambda status: SEVERITY[status], default="ok")


def _plain_id(value: object, name: str) -> str:
    if not isinstance(value, str):
        hint = f"; write {str(value)!r}" if isinstance(value, int) and not isinstance(value, bool) else ""
        raise RankLLMError(f"{name}: expected a string, found {_shown(value)}{hint}")
    if not value.strip():
        raise RankLLMError(f"{name}: expected a string that is not empty, found {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RankLLMError(f"{name}: {value!r} contains a lone surrogate, which cannot be written to a file") from None
    return str(value)


def _plain_string(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RankLLMError(f"{name}: expected a string, found {_shown(value)}")
    return str(value)


def _plain_number(value: object, name: str) -> float:
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = float("inf")
        if isfinite(number):
            return number
    raise RankLLMError(f"{name}: expected a finite number, found {_shown(value)}")


def _shown(value: object) -> str:
    """Describe a value by its type and, if short, its value."""
    kind = type(value).__name__
    if not isinstance(value, str | bytes | int | float):
        return kind
    if isinstance(value, int) and value.bit_length() > 128:  # Python refuses to print integers with thousands of digits
        return f"{kind} of {value.bit_length()} bits"
    text = repr(value)
    return f"{kind} {text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + '...'}"


@dataclass(frozen=True, slots=True)
class Names:
    """How a prompt identifies its passages."""

    kind: IdentifierKind
    word: str = ""
    """Word directly before each identifier, such as `PASSAGE`; empty for most prompts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """Format of an answer that lists identifiers: the text before the first, between two, and after the last one."""

    opening: str
    link: str
    closing: str

    def write(self, labels: Sequence[str]) -> str:
        """Return the answer that lists these identifiers."""
        return self.opening + self.link.join(labels) + self.closing


CHAIN = AnswerForm(opening="[", link="] > [", closing="]")
"""Answer format of most templates: `[2] > [1]`."""


def identifiers(kind: IdentifierKind, n: int) -> tuple[str, ...]:
    """Return the identifiers for `n` passages, in prompt order.

    Raises ConfigError for an unknown kind, or if the alphabet is too short: the originals continue after `Z` with `[`.
    """
    if kind not in get_args(IdentifierKind):
        raise ConfigError(f"identifiers: {kind!r} is unknown, expected 'numeric' or 'alpha'; use one of these")
    if n < 0:
        raise ConfigError(f"identifiers: cannot name {n} passages, expected 0 or more; check the window size")
    if kind == "numeric":
        return tuple(str(number) for number in range(1, n + 1))
    if n > MAX_ALPHA:
        raise ConfigError(
            f"identifiers: {n} passages in one window, but alpha identifiers only go up to Z; "
            f"use a window of at most {MAX_ALPHA}, or numeric identifiers"
        )
    return tuple(ascii_uppercase[:n])
