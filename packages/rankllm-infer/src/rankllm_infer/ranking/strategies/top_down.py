"""Top-down partitioning: the first window gives a pivot, and only what beats it is looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rankllm_infer.ranking.strategies.steps import Steps, Window


def partition(n: int, *, size: int, top_k: int) -> Steps:
    """Find the best `top_k` of n candidates, which with a model that is never wrong are exact.

    The pivot is number `top_k` of the first window. All other candidates meet it in windows of their own, which may be
    asked at once; those that beat it, at most `top_k` of a window, go on with those above it in the first window, until
    they fit one window. What falls behind follows in first-stage order, what fell behind later before what did earlier.

    Source: TDPart, arXiv:2405.14589, algorithm 1. Instead of its budget of candidates, which may lose one of the best,
    the limit is `top_k` a window, which cannot. Needs 0 < top_k < size, else it would not end.
    """
    going_on, behind = list(range(n)), list[int]()
    while len(going_on) > size:
        (first,) = yield (Window(tuple(going_on[:size])),)
        pivot, others = first[top_k - 1], going_on[size:]
        groups = [others[start : start + size - 1] for start in range(0, len(others), size - 1)]
        # The pivot comes first, so that an answer without a ranking leaves its whole window behind the pivot.
        answers = yield tuple(Window((pivot, *group)) for group in groups)
        winners = [answer[: answer.index(pivot)][:top_k] for answer in answers]
        if not any(winners):
            return [*first, *sorted(others), *behind]
        # The best of each window come first: the next pivot is chosen among them.
        chosen = [*_alternate([first[: top_k - 1], *winners]), pivot]
        behind = [*sorted(set(going_on) - set(chosen)), *behind]
        going_on = chosen
    if len(going_on) > 1:
        (order,) = yield (Window(tuple(going_on)),)
        going_on = list(order)
    return [*going_on, *behind]


def _alternate(rankings: Sequence[Sequence[int]]) -> list[int]:
    """The first of each ranking, then the second of each, and so on."""
    return [position for rank in zip_longest(*rankings) for position in rank if position is not None]
