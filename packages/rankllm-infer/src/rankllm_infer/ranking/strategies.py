"""Listwise strategies: which candidates are shown together, in which rounds, and how the returned orders are combined.

A strategy only handles positions: no texts, no prompts, no model. `rankllm_infer.ranking.listwise` runs its windows.
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
"""Strategies that find the top k and mostly keep the order of the rest."""


@dataclass(frozen=True, slots=True)
class Window:
    """Two or more candidates shown together, as positions in the list being ranked."""

    shown: tuple[int, ...]
    start: int | None = None
    """0-based rank of the first candidate if the window is a slice of the current ranking; else None."""


Steps = Generator[tuple[Window, ...], tuple[tuple[int, ...], ...], list[int]]
"""Running strategy over n candidates, positions 0 to n - 1 in first-stage order.

Yields windows that may run concurrently (one round), receives for each window its candidates in the model's order, best
first, and returns all positions, best first, each exactly once.
"""

Strategy = Callable[[int], Steps]
"""Function that starts ranking a number of candidates."""


def choose_strategy(name: str, *, size: int, stride: int, top_k: int | None = None) -> Strategy:
    """Return a strategy for windows of `size`. stride: for `sliding`. top_k: for top-k strategies; None: half a window.

    Raises ConfigError for inconsistent numbers.
    """
    if name in pairwise_strategies.STRATEGIES:
        raise ConfigError(
            f"--strategy {name}: is a pairwise strategy, but this reranker is listwise; "
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
    """Raise ConfigError if the depth of later passes has no effect or leaves nothing to order."""
    if depth is None:
        return
    if depth < 2:
        raise ConfigError(f"pass_depth: expected at least 2, found {depth}")
    if num_passes == 1:
        raise ConfigError("--pass-depth has no effect without --num-passes 2 or more; leave it out")
    if top_k_candidates is not None and depth >= top_k_candidates:
        raise ConfigError(
            f"--pass-depth {depth} has no effect with --top-k-candidates {top_k_candidates}, "
            "which every pass covers; leave it out"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSchedule:
    """Slide a window up the ranking, bottom to top, until it covers rank 0.

    Source: RankGPT, arXiv:2304.09542, section 3.2; window bounds as in castorini/rank_llm@1b3cabb
    src/rank_llm/rerank/listwise/listwise_rankllm.py.
    """

    size: int = 20
    """Passages shown to the model at once."""
    stride: int = 10
    """Ranks the window moves per step; smaller overlaps more and costs more calls."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.size:
            raise ConfigError(f"window: expected 0 < stride <= size, found stride={self.stride}, size={self.size}")

    def windows(self, n: int) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of each window over n ranks, end exclusive. None for n = 0; the last window starts at
        0."""
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
    """Rank n candidates window by window; each window waits for the one below it.

    With a perfect model, the first `size - stride` ranks are exact. Source: RankGPT, arXiv:2304.09542.
    """
    order = list(range(n))
    for start, end in schedule.windows(n):
        if end - start > 1:
            (order[start:end],) = yield (Window(tuple(order[start:end]), start),)
    return order


def ask_once(n: int, *, size: int) -> Steps:
    """Rank n candidates in one window. Raises ConfigError if they exceed the window size."""
    if n > size:
        raise ConfigError(
            f"{n} candidates exceed the window size of {size}, but --strategy full shows all at once; "
            f"use --window-size {n}, --top-k-candidates {size}, or another strategy"
        )
    if n < 2:
        return list(range(n))
    (order,) = yield (Window(tuple(range(n)), 0),)
    return list(order)


def partition(n: int, *, size: int, top_k: int) -> Steps:
    """Find the top `top_k` of n candidates; exact with a perfect model.

    The pivot is the candidate at rank `top_k` of the first window. All other candidates are compared with it in windows
    of their own, which may run concurrently; those that beat it, at most `top_k` per window, continue together with
    those above it in the first window, until they fit one window. Eliminated candidates follow in first-stage order,
    later eliminations first.

    Source: TDPart, arXiv:2405.14589, algorithm 1. Its candidate budget, which may lose one of the best, is replaced by
    a limit of `top_k` per window, which cannot. Terminates because 0 < top_k < size.
    """
    going_on, behind = list(range(n)), list[int]()
    while len(going_on) > size:
        (first,) = yield (Window(tuple(going_on[:size])),)
        pivot, others = first[top_k - 1], going_on[size:]
        groups = [others[start : start + size - 1] for start in range(0, len(others), size - 1)]
        # The pivot comes first, so that an unusable answer eliminates its whole window.
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
    """Interleave the rankings: the first of each, then the second of each, and so on."""
    return [position for rank in zip_longest(*rankings) for position in rank if position is not None]


def play(n: int, *, size: int, top_k: int) -> Steps:
    """Find the top `top_k` of n candidates; exact with a perfect model.

    In each round, the candidates are split into windows of `size`, which may run concurrently, and the best `top_k` of
    each window continue until they fit one window. The number of windows depends only on n, not on the answers.
    Eliminated candidates follow in first-stage order, later eliminations first.

    Source: one tournament of TourRank, arXiv:2406.11678, without its points. Terminates because 0 < top_k < size.
    """
    going_on, behind = list(range(n)), list[int]()
    while len(going_on) > size:
        groups = [tuple(going_on[start : start + size]) for start in range(0, len(going_on), size)]
        # A group of at most top_k candidates continues as a whole, so it needs no prompt.
        answers = yield tuple(Window(group) for group in groups if len(group) > top_k)
        chosen = [position for answer in answers for position in answer[:top_k]]
        chosen += [position for group in groups if len(group) <= top_k for position in group]
        behind = [*sorted(set(going_on) - set(chosen)), *behind]
        going_on = chosen
    if len(going_on) > 1:
        (order,) = yield (Window(tuple(going_on)),)
        going_on = list(order)
    return [*going_on, *behind]
