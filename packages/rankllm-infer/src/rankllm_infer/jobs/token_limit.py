"""Token budget of a run: it stops when the budget is used up, and a larger budget resumes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rankllm_core.errors import RankLLMError
from rankllm_core.types import Request, Result, Usage
from rankllm_infer.engines.base import Answer
from rankllm_infer.jobs.journal import Journal
from rankllm_infer.scheduling.pool import AnswerLog


class TokenLimitError(RankLLMError):
    """A run has used up its token budget."""


class TokenLimit:
    """Counter for the tokens of a run, including earlier sessions. limit: prompt and completion tokens together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spent = 0

    def add(self, usage: Usage) -> None:
        """Add tokens, used now or in an earlier session."""
        self._spent += usage.prompt_tokens + usage.completion_tokens

    def check(self) -> None:
        """Raise TokenLimitError if the limit is reached."""
        if self._spent >= self._limit:
            raise TokenLimitError(
                f"stopped at --max-total-tokens {self._limit:,}: {self._spent:,} tokens used; "
                "repeat the command with a larger limit to resume"
            )


class LimitedLog:
    """Answer log that stops the run at the limit, after storing the answers that reached it."""

    def __init__(self, log: AnswerLog, limit: TokenLimit) -> None:
        self._log = log
        self._limit = limit

    def is_finished(self, qid: str) -> bool:
        """Return whether the query has a result."""
        return self._log.is_finished(qid)

    def recall(self, qid: str, number: int) -> Answer | None:
        """Return a stored answer and count its tokens. Raises TokenLimitError."""
        answer = self._log.recall(qid, number)
        if answer is not None:
            self._limit.add(answer.usage)
            self._limit.check()
        return answer

    def keep(self, answers: Sequence[tuple[str, int, Answer]]) -> None:
        """Store answers. Raises TokenLimitError."""
        self._log.keep(answers)
        for _, _, answer in answers:
            self._limit.add(answer.usage)
        self._limit.check()


def limited_log(journal: Journal, requests: Iterable[Request], max_total_tokens: int) -> AnswerLog:
    """Wrap the journal with a limit on the run's tokens.

    requests: requests of the run, read if some are finished. Raises TokenLimitError if earlier sessions reached the
    limit.
    """
    limit = TokenLimit(max_total_tokens)
    for request in requests if journal.n_finished else ():
        if journal.is_finished(request.query.qid):
            limit.add(journal.result(request).usage)
    limit.check()
    return LimitedLog(journal, limit)


def limited(on_finished: Callable[[Result], None], max_total_tokens: int) -> Callable[[Result], None]:
    """Apply the limit to a run without a journal, counting each query when it finishes."""
    limit = TokenLimit(max_total_tokens)

    def finish(result: Result) -> None:
        on_finished(result)
        limit.add(result.usage)
        limit.check()

    return finish
