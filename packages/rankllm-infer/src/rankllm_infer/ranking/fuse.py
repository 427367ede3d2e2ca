"""Combining orders: votes on a window into a consensus, and first-stage scores with the model's scores.

Fusion is a convex combination of scores (arXiv:2210.11934, section 3), which keeps what the first stage gets right and
a small model does not. Only candidates selected for reranking change ranks; those below keep theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from rankllm_core.trec.runs import decreasing_scores
from rankllm_core.types import Candidate, Request, Result


def fuse(result: Result, request: Request, weight: float, *, n_ranked: int | None, by_rank: bool) -> Result:
    """Reorder the first `n_ranked` candidates of a result (None: all) by fused score.

    A fused score is weight x first-stage score + (1 - weight) x model score, both scaled to [0, 1] over these
    candidates: (score - min) / (max - min). If all first-stage scores are equal, first-stage ranks are used instead,
    spaced evenly from 1 to 0. by_rank: also use the model's ranks, because it returned an order without scores
    comparable between windows. Ties keep the model's order.
    """
    n = len(result.candidates) if n_ranked is None else min(n_ranked, len(result.candidates))
    if not weight or n < 2:
        return result
    head, rest = result.candidates[:n], result.candidates[n:]
    model = [float(-rank) for rank in range(n)] if by_rank else [float(c.model_score or 0.0) for c in head]
    pairs = zip(unit_scaled(_first_stage(request, head)), unit_scaled(model), strict=True)
    fused = [weight * first + (1 - weight) * second for first, second in pairs]
    order = sorted(range(n), key=lambda place: -fused[place])
    candidates = [head[place] for place in order]
    if result.n_ranked is not None and result.n_ranked < n:  # Unranked candidates may have moved up.
        ranked = {candidate.docid for candidate in head[: result.n_ranked]}
        n_ranked = next(rank for rank, candidate in enumerate(candidates) if candidate.docid not in ranked)
        result = replace(result, n_ranked=n_ranked)
    if by_rank:  # the scores of a listwise result: n - rank + 1 over all candidates
        scores = [candidate.score for candidate in result.candidates]
    else:
        written = decreasing_scores([fused[place] for place in order])
        scores = [*written, *decreasing_scores([written[-1]] * (len(rest) + 1))[1:]]
    shown = zip((*candidates, *rest), scores, strict=True)
    return replace(result, candidates=tuple(replace(candidate, score=score) for candidate, score in shown))


def _first_stage(request: Request, ranked: Sequence[Candidate]) -> list[float]:
    """Return the first-stage score of each ranked candidate, or its rank if all scores are equal."""
    given = {candidate.docid: (candidate.score, float(-rank)) for rank, candidate in enumerate(request.candidates)}
    scores, ranks = zip(*(given[candidate.docid] for candidate in ranked), strict=True)
    # Only these candidates are fused: equal scores among them carry no information, whatever the others have.
    return list(ranks if len(set(scores)) == 1 else scores)


def unit_scaled(scores: Sequence[float]) -> list[float]:
    """Scale the scores to [0, 1]; all 0 if they are equal. scores: finite."""
    if math.isinf(max(scores) - min(scores)):
        scores = [score / 2 for score in scores]  # half the difference of two doubles never overflows
    least, width = min(scores), max(scores) - min(scores)
    return [(score - least) / width if width else 0.0 for score in scores]


def consensus(orders: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return an order with a small total Kendall distance to the given ones; ties follow the first order.

    orders: one or more permutations of the same positions. Starts from the order of mean ranks (Borda) and moves one
    position at a time while that lowers the total, so no single move can lower it further. If the pairwise majorities
    are consistent with one order, that order is the result and the exact minimum. Finding the exact minimum in general
    is NP-hard.

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
    """Move each position in turn to where it disagrees least; return whether any was moved.

    majority: [one][other] is the number of orders with `one` before `other`, minus those with `other` before `one`.
    """
    is_moved = False
    for position in tuple(order):
        place = order.index(position)
        others = order[:place] + order[place + 1 :]
        # costs[i]: disagreement after moving behind the first i others, relative to moving in front of all of them.
        costs = list(accumulate((majority[position][other] for other in others), initial=0))
        cheapest = min(range(len(costs)), key=costs.__getitem__)
        if costs[cheapest] < costs[place]:
            order[:] = [*others[:cheapest], position, *others[cheapest:]]
            is_moved = True
    return is_moved
