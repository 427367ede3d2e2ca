"""A limit to the tokens of a run: it stops with what it has, and a larger limit resumes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rankllm_core.errors import RankLLMError
from rankllm_core.types import Request, Result, Usage
from rankllm_infer.engines.base import Answer
from rankllm_infer.jobs.journal import Journal
from rankllm_infer.scheduling.pool import AnswerLog


class TokenLimitError(RankLLMError):
    """A run has used as many tokens as it may."""


class TokenLimit:
    """Counts the tokens of a run, those of earlier sessions included. limit: prompt and completion tokens together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spent = 0

    def add(self, usage: Usage) -> None:
        """Count what was used before, or is just being reported."""
        self._spent += usage.prompt_tokens + usage.completion_tokens

    def check(self) -> None:
        """Raise TokenLimitError where the limit is reached."""
        if self._spent >= self._limit:
            raise TokenLimitError(
                f"stopped at --max-total-tokens {self._limit:,}: {self._spent:,} tokens are used; "
                "run the same command with a larger limit to continue"
            )


class LimitedLog:
    """A log that stops the run when the limit is reached, after it has kept the answers that reached it."""

    def __init__(self, log: AnswerLog, limit: TokenLimit) -> None:
        self._log = log
        self._limit = limit

    def is_finished(self, qid: str) -> bool:
        """Whether the query's result is known."""
        return self._log.is_finished(qid)

    def recall(self, qid: str, number: int) -> Answer | None:
        """A known answer; its tokens count. Raises TokenLimitError."""
        answer = self._log.recall(qid, number)
        if answer is not None:
            self._limit.add(answer.usage)
            self._limit.check()
        return answer

    def keep(self, answers: Sequence[tuple[str, int, Answer]]) -> None:
        """Keep answers. Raises TokenLimitError."""
        self._log.keep(answers)
        for _, _, answer in answers:
            self._limit.add(answer.usage)
        self._limit.check()


def limited_log(journal: Journal, requests: Iterable[Request], max_total_tokens: int) -> AnswerLog:
    """The journal, with a limit to the run's tokens.

    requests: of the run, read where some are finished. Raises TokenLimitError where earlier sessions reached the limit.
    """
    limit = TokenLimit(max_total_tokens)
    for request in requests if journal.n_finished else ():
        if journal.is_finished(request.query.qid):
            limit.add(journal.result(request).usage)
    limit.check()
    return LimitedLog(journal, limit)


def limited(on_finished: Callable[[Result], None], max_total_tokens: int) -> Callable[[Result], None]:
    """The same for a run without a journal, where a query counts when it is finished."""
    limit = TokenLimit(max_total_tokens)

    def finish(result: Result) -> None:
        on_finished(result)
        limit.add(result.usage)
        limit.check()

    return finish
