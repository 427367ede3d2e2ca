"""Rankings in two columns are read if it is clear which column contains the ranks, and not at all otherwise."""

from __future__ import annotations

import pytest

from rankllm_core.answers.reader import read_answer


@pytest.mark.parametrize(
    "text",
    [
        "**1.** 3\n**2.** 1\n**3.** 2",
        "**1**. 3\n**2**. 1\n**3**. 2",
        "**1:** 3\n**2:** 1\n**3:** 2",
        "**1)** 3\n**2)** 1\n**3)** 2",
        "| 1. | 3 |\n| 2. | 1 |\n| 3. | 2 |",
        "| 1 | 3 | good |\n| 2 | 1 | ok |\n| 3 | 2 | bad |",
        "| Rank | Passage | Score |\n|---|---|---|\n| 1 | 3 | 0.9 |\n| 2 | 1 | 0.5 |\n| 3 | 2 | 0.1 |",
        "| Rank | Passage | Score |\n|---|---|---|\n| 1 | 3 | 9 |\n| 2 | 1 | 5 |\n| 3 | 2 | 1 |",
        "1: 3 (best)\n2: 1\n3: 2",
        "1\t3\n2\t1\n3\t2",
        "1 3\n2 1\n3 2",
        "1, 3\n2, 1\n3, 2",
        "1 -> 3\n2 -> 1\n3 -> 2",
        "1 = 3\n2 = 1\n3 = 2",
        "1) 3 2) 1 3) 2",
        "(1) 3 (2) 1 (3) 2",
        "1: 3 2: 1 3: 2",
        "1. 3 2. 1 3. 2",
        "Rank 1 = 3\nRank 2 = 1\nRank 3 = 2",
        "Rank 1 3\nRank 2 1\nRank 3 2",
        "1. 3 (score 0.9)\n2. 1 (score 0.5)\n3. 2 (score 0.1)",
        "1. 3 - explains it\n2. 1 - mentions it\n3. 2 - off topic",
        "**Rank 1:** 3\n**Rank 2:** 1\n**Rank 3:** 2",
        "1st 3\n2nd 1\n3rd 2",
        "Rank 2: 1\nRank 1: 3\nRank 3: 2",
        "Here are the passages ranked by relevance:\n1: 3\n2: 1\n3: 2",
        "1,3\n2,1\n3,2",
        "$3 \\succ 1 \\succ 2$",
        "$[3] \\succ [1] \\succ [2]$",
        "Final ranking by relevance score:\n1: 3\n2: 1\n3: 2",
        "Ranking: 1. 3, 2. 1, 3. 2",
        "Ranking: 1) 3 2) 1 3) 2",
    ],
)
def test_the_column_of_ranks_is_skipped(text):
    """All of these mean `3 1 2`, whatever separates the columns and follows them."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status) == ((2, 0, 1), "ok")


@pytest.mark.parametrize("text", ["a. C\nb. A\nc. B", "A. C\nB. A\nC. B", "1. C\n2. A\n3. B"])
def test_a_list_of_letters_is_read(text):
    """The same holds for alphabetic identifiers."""
    answer = read_answer(text, ("A", "B", "C"))
    assert (answer.order, answer.status) == ((2, 0, 1), "ok")


@pytest.mark.parametrize(
    "text",
    [
        "| Passage | Rank |\n|---|---|\n| 1 | 3 |\n| 2 | 1 |\n| 3 | 2 |",
        "Passage | Rank\n1 | 3\n2 | 1\n3 | 2",
        "ID | Rank\n1 | 3\n2 | 1\n3 | 2",
        "Passage: Rank\n1: 3\n2: 1\n3: 2",
        "Passage Rank: 1: 3, 2: 1, 3: 2",
        "| Passage | Rank |\n|---|---|\n| [1] | 3 |\n| [2] | 1 |\n| [3] | 2 |",
        "passage_id,rank\n1,3\n2,1\n3,2",
        '[{"id": 3, "rank": 2}, {"id": 1, "rank": 3}, {"id": 2, "rank": 1}]',
        "| Passage | Score | Rank |\n|---|---|---|\n| [1] | 5 | 3 |\n| [2] | 9 | 1 |\n| [3] | 7 | 2 |",
        "| Passage | Score | Rank |\n| 1 | 5 | 3 |\n| 2 | 9 | 1 |\n| 3 | 7 | 2 |",
        "| Passage | Why | Rank |\n|---|---|---|\n| [1] | a b | 3rd |\n| [2] | says it | 1st |\n| [3] | hints | 2nd |",
    ],
)
def test_a_header_says_which_column_ranks(text):
    """Passage 2 has rank 1, passage 3 has rank 2, passage 1 has rank 3."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status) == ((1, 2, 0), "ok")


@pytest.mark.parametrize(
    "text",
    [
        "Scores (out of 3):\n1: 1\n2: 3\n3: 2",
        "[1] 0.2\n[2] 0.9\n[3] 0.5",
        "Passage 1: 2/10\nPassage 2: 9/10\nPassage 3: 5/10",
        "3 1\n1 3\n2 2",
        "3, 2\n1, 3\n2, 1",
        "Slot 3 1\nSlot 1 3\nSlot 2 2",
        "3=2 1=3 2=1",
        "3: 2 1: 3 2: 1",
        "3 & 2\n1 & 3\n2 & 1",
        "Relevance scores:\n1. 3\n2. 1\n3. 2",
        "1.3\n2.1\n3.2",
        "[1, 2, 3] -> [3] > [1] > [2]",
        "[[1, 3], [2, 1], [3, 2]]",
        "Doc 1 -> 3\nDoc 2 -> 1\nDoc 3 -> 2",
        "1: 3\n2: 3\n3: 1",
        "| Passage | # |\n|---|---|\n| 1 | 3 |\n| 2 | 1 |\n| 3 | 2 |",
        "| Passage | Relevance |\n| 1 | 3 |\n| 2 | 1 |\n| 3 | 2 |",
    ],
)
def test_scores_and_pairs_give_no_order(text):
    """Unsorted scores, and two numbers per line of which the first does not count 1, 2, 3."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status) == ((0, 1, 2), "fallback")
    assert answer.defects
