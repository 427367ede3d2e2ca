"""Runs many flows over one engine: whatever is ready goes to the engine together, nobody waits for the slowest."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

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
"""Finished results that wait for their turn, and unfinished requests, for each request that may be unfinished: one slow
query holds up nobody else, and memory does not grow with the run."""


class FlowPool:
    """Feeds the ready prompts of all running flows to an engine and each answer back to its flow.

    max_active: requests begun and not finished. A finished one that waits for its turn does not count.
    log: what is known already, and where answers are kept. What the engine is asked at any time depends on the answers
    given so far and on nothing else, the tickets included, so a run that goes on asks what it would have asked.
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
        """The result of each request that the log does not know, in the order of the requests.

        A request whose prompt the engine cannot answer, or that cannot be prompted, gives a result of status `failed`
        with its candidates as they came; the others go on.
        on_finished: is called with each result when it is there, which may be long before its turn.
        on_answered: is called with the qid at each answer to one of the query's prompts.
        Other runs may use the engine meanwhile, in any thread. Raises RankLLMError where an item of `requests` is no
        Request or, with a log, has the qid of another one in flight. Also raises what the engine and the log raise:
        ServerGoneError, and RankLLMError where a journal cannot be read or written.
        """
        view = self._shared.view()
        run = _Run(view, self._log, max_active=self._max_active, on_finished=on_finished, on_answered=on_answered)
        try:
            yield from run.results(checked_requests(requests), start)
        finally:
            # A caller that leaves early must not leave prompts behind for other runs on this engine.
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
        """Requests that were begun and are not finished."""
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
        """See `FlowPool.run`."""
        # Each run has tickets of its own: an answer to a prompt of another one is never taken for one of this one's.
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
        """Whether another request may begin. It depends on which are finished, and not on when they were."""
        return self._n_active < self._max_active and len(self._running) < _MOST_HELD * self._max_active

    def _begin(self, entry: RunningFlow) -> None:
        qid = entry.request.query.qid
        # A log knows answers by their query; without one, results are known by their order.
        if self._log is not None and qid in self._qids:
            raise RankLLMError(f"query {qid!r} is given twice; give each request its own qid")
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
    """The requests as they come. Raises RankLLMError naming the 1-based place of what is no Request."""
    if isinstance(requests, Request | Mapping | str | bytes) or not isinstance(requests, Iterable):
        hint = "; put it into a list" if isinstance(requests, Request) else ""
        raise RankLLMError(f"requests: expected an iterable of Request, found {type(requests).__name__}{hint}")
    return _each_checked(requests)


def checked_request(request: object) -> Request:
    """The request. Raises RankLLMError on anything else."""
    if not isinstance(request, Request):
        raise RankLLMError(f"request: expected a Request, found {type(request).__name__}")
    return request


def _each_checked(requests: Iterable[Request]) -> Iterator[Request]:
    for number, request in enumerate(requests, start=1):
        if not isinstance(request, Request):
            raise RankLLMError(f"request {number}: expected a Request, found {type(request).__name__}")
        yield request
