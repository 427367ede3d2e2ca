"""Request handling: a bounded queue in front of the reranker, with deadlines and detection of disconnected clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from rankllm_core.card import PointwiseCard
from rankllm_core.errors import RankLLMError
from rankllm_core.types import Request, Result
from rankllm_infer.api import Reranker
from rankllm_infer.ranking.documents import without_fusion
from rankllm_infer.ranking.flow import RankingMethod, make_request
from rankllm_infer.serving.capabilities import abilities_of
from rankllm_infer.serving.dialects.abilities import Abilities
from rankllm_infer.serving.dialects.answers import Clock, Ranked, ranked
from rankllm_infer.serving.dialects.errors import ClientGoneError, ServingError
from rankllm_infer.serving.dialects.pairs import PairQuestion
from rankllm_infer.serving.dialects.questions import TEI, Question
from rankllm_infer.serving.settings import ServerOptions
from rankllm_infer.serving.variants import (
    check_instruction,
    make_candidates,
    method_of,
    request_of,
    starter,
)

Gone = Callable[[], Awaitable[object]]
"""Waits until the client has closed the connection."""
_WARM_UP_WORDS = 100
_RETRY_AFTER_S = 1


class Desk:
    """Accepts requests for one reranker, up to the size of the queue."""

    def __init__(self, reranker: Reranker, options: ServerOptions, *, model: str) -> None:
        self.reranker = reranker
        self.options = options
        self.names = options.served_model_name or (model,)
        """Names of the model; responses contain the first."""
        self.n_unfinished = 0
        """Number of requests accepted and not yet answered."""
        self.is_draining = False

    @cached_property
    def abilities(self) -> Abilities:
        """What requests may ask for."""
        models = None if self.options.any_model_name else self.names
        return abilities_of(self.reranker.method, models=models, max_documents=self.options.max_documents)

    def warm_up(self) -> None:
        """Rank one synthetic request of maximum length. Raises RankLLMError if the model cannot be called."""
        n = getattr(self.reranker.card, "window_size", 2)
        passages = [f"{number} " + "lorem " * _WARM_UP_WORDS for number in range(n)]
        (result,) = self.reranker.rerank([make_request("lorem", passages, qid="warm-up")])
        if result.status == "failed":
            raise RankLLMError(result.error or "the model did not answer the warm-up request")

    def check_model(self, name: str | None) -> None:
        """Raise ServingError with status 404 for a name that the model is not served under."""
        if name is None or self.options.any_model_name or name in self.names:
            return
        raise ServingError(404, f"model: expected {' or '.join(map(repr, self.names))}; no other model is served here")

    @contextmanager
    def slot(self) -> Iterator[Clock]:
        """Occupy a slot in the queue, from before the body is read until the response is ready.

        Raises ServingError with status 429 if the queue is full, 503 while the server drains.
        """
        if self.is_draining:
            raise ServingError(503, "the server is shutting down; use another server", retry_after_s=_RETRY_AFTER_S)
        if self.n_unfinished >= self.options.max_queue:
            message = f"the queue is full with {self.n_unfinished} requests (--max-queue); try again later"
            raise ServingError(429, message, retry_after_s=_RETRY_AFTER_S)
        self.n_unfinished += 1
        try:
            yield Clock(taken=time.monotonic())
        finally:
            self.n_unfinished -= 1

    async def rank(self, question: Question, clock: Clock, gone: Gone) -> Ranked:
        """Rank a question's documents.

        Raises ServingError: 422 (424 in TEI's dialect) if the request cannot be prompted or answered, 499 if the client
        has disconnected, 503 if the model is gone, 504 after a timeout.
        """
        self.check_model(question.model)
        method = method_of(question, self.reranker.method)
        future = self._submit(request_of(question), method, clock, max_tokens=question.max_tokens_per_doc)
        results = await self._results([future], clock, gone)
        return _answered(results, clock, status=424 if question.dialect is TEI else 422)

    async def score(self, question: PairQuestion, clock: Clock, gone: Gone) -> Ranked:
        """Score pairs of texts independently. Raises like `rank`, and ServingError for a model that ranks lists."""
        self.check_model(question.model)
        if not isinstance(self.reranker.card, PointwiseCard):
            kind = self.reranker.card.kind
            raise ServingError(400, f"this model is {kind}: it ranks documents but does not score pairs; use /rerank")
        check_instruction(question.instruction, self.reranker.method)
        method = without_fusion(self.reranker.method)
        requests = [
            make_candidates(query, documents, instruction=question.instruction) for query, documents in question.groups
        ]
        tokens = question.max_tokens_per_doc
        futures = [self._submit(request, method, clock, max_tokens=tokens) for request in requests]
        return _answered(await self._results(futures, clock, gone), clock, status=422)

    def _submit(
        self, request: Request, method: RankingMethod, clock: Clock, *, max_tokens: int | None
    ) -> Future[Result]:
        start = starter(method, clock, max_tokens=max_tokens, tokenizer=self.reranker.tokenizer)
        try:
            return self.reranker.submit(request, start=start)
        except RankLLMError as error:
            raise ServingError(503, str(error)) from None

    async def _results(self, futures: Sequence[Future[Result]], clock: Clock, gone: Gone) -> list[Result]:
        """Wait for the futures' results; if the client disconnects or the time is over first, cancel them."""
        waited = asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
        left: asyncio.Future[Any] = asyncio.ensure_future(gone())
        remaining = self.options.request_timeout_s - (time.monotonic() - clock.taken)
        try:
            await asyncio.wait({waited, left}, timeout=max(0.0, remaining), return_when=asyncio.FIRST_COMPLETED)
            if waited.done():
                return waited.result()
            if left.done():
                raise ClientGoneError
            raise timed_out(self.options)
        except ServingError:
            raise
        except RankLLMError as error:
            # The model behind all requests is gone: a server stopped answering, or the reranker was closed.
            raise ServingError(503, str(error)) from None
        finally:
            waited.cancel()
            left.cancel()


def timed_out(options: ServerOptions) -> ServingError:
    """Return the error for a request that timed out."""
    return ServingError(504, f"the request took longer than {options.request_timeout_s:g} s (--request-timeout)")


def _answered(results: Sequence[Result], clock: Clock, *, status: int) -> Ranked:
    for result in results:
        if result.status == "failed":
            raise ServingError(status, result.error or "the model returned no answer")
    return ranked(results, clock)
