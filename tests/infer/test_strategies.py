"""Strategies: windows, rounds and results, with oracles and with random answers."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankllm_core.errors import ConfigError
from rankllm_infer.ranking.strategies import STRATEGIES, choose_strategy


@dataclass(frozen=True)
class Run:
    """Result of a strategy on some candidates."""

    order: list[int]
    rounds: list[tuple[tuple[int, ...], ...]]
    """The windows of each round."""

    @property
    def n_calls(self):
        return sum(map(len, self.rounds))

    @property
    def cost(self):
        """(calls, length of the critical path)."""
        return self.n_calls, len(self.rounds)


def run(name, n, answer, *, size=20, stride=10, top_k=None):
    """Run a strategy; `answer` orders a window's positions."""
    steps = choose_strategy(name, size=size, stride=stride, top_k=top_k)(n)
    rounds, orders = [], None
    while True:
        try:
            windows = steps.send(orders)
        except StopIteration as stop:
            return Run(stop.value, rounds)
        rounds.append(tuple(window.shown for window in windows))
        orders = tuple(tuple(answer(window.shown)) for window in windows)


def by_place(places):
    """An oracle: places[position] is the candidate's true rank."""
    return lambda shown: sorted(shown, key=places.__getitem__)


def truth(n, seed):
    """A random true rank for each position."""
    places = list(range(n))
    random.Random(seed).shuffle(places)
    return places


def ranks_found(order, places):
    """True ranks in the resulting order: 0, 1, 2, ... if all are correct."""
    return [places[position] for position in order]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    ("name", "n", "size", "stride", "top_k", "settled"),
    [
        ("sliding", 100, 20, 10, None, 10),
        ("sliding", 100, 20, 5, None, 15),
        ("sliding", 37, 8, 3, None, 5),
        ("sliding", 20, 20, 10, None, 20),
        ("full", 100, 100, 10, None, 100),
        ("full", 7, 20, 10, None, 7),
        ("top-down", 100, 20, 10, None, 10),
        ("top-down", 100, 20, 10, 3, 3),
        ("top-down", 100, 20, 10, 19, 19),
        ("top-down", 101, 7, 3, None, 3),
        ("top-down", 30, 2, 1, None, 1),
        ("top-down", 20, 20, 10, None, 20),
        ("tournament", 100, 20, 10, None, 10),
        ("tournament", 100, 20, 10, 1, 1),
        ("tournament", 100, 20, 10, 19, 19),
        ("tournament", 101, 7, 3, None, 3),
        ("tournament", 30, 2, 1, None, 1),
        ("tournament", 20, 20, 10, None, 20),
    ],
)
def test_with_a_right_model_the_top_is_right(name, n, size, stride, top_k, settled, seed):
    """size - stride ranks with sliding, k with top-down and tournament, all if one window contains all."""
    places = truth(n, seed)
    found = run(name, n, by_place(places), size=size, stride=stride, top_k=top_k)
    assert ranks_found(found.order, places)[:settled] == list(range(settled))
    assert sorted(found.order) == list(range(n))


BEST_FIRST = list(range(100))
BEST_LAST = BEST_FIRST[::-1]
ONE_STRAY = [rank + 1 for rank in range(50)] + [0] + list(range(51, 100))
"""The first stage is correct except for one candidate, number 51, which is the best of all."""


@pytest.mark.parametrize(
    ("name", "places", "top_k", "cost"),
    [
        # 1 + 80/10 windows, each waiting for the one below.
        ("sliding", BEST_FIRST, None, (9, 9)),
        ("sliding", BEST_LAST, None, (9, 9)),
        # The first window; the other 80 by 19 beside the pivot are 5; nobody beats it.
        ("top-down", BEST_FIRST, None, (6, 2)),
        # One beats it: a last window of 11. These are the 7 calls of the paper.
        ("top-down", ONE_STRAY, None, (7, 3)),
        # 100 by 20 are 5, of which 10 each go on: 50, in windows 2 (10 pass unasked), 30, in windows 1, 20, 1.
        ("tournament", BEST_FIRST, None, (9, 4)),
        ("tournament", BEST_LAST, None, (9, 4)),
        # The 5 best in one window.
        ("tournament", BEST_LAST, 1, (6, 2)),
        # 5 each go on: 25, in windows 1 (5 pass unasked), 10, 1.
        ("tournament", BEST_FIRST, 5, (7, 3)),
    ],
)
def test_calls_and_rounds_are_those_counted_by_hand(name, places, top_k, cost):
    """A hundred candidates, windows of 20, stride 10."""
    assert run(name, 100, by_place(places), top_k=top_k).cost == cost


def test_top_down_with_the_best_at_the_bottom():
    """Six candidates, windows of 3, top 1, the best ones last: traced by hand."""
    found = run("top-down", 6, by_place([5, 4, 3, 2, 1, 0]), size=3)
    assert found.rounds == [
        ((0, 1, 2),),
        # The pivot is the best of them, 2, and stands first.
        ((2, 3, 4), (2, 5)),
        # The best of each window, 4 and 5, and the pivot fit one window.
        ((4, 5, 2),),
    ]
    # What fell behind follows in first-stage order.
    assert found.order == [5, 4, 2, 0, 1, 3]


def test_what_fell_behind_later_comes_before_what_fell_behind_earlier():
    """Nine candidates, windows of 3, one winner each: losers of the semifinal rank above those of round one."""
    found = run("tournament", 9, by_place([8, 7, 6, 5, 4, 3, 2, 1, 0]), size=3)
    assert found.rounds == [((0, 1, 2), (3, 4, 5), (6, 7, 8)), ((2, 5, 8),)]
    assert found.order == [8, 5, 2, 0, 1, 3, 4, 6, 7]


@pytest.mark.parametrize(("size", "levels"), [(3, 4), (4, 3), (20, 2), (2, 6)])
def test_a_knock_out_tournament_costs_a_geometric_sum(size, levels):
    """size**r candidates, one winner each: (size**r - 1) / (size - 1) calls in r rounds."""
    n = size**levels
    assert run("tournament", n, sorted, size=size, top_k=1).cost == ((n - 1) // (size - 1), levels)


@pytest.mark.parametrize("doublings", range(5))
def test_a_tournament_that_halves_costs_twice_its_first_round(doublings):
    """size * 2**r candidates, half a window advances: 2**(r + 1) - 1 calls in r + 1 rounds."""
    assert run("tournament", 20 * 2**doublings, sorted).cost == (2 ** (doublings + 1) - 1, doublings + 1)


@pytest.mark.parametrize("n", [0, 1, 2, 20, 21, 22, 30, 31, 40, 95, 96, 97])
def test_top_down_costs_one_window_and_the_others_beside_the_pivot(n):
    """If the first stage is correct: 1 + ceil((n - 20) / 19) calls in two rounds, or one window for all."""
    beside = -(-(n - 20) // 19)
    assert run("top-down", n, sorted).cost == ((0, 0) if n < 2 else (1, 1) if n <= 20 else (1 + beside, 2))


@pytest.mark.parametrize("n", [0, 1, 2, 20, 21, 30, 31, 95, 100])
def test_sliding_asks_a_window_a_stride(n):
    """1 + ceil((n - 20) / 10) sequential calls."""
    calls = 0 if n < 2 else 1 + max(0, -(-(n - 20) // 10))
    assert run("sliding", n, sorted).cost == (calls, calls)


def test_nobody_is_asked_to_order_one_passage():
    """Three candidates, windows of 2, stride 2: the last one would be alone."""
    assert run("sliding", 3, sorted, size=2, stride=2).rounds == [((1, 2),)]
    # Seven by 3: the seventh goes on unasked.
    assert [len(windows) for windows in run("tournament", 7, sorted, size=3, top_k=1).rounds] == [2, 1]


ERROR = 1
"""Error bound of a noisy model: it ranks by true rank plus noise between -1 and 1."""


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize(
    ("name", "sure"),
    [
        # A candidate falls behind when k others are put before it. They are at most 2 ERROR ranks worse.
        ("sliding", 10 - 2 * ERROR),
        ("tournament", 10 - 2 * ERROR),
        # Or when it is put behind a pivot that is itself 2 ERROR ranks too high.
        ("top-down", 10 - 4 * ERROR),
    ],
)
def test_a_model_with_bounded_errors_loses_none_of_the_best(name, sure, seed):
    """The best 10 - 2e (top-down: 10 - 4e) of a hundred are in the resulting top 10, for any errors up to e."""
    places, draw = truth(100, seed), random.Random(seed)

    def err(shown):
        return sorted(shown, key=lambda position: places[position] + draw.uniform(-ERROR, ERROR))

    found = run(name, 100, err)
    assert set(range(sure)) <= set(ranks_found(found.order, places)[:10])


def most_calls(name, n, *, size, stride, top_k):
    """Upper bound of a strategy's windows for any answers."""
    if n <= size or name == "full":
        return min(n - 1, 1) if n else 0
    if name == "sliding":
        return 1 + -(-(n - size) // stride)
    if name == "tournament":
        whole, left = divmod(n, size)
        going_on = whole * top_k + min(left, top_k)
        asked = whole + (left > top_k)
    else:
        groups = -(-(n - size) // (size - 1))
        going_on = top_k + min(groups * top_k, n - size)
        asked = 1 + groups
    # Each round leaves at least one of a full window behind.
    assert going_on < n
    return asked + most_calls(name, going_on, size=size, stride=stride, top_k=top_k)


@st.composite
def tasks(draw):
    """A strategy, a number of candidates and consistent numbers."""
    name = draw(st.sampled_from(STRATEGIES))
    size = draw(st.integers(2, 12))
    n = draw(st.integers(0, size if name == "full" else 60))
    numbers = {"size": size, "stride": draw(st.integers(1, size)), "top_k": draw(st.integers(1, size - 1))}
    return name, n, numbers


@settings(max_examples=400, deadline=None)
@given(task=tasks(), seed=st.integers(0, 2**32), kept=st.sampled_from(["nothing", "everything", "half"]))
def test_any_answers_give_each_candidate_once_in_bounded_calls(task, seed, kept):
    """Models that answer at random, never, or half of the time."""
    name, n, numbers = task
    draw = random.Random(seed)
    asked = []

    def answer(shown):
        asked.append(shown)
        is_silent = kept == "everything" or (kept == "half" and draw.random() < 0.5)
        return shown if is_silent else draw.sample(shown, len(shown))

    takes_top_k = name in ("top-down", "tournament")
    found = run(name, n, answer, **(numbers if takes_top_k else numbers | {"top_k": None}))
    assert sorted(found.order) == list(range(n))
    assert all(2 <= len(set(shown)) == len(shown) <= numbers["size"] for shown in asked)
    assert all(found.rounds)
    assert len(asked) == found.n_calls <= most_calls(name, n, **numbers)
    # The windows of one round share at most a pivot, so none waits for another.
    for windows in found.rounds:
        shown = list(chain.from_iterable(windows))
        assert len(shown) - len(set(shown)) <= len(windows) - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "quick"}, "strategy: expected one of sliding, full, top-down, tournament; found 'quick'"),
        ({"name": "bubble"}, "--strategy bubble: is a pairwise strategy, .* expected one of sliding, full"),
        ({"name": "sliding", "top_k": 5}, "--rank-top-k has no effect with --strategy sliding"),
        ({"name": "full", "top_k": 5}, "--rank-top-k has no effect with --strategy full"),
        ({"name": "top-down", "top_k": 20}, "--rank-top-k 20: expected at least 1 and less than the window of 20"),
        ({"name": "tournament", "top_k": 0}, "--rank-top-k 0: expected at least 1 and less than the window of 20"),
        ({"name": "tournament", "size": 1, "stride": 1}, "--rank-top-k 1: expected at least 1 and less than"),
        ({"name": "sliding", "stride": 21}, "expected 0 < stride <= size"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(options, message):
    """A top k as large as the window would never end."""
    with pytest.raises(ConfigError, match=message):
        choose_strategy(**({"size": 20, "stride": 10} | options))


def test_more_candidates_than_the_full_window_holds_are_refused():
    """The message says which window size fits, or how many candidates fit."""
    with pytest.raises(
        ConfigError, match=r"30 candidates exceed the window size of 20.*--window-size 30, --top-k-cand.* 20"
    ):
        run("full", 30, sorted)
