"""One order out of several: the one that disagrees least with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate


def consensus(orders: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The order with a small total Kendall distance to the given ones; ties as in the first of them.

    orders: one or more permutations of the same positions. Begins with the order of mean ranks (Borda) and moves one
    position at a time while that lowers the total, so no single move can lower it further. Where the majorities of all
    pairs agree on one order, that is the result and the exact minimum. The exact minimum in general is NP-hard.

    Source: permutation self-consistency, arXiv:2310.07712.
    """
    ranks = [{position: rank for rank, position in enumerate(order)} for order in orders]
    best = sorted(orders[0], key=lambda position: sum(rank[position] for rank in ranks))
    majority = {
        one: {other: sum(1 if rank[one] < rank[other] else -1 for rank in ranks) for other in best if other != one}
        for one in best
    }
    while _move_one(best, majority):
        pass
    return tuple(best)


def _move_one(order: list[int], majority: Mapping[int, Mapping[int, int]]) -> bool:
    """Move each position in turn to where it disagrees least; whether any of them was moved.

    majority: [one][other] is the number of orders with `one` before `other`, less those with `other` before `one`.
    """
    is_moved = False
    for position in tuple(order):
        place = order.index(position)
        others = order[:place] + order[place + 1 :]
        # costs[i]: disagreement behind the first i of the others, less that in front of them all.
        costs = list(accumulate((majority[position][other] for other in others), initial=0))
        cheapest = min(range(len(costs)), key=costs.__getitem__)
        if costs[cheapest] < costs[place]:
            order[:] = [*others[:cheapest], position, *others[cheapest:]]
            is_moved = True
    return is_moved
