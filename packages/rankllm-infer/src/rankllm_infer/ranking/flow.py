"""Ranking methods: turn a request into a flow of prompts, according to a card and settings.

`make_request` builds a request from plain texts.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Set
from typing import Protocol, TypeVar

from rankllm_core.card import Card
from rankllm_core.data.collections import DOCID_KEYS
from rankllm_core.errors import RankLLMError
from rankllm_core.files.json_text import as_id
from rankllm_core.text import title_and_text
from rankllm_core.types import Candidate, Query, Request, Result
from rankllm_infer.engines.base import Answer, Prompt, Read

T = TypeVar("T")
Flow = Generator[tuple[Prompt, ...], tuple[Answer, ...], Result]
"""Generator that yields prompts that may run concurrently, receives their answers in the same order, and returns the
result. Performs no I/O."""
Asking = Generator[tuple[Prompt, ...], tuple[Answer, ...], T]
"""Part of a flow that returns a value of its own."""


class RankingMethod(Protocol):
    """Ranking method: a card with all settings that affect a ranking, apart from the model.

    To add a method, add a file to `ranking/` and a line to `rankllm_infer.plan.METHODS`.
    """

    @property
    def card(self) -> Card:
        """Card in effect."""

    @property
    def read(self) -> Read:
        """How answers are read."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about how this model is read."""

    @property
    def max_active(self) -> int:
        """Minimum number of unfinished requests: enough to fill typical batches."""

    @property
    def prompts_at_once(self) -> int:
        """Typical number of prompts that one request has in flight."""

    @property
    def longest(self) -> int:
        """Number of tokens of the longest prompt with its answer."""

    @property
    def sample(self) -> Prompt | None:
        """With `permutation`, a prompt of a full window for the engine to check; see `Checkpoint.start`."""

    def n_prompts(self, n_candidates: int) -> int:
        """Return the number of prompts for a number of candidates; 0 if such a query cannot be prompted."""

    def flow(self, request: Request) -> Flow:
        """Rank one request. Raises RankLLMError if it cannot be prompted."""


def make_request(
    query: str, passages: Iterable[str | Mapping[str, object]], *, qid: str = "1", instruction: str | None = None
) -> Request:
    """Build a request from a query and passages in first-stage order.

    passages: texts, or mappings with the text under one of `rankllm_core.text.TEXT_FIELDS`, optionally a `title`, and
    optionally the docid under the first of `pid`, `docid`, `_id` and `id` that is present, as in corpus files. A
    passage without a docid gets its 1-based position. Ids may be integers. Scores decrease from the number of passages
    to 1. instruction: what counts as relevant, for models that support an instruction. Raises RankLLMError, which names
    the passage, for anything else and for duplicate docids.
    """
    check_passages(passages, name="passages")
    if not isinstance(query, str) or not query.strip():
        found = "an empty string" if isinstance(query, str) else type(query).__name__
        raise RankLLMError(f"query: expected a text, found {found}")
    stored = [_stored(passage, number) for number, passage in enumerate(passages, start=1)]
    n = len(stored)
    return Request(
        query=Query(qid=as_id(qid, what="qid"), text=query, instruction=instruction),
        candidates=tuple(
            Candidate(docid=docid, score=float(n - rank), doc=doc) for rank, (docid, doc) in enumerate(stored)
        ),
    )


def check_passages(passages: object, *, name: str) -> None:
    """Raise RankLLMError unless these are an ordered collection of passages. name: of the caller's argument."""
    if isinstance(passages, str | bytes | Mapping | Set) or not isinstance(passages, Iterable):
        hint = "; put it into a list" if isinstance(passages, str | Mapping) else ""
        hint = "; a set has no order, use a list" if isinstance(passages, Set) else hint
        raise RankLLMError(f"{name}: expected a list of texts or mappings, found {type(passages).__name__}{hint}")


def _stored(passage: object, number: int) -> tuple[str, dict[str, object]]:
    """Return (docid, doc) of one passage; the doc keeps all other keys in order."""
    if isinstance(passage, str):
        return str(number), {"text": str(passage)}
    if not isinstance(passage, Mapping):
        raise RankLLMError(f"passage {number}: expected a text or a mapping, found {type(passage).__name__}")
    try:
        title_and_text(passage)
        key = next((key for key in DOCID_KEYS if key in passage), None)
        docid = str(number) if key is None else as_id(passage[key], what=key)
    except RankLLMError as error:
        raise RankLLMError(f"passage {number}: {str(error).removeprefix('passage: ')}") from None
    return docid, {name: value for name, value in passage.items() if name != key}
