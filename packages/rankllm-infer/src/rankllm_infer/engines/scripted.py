"""Engine whose answers come from a function, for tests of all layers above engines and for oracles."""

from __future__ import annotations

from collections.abc import Callable, Collection

from rankllm_core.errors import ConfigError
from rankllm_infer.engines.base import Answer, EngineError, Prompt


class ScriptedEngine:
    """Answers each prompt with a function, in batches of `batch_size`, newest first if `reverse` is set.

    `asked` records all prompts in the order in which they were answered, `batches` the number answered by each
    `collect`.
    """

    name = "scripted"
    takes_prompts_at_work = False

    def __init__(
        self, answer: Callable[[Prompt], Answer | EngineError], *, batch_size: int = 8, reverse: bool = False
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size: expected at least 1, found {batch_size}")
        self._answer = answer
        self._batch_size = self.n_slots = batch_size
        self._reverse = reverse
        self._queue: list[tuple[int, Prompt]] = []
        self.asked: list[Prompt] = []
        self.batches: list[int] = []

    def submit(self, ticket: int, prompt: Prompt) -> None:
        """Queue a prompt."""
        self._queue.append((ticket, prompt))

    def collect(self) -> list[tuple[int, Answer | EngineError]]:
        """Answer the next batch."""
        if self._reverse:
            batch, self._queue = self._queue[-self._batch_size :][::-1], self._queue[: -self._batch_size]
        else:
            batch, self._queue = self._queue[: self._batch_size], self._queue[self._batch_size :]
        self.asked += [prompt for _, prompt in batch]
        self.batches.append(len(batch))
        return [(ticket, self._answer(prompt)) for ticket, prompt in batch]

    def cancel(self, tickets: Collection[int]) -> None:
        """Drop queued prompts."""
        dropped = set(tickets)
        self._queue = [item for item in self._queue if item[0] not in dropped]

    def wake(self) -> None:
        """No effect: steps are short."""

    def close(self) -> None:
        """Drop queued prompts."""
        self._queue.clear()
