"""Runs many flows over one engine: whatever is ready goes to the engine together, nobody waits for the slowest."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Protocol

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.types import Request, Result
from rankllm_infer.engines.base import Answer, Engine, EngineError, Prompt
from rankllm_infer.ranking.flow import Flow
from rankllm_infer.ranking.sharing import shared_engine

_POOLS = itertools.count()
_REQUESTS_OF_A_POOL = 1 << 40
_PROMPTS_OF_A_REQUEST = 1 << 24
_MOST_EMPTY_COLLECTS = 100_000
"""An engine may have nothing to give a few times, as when all it answered was cancelled; one that is closed, always."""
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
        self._is_running = False
        self._max_active = max_active
        self._n_active = 0
        """Requests that were begun and are not finished."""
        self._has_log = log is not None
        self._log = _NoLog() if log is None else log
        self._tickets: dict[int, tuple[_Running, int]] = {}
        self._recalled: list[tuple[int, Answer | EngineError]] = []
        self._on_finished: Callable[[Result], None] = lambda result: None
        self._on_answered: Callable[[str], None] = lambda qid: None
        self._n_empty = 0
        """Collections in a row that brought nothing."""

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
        if self._is_running:
            raise RankLLMError("this pool is in the middle of a run; make another one")
        self._is_running = True
        self._on_finished, self._on_answered = on_finished, on_answered
        self._engine = self._shared.view()
        try:
            yield from self._run(requests, start)
        finally:
            # A caller that leaves early must not leave prompts behind for other runs on this engine.
            self._tickets.clear()
            self._recalled.clear()
            self._engine.leave()
            self._is_running = False

    def _run(self, requests: Iterable[Request], start: Callable[[Request], Flow]) -> Iterator[Result]:
        self._n_active = 0
        # Each run has tickets of its own: an answer to a prompt of an earlier one is never taken for one of this one's.
        tickets = itertools.count(next(_POOLS) * _REQUESTS_OF_A_POOL * _PROMPTS_OF_A_REQUEST, _PROMPTS_OF_A_REQUEST)
        waiting = checked_requests(requests)
        running: deque[_Running] = deque()
        qids: set[str] = set()
        exhausted = False
        while True:
            if self._engine.stopped:
                raise RankLLMError(self._engine.stopped)
            while not exhausted and self._has_room(running):
                request = next(waiting, None)
                if request is None:
                    exhausted = True
                    break
                # A log knows answers by their query; without one, results are known by their order.
                if self._has_log and request.query.qid in qids:
                    raise RankLLMError(f"query {request.query.qid!r} is given twice; give each request its own qid")
                qids.add(request.query.qid)
                running.append(self._begin(request, start(request), next(tickets)))
            while running and running[0].is_over:
                entry = running.popleft()
                qids.discard(entry.request.query.qid)
                if entry.result is not None:
                    yield entry.result
            if not running and exhausted:
                return
            if self._tickets and (exhausted or not self._has_room(running)):
                self._collect()

    def _has_room(self, running: Sized) -> bool:
        """Whether another request may begin. It depends on which are finished, and not on when they were."""
        return self._n_active < self._max_active and len(running) < _MOST_HELD * self._max_active

    def _begin(self, request: Request, flow: Flow, first_ticket: int) -> _Running:
        entry = _Running(request, flow, first_ticket=first_ticket)
        if self._log.is_finished(request.query.qid):
            entry.is_over = True
        else:
            self._n_active += 1
            self._advance(entry, None)
        return entry

    def _advance(self, entry: _Running, answers: tuple[Answer, ...] | None) -> None:
        try:
            prompts = entry.flow.send(answers) if answers is not None else next(entry.flow)
        except StopIteration as stop:
            self._finish(entry, stop.value)
            return
        except RankLLMError as error:
            self._fail(entry, error)
            return
        entry.answers = [None] * len(prompts)
        entry.missing = len(prompts)
        for position, prompt in enumerate(prompts):
            self._ask(entry, position, prompt)

    def _ask(self, entry: _Running, position: int, prompt: Prompt) -> None:
        ticket = entry.first_ticket + entry.n_asked
        self._tickets[ticket] = (entry, position)
        known = self._log.recall(entry.request.query.qid, entry.n_asked)
        entry.n_asked += 1
        if known is None:
            self._engine.submit(ticket, prompt)
        else:
            self._recalled.append((ticket, known))

    def _collect(self) -> None:
        """Take answers: those known beforehand while there are any, so that the engine's next batch is as it was."""
        for (entry, position), answer in self._recall() if self._recalled else self._ask_engine():
            if entry.is_over:
                continue
            if isinstance(answer, EngineError):
                entry.flow.close()
                self._fail(entry, answer)
                continue
            entry.answers[position] = answer
            entry.missing -= 1
            self._on_answered(entry.request.query.qid)
            if entry.missing == 0:
                self._advance(entry, tuple(a for a in entry.answers if a is not None))

    def _recall(self) -> list[tuple[tuple[_Running, int], Answer | EngineError]]:
        recalled, self._recalled = self._recalled, []
        return [(self._tickets.pop(ticket), answer) for ticket, answer in recalled if ticket in self._tickets]

    def _ask_engine(self) -> list[tuple[tuple[_Running, int], Answer | EngineError]]:
        collected = self._engine.collect()
        self._n_empty = 0 if collected else self._n_empty + 1
        if self._n_empty > _MOST_EMPTY_COLLECTS:
            raise RankLLMError(
                f"engine {self._engine.name!r} gives no answer to the {len(self._tickets)} prompts that it was given; "
                "was it closed?"
            )
        given = [(ticket, answer) for ticket, answer in collected if ticket in self._tickets]
        # Errors first: whatever the others lead to, the queries that failed are known.
        given.sort(key=lambda item: isinstance(item[1], Answer))
        asked = [(self._tickets.pop(ticket), ticket, answer) for ticket, answer in given]
        kept = [
            (entry.request.query.qid, ticket - entry.first_ticket, answer)
            for (entry, _), ticket, answer in asked
            if isinstance(answer, Answer)
        ]
        if kept:
            self._log.keep(kept)
        return [(place, answer) for place, _, answer in asked]

    def _fail(self, entry: _Running, error: RankLLMError) -> None:
        message = str(error)
        where = f"query {entry.request.query.qid!r}: "
        if not message.startswith(where):
            message = where + message
        # Its other prompts are asked in vain.
        in_vain = [ticket for ticket, (owner, _) in self._tickets.items() if owner is entry]
        self._engine.cancel(in_vain)
        for ticket in in_vain:
            del self._tickets[ticket]
        request = entry.request
        result = Result(query=request.query, candidates=request.candidates, status="failed", error=message, n_ranked=0)
        self._finish(entry, result)

    def _finish(self, entry: _Running, result: Result) -> None:
        entry.is_over = True
        entry.result = result
        self._n_active -= 1
        self._on_finished(result)


class AnswerLog(Protocol):
    """What is known of the requests from a run that was broken off, and where this run's answers are kept.

    An answer is known by its query and by the number of its prompt among those of the query's flow, from 0: a flow that
    is sent the same answers yields the same prompts.
    """

    def is_finished(self, qid: str) -> bool:
        """Whether the query's result is known: it is not computed and not handed on again."""

    def recall(self, qid: str, number: int) -> Answer | None:
        """The answer to a query's prompt, where it is known."""

    def keep(self, answers: Sequence[tuple[str, int, Answer]]) -> None:
        """Answers that the engine gave together, each with qid and number of the prompt."""


class _NoLog:
    """A run without a past, of which nothing is kept."""

    def is_finished(self, qid: str) -> bool:
        return False

    def recall(self, qid: str, number: int) -> Answer | None:
        return None

    def keep(self, answers: Sequence[tuple[str, int, Answer]]) -> None:
        pass


@dataclass(slots=True)
class _Running:
    """One request on its way."""

    request: Request
    flow: Flow
    first_ticket: int
    n_asked: int = 0
    """Prompts that the flow has yielded."""
    answers: list[Answer | None] = field(default_factory=list)
    missing: int = 0
    is_over: bool = False
    result: Result | None = None


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
