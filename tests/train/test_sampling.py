"""Groups of one positive and its negatives are drawn by seed and change from epoch to epoch."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_train.encoding.sampling import sample_group


@pytest.mark.parametrize(
    ("item", "epoch", "seed", "n_positives", "n_negatives", "group_size", "positive", "negatives"),
    [
        (0, 0, 42, 1, 30, 16, 0, "19 14 10 26 22 6 5 12 11 15 9 25 29 21 16"),
        (0, 1, 42, 1, 30, 16, 0, "27 1 13 18 2 17 28 4 24 7 8 23 0 3 20"),
        (0, 2, 42, 1, 30, 16, 0, "19 14 10 26 22 6 5 12 11 15 9 25 29 21 16"),
        (7, 0, 42, 3, 30, 16, 1, "12 28 29 15 19 22 25 26 0 6 5 23 18 9 27"),
        (7, 1, 42, 3, 30, 16, 2, "7 20 14 4 8 21 1 16 17 24 10 3 13 11 2"),
        (7, 3, 42, 3, 20, 8, 1, "6 7 1 9 5 16 19"),
        (123456, 0, 13, 2, 20, 8, 1, "6 5 13 7 12 2 1"),
        (5, 0, 42, 1, 15, 16, 0, "2 12 13 0 11 3 10 4 14 9 7 8 6 1 5"),
        (0, 0, 42, 1, 10, 4, 0, "7 3 2"),
        (0, 1, 42, 1, 10, 4, 0, "8 5 6"),
        (0, 2, 42, 1, 10, 4, 0, "9 4 0"),
        (0, 3, 42, 1, 10, 4, 0, "1 7 3"),
    ],
)
def test_groups_are_those_of_the_original(item, epoch, seed, n_positives, n_negatives, group_size, positive, negatives):
    """Expected draws recorded by running texttron/tevatron@dd06310 src/tevatron/reranker/dataset.py."""
    group = sample_group(
        item, epoch, seed=seed, n_positives=n_positives, n_negatives=n_negatives, group_size=group_size
    )
    assert group == (positive, tuple(map(int, negatives.split())))


def test_epochs_share_no_negative_until_all_were_used():
    """With thirty negatives and five per epoch, six epochs use each once."""
    draw = partial(sample_group, 3, seed=1, n_positives=2, n_negatives=30, group_size=6)
    seen = [index for epoch in range(6) for index in draw(epoch).negatives]
    assert sorted(seen) == list(range(30))


def test_a_fraction_of_an_epoch_is_cut_off():
    """Within an epoch, the trainer's epoch is a fraction; the group does not change."""
    draw = partial(sample_group, 3, seed=1, n_positives=2, n_negatives=30, group_size=6)
    assert draw(1.99) == draw(1) != draw(2)


@pytest.mark.parametrize("item", [0, 17, 2**61])
def test_draws_with_replacement_are_seeded(item):
    """Two negatives for groups of eight: the draw is the same within an epoch and differs between epochs."""
    draw = partial(sample_group, item, seed=5, n_positives=1, n_negatives=2, group_size=8)
    assert draw(0) == draw(0)
    assert len({draw(epoch) for epoch in range(8)}) > 1
    assert all(len(draw(epoch).negatives) == 7 and set(draw(epoch).negatives) <= {0, 1} for epoch in range(8))


def test_draws_are_alike_in_every_process():
    """String hashing is randomized per process and must not affect the draw."""
    program = (
        "from rankllm_train.encoding.sampling import sample_group\n"
        "print([sample_group(9, e, seed=5, n_positives=1, n_negatives=3, group_size=8) for e in range(3)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_order_can_be_kept():
    """The first positive and the first negatives are used in every epoch and for every item."""
    draw = partial(sample_group, seed=5, n_positives=4, n_negatives=9, group_size=4)
    kept = {
        draw(item, epoch, positive_no_shuffle=True, negative_no_shuffle=True) for item in range(5) for epoch in range(3)
    }
    assert kept == {(0, (0, 1, 2))}


def test_a_group_of_one_needs_no_negative():
    """The group contains only the positive."""
    assert sample_group(0, 0, seed=0, n_positives=1, n_negatives=0, group_size=1) == (0, ())


@pytest.mark.parametrize(
    ("n_positives", "n_negatives", "group_size", "error", "message"),
    [
        (0, 5, 4, RankLLMError, "no positive passage"),
        (1, 0, 4, RankLLMError, "no negative passage, expected at least one for groups of 4"),
        (1, 5, 0, ConfigError, "expected 1 or more passages, found 0"),
    ],
)
def test_what_cannot_make_a_group_is_an_error(n_positives, n_negatives, group_size, error, message):
    """The error is not an IndexError raised inside the draw."""
    with pytest.raises(error, match=message):
        sample_group(0, 0, seed=0, n_positives=n_positives, n_negatives=n_negatives, group_size=group_size)
