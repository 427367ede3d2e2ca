"""Runs many flows over one engine: whatever is ready goes to the engine together, nobody waits for the slowest."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rankllm_core.errors import RankLLMError
from rankllm_core.types import Request, Result
from rankllm_infer.engines import Answer, Engine, EngineError, Prompt
from rankllm_infer.listwise import Flow

_TICKETS = itertools.count()
"""One count for all pools: an answer to a prompt of an earlier run is never taken for one of this run's."""


@dataclass(slots=True)
class _Running:
    """One request on its way."""

    request: Request
    flow: Flow
    prompts: tuple[Prompt, ...] = ()
    answers: list[Answer | None] = field(default_factory=list)
    missing: int = 0
    result: Result | None = None


class FlowPool:
    """Feeds the ready prompts of all running flows to an engine and each answer back to its flow.

    max_active: requests begun and not yet handed on; it bounds memory and how far the fast ones may run ahead.
    """

    def __init__(self, engine: Engine, *, max_active: int = 64) -> None:
        self._engine = engine
        self._max_active = max_active
        self._tickets: dict[int, tuple[_Running, int]] = {}
        self._on_finished: Callable[[Result], None] = lambda result: None

    def run(
        self,
        requests: Iterable[Request],
        start: Callable[[Request], Flow],
        *,
        on_finished: Callable[[Result], None] = lambda result: None,
    ) -> Iterator[Result]:
        """The result of each request, in the order of the requests.

        A request whose prompt the engine cannot answer, or that cannot be prompted, gives a result of status `failed`
        with its candidates as they came; the others go on.
        on_finished: is called with each result when it is there, which may be long before its turn.
        """
        self._on_finished = on_finished
        try:
            yield from self._run(requests, start)
        finally:
            # A caller that leaves early must not leave prompts behind for the next run on this engine.
            self._engine.cancel(self._tickets.keys())
            self._tickets.clear()

    def _run(self, requests: Iterable[Request], start: Callable[[Request], Flow]) -> Iterator[Result]:
        waiting = iter(requests)
        running: list[_Running] = []
        exhausted = False
        while True:
            while not exhausted and len(running) < self._max_active:
                request = next(waiting, None)
                if request is None:
                    exhausted = True
                    break
                entry = _Running(request, start(request))
                running.append(entry)
                self._advance(entry, None)
            while running and running[0].result is not None:
                yield running.pop(0).result  # type: ignore[misc]
            if not running and exhausted:
                return
            if self._tickets and (exhausted or len(running) >= self._max_active):
                self._collect()

    def _advance(self, entry: _Running, answers: tuple[Answer, ...] | None) -> None:
        try:
            entry.prompts = entry.flow.send(answers) if answers is not None else next(entry.flow)
        except StopIteration as stop:
            self._finish(entry, stop.value)
            return
        except RankLLMError as error:
            self._fail(entry, error)
            return
        entry.answers = [None] * len(entry.prompts)
        entry.missing = len(entry.prompts)
        for position, prompt in enumerate(entry.prompts):
            ticket = next(_TICKETS)
            self._tickets[ticket] = (entry, position)
            self._engine.submit(ticket, prompt)

    def _collect(self) -> None:
        for ticket, answer in self._engine.collect():
            entry, position = self._tickets.pop(ticket, (None, 0))
            if entry is None or entry.result is not None:
                continue
            if isinstance(answer, EngineError):
                entry.flow.close()
                self._fail(entry, answer)
                continue
            entry.answers[position] = answer
            entry.missing -= 1
            if entry.missing == 0:
                self._advance(entry, tuple(a for a in entry.answers if a is not None))

    def _fail(self, entry: _Running, error: RankLLMError) -> None:
        message = str(error)
        where = f"query {entry.request.query.qid!r}: "
        if not message.startswith(where):
            message = where + message
        request = entry.request
        self._finish(entry, Result(query=request.query, candidates=request.candidates, status="failed", error=message))

    def _finish(self, entry: _Running, result: Result) -> None:
        entry.result = result
        self._on_finished(result)
