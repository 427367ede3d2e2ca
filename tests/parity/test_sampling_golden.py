"""Our groups against those that texttron/tevatron@dd06310 drew (golden/sampling.json)."""

from __future__ import annotations

import json

import pytest
from shared_files import golden

from rankllm_train.encoding.sampling import sample_group


@pytest.fixture(scope="module")
def cases():
    """All 335 recorded draws."""
    return json.loads(golden("sampling.json").read_text(encoding="utf-8"))


def draw(case):
    return sample_group(
        case["item"],
        case["epoch"],
        seed=case["seed"],
        n_positives=case["n_pos"],
        n_negatives=case["n_neg"],
        group_size=case["group"],
        positive_no_shuffle=case["positive_no_shuffle"],
        negative_no_shuffle=case["negative_no_shuffle"],
    )


def test_every_recorded_draw_is_met(cases):
    """All 335; of the 11 with replacement, which the original does not seed, the positive and how many were drawn."""
    assert len(cases) == 335
    for case in cases:
        group = draw(case)
        assert group.positive == case["positive"], case
        if case["with_replacement"]:
            assert len(group.negatives) == case["n_negatives_drawn"], case
            assert set(group.negatives) <= set(range(case["n_neg"])), case
        else:
            assert list(group.negatives) == case["negatives"], case


def test_the_hard_cases_are_among_them(cases):
    """Python's integer hash: -1 and numbers of 2^61 - 1 and more are not their own."""
    sums = [case["item"] + case["seed"] for case in cases]
    assert -1 in sums
    assert any(total >= 2**61 - 1 for total in sums)
    assert any(case["epoch"] != int(case["epoch"]) for case in cases)
