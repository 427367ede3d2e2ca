"""Probe of a checkpoint: the model's scores for a few short prompts, which reveal wrong weights.

Training records it in the card, from the weights in memory; inference recomputes it with the model, prompt and dtype in
use. A pointwise model gives a score for each passage. A listwise model gives the logit of each identifier after the
prompt and an opening bracket, whether it ranks by these logits (FIRST) or generates an answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankllm_core.config import check_keys, mapping, numbers, one_of, typed
from rankllm_core.errors import ConfigError
from rankllm_core.types import Candidate, Query, Request

MOST_QUERIES, MOST_PASSAGES, MOST_CHARACTERS = 8, 9, 1_000
"""Limits of a probe, which runs whenever a model is loaded. Nine numeric identifiers have one digit each."""
_DECIMALS = 5
_DEPICTED_CHARACTERS = 40

_PROBED = {
    "how do plants make their food": (
        "The market closed slightly higher on Tuesday after a quiet day of trading.",
        "Plants make sugar out of sunlight, water and carbon dioxide, which is called photosynthesis.",
        "Most people eat breakfast before they leave for work.",
        "Leaves are green because of chlorophyll, which absorbs light.",
    ),
    "at what temperature does water boil": (
        "At sea level, water boils at 100 degrees Celsius, or 212 degrees Fahrenheit.",
        "Water covers about seventy percent of the surface of the Earth.",
        "The train to the coast leaves every hour from platform four.",
        "Soup should be kept just below the boiling point.",
    ),
}
"""Query -> passages, short enough (about a dozen words) for any card to show them in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Maximum difference between two computations of a score."""

    absolute: float
    relative: float
    """As a fraction of the probe's largest score, since rounding errors grow with it."""

    def of(self, scores: Sequence[float]) -> float:
        """Return the largest difference that rounding explains for these scores."""
        return self.absolute + self.relative * max(map(abs, scores))


TOLERANCES: Mapping[str, Tolerance] = {
    "float32": Tolerance(absolute=1e-3, relative=1e-4),
    "float16": Tolerance(absolute=0.02, relative=0.002),
    "bfloat16": Tolerance(absolute=0.2, relative=0.015),
}
"""By the less precise of the two dtypes: two to four times the largest difference from float32 measured with
SmolLM2-135M (docs/measured.md). Logits of 16 to 32 are an eighth apart in bfloat16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedQuery:
    """Query with its passages and the model's scores for them."""

    query: str
    passages: tuple[str, ...]
    scores: tuple[float, ...]
    """One number per passage, in order: model scores (pointwise) or logits of their identifiers (listwise)."""

    def __post_init__(self) -> None:
        texts = (self.query, *self.passages)
        if not all(text.strip() and len(text) <= MOST_CHARACTERS for text in texts):
            raise ConfigError(f"probe: expected texts of 1 to {MOST_CHARACTERS:,} characters")
        if not 2 <= len(self.passages) <= MOST_PASSAGES:
            raise ConfigError(f"probe: expected 2 to {MOST_PASSAGES} passages per query, found {len(self.passages)}")
        if len(self.scores) != len(self.passages):
            raise ConfigError(f"probe: {len(self.scores)} scores for {len(self.passages)} passages, expected one each")
        if not all(map(math.isfinite, self.scores)):
            raise ConfigError(f"probe: expected finite scores, found {list(self.scores)}")

    @property
    def order(self) -> tuple[int, ...]:
        """0-based indices by score, best first; ties in the given order."""
        return tuple(sorted(range(len(self.scores)), key=lambda position: -self.scores[position]))

    def to_dict(self) -> dict[str, object]:
        """Return the record as YAML values."""
        return {"query": self.query, "passages": list(self.passages), "scores": list(self.scores)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A model's scores for a few prompts, with the dtype of the computation."""

    dtype: str
    queries: tuple[ProbedQuery, ...]

    def __post_init__(self) -> None:
        one_of(self.dtype, TOLERANCES, where="probe: dtype")
        if not 1 <= len(self.queries) <= MOST_QUERIES:
            raise ConfigError(f"probe: expected 1 to {MOST_QUERIES} queries, found {len(self.queries)}")

    def to_dict(self) -> dict[str, object]:
        """Return the probe as YAML values of a card."""
        return {"dtype": self.dtype, "queries": [query.to_dict() for query in self.queries]}

    def requests(self) -> tuple[Request, ...]:
        """Return the queries with their passages as requests."""
        return tuple(probe_request(query.query, query.passages, number) for number, query in enumerate(self.queries))


def probe_from_dict(value: object, *, where: str) -> Probe:
    """Build a probe from a card's values. `where` prefixes every message. Raises ConfigError."""
    values = mapping(value, where=where)
    check_keys(values, ("dtype", "queries"), where=where)
    queries = typed(values.get("queries"), list, where=f"{where}: queries")
    found = [_query_from_dict(query, where=f"{where}: queries") for query in queries]  # type: ignore[attr-defined]
    return Probe(dtype=str(typed(values.get("dtype"), str, where=f"{where}: dtype")), queries=tuple(found))


def _query_from_dict(value: object, *, where: str) -> ProbedQuery:
    values = mapping(value, where=where)
    check_keys(values, ("query", "passages", "scores"), where=where)
    passages = typed(values.get("passages"), list, where=f"{where}: passages")
    return ProbedQuery(
        query=str(typed(values.get("query"), str, where=f"{where}: query")),
        passages=tuple(
            str(typed(passage, str, where=f"{where}: passages"))
            for passage in passages  # type: ignore[attr-defined]
        ),
        scores=numbers(values.get("scores"), where=f"{where}: scores"),
    )


def probe_request(query: str, passages: Sequence[str], number: int) -> Request:
    """Return one query of a probe as a request. number: 0-based. Docids are the passages' indices, from 0."""
    n = len(passages)
    return Request(
        query=Query(qid=f"probe-{number + 1}", text=query),
        candidates=tuple(
            Candidate(docid=str(position), score=float(n - position), doc={"text": text})
            for position, text in enumerate(passages)
        ),
    )


def new_requests() -> tuple[Request, ...]:
    """Return the requests for a new probe: two queries with four passages each."""
    return tuple(probe_request(query, texts, number) for number, (query, texts) in enumerate(_PROBED.items()))


def recorded(requests: Sequence[Request], scores: Sequence[Sequence[float]], *, dtype: str) -> Probe:
    """Return the probe of requests and the model's scores for them, by query and in candidate order.

    Raises ConfigError on scores that are not finite.
    """
    return Probe(
        dtype=dtype,
        queries=tuple(
            ProbedQuery(
                query=request.query.text,
                passages=tuple(str(candidate.doc["text"]) for candidate in request.candidates),
                scores=tuple(round(float(score), _DECIMALS) for score in found),
            )
            for request, found in zip(requests, scores, strict=True)
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Recorded probe next to its recomputation."""

    recorded: Probe
    found: Probe

    @property
    def tolerance(self) -> float:
        """Largest difference that counts as rounding."""
        dtype = max(self.recorded.dtype, self.found.dtype, key=lambda name: TOLERANCES[name].relative)
        return TOLERANCES[dtype].of([score for query in self.recorded.queries for score in query.scores])

    @property
    def difference(self) -> float:
        """Largest difference between two scores of a passage."""
        return max(map(_difference, self.recorded.queries, self.found.queries))

    @property
    def agrees(self) -> bool:
        """Whether rounding explains every difference; the order then changes only where recorded scores nearly tie."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        """Return one line: how close the scores are or, if they disagree, both score lists of the most different
        query."""
        if self.agrees:
            return f"scores agree within {self.difference:.2g} (tolerance {self.tolerance:.2g})"
        pairs = zip(self.recorded.queries, self.found.queries, strict=True)
        before, now = max(pairs, key=lambda pair: _difference(*pair))
        orders = "" if before.order == now.order else f"; ranks {_ranks(before)} became {_ranks(now)}"
        return (
            f"query {_cut(before.query)!r}: recorded {_numbers(before)} ({self.recorded.dtype}), found {_numbers(now)} "
            f"({self.found.dtype}), tolerance {self.tolerance:.2g}{orders}"
        )


def _difference(one: ProbedQuery, other: ProbedQuery) -> float:
    return max(abs(a - b) for a, b in zip(one.scores, other.scores, strict=True))


def _numbers(query: ProbedQuery) -> str:
    return " ".join(f"{score:.3f}" for score in query.scores)


def _ranks(query: ProbedQuery) -> str:
    return " > ".join(str(position + 1) for position in query.order)


def _cut(text: str) -> str:
    return text if len(text) <= _DEPICTED_CHARACTERS else f"{text[:_DEPICTED_CHARACTERS]}..."
