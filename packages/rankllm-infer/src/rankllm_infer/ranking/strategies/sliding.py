"""The sliding window: from the bottom of the list to its top, each step with what the last one left."""

from __future__ import annotations

from rankllm_infer.ranking.strategies.steps import Steps, Window
from rankllm_infer.ranking.windows import WindowSchedule


def slide(n: int, *, schedule: WindowSchedule) -> Steps:
    """Rank n candidates window by window, every one waiting for the one below it.

    With a model that is never wrong the first `size - stride` ranks are right. Source: RankGPT, arXiv:2304.09542.
    """
    order = list(range(n))
    for start, end in schedule.windows(n):
        if end - start > 1:
            (order[start:end],) = yield (Window(tuple(order[start:end]), start),)
    return order
