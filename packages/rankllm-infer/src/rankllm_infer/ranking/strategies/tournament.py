"""The tournament: windows side by side, the best of each go on to the next round."""

from __future__ import annotations

from rankllm_infer.ranking.strategies.steps import Steps, Window


def play(n: int, *, size: int, top_k: int) -> Steps:
    """Find the best `top_k` of n candidates, which with a model that is never wrong are exact.

    In each round the candidates are split into windows of `size`, which may be asked at once, and the best `top_k` of
    each go on, until they fit one window. How many windows are asked depends on n alone, not on the answers. What
    falls behind follows in first-stage order, what fell behind later before what did earlier.

    Source: one tournament of TourRank, arXiv:2406.11678, without its points. Needs 0 < top_k < size, else it would not
    end.
    """
    going_on, behind = list(range(n)), list[int]()
    while len(going_on) > size:
        groups = [tuple(going_on[start : start + size]) for start in range(0, len(going_on), size)]
        # A group of top_k or fewer would go on as a whole: there is nothing to ask.
        answers = yield tuple(Window(group) for group in groups if len(group) > top_k)
        chosen = [position for answer in answers for position in answer[:top_k]]
        chosen += [position for group in groups if len(group) <= top_k for position in group]
        behind = [*sorted(set(going_on) - set(chosen)), *behind]
        going_on = chosen
    if len(going_on) > 1:
        (order,) = yield (Window(tuple(going_on)),)
        going_on = list(order)
    return [*going_on, *behind]
