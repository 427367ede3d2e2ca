"""The sliding window: from the bottom of the list to its top, each step with what the last one left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rankllm_core.errors import ConfigError
from rankllm_infer.ranking.strategies.steps import Steps, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSchedule:
    """Slide a window up the ranking, bottom to top, until it covers rank 0.

    Source: RankGPT, arXiv:2304.09542, section 3.2; the bounds are those of castorini/rank_llm@1b3cabb
    src/rank_llm/rerank/listwise/listwise_rankllm.py.
    """

    size: int = 20
    """Passages shown to the model at once."""
    stride: int = 10
    """Ranks the window moves per step; smaller overlaps more and costs more calls."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.size:
            raise ConfigError(f"window: need 0 < stride <= size, got stride={self.stride}, size={self.size}")

    def windows(self, n: int) -> Iterator[tuple[int, int]]:
        """(start, end) of each window over n ranks, end excluded. None for n = 0; the last one starts at 0."""
        if n <= 0:
            return
        end, start = n, max(n - self.size, 0)
        while True:
            yield start, end
            if start == 0:
                return
            end -= self.stride
            start = max(start - self.stride, 0)


def slide(n: int, *, schedule: WindowSchedule) -> Steps:
    """Rank n candidates window by window, every one waiting for the one below it.

    With a model that is never wrong the first `size - stride` ranks are right. Source: RankGPT, arXiv:2304.09542.
    """
    order = list(range(n))
    for start, end in schedule.windows(n):
        if end - start > 1:
            (order[start:end],) = yield (Window(tuple(order[start:end]), start),)
    return order
