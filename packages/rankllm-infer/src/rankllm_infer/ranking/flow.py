"""What ranks: a method turns a request into a flow of prompts, by its card and by what was asked for."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rankllm_core.card import Card
from rankllm_core.data.collections import DOCID_KEYS
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.files.json_text import as_id
from rankllm_core.prompts.template import Message
from rankllm_core.text import title_and_text
from rankllm_core.types import Candidate, Query, Request, Result
from rankllm_infer.engines.base import Answer, Prompt, Read
from rankllm_infer.ranking.strategies import check_pass_depth

Flow = Generator[tuple[Prompt, ...], tuple[Answer, ...], Result]
"""Yields prompts that may run together, is sent their answers in the same order, returns the result. No I/O inside."""

T = TypeVar("T")
Asking = Generator[tuple[Prompt, ...], tuple[Answer, ...], T]
"""A part of a flow, with a value of its own at the end."""


class RankingMethod(Protocol):
    """A card with everything that decides a ranking beside the model. A new method is a file and a line in `method`."""

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
        """Requests in flight at once: enough to fill batches, few enough that memory does not grow with the run."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingSettings:
    """Everything that decides a ranking beside the model and its card. A method ignores what is not its own."""

    strategy: str = "sliding"
    """Which windows are asked: one of `strategies.STRATEGIES`."""
    rank_top_k: int | None = None
    """How many of the best a strategy that finds a top k looks for; None: half a window."""
    permutations: int = 1
    """Ask each window so many times, all but the first time with its passages shuffled, and take the consensus."""
    num_passes: int = 1
    pass_depth: int | None = None
    """Passes after the first rank this many of the first anew; the others keep their order behind them."""
    top_k_candidates: int | None = None
    """Rerank this many of the candidates; the others keep their order behind them."""
    shuffle_seed: int | None = None
    """Shuffle the candidates of each request first, in each pass; None keeps the first-stage order."""
    permutation_seed: int = 0
    """Of the shuffling inside windows."""
    system_message: str | None = None
    few_shot: tuple[Message, ...] = ()
    short_windows: bool = True
    """Whether a window may hold fewer passages than its size."""
    free_decoding: bool = True
    """Whether an answer is what the model writes; if not, it is held to the permutations of the window where it can."""
    decode_top_k: int | None = None
    """With answers held to permutations: choose the first so many of a window; the others keep their order."""
    with_trace: bool = False

    def __post_init__(self) -> None:
        for name in ("num_passes", "permutations", "top_k_candidates"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}: expected at least 1, found {value}")
        check_pass_depth(self.pass_depth, num_passes=self.num_passes, top_k_candidates=self.top_k_candidates)
        if self.decode_top_k is not None and (self.free_decoding or self.decode_top_k < 1):
            raise ConfigError(
                f"decode_top_k: expected at least 1, and answers held to permutations, found {self.decode_top_k}"
            )
        if not self.short_windows and self.strategy != "sliding":
            raise ConfigError(f"--no-variable-passages has no effect with --strategy {self.strategy}; leave it out")


def make_request(query: str, passages: Iterable[str | Mapping[str, object]], *, qid: str = "1") -> Request:
    """A request from a query and passages in first-stage order.

    passages: texts, or mappings with the text under one of `rankllm_core.text.TEXT_FIELDS`, perhaps a `title`, and
    perhaps the docid under `pid`, `docid`, `_id` or `id`, the first of them that is there, as in a corpus file. A
    passage without one is called by its 1-based position. Ids may be integers. Scores fall from the number of passages
    to 1.
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
        query=Query(qid=as_id(qid, what="qid"), text=query),
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


def checked_requests(requests: Iterable[Request]) -> Iterator[Request]:
    """The requests as they come. Raises RankLLMError naming the 1-based place of what is no Request."""
    if isinstance(requests, Request | Mapping | str | bytes) or not isinstance(requests, Iterable):
        hint = "; put it into a list" if isinstance(requests, Request) else ""
        raise RankLLMError(f"requests: expected an iterable of Request, found {type(requests).__name__}{hint}")
    return _each_checked(requests)


def _each_checked(requests: Iterable[Request]) -> Iterator[Request]:
    for number, request in enumerate(requests, start=1):
        if not isinstance(request, Request):
            raise RankLLMError(f"request {number}: expected a Request, found {type(request).__name__}")
        yield request
