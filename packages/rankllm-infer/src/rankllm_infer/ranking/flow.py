"""What ranks: a method turns a request into a flow of prompts, by its card and by what was asked for.

`make_request` makes a request of plain texts.
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
"""Yields prompts that may run together, is sent their answers in the same order, returns the result. No I/O inside."""
Asking = Generator[tuple[Prompt, ...], tuple[Answer, ...], T]
"""A part of a flow, with a value of its own at the end."""


class RankingMethod(Protocol):
    """A card with everything that decides a ranking beside the model.

    A new method is a file in `ranking/` and a line in `rankllm_infer.plan.METHODS`.
    """

    @property
    def card(self) -> Card:
        """The card in force."""

    @property
    def read(self) -> Read:
        """How its prompts are read."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of how this model is read."""

    @property
    def max_active(self) -> int:
        """Unfinished requests at the least: enough to fill the usual batches."""

    @property
    def prompts_at_once(self) -> int:
        """Prompts that one request usually has waiting at the same time."""

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer."""

    @property
    def sample(self) -> Prompt | None:
        """With `permutation`, a prompt of the longest window, for the engine to check; see `Checkpoint.start`."""

    def n_prompts(self, n_candidates: int) -> int:
        """Prompts that a query of so many candidates takes; 0 where it cannot be asked."""

    def flow(self, request: Request) -> Flow:
        """Rank one request. Raises RankLLMError where it cannot be prompted."""


def make_request(
    query: str, passages: Iterable[str | Mapping[str, object]], *, qid: str = "1", instruction: str | None = None
) -> Request:
    """A request from a query and passages in first-stage order.

    passages: texts, or mappings with the text under one of `rankllm_core.text.TEXT_FIELDS`, perhaps a `title`, and
    perhaps the docid under `pid`, `docid`, `_id` or `id`, the first of them that is there, as in a corpus file. A
    passage without one is called by its 1-based position. Ids may be integers. Scores fall from the number of passages
    to 1. instruction: what counts as relevant, for models that take an instruction.
    Raises RankLLMError naming the passage, for anything else, and for a docid that occurs twice.
    """
    if isinstance(passages, str | bytes | Mapping | Set) or not isinstance(passages, Iterable):
        hint = "; put it into a list" if isinstance(passages, str | Mapping) else ""
        hint = "; a set has no order, use a list" if isinstance(passages, Set) else hint
        raise RankLLMError(f"passages: expected a list of texts or mappings, found {type(passages).__name__}{hint}")
    if not isinstance(query, str) or not query.strip():
        found = "an empty one" if isinstance(query, str) else type(query).__name__
        raise RankLLMError(f"query: expected a text, found {found}")
    stored = [_stored(passage, number) for number, passage in enumerate(passages, start=1)]
    n = len(stored)
    return Request(
        query=Query(qid=as_id(qid, what="qid"), text=query, instruction=instruction),
        candidates=tuple(
            Candidate(docid=docid, score=float(n - rank), doc=doc) for rank, (docid, doc) in enumerate(stored)
        ),
    )


def _stored(passage: object, number: int) -> tuple[str, dict[str, object]]:
    """(docid, doc) of one passage; the doc is without its docid, other keys in their order."""
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
