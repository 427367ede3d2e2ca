"""Flows that are under way over one view of an engine: their prompts go out, each answer goes back to its flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rankllm_core.errors import RankLLMError
from rankllm_core.types import Request, Result
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.ranking.flow import Flow
from rankllm_infer.scheduling.sharing import EngineView

_MOST_EMPTY_COLLECTS = 100_000
"""An engine may have nothing to give a few times, as when all it answered was cancelled; one that is closed, always."""


@dataclass(slots=True, eq=False)
class RunningFlow:
    """One request on its way."""

    request: Request
    flow: Flow
    first_ticket: int = 0
    n_asked: int = 0
    """Prompts that the flow has yielded."""
    answers: list[Answer | None] = field(default_factory=list)
    missing: int = 0
    is_over: bool = False
    result: Result | None = None
    """None where it is over without one: the log knew it, or it was dropped."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A prompt that waits for its answer."""

    entry: RunningFlow
    number: int
    """Among all prompts of its flow, from 0."""
    position: int
    """Among those that its flow waits for."""


class FlowSet:
    """Drives flows over a view of an engine.

    on_over: called with each flow when its result is there. ticket_of: the ticket of a flow's next prompt; engines that
    choose take lower ones first. on_bug: called with a flow that raised what is no RankLLMError, or whose prompt the
    engine refused to take; without it, the error ends the run. log: what is known already, and where answers are kept.
    """

    def __init__(
        self,
        engine: EngineView,
        *,
        on_over: Callable[[RunningFlow], None],
        ticket_of: Callable[[RunningFlow], int],
        on_answered: Callable[[RunningFlow, int], None] = lambda entry, ticket: None,
        on_bug: Callable[[RunningFlow, Exception], None] | None = None,
        log: AnswerLog | None = None,
    ) -> None:
        self._engine = engine
        self._on_over, self._on_answered, self._ticket_of = on_over, on_answered, ticket_of
        self._on_bug = on_bug
        self._log = _NoLog() if log is None else log
        self._asked: dict[int, _Asked] = {}
        self._recalled: list[tuple[int, Answer]] = []
        self._n_empty = 0
        """Collections in a row that brought nothing."""

    @property
    def is_waiting(self) -> bool:
        """Whether any flow waits for an answer."""
        return bool(self._asked)

    def advance(self, entry: RunningFlow, answers: tuple[Answer, ...] | None = None) -> None:
        """Start a flow, or send it the answers that it waits for; its next prompts go to the engine."""
        try:
            try:
                prompts = entry.flow.send(answers) if answers is not None else next(entry.flow)
            except StopIteration as stop:
                self._finish(entry, stop.value)
                return
            except RankLLMError as error:
                self._fail(entry, error)
                return
            entry.answers, entry.missing = [None] * len(prompts), len(prompts)
            for position, prompt in enumerate(prompts):
                ticket = self._ticket_of(entry)
                self._asked[ticket] = _Asked(entry, entry.n_asked, position)
                known = self._log.recall(entry.request.query.qid, entry.n_asked)
                entry.n_asked += 1
                if known is None:
                    self._engine.submit(ticket, prompt)
                else:
                    self._recalled.append((ticket, known))
        except Exception as error:
            if self._on_bug is None:
                raise
            self.drop(entry)
            self._on_bug(entry, error)

    def collect(self) -> None:
        """Take answers: those known beforehand while there are any, so that the engine's next batch is as it was."""
        for asked, ticket, answer in self._recall() if self._recalled else self._ask_engine():
            entry = asked.entry
            if entry.is_over:
                continue
            if isinstance(answer, EngineError):
                entry.flow.close()
                self._fail(entry, answer)
                continue
            entry.answers[asked.position] = answer
            entry.missing -= 1
            self._on_answered(entry, ticket)
            if entry.missing == 0:
                self.advance(entry, tuple(a for a in entry.answers if a is not None))

    def drop(self, entry: RunningFlow) -> None:
        """Forget a flow and its prompts; it is over without a result."""
        entry.is_over = True
        entry.flow.close()
        self._cancel(entry)

    def clear(self) -> None:
        """Forget all flows, but not what the engine was asked."""
        self._asked.clear()
        self._recalled.clear()

    def _recall(self) -> Iterator[tuple[_Asked, int, Answer | EngineError]]:
        recalled, self._recalled = self._recalled, []
        known = [(self._asked.pop(ticket), ticket, answer) for ticket, answer in recalled if ticket in self._asked]
        return iter(known)

    def _ask_engine(self) -> Iterator[tuple[_Asked, int, Answer | EngineError]]:
        collected = self._engine.collect()
        self._n_empty = 0 if collected else self._n_empty + 1
        if self._n_empty > _MOST_EMPTY_COLLECTS:
            raise RankLLMError(
                f"engine {self._engine.name!r} gives no answer to the {len(self._asked)} prompts that it was given; "
                "was it closed?"
            )
        given = [(ticket, answer) for ticket, answer in collected if ticket in self._asked]
        # Errors first: whatever the others lead to, the queries that failed are known.
        given.sort(key=lambda item: isinstance(item[1], Answer))
        taken = [(self._asked.pop(ticket), ticket, answer) for ticket, answer in given]
        kept = [
            (asked.entry.request.query.qid, asked.number, answer)
            for asked, _, answer in taken
            if isinstance(answer, Answer)
        ]
        if kept:
            self._log.keep(kept)
        return iter(taken)

    def _fail(self, entry: RunningFlow, error: RankLLMError) -> None:
        message = str(error)
        where = f"query {entry.request.query.qid!r}: "
        if not message.startswith(where):
            message = where + message
        self._cancel(entry)
        request = entry.request
        result = Result(query=request.query, candidates=request.candidates, status="failed", error=message, n_ranked=0)
        self._finish(entry, result)

    def _cancel(self, entry: RunningFlow) -> None:
        """Its other prompts are asked in vain."""
        in_vain = [ticket for ticket, asked in self._asked.items() if asked.entry is entry]
        self._engine.cancel(in_vain)
        for ticket in in_vain:
            del self._asked[ticket]

    def _finish(self, entry: RunningFlow, result: Result) -> None:
        entry.is_over = True
        entry.result = result
        self._on_over(entry)


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
