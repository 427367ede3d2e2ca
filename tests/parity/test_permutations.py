"""Permutations as castorini/rank_llm@1b3cabb reads them."""

from __future__ import annotations

import json

import pytest
from shared_files import golden

from rankllm_core.answers.reader import read_answer
from rankllm_core.types import identifiers

# Where we differ on purpose: a grammar tells identifiers from list numbers, superscripts and lower-case letters.
DIFFERENT = {
    "1. [12] > [1] > [11] > [10] > [9] > [8] > [7] > [6] > [5] > [4] > [3] > [2] > [1]"
    " > [14] > [15] > [16] > [17] > [18] > [19] > [20]": (11, 0),
    "1. [14] > [15] > [16] > [17] > [18] > [19] > [20]": (13, 14),
    "½ ² [3]": (2, 0),
    "[b] > [a]": (1, 0),
}


@pytest.fixture(scope="module")
def rows():
    """Recorded answers with the order that the reference reads."""
    return [json.loads(line) for line in golden("permutations.jsonl").read_text(encoding="utf-8").splitlines()]


def read(row):
    return read_answer(row["response"], identifiers("alpha" if row["use_alpha"] else "numeric", row["n"]))


def test_well_formed_answers_have_the_reference_order(rows):
    """Where the answer is exactly what the prompt asks for, nobody may disagree, and the status is `ok`."""
    strict = [row for row in rows if row["strictly_well_formed"]]
    assert len(strict) == 133
    for row in strict:
        answer = read(row)
        assert (list(answer.order), answer.status) == (row["order"], "ok"), row["id"]


def test_other_answers_have_the_reference_order_but_for_named_exceptions(rows):
    """Repeats, gaps, lost brackets and unknown identifiers are repaired as the reference repairs them."""
    loose = [row for row in rows if not row["strictly_well_formed"]]
    assert len(loose) == 423
    for row in loose:
        order = read(row).order
        if row["response"] in DIFFERENT:
            assert order[:2] == DIFFERENT[row["response"]], row["id"]
        else:
            assert list(order) == row["order"], row["id"]
