"""Per-request variants of the shared model's ranking: another strategy, smaller windows, truncated documents."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rankllm_core.card import ListwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.text import first_words, title_and_text
from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.ranking.flow import Flow, RankingMethod
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings, check_full_windows
from rankllm_infer.ranking.strategies import TOP_K_STRATEGIES
from rankllm_infer.serving.dialects.answers import Clock
from rankllm_infer.serving.dialects.errors import InvalidRequestError
from rankllm_infer.serving.dialects.explanation import MAX_EXPLAINED_CALLS
from rankllm_infer.serving.dialects.questions import Document, Question

_QID = "request"
"""The same for all requests: seeds depend on it, and equal requests must get equal answers."""


def request_of(question: Question) -> Request:
    """Convert a question's documents to candidates, identified by their positions."""
    return make_candidates(question.query, question.documents, instruction=question.instruction)


def make_candidates(query: str, documents: tuple[Document, ...], *, instruction: str | None = None) -> Request:
    """Build a request whose docids are the documents' 0-based positions, regardless of ids in the documents."""
    n = len(documents)
    candidates = (
        Candidate(
            docid=str(position),
            score=float(n - position),
            doc={"text": document} if isinstance(document, str) else document,
        )
        for position, document in enumerate(documents)
    )
    return Request(query=Query(qid=_QID, text=query, instruction=instruction), candidates=tuple(candidates))


def method_of(question: Question, method: RankingMethod) -> RankingMethod:
    """Return the method for a question: the server's, or a variant with the question's strategy and windows.

    Raises InvalidRequestError if the model does not support it or it exceeds the server's windows.
    """
    method = traced(method) if question.explains else method
    check_instruction(question.instruction, method)
    asked = {name: getattr(question, name) for name in ("strategy", "window_size", "stride")}
    named = [name for name, value in asked.items() if value is not None]
    try:
        if isinstance(method, ListwiseMethod):
            return _fitting(_listwise(question, method) if named else method, len(question.documents))
        if not named:
            return method
        if isinstance(method, PairwiseMethod) and named == ["strategy"]:
            settings = replace(method.settings, strategy=question.strategy, rank_top_k=None)
            return PairwiseMethod(method.card, settings, method.writer)
    except ConfigError as error:
        raise InvalidRequestError(str(error).replace("--", "")) from None
    raise InvalidRequestError(f"{named[0]}: has no effect on a {method.card.kind} model; leave it out")


def traced(method: RankingMethod) -> RankingMethod:
    """Return the method with recording of what an explanation shows.

    Raises InvalidRequestError for a kind of method from outside this package.
    """
    if isinstance(method, ListwiseMethod):
        return ListwiseMethod(method.card, _traced(method.settings), method.writer, sample=method.sample)
    if isinstance(method, PairwiseMethod):
        return PairwiseMethod(method.card, _traced(method.settings), method.writer)
    if isinstance(method, PointwiseMethod):
        return PointwiseMethod(method.card, _traced(method.settings), method.writer)
    raise InvalidRequestError(f"explain: has no effect on a {method.card.kind} model; leave it out")


def _traced(settings: RankingSettings) -> RankingSettings:
    return replace(settings, with_trace=True, max_traced_calls=MAX_EXPLAINED_CALLS)


def check_instruction(instruction: str | None, method: RankingMethod) -> None:
    """Raise InvalidRequestError for an instruction if the model's prompt takes none."""
    if instruction is not None and not takes_instruction(method):
        raise InvalidRequestError(
            "the instruction has no effect: the model's prompt takes no instruction; leave it out"
        )


def takes_instruction(method: RankingMethod) -> bool:
    """Return whether a request may specify what counts as relevant."""
    return isinstance(method.card, PointwiseCard) and method.card.template.takes_instruction


def _fitting(method: ListwiseMethod, n: int) -> ListwiseMethod:
    """Return the method if it can rank n documents. Raises InvalidRequestError and ConfigError."""
    size = method.card.window_size
    if method.settings.strategy == "full" and n > size:
        raise InvalidRequestError(
            f"documents: strategy full supports at most {size} documents (the window size), found {n}"
        )
    check_full_windows(method.card, method.settings, n)
    return method


def _listwise(question: Question, method: ListwiseMethod) -> ListwiseMethod:
    card, settings = method.card, method.settings
    size = question.window_size or card.window_size
    if size > card.window_size:
        raise InvalidRequestError(
            f"window_size: expected at most {card.window_size}, the server's window size, found {size}"
        )
    strategy = question.strategy or settings.strategy or "sliding"
    if question.stride is not None and strategy != "sliding":
        raise InvalidRequestError(f"stride: has no effect with strategy {strategy}; leave it out")
    if question.window_size is not None and strategy == "full":
        raise InvalidRequestError("window_size: has no effect with strategy full; leave it out")
    stride = question.stride or min(card.stride, max(1, size // 2))
    top_k = settings.rank_top_k if strategy in TOP_K_STRATEGIES and strategy == settings.strategy else None
    # A prior is only valid for the window size it was measured with.
    prior = card.identifier_prior if size == card.window_size else ()
    changed: ListwiseCard = replace(card, window_size=size, stride=stride, identifier_prior=prior)
    asked = replace(settings, strategy=strategy, rank_top_k=top_k)
    return ListwiseMethod(changed, asked, method.writer, sample=method.sample)


def starter(
    method: RankingMethod, clock: Clock, *, max_tokens: int | None, tokenizer: Any
) -> Callable[[Request], Flow]:
    """Return a function that starts the flow of a request: it records the start and truncates documents on the
    scheduler's thread.

    tokenizer: the model's tokenizer; None if only a server has it: 3 words then count as 4 tokens.
    """

    def start(request: Request) -> Flow:
        clock.begun = time.monotonic()
        if max_tokens is not None:
            request = replace(
                request,
                candidates=tuple(_shortened(candidate, max_tokens, tokenizer) for candidate in request.candidates),
            )
        return (yield from method.flow(request))

    return start


def _shortened(candidate: Candidate, max_tokens: int, tokenizer: Any) -> Candidate:
    """Truncate title and text of a candidate to a number of tokens, the title first."""
    title, text = title_and_text(candidate.doc)
    kept_title, n_title = _first_tokens(title, max_tokens, tokenizer)
    kept_text, _ = _first_tokens(text, max_tokens - n_title, tokenizer)
    return replace(candidate, doc={"title": kept_title, "text": kept_text} if title else {"text": kept_text})


def _first_tokens(text: str, n: int, tokenizer: Any) -> tuple[str, int]:
    """Return the start of a text up to n tokens, and its number of tokens."""
    if not text or n < 1:
        return "", 0
    if tokenizer is None:
        kept = first_words(text, max(1, n * 3 // 4))
        return kept, min(n, -(-len(kept.split()) * 4 // 3))
    if getattr(tokenizer, "is_fast", False):
        ends = [
            end for _, end in tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        ]
        return (text, len(ends)) if len(ends) <= n else (text[: ends[n - 1]], n)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return (text, len(ids)) if len(ids) <= n else (tokenizer.decode(ids[:n]), n)
