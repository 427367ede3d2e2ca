"""Strategies: which candidates are shown together, in which rounds, and what is made of the orders that come back.

A strategy knows positions only: no texts, no prompts, no model. `rankllm_infer.ranking.listwise` queries its windows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

from rankllm_core.config import one_of
from rankllm_core.errors import ConfigError
from rankllm_infer.ranking import pairwise_strategies

STRATEGIES = ("sliding", "full", "top-down", "tournament")
TOP_K_STRATEGIES = ("top-down", "tournament")
"""Those that find the best k and leave the rest much as it was."""


@dataclass(frozen=True, slots=True)
class Window:
    """Candidates that are shown together: two or more, as positions in the list that is being ranked."""

    shown: tuple[int, ...]
    start: int | None = None
    """0-based rank of the first one, where the window is a slice of the ranking as it stands; else None."""


Steps = Generator[tuple[Window, ...], tuple[tuple[int, ...], ...], list[int]]
"""A strategy at work on n candidates, the positions 0 to n - 1 in first-stage order.

It yields windows that may be asked at the same time: one round. It is sent their candidates, for each window in the
order that the model gives them, best first. It returns all positions, best first, each once.
"""

Strategy = Callable[[int], Steps]
"""Begins to rank so many candidates."""


def choose_strategy(name: str, *, size: int, stride: int, top_k: int | None = None) -> Strategy:
    """A strategy for windows of `size`. stride: of `sliding`. top_k: of those that find a top k; None: half a window.

    Raises ConfigError where the numbers do not go together.
    """
    if name in pairwise_strategies.STRATEGIES:
        raise ConfigError(
            f"--strategy {name}: compares two passages, and a listwise reranker ranks windows of them; "
            f"expected one of {', '.join(STRATEGIES)}"
        )
    one_of(name, STRATEGIES, where="strategy")
    if name not in TOP_K_STRATEGIES:
        if top_k is not None:
            raise ConfigError(f"--rank-top-k has no effect with --strategy {name}; leave it out")
        if name == "full":
            return partial(ask_once, size=size)
        return partial(slide, schedule=WindowSchedule(size=size, stride=stride))
    wanted = max(1, size // 2) if top_k is None else top_k
    if not 0 < wanted < size:
        raise ConfigError(
            f"--rank-top-k {wanted}: expected at least 1 and less than the window of {size} passages; "
            "use a smaller --rank-top-k, or a larger --window-size"
        )
    return partial(partition if name == "top-down" else play, size=size, top_k=wanted)


def check_pass_depth(depth: int | None, *, num_passes: int, top_k_candidates: int | None) -> None:
    """Raise ConfigError where a depth of later passes changes nothing, or leaves nothing to order."""
    if depth is None:
        return
    if depth < 2:
        raise ConfigError(f"pass_depth: expected at least 2, found {depth}")
    if num_passes == 1:
        raise ConfigError("--pass-depth has no effect without --num-passes 2 or more; leave it out")
    if top_k_candidates is not None and depth >= top_k_candidates:
        raise ConfigError(
            f"--pass-depth {depth} has no effect with --top-k-candidates {top_k_candidates}, "
            "which every pass goes over; leave it out"
        )


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


def ask_once(n: int, *, size: int) -> Steps:
    """Rank n candidates in one window. Raises ConfigError where it holds fewer."""
    if n > size:
        raise ConfigError(
            f"{n} candidates, but a window holds {size}, and --strategy full shows all at once; "
            f"use --window-size {n}, --top-k-candidates {size}, or another strategy"
        )
    if n < 2:
        return list(range(n))
    (order,) = yield (Window(tuple(range(n)), 0),)
    return list(order)


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
