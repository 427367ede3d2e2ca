"""Rankings in forms that no prompt requests are read as they are meant, or not at all."""

from __future__ import annotations

import pytest

from rankllm_core.answers.reader import read_answer
from rankllm_core.types import identifiers


def positions(order):
    """`3 1 2` as 0-based positions."""
    return tuple(int(number) - 1 for number in order.split())


@pytest.mark.parametrize(
    "text",
    [
        "1: 3\n2: 1\n3: 2",
        "1: 3, 2: 1, 3: 2",
        "1. 3, 2. 1, 3. 2",
        "1. [3]\n2. [1]\n3. [2]",
        "1) [3]\n2) [1]\n3) [2]",
        "1: [3]\n2: [1]\n3: [2]",
        "(1) [3]\n(2) [1]\n(3) [2]",
        "(1) 3\n(2) 1\n(3) 2",
        "1 - 3\n2 - 1\n3 - 2",
        "1. [3], 2. [1], 3. [2]",
        "#1: [3]\n#2: [1]\n#3: [2]",
        "#1: 3\n#2: 1\n#3: 2",
        "Rank 1: [3]\nRank 2: [1]\nRank 3: [2]",
        "Rank 1: 3\nRank 2: 1\nRank 3: 2",
        "1st: [3]\n2nd: [1]\n3rd: [2]",
        "1st: 3\n2nd: 1\n3rd: 2",
        "1: Passage 3\n2: Passage 1\n3: Passage 2",
        "**1.** [3]\n**2.** [1]\n**3.** [2]",
        "a) [3]\nb) [1]\nc) [2]",
        "A. [3] > B. [1] > C. [2]",
        "A: 3\nB: 1\nC: 2",
        "| 1 | [3] |\n| 2 | [1] |\n| 3 | [2] |",
        "| Rank | Passage |\n|---|---|\n| 1 | [3] |\n| 2 | [1] |\n| 3 | [2] |",
        "| Rank | Passage |\n|:--|--:|\n| 1 | 3 |\n| 2 | 1 |\n| 3 | 2 |",
        "| Passage | Rank |\n|---|---|\n| [3] | 1 |\n| [1] | 2 |\n| [2] | 3 |",
        "[3]: 1\n[1]: 2\n[2]: 3",
        '{"3": 1, "1": 2, "2": 3}',
        "Passage 3: 0.9\nPassage 1: 0.5\nPassage 2: -0.1",
        "P3 > P1 > P2",
        "[P3] > [P1] > [P2]",
        "#3 > #1 > #2",
        "[#3] > [#1] > [#2]",
        "[3.0] > [1.0] > [2.0]",
        "[3.] > [1.] > [2.]",
        "*[3]* > _[1]_ > `[2]`",
        '["3","1","2"]',
        '{"ranking": [3,1,2]}',
        '{"ranking": ["3", "1", "2"], "n": "three"}',
        "[Ranking: 3, 1, 2]",
        "[3] » [1] » [2]",
        "[3] ⟶ [1] ➔ [2]",
        "3\ufe0f\u20e3 > 1\ufe0f\u20e3 > 2\ufe0f\u20e3",
        "[3\u00ad] > [1] > [2\u2060]",
    ],
)
def test_a_complete_ranking_in_another_form_is_read(text):
    """Numbers, letters and ranks that label list items are not identifiers; neither are columns of ranks or scores."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status, answer.defects) == ((2, 0, 1), "ok", ())


@pytest.mark.parametrize(
    "text",
    [
        "A. [L] > B. [N] > C. [P]",
        "A. [L]\nB. [N]\nC. [P]",
        "A) [L], B) [N], C) [P]",
        "(A) [L]\n(B) [N]\n(C) [P]",
        "A. L\nB. N\nC. P",
        "A: L\nB: N\nC: P",
        "1: L\n2: N\n3: P",
        "1. [L] > 2. [N] > 3. [P]",
        "Rank 1: [L]\nRank 2: [N]\nRank 3: [P]",
    ],
)
def test_letters_that_number_a_list_are_no_identifiers(text):
    """`A. [L]` means that L is first."""
    answer = read_answer(text, identifiers("alpha", 20))
    assert answer.order[:3] == (11, 13, 15)
    assert answer.defects[0] == "missing [A]"
    assert answer.n_ranked == 3


@pytest.mark.parametrize(
    "text", ["[3] < [1] < [2]", "3 < 1 < 2", "[3] ≺ [1] ≺ [2]", "[3] &lt; [1] &lt; [2]", "[3] ← [1] <= [2]"]
)
def test_an_ascending_ranking_is_read_from_its_end(text):
    """In `a < b`, b ranks before a; a defect says so."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status) == (positions("2 1 3"), "repaired")
    assert answer.defects == ("ascending order: joined by '<', read from the last to the first",)


@pytest.mark.parametrize(
    "text",
    [
        "[3] > [1] < [2]",
        "[3] < [1]\n\n[2] > [4]",
        "[3] < [2].\n\nAlso [4] < [1].",
        "[1]: 3\n[2]: 1\n[3]: 2",
        "Passage 1: 3\nPassage 2: 1\nPassage 3: 2",
        "Passage 1: 0.2\nPassage 2: 0.9\nPassage 3: 0.5",
        '{"1": 3, "2": 1, "3": 2}',
        "| [1] | 3 |\n| [2] | 1 |\n| [3] | 2 |",
        "| Passage | Score |\n| 2 | 1.5 |\n| 1 | 9.5 |\n| 3 | 3.5 |",
        "3: 2\n1: 3\n2: 2",
    ],
)
def test_an_order_that_cannot_be_told_is_none(text):
    """A number next to an identifier may be a rank or a score: the prompt's order is kept, and a defect says why."""
    answer = read_answer(text, ("1", "2", "3", "4"))
    assert (answer.order, answer.status) == ((0, 1, 2, 3), "fallback")
    assert answer.defects


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("[2] > [1] > [3]\n\nScores:\n[1]: 3\n[2]: 9", "2 1 3"),
        ("[2] > [1] > [3]. [3] scores < 5", "2 1 3"),
        ("[2] (score < 5) > [1] > [3]", "2 1 3"),
        ("<b>[2]</b> > [1] > [3]", "2 1 3"),
        ("Since 1 < 2 in price: [2] > [1] > [3]", "2 1 3"),
        ("(see [page 3, 9]) [2] > [1] > [3]", "2 1 3"),
    ],
)
def test_a_clear_ranking_is_not_made_doubtful(text, order):
    """Rows, signs and brackets in the surrounding prose are ignored."""
    answer = read_answer(text, ("1", "2", "3"))
    assert answer.order == positions(order)
    assert answer.status != "fallback"
