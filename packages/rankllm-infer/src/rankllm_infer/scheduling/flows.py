"""Running flows over one view of an engine: submits their prompts and returns each answer to its flow."""

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
"""An engine may occasionally return nothing, for example if everything it answered was cancelled; a closed one always
does."""


@dataclass(slots=True, eq=False)
class RunningFlow:
    """A request being processed."""

    request: Request
    flow: Flow
    first_ticket: int = 0
    n_asked: int = 0
    """Number of prompts that the flow has yielded."""
    answers: list[Answer | None] = field(default_factory=list)
    missing: int = 0
    is_over: bool = False
    result: Result | None = None
    """None if the flow is over without a result: it was in the log, or it was dropped."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A prompt waiting for its answer."""

    entry: RunningFlow
    number: int
    """Index among all prompts of its flow."""
    position: int
    """Index among the prompts that its flow is waiting for."""


class FlowSet:
    """Drives flows over a view of an engine.

    on_over: called with each flow once it has a result. ticket_of: returns the ticket of a flow's next prompt; engines
    that choose prefer lower tickets. on_bug: called with a flow that raised anything but a RankLLMError, or whose
    prompt the engine refused; without it, the error ends the run. log: source of known answers and storage for new
    ones.
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
        """Number of consecutive collections without answers."""

    @property
    def is_waiting(self) -> bool:
        """True if any flow is waiting for an answer."""
        return bool(self._asked)

    def advance(self, entry: RunningFlow, answers: tuple[Answer, ...] | None = None) -> None:
        """Start a flow, or send it the answers it is waiting for; its next prompts are submitted to the engine."""
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
        """Take answers: first those known beforehand, so that the engine's next batch is the same as in an
        uninterrupted run."""
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
        """Drop a flow and its prompts; it is over without a result."""
        entry.is_over = True
        entry.flow.close()
        self._cancel(entry)

    def clear(self) -> None:
        """Drop all flows, but not the prompts in the engine."""
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
                f"engine {self._engine.name!r} returns no answer to its {len(self._asked)} prompts; has it been closed?"
            )
        given = [(ticket, answer) for ticket, answer in collected if ticket in self._asked]
        # Errors first: whatever the other answers lead to, failed queries are recorded.
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
        """Cancel the flow's other prompts."""
        in_vain = [ticket for ticket, asked in self._asked.items() if asked.entry is entry]
        self._engine.cancel(in_vain)
        for ticket in in_vain:
            del self._asked[ticket]

    def _finish(self, entry: RunningFlow, result: Result) -> None:
        entry.is_over = True
        entry.result = result
        self._on_over(entry)


class AnswerLog(Protocol):
    """Known answers from an interrupted run, and storage for the answers of this run.

    An answer is identified by its query and by the index of its prompt within the query's flow: a flow that receives
    the same answers yields the same prompts.
    """

    def is_finished(self, qid: str) -> bool:
        """Return whether the query's result is known, so that it is neither computed nor returned again."""

    def recall(self, qid: str, number: int) -> Answer | None:
        """Return the answer to a query's prompt, if known."""

    def keep(self, answers: Sequence[tuple[str, int, Answer]]) -> None:
        """Store answers returned together by the engine, each with qid and prompt index."""


class _NoLog:
    """Log of a run without history, which stores nothing."""

    def is_finished(self, qid: str) -> bool:
        return False

    def recall(self, qid: str, number: int) -> Answer | None:
        return None

    def keep(self, answers: Sequence[tuple[str, int, Answer]]) -> None:
        pass
