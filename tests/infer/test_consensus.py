"""Consensus of several orders: the one that disagrees least with all of them."""

from __future__ import annotations

import random
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankllm_infer.ranking.fuse import consensus


def distance(one, other):
    """Kendall distance: the number of pairs ordered differently."""
    place = {position: rank for rank, position in enumerate(other)}
    return sum(place[first] > place[second] for first, second in combinations(one, 2))


def total(order, votes):
    """Total distance between an order and the votes."""
    return sum(distance(order, vote) for vote in votes)


def borda(votes):
    """By mean rank; ties as in the first vote."""
    return sorted(votes[0], key=lambda position: sum(vote.index(position) for vote in votes))


def draws(seed, n, n_votes, *, noise):
    """Votes on 0..n-1 with true order 0, 1, 2, ...: each sorts by rank plus Gaussian noise."""
    draw = random.Random(seed)
    return [tuple(sorted(range(n), key=lambda rank: rank + draw.gauss(0, noise))) for _ in range(n_votes)]


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([(2, 0, 1)], (2, 0, 1)),
        ([(0, 1, 2), (0, 2, 1), (0, 1, 2)], (0, 1, 2)),
        ([(4, 7, 9), (7, 4, 9), (7, 9, 4)], (7, 4, 9)),
        # One vote each way: the first one's order stays.
        ([(1, 0), (0, 1)], (1, 0)),
        # The ranks of 1 add up to 3, those of 0 to 6; but three of five put 0 first.
        ([(0, 1, 2, 3), (1, 2, 3, 0), (1, 2, 3, 0), (0, 1, 2, 3), (0, 1, 2, 3)], (0, 1, 2, 3)),
    ],
)
def test_small_votes_counted_by_hand(votes, expected):
    """A single vote is the consensus; otherwise the majority decides each pair."""
    assert consensus(votes) == expected


@given(st.integers(2, 5).flatmap(lambda n: st.lists(st.permutations(range(n)).map(tuple), min_size=1, max_size=5)))
def test_no_single_move_brings_it_nearer(votes):
    """For any votes: each position occurs once, the distance is at most that of mean ranks, and no single move
    reduces it."""
    found = consensus(votes)
    assert sorted(found) == sorted(votes[0])
    reached = total(found, votes)
    assert reached <= total(borda(votes), votes)
    for place, position in enumerate(found):
        others = [*found[:place], *found[place + 1 :]]
        assert all(reached <= total([*others[:there], position, *others[there:]], votes) for there in range(len(found)))


def test_where_the_majorities_agree_on_an_order_that_is_it():
    """It is then the exact minimum over all orders: 30 elections of six, each by brute force over 720 orders."""
    n_agreed = 0
    for seed in range(30):
        votes = draws(seed, 6, 5, noise=1.5)
        wins = {
            one: sum(
                sum(vote.index(one) < vote.index(other) for vote in votes) > 2 for other in range(6) if other != one
            )
            for one in range(6)
        }
        if sorted(wins.values()) == list(range(6)):
            n_agreed += 1
            assert list(consensus(votes)) == sorted(wins, key=wins.get, reverse=True)
            assert total(consensus(votes), votes) == min(total(order, votes) for order in permutations(range(6)))
    # The others run in a circle.
    assert n_agreed >= 25


def test_more_votes_of_a_noisy_model_are_nearer_to_the_truth():
    """Averaging reduces noise: 9 votes halve the mean distance of one, 3 reduce it by a quarter; 50 seeds, 20
    passages."""
    means = {
        n_votes: sum(distance(consensus(draws(seed, 20, n_votes, noise=5)), range(20)) for seed in range(50)) / 50
        for n_votes in (1, 3, 9)
    }
    assert means[3] < 0.75 * means[1]
    assert means[9] < 0.5 * means[1]
