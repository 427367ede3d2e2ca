"""Batch selection: the longest prompt, those of similar length, and those sharing its prefix if worthwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rankllm_core.errors import ConfigError
from rankllm_infer.engines.base import Prompt
from rankllm_infer.engines.transformers.batches import BatchLimits, BatchQueue


def prompt(ids, *, n_shared=0, read="head"):
    return Prompt(text="x", read=read, token_ids=tuple(ids), n_shared=n_shared)


def queue(prompts, **limits):
    waiting = BatchQueue(BatchLimits(**{"max_prompts": 8, "max_tokens": 1000, **limits}))
    for ticket, one in enumerate(prompts):
        waiting.add(ticket, replace(one, text=str(ticket)))  # no two are equal
    return waiting


def taken(waiting):
    """Tickets and shared ids of each batch."""
    batches = []
    while waiting:
        batch = waiting.take()
        batches.append((batch.tickets, batch.n_shared))
    return batches


def test_the_longest_go_first_and_the_earlier_of_equals():
    """Lengths 1, 3, 3, 2 in batches of two."""
    lengths = (1, 3, 3, 2)
    assert taken(queue([prompt(range(n)) for n in lengths], max_prompts=2)) == [((1, 2), 0), ((3, 0), 0)]


def test_prompts_that_run_alone_run_in_the_order_of_their_queries():
    """No order is faster, so queries finish one after the other; duplicates run with the first copy."""
    lengths = (1, 3, 5, 2, 4)
    assert [tickets for tickets, _ in taken(queue([prompt(range(n)) for n in lengths], max_prompts=1))] == [
        (0,),
        (1,),
        (2,),
        (3,),
        (4,),
    ]
    waiting = BatchQueue(BatchLimits(max_prompts=1, max_tokens=1000))
    for ticket, ids in ((7, (1, 2, 3)), (3, (4, 5)), (5, (1, 2, 3)), (4, (4, 5))):
        waiting.add(ticket, prompt(ids))
    batches = [waiting.take(), waiting.take()]
    assert [(batch.tickets, batch.copies) for batch in batches] == [((3,), ((4, 0),)), ((5,), ((7, 0),))]
    assert not waiting


def test_a_batch_keeps_its_token_budget_padding_included():
    """4 + 4 padded tokens fit into 9, a third prompt does not; a prompt longer than the budget runs alone."""
    lengths = (4, 3, 3, 20)
    assert taken(queue([prompt(range(n)) for n in lengths], max_tokens=9)) == [((3,), 0), ((0, 1), 0), ((2,), 0)]


def test_prompts_of_one_prefix_run_together():
    """The three pairs of query a, although a pair of query b is closer in length."""
    a = [prompt([1, 1, *range(10, 10 + n)], n_shared=2) for n in (6, 4, 2)]
    b = [prompt([2, 2, *range(10, 10 + n)], n_shared=2) for n in (5, 3)]
    assert taken(queue([*a, *b])) == [((0, 1, 2), 2), ((3, 4), 2)]


def test_a_prefix_that_saves_less_than_it_costs_is_no_reason():
    """One of thirty ids: less than a twentieth."""
    prompts = [prompt([1, *range(29)], n_shared=1), prompt([2, *range(28)], n_shared=1)]
    assert taken(queue(prompts)) == [((0, 1), 0)]


def test_small_groups_are_not_worth_batches_of_their_own():
    """Nine queries with two pairs each: two is less than a quarter of twelve but at least a quarter of the last six."""
    prompts = [prompt([query, query, *range(10, 20)], n_shared=2) for query in range(9) for _ in range(2)]
    batches = taken(queue(prompts, max_prompts=12))
    assert [(len(tickets), n_shared) for tickets, n_shared in batches] == [(12, 0), (2, 2), (2, 2), (2, 2)]
    assert {n_shared for _, n_shared in taken(queue(prompts, max_prompts=8))} == {2}


def test_a_prefix_of_one_prompt_is_not_shared():
    """There is no other prompt to share it with."""
    assert taken(queue([prompt(range(4), n_shared=4)])) == [((0,), 0)]


def test_an_id_of_each_prompt_is_left_to_read():
    """Two equal prompts share all ids except the last."""
    assert taken(queue([prompt(range(5), n_shared=5)] * 2)) == [((0, 1), 4)]


def urgent(prompts, **limits):
    """Queue of prompts with waiting callers, in this order."""
    waiting = BatchQueue(BatchLimits(**{"max_prompts": 8, "max_tokens": 1000, **limits}))
    for place, one in enumerate(prompts):
        waiting.add(place - len(prompts), replace(one, text=str(place)))
    return waiting


def test_who_waits_goes_by_turn_with_others_of_like_length():
    """The first is served together with one of equal length, the one after next."""
    waiting = urgent([prompt(range(n)) for n in (2, 9, 2, 9)], max_prompts=2)
    assert taken(waiting) == [((-4, -2), 0), ((-3, -1), 0)]


def test_nobody_is_passed_over_for_long():
    """A prompt of unusual length eventually comes first, although shorter ones keep arriving."""
    waiting = urgent([prompt(range(2)), prompt(range(9)), *[prompt(range(2))] * 9], max_prompts=2)
    assert [tickets for tickets, _ in taken(waiting)][:2] == [(-11, -9), (-10, -8)]


def test_who_waits_shares_a_prefix_as_others_do():
    """Two requests of four pairs alternate; a batch holds six of the longest prompts, and four are enough to share."""
    pairs = [prompt([query, query, *range(10, 20)], n_shared=2) for _ in range(4) for query in range(2)]
    assert taken(urgent(pairs, max_prompts=32, max_tokens=72)) == [((-8, -6, -4, -2), 2), ((-7, -5, -3, -1), 2)]
    long = prompt(range(72))
    short = [prompt([query, query, 1], n_shared=2) for query in range(20) for _ in range(2)]
    # By the longest one a batch is full with one, by these with 24: of each request, two go together.
    assert {n_shared for _, n_shared in taken(urgent([*short, long], max_prompts=32, max_tokens=72))} == {0, 2}


def test_equal_prompts_run_once():
    """For example, for a passage that occurs twice: duplicates run with the first copy and take no space."""
    waiting = BatchQueue(BatchLimits(max_prompts=2, max_tokens=1000))
    for ticket, ids in enumerate([(1, 2), (3, 4), (1, 2), (5, 6), (3, 4), (7,), (1, 2)]):
        waiting.add(ticket, prompt(ids))
    first, second = waiting.take(), waiting.take()
    assert (first.tickets, first.copies) == ((0, 1), ((2, 0), (4, 1), (6, 0)))
    assert (second.tickets, second.copies) == ((3, 5), ())
    assert not waiting


def test_reads_are_not_mixed():
    """Prompts for the head wait while first tokens are read."""
    waiting = queue([prompt(range(5)), prompt(range(4), read="first-token"), prompt(range(3))])
    assert taken(waiting) == [((0, 2), 0), ((1,), 0)]


def test_what_is_taken_back_does_not_run():
    """For example, of a failed query."""
    waiting = queue([prompt(range(n)) for n in (3, 2, 1)])
    waiting.remove({0, 2})
    assert taken(waiting) == [((1,), 0)]


@pytest.mark.parametrize("limits", [{"max_prompts": 0}, {"max_tokens": -1}])
def test_batches_of_nothing_are_refused(limits):
    """Before anything is loaded."""
    with pytest.raises(ConfigError, match="max_prompts >= 1 and max_tokens >= 0"):
        BatchLimits(**limits)
