"""Runs many flows over one engine: all ready prompts go to the engine together, and no query waits for the slowest."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.types import Request, Result
from rankllm_infer.engines.base import Engine
from rankllm_infer.ranking.flow import Flow
from rankllm_infer.scheduling.flows import AnswerLog as AnswerLog
from rankllm_infer.scheduling.flows import FlowSet, RunningFlow
from rankllm_infer.scheduling.sharing import EngineView, shared_engine

_RUNS = itertools.count()
_REQUESTS_OF_A_RUN = 1 << 40
_PROMPTS_OF_A_REQUEST = 1 << 24
_MOST_HELD = 16
"""Maximum number of finished results waiting for their turn plus unfinished requests, per active request: one slow
query does not delay the others, and memory does not grow with the run."""


class FlowPool:
    """Feeds the ready prompts of all running flows to an engine and returns each answer to its flow.

    max_active: maximum number of started but unfinished requests; finished ones waiting for their turn do not count.
    log: source of known answers and storage for new ones. What is submitted to the engine at any time, including
    tickets, only depends on the answers so far, so a resumed run submits what the interrupted run would have.
    """

    def __init__(self, engine: Engine, *, max_active: int = 64, log: AnswerLog | None = None) -> None:
        if max_active < 1:
            raise ConfigError(f"max_active: expected at least 1, found {max_active}")
        self._shared = shared_engine(engine)
        self._max_active = max_active
        self._log = log

    def run(
        self,
        requests: Iterable[Request],
        start: Callable[[Request], Flow],
        *,
        on_finished: Callable[[Result], None] = lambda result: None,
        on_answered: Callable[[str], None] = lambda qid: None,
    ) -> Iterator[Result]:
        """Yield the result of each request that the log does not know, in the order of the requests.

        A request that cannot be prompted, or whose prompt the engine cannot answer, yields a result with status
        `failed` and its candidates in their original order; other requests continue. on_finished: called with each
        result as soon as it is available, possibly long before its turn. on_answered: called with the qid for each
        answer to one of the query's prompts. Other runs may use the engine concurrently, in any thread. Raises
        RankLLMError if an item of `requests` is not a Request or, with a log, has the qid of another request in flight.
        Also raises the errors of engine and log: ServerGoneError, and RankLLMError if a journal cannot be read or
        written.
        """
        view = self._shared.view()
        run = _Run(view, self._log, max_active=self._max_active, on_finished=on_finished, on_answered=on_answered)
        try:
            yield from run.results(checked_requests(requests), start)
        finally:
            # A caller that stops early must not leave prompts behind for other runs on this engine.
            run.flows.clear()
            view.leave()


class _Run:
    """One run of a pool."""

    def __init__(
        self,
        engine: EngineView,
        log: AnswerLog | None,
        *,
        max_active: int,
        on_finished: Callable[[Result], None],
        on_answered: Callable[[str], None],
    ) -> None:
        self._engine, self._log, self._max_active, self._on_finished = engine, log, max_active, on_finished
        self._n_active = 0
        """Number of started but unfinished requests."""
        self._running: deque[RunningFlow] = deque()
        self._qids: set[str] = set()
        self.flows = FlowSet(
            engine,
            on_over=self._finish,
            ticket_of=lambda entry: entry.first_ticket + entry.n_asked,
            on_answered=lambda entry, ticket: on_answered(entry.request.query.qid),
            log=log,
        )

    def results(self, waiting: Iterator[Request], start: Callable[[Request], Flow]) -> Iterator[Result]:
        """Yield results; see `FlowPool.run`."""
        # Each run has its own tickets, so that answers are never mistaken for those of another run.
        tickets = itertools.count(next(_RUNS) * _REQUESTS_OF_A_RUN * _PROMPTS_OF_A_REQUEST, _PROMPTS_OF_A_REQUEST)
        running, exhausted = self._running, False
        while True:
            if self._engine.stopped:
                raise RankLLMError(self._engine.stopped)
            while not exhausted and self._has_room():
                request = next(waiting, None)
                if request is None:
                    exhausted = True
                    break
                self._begin(RunningFlow(request, start(request), first_ticket=next(tickets)))
            while running and running[0].is_over:
                entry = running.popleft()
                self._qids.discard(entry.request.query.qid)
                if entry.result is not None:
                    yield entry.result
            if not running and exhausted:
                return
            if self.flows.is_waiting and (exhausted or not self._has_room()):
                self.flows.collect()

    def _has_room(self) -> bool:
        """Return whether another request may start. Depends on which requests are finished, not on when they
        finished."""
        return self._n_active < self._max_active and len(self._running) < _MOST_HELD * self._max_active

    def _begin(self, entry: RunningFlow) -> None:
        qid = entry.request.query.qid
        # A log identifies answers by their query; without one, results are identified by their order.
        if self._log is not None and qid in self._qids:
            raise RankLLMError(f"query {qid!r} occurs twice; give each request its own qid")
        self._qids.add(qid)
        self._running.append(entry)
        if self._log is not None and self._log.is_finished(qid):
            entry.is_over = True
            return
        self._n_active += 1
        self.flows.advance(entry)

    def _finish(self, entry: RunningFlow) -> None:
        self._n_active -= 1
        if entry.result is not None:
            self._on_finished(entry.result)


def checked_requests(requests: Iterable[Request]) -> Iterator[Request]:
    """Yield the requests. Raises RankLLMError naming the 1-based position of an item that is not a Request."""
    if isinstance(requests, Request | Mapping | str | bytes) or not isinstance(requests, Iterable):
        hint = "; put it into a list" if isinstance(requests, Request) else ""
        raise RankLLMError(f"requests: expected an iterable of Request, found {type(requests).__name__}{hint}")
    return _each_checked(requests)


async def each_request(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    """Yield the requests of a plain or asynchronous iterable. Raises RankLLMError as `checked_requests` does."""
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield checked_request(request)
        return
    for request in checked_requests(requests):
        yield request


def checked_request(request: object) -> Request:
    """Return the request. Raises RankLLMError for anything else."""
    if not isinstance(request, Request):
        raise RankLLMError(f"request: expected a Request, found {type(request).__name__}")
    return request


def _each_checked(requests: Iterable[Request]) -> Iterator[Request]:
    for number, request in enumerate(requests, start=1):
        if not isinstance(request, Request):
            raise RankLLMError(f"request {number}: expected a Request, found {type(request).__name__}")
        yield request
