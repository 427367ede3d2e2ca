"""Python API: plan and load a reranker, and rerank requests. Runs that write files are in `jobs`."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack, overload

from rankllm_core.card import Card
from rankllm_core.errors import RankLLMError, one_line
from rankllm_core.probe import Comparison, Probe
from rankllm_core.types import Request, Result
from rankllm_infer.checkpoints.model_files import ModelFiles
from rankllm_infer.effective_card import fit_card
from rankllm_infer.engines.base import Checkpoint, Engine
from rankllm_infer.engines.openai.settings import OpenAISettings
from rankllm_infer.engines.transformers.batches import TransformersSettings
from rankllm_infer.engines.vllm.settings import VllmSettings
from rankllm_infer.option_values import RerankKeywords, from_keywords, shows_options
from rankllm_infer.options import RerankOptions
from rankllm_infer.plan import RerankPlan, make_method, plan_reranking
from rankllm_infer.probing import compare, record, verification_notes
from rankllm_infer.ranking.documents import RanksDocuments, logger
from rankllm_infer.ranking.flow import Flow, RankingMethod, make_request
from rankllm_infer.scheduling.pool import AnswerLog, FlowPool, checked_request, each_request
from rankllm_infer.scheduling.scheduler import Scheduler
from rankllm_infer.scheduling.sharing import shared_engine

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

__all__ = ["Reranker", "load_reranker", "make_request", "plan_reranking", "start_reranker"]

_IN_USE = "cannot be closed while a run is in progress; finish the run, or `close()` the iterator from `stream`"
_CLOSED = "the reranker is closed; load it again"


class Reranker(RanksDocuments):
    """A loaded reranker: a ranking method and the engine that runs it. Close it or use it as a context manager."""

    def __init__(
        self,
        method: RankingMethod,
        engine: Engine,
        *,
        warnings: Sequence[str] = (),
        description: str = "",
        placement: str = "",
        tokenizer: Any = None,
    ) -> None:
        self.method = method
        self.engine = engine
        self.warnings = tuple(warnings)
        """Caveats about the results, such as options that contradict the card."""
        self.description = description
        self.placement = placement
        """Device and dtype; empty for a model on a server, where both are unknown."""
        self.tokenizer = tokenizer
        """The model's tokenizer; None for a model on a server."""
        self._is_closed = False
        self._shared = shared_engine(engine)
        self._scheduler = Scheduler(engine, method.flow, max_active=self.most_unfinished)

    def __repr__(self) -> str:
        return f"<Reranker: {self.description or self.card.kind}{', closed' if self._is_closed else ''}>"

    @property
    def card(self) -> Card:
        """The effective card, with options and model limits applied."""
        return self.method.card

    @overload
    def rerank(self, requests: Request) -> Result: ...
    @overload
    def rerank(self, requests: Iterable[Request]) -> list[Result]: ...
    def rerank(self, requests: Request | Iterable[Request]) -> Result | list[Result]:
        """Return the result for one request, or the results for several in input order.

        The result for a failed query has status `failed` and the reason in `error`. Raises the same errors as `stream`;
        results obtained before the error are lost.
        """
        return self.rerank([requests])[0] if isinstance(requests, Request) else list(self.stream(requests))

    def stream(
        self,
        requests: Iterable[Request],
        *,
        on_finished: Callable[[Result], None] = lambda result: None,
        on_answered: Callable[[str], None] = lambda qid: None,
        log: AnswerLog | None = None,
    ) -> Iterator[Result]:
        """Like `rerank`, but yield the results one by one, in input order and in constant memory.

        on_finished: called with each result as soon as it is available, possibly out of order. on_answered: called
        with the qid for every answered prompt; count progress here, against `n_prompts`. log: a `Journal`, which makes
        the run resumable; queries recorded in it as finished are not yielded again.
        Streams may overlap, in one thread or in several: each yields its own results, and all share the engine's
        batches. With a log and exclusive use of the engine, a resumed run is byte-identical in any dtype.

        Raises ServerGoneError (a RankLLMError, in `rankllm_infer.engines.openai.breaker`) if the server of engine
        `openai` stops responding. Raises RankLLMError if the reranker is closed, if `requests` is not an iterable of
        Request, and, with `log`, if the journal cannot be read or written or two requests in flight share a qid. A
        query that cannot be prompted or answered does not raise: it yields a failed result. Errors raised by
        `requests`, the callbacks or the device (such as CUDA errors) propagate.
        """
        if self._is_closed:
            raise RankLLMError(_CLOSED)
        pool = FlowPool(self.engine, max_active=self.most_unfinished, log=log)
        yield from pool.run(requests, self.method.flow, on_finished=on_finished, on_answered=on_answered)

    def submit(
        self,
        request: Request,
        *,
        timeout_s: float | None = None,
        start: Callable[[Request], Flow] | None = None,
        on_answered: Callable[[str], None] | None = None,
    ) -> Future[Result]:
        """Submit one request, concurrently with others in flight and from any thread. The future holds the result.

        start: creates the flow for this request, such as `flow` of another method for this model; default: this
        reranker's method.
        timeout_s: if the request takes longer, the future raises DeadlineError. The future can be cancelled.
        on_answered: called with the qid for every answered prompt, in one of the reranker's threads, which it must not
        block; count progress here, against `n_prompts`. Its exceptions are re-raised by the future.
        Submitted requests share the engine fairly and take precedence over requests from a `stream`. Raises
        RankLLMError if the reranker is closed; the future raises the same errors as `stream`.
        """
        request = checked_request(request)
        return self._scheduler.submit(request, timeout_s=timeout_s, start=start, on_answered=on_answered)

    @overload
    async def arerank(self, requests: Request, *, timeout_s: float | None = None) -> Result: ...
    @overload
    async def arerank(self, requests: Iterable[Request], *, timeout_s: float | None = None) -> list[Result]: ...
    async def arerank(
        self, requests: Request | Iterable[Request], *, timeout_s: float | None = None
    ) -> Result | list[Result]:
        """Like `rerank`, without blocking the event loop; see `submit`. Cancelling the task cancels the requests.

        timeout_s: time limit per request.
        """
        if isinstance(requests, Request):
            return (await self.arerank([requests], timeout_s=timeout_s))[0]
        return [result async for result in self.astream(requests, timeout_s=timeout_s)]

    async def astream(
        self, requests: Iterable[Request] | AsyncIterable[Request], *, timeout_s: float | None = None
    ) -> AsyncIterator[Result]:
        """Yield results in input order without blocking the event loop; see `submit`.

        Keeps as many requests in flight as the engine can use. Leaving the loop early cancels unfinished requests.
        """
        import asyncio

        pending: deque[asyncio.Future[Result]] = deque()
        try:
            async for request in each_request(requests):
                pending.append(asyncio.wrap_future(self.submit(request, timeout_s=timeout_s)))
                while pending and (pending[0].done() or len(pending) >= self.most_unfinished):
                    yield await pending[0]
                    pending.popleft()
            while pending:
                yield await pending[0]
                pending.popleft()
        finally:
            for future in pending:
                future.cancel()

    @property
    def most_unfinished(self) -> int:
        """Maximum number of requests in flight: enough to keep the engine busy while finished prompts are replaced."""
        return max(self.method.max_active, -(-2 * self.engine.n_slots // self.method.prompts_at_once))

    def n_prompts(self, n_candidates: int) -> int:
        """Return the number of prompts for a query with `n_candidates` candidates.

        This is a lower bound for the strategy `top-down`, and an upper bound for `heapsort` and `bubble`.
        """
        return self.method.n_prompts(n_candidates)

    def verify(self) -> Comparison | None:
        """Rescore the probe in the model's card and compare the scores; return None if the card has no probe.

        `agrees` is True if the scores match the recorded ones; `str()` shows both. Later requests are not affected.
        Raises RankLLMError if the model cannot be queried or another stream is running.
        """
        if self._is_closed:
            raise RankLLMError(_CLOSED)
        probe = self.card.probe
        return None if probe is None else compare(self.method, self.engine, probe)

    def record_probe(self) -> Probe:
        """Compute a probe for this model, to be stored in its card (`dataclasses.replace(card, probe=...)`).

        Raises RankLLMError if the model provides no scores: a model on a server, or one whose identifiers are not
        single tokens.
        """
        if self._is_closed:
            raise RankLLMError(_CLOSED)
        return record(self.method, self.engine)

    def close(self) -> None:
        """Release the engine's resources. Raises RankLLMError while a run is in progress; the run is not affected."""
        self._scheduler.settle()
        if self._shared.is_in_use:
            raise RankLLMError(_IN_USE)
        self._close()

    def _close(self) -> None:
        self._is_closed = True
        self._scheduler.close(_CLOSED)
        self.engine.close()

    def __enter__(self) -> Reranker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whatever ended the block, the reranker is closed: continuing a partly consumed stream raises a clear error.
        self._shared.stop(_CLOSED)
        self._close()


@shows_options(RerankOptions, RerankKeywords)
def load_reranker(
    model: str | Path, options: RerankOptions | None = None, **keywords: Unpack[RerankKeywords]
) -> Reranker:
    """Load a model with the prompt settings from its card.

    model: a folder, a hub name, a bundled model such as `smollm2-pointwise`, or the model's name on a server.
    keywords: fields of `RerankOptions`, such as dtype="bfloat16"; alternatively, pass a RerankOptions as `options`.
    Warnings are logged (logger `rankllm_infer`) and kept in `Reranker.warnings`.
    Raises ConfigError for an unknown or invalid option, and RankLLMError if the model cannot be found or does not match
    its card.
    """
    options = with_environment_key(from_keywords(RerankOptions, options, keywords=keywords, where="load_reranker"))
    reranker = start_reranker(plan_reranking(model, options))
    for warning in reranker.warnings:
        logger.warning("%s: %s", model, one_line(warning))
    return reranker


def with_environment_key(options: RerankOptions | None) -> RerankOptions | None:
    """Return the options with the API key from OPENAI_API_KEY if they contain none, as on the command line."""
    if isinstance(options, RerankOptions) and options.engine == "openai" and options.api_key is None:
        return replace(options, api_key=os.environ.get("OPENAI_API_KEY"))
    return options


def start_reranker(plan: RerankPlan) -> Reranker:
    """Load the model for a plan. Raises RankLLMError if the model does not match its card."""
    checkpoint = _open_checkpoint(plan)
    card, notes = fit_card(plan.card, checkpoint.positions)
    method = make_method(card, plan.ranking, checkpoint.tokenizer)
    engine = checkpoint.start(method.read, longest=method.longest, sample=method.sample)
    doubts = _verified(plan, method, engine) if plan.verify or card.probe is not None else ()
    revision = plan.files.own.revision if plan.files is not None else None
    name = plan.model if revision is None else f"{plan.model}@{revision}"
    return Reranker(
        method,
        engine,
        warnings=(*plan.warnings, *notes, *checkpoint.warnings, *method.warnings, *doubts),
        description=f"{card.kind}, {name} {checkpoint.where} ({plan.card.origin})",
        placement=checkpoint.place,
        tokenizer=checkpoint.tokenizer,
    )


def _verified(plan: RerankPlan, method: RankingMethod, engine: Engine) -> tuple[str, ...]:
    """Notes from comparing the loaded model with the probe in its card."""
    try:
        return verification_notes(method, engine, asked=plan.verify, files=plan.files)
    except BaseException:
        engine.close()
        raise


def _open_checkpoint(plan: RerankPlan) -> Checkpoint:
    """Open the plan's model with its engine, which is imported only now, as importing torch takes seconds."""
    match plan.engine, plan.files:
        case OpenAISettings() as server, None:
            from rankllm_infer.engines.openai.engine import ServedModel

            return ServedModel(server)
        case VllmSettings() as settings, ModelFiles() as files:
            from rankllm_infer.engines.vllm.loading import VllmCheckpoint

            return VllmCheckpoint(files, settings)
        case TransformersSettings() as settings, ModelFiles() as files:
            from rankllm_infer.engines.transformers.loading import open_checkpoint

            return open_checkpoint(files, settings, read=plan.read)
    raise TypeError(f"no engine for {type(plan.engine).__name__} and {type(plan.files).__name__}")
