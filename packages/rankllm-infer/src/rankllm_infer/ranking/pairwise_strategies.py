"""Pairwise strategies: which candidates are compared, in which rounds, and how answers become an order.

A strategy only handles positions: no texts, no prompts, no model. `rankllm_infer.ranking.pairwise` runs its
comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

from rankllm_core.errors import ConfigError

DEFAULT_TOP_K = 10
"""Default number of top candidates for sorting strategies. Source: PRP-Sliding-10, arXiv:2306.17563."""

Pair = tuple[int, int]
"""Two candidates, as positions in first-stage order, in the order in which a prompt shows them."""
Preferences = Mapping[Pair, float]
"""Pair -> probability that the passage shown first is more relevant, for both orders of each pair."""
Comparing = Generator[tuple[Pair, ...], Preferences, "PairwiseOrder"]
"""Running strategy: yields pairs that may be compared concurrently, receives all preferences known so far, and returns
the order. Each pair is yielded in one order and asked in both."""


@dataclass(frozen=True, slots=True)
class PairwiseOrder:
    """Result of a strategy."""

    positions: tuple[int, ...]
    """Ranked positions, best first; other candidates follow in first-stage order."""
    scores: tuple[float, ...] = ()
    """Score of each ranked position, if the strategy provides scores."""


def all_pairs(n: int, top_k: int) -> Comparing:
    """Compare every pair of n candidates and rank them by SYM-SUM: s_i = sum over j of p_ij + (1 - p_ji).

    Ties are in first-stage order. top_k is ignored: all candidates are ranked. Source: duoT5, arXiv:2101.05667, as in
    castorini/pygaggle@06371f1 pygaggle/rerank/transformer.py. PRP-Allpair (arXiv:2306.17563) rounds each pair to a win,
    a loss or a tie; probabilities carry more information.
    """
    if n < 2:
        return PairwiseOrder(tuple(range(n)))
    preferences = yield tuple((i, j) for i in range(n) for j in range(i + 1, n))
    scores = [sum(preferences[i, j] + 1 - preferences[j, i] for j in range(n) if j != i) for i in range(n)]
    order = sorted(range(n), key=lambda position: -scores[position])
    return PairwiseOrder(tuple(order), tuple(scores[position] for position in order))


def heapsort(n: int, top_k: int) -> Comparing:
    """Find the top `top_k` of n candidates with a heap that has the best one at its root.

    While the heap is built, the subtrees of one level are sifted concurrently. Source: PRP-Sorting, arXiv:2306.17563.
    """
    heap = list(range(n))
    for level in _levels(n):
        yield from _sift(heap, level, n)
    best: list[int] = []
    for size in range(n, n - min(top_k, n), -1):
        best.append(heap[0])
        heap[0] = heap[size - 1]
        if len(best) < min(top_k, n):
            yield from _sift(heap, (0,), size - 1)
    return PairwiseOrder(tuple(best))


def _levels(n: int) -> list[range]:
    """Return the parents in a heap of n, level by level, lowest level first."""
    levels, start = [], 0
    while 2 * start + 1 < n:
        levels.append(range(start, min(2 * start + 1, n // 2)))
        start = 2 * start + 1
    return levels[::-1]


def _sift(heap: list[int], roots: Sequence[int], size: int) -> Generator[tuple[Pair, ...], Preferences, None]:
    """Sift the elements at the roots down. roots: of one level, so that no two share a child."""
    places = list(roots)
    while places := [place for place in places if 2 * place + 1 < size]:
        twins = [place for place in places if 2 * place + 2 < size]
        better = {place: 2 * place + 1 for place in places}
        if twins:
            known = yield tuple((heap[2 * place + 1], heap[2 * place + 2]) for place in twins)
            better |= {
                place: 2 * place + 2 for place in twins if beats(heap[2 * place + 2], heap[2 * place + 1], known)
            }
        known = yield tuple((heap[place], heap[better[place]]) for place in places)
        sunk = []
        for place in places:
            child = better[place]
            if beats(heap[child], heap[place], known):
                heap[place], heap[child] = heap[child], heap[place]
                sunk.append(child)
        places = sunk


def bubble(n: int, top_k: int) -> Comparing:
    """Find the top `top_k` of n candidates with that many bottom-up passes, each of which moves the best remaining one
    up.

    A pass starts as soon as the previous one is two pairs ahead, so that several passes run concurrently. Source:
    PRP-Sliding-K, arXiv:2306.17563.
    """
    order, passes = list(range(n)), min(top_k, n - 1)
    for step in range(n + passes - 2):
        # Pass p is at the pair that ends at rank n - 1 - (step - 2p), and settles rank p.
        ends = [end for p in range(passes) if p < (end := n - 1 - step + 2 * p) < n]
        known = yield tuple((order[end - 1], order[end]) for end in ends)
        for end in ends:
            if beats(order[end], order[end - 1], known):
                order[end - 1], order[end] = order[end], order[end - 1]
    return PairwiseOrder(tuple(order[: min(top_k, n)]))


def beats(one: int, other: int, preferences: Preferences) -> bool:
    """Return whether the first of two positions is preferred, averaged over both orders; ties follow the first stage.

    Asking in both orders cancels the model's bias towards the passage shown first (arXiv:2306.17563).
    """
    margin = preferences[one, other] - preferences[other, one]
    return margin > 0 or (margin == 0 and one < other)


STRATEGIES: Mapping[str, Callable[[int, int], Comparing]] = {
    "all-pairs": all_pairs,
    "heapsort": heapsort,
    "bubble": bubble,
}
"""Name -> function that starts ranking n candidates, of which the top_k best are wanted."""

SORTING = ("heapsort", "bubble")
"""Strategies that find the top k."""


def choose(name: str | None) -> Callable[[int, int], Comparing]:
    """Return the strategy of a name; None: all pairs. Raises ConfigError."""
    if name is not None and name not in STRATEGIES:
        raise ConfigError(
            f"--strategy {name}: is a listwise strategy, but this reranker is pairwise; "
            f"expected one of {', '.join(STRATEGIES)}"
        )
    return STRATEGIES[name or "all-pairs"]


def most_comparisons(name: str | None, n: int, top_k: int) -> int:
    """Return how many pairs of n candidates are compared: exactly for `all-pairs`, else the maximum.

    No pair is compared twice, so this never exceeds the number of all pairs.
    """
    every, wanted = n * (n - 1) // 2, min(top_k, n)
    if n < 2 or name in (None, "all-pairs"):
        return every
    if name == "bubble":
        return min(every, sum(n - 1 - number for number in range(min(wanted, n - 1))))
    built = sum(_most_to_sift(place, n) for place in range(n // 2))
    return min(every, built + sum(_most_to_sift(0, n - number) for number in range(1, wanted)))


def _most_to_sift(place: int, size: int) -> int:
    """Count the comparisons needed to sift an element from a heap position to the bottom along the longest path."""
    found = 0
    while (place := 2 * place + 1) < size:
        found += 2 if place + 1 < size else 1
    return found
