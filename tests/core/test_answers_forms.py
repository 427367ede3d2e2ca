"""Ranks and scores next to the identifiers, records and plain names are read by what they say, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rankllm_core.answers.reader import read_answer
from rankllm_core.answers.tokens import normalise, tokenize
from rankllm_core.types import identifiers


def in_letters(text):
    """The answer with its bracketed numbers replaced by letters."""
    for number, letter in ("1A", "2B", "3C"):
        text = text.replace(f"[{number}]", f"[{letter}]")
    return text


# All of these mean 3, 1, 2.
BY_RANK = [
    "Rank 2: [1]\nRank 1: [3]\nRank 3: [2]",
    "**Rank 2:** [1]\n**Rank 1:** [3]\n**Rank 3:** [2]",
    "- Rank 2 - [1]\n- Rank 1 - [3]\n- Rank 3 - [2]",
    "Rank 2\n[1]\nRank 1\n[3]\nRank 3\n[2]",
    "[1]\nRank: 2\n[2]\nRank: 3\n[3]\nRank: 1",
    "| Rank 2 | [1] |\n| Rank 1 | [3] |\n| Rank 3 | [2] |",
    "2nd: [1]\n1st: [3]\n3rd: [2]",
    "3rd: [2]\n2nd: [1]\n1st: [3]",
    "[1]: 2nd\n[2]: 3rd\n[3]: 1st",
    "[1]: 2nd [2]: 3rd [3]: 1st",
    "[1] – 2nd place\n[2] – 3rd place\n[3] – 1st place",
    "[1] → 2nd\n[2] → 3rd\n[3] → 1st",
    "[1] → rank 2\n[2] → rank 3\n[3] → rank 1",
    "[1] – rank 2\n[2] – rank 3\n[3] – rank 1",
    "[1] - rank: 2\n[2] - rank: 3\n[3] - rank: 1",
    "[1] (rank 2), [2] (rank 3), [3] (rank 1)",
    "[1] (rank 2, on topic), [2] (rank 3, not), [3] (rank 1, best)",
    "[1] (2nd), [2] (3rd), [3] (1st)",
    "[1] is ranked 2nd, [2] is ranked 3rd, [3] is ranked 1st.",
    "[1] is second, [2] is third and [3] is first.",
    "[1] at position 2, [2] at position 3, [3] at position 1",
    "rank([1]) = 2\nrank([2]) = 3\nrank([3]) = 1",
    "Second: [1]\nFirst: [3]\nThird: [2]",
    "Best: [3], second best: [1], worst: [2]",
    "Worst: [2], second best: [1], best: [3]",
    "The first is [3], the second is [1], the third is [2].",
    "Most relevant: [3]\nSecond most relevant: [1]\nLeast relevant: [2]",
    "| Rank | Passage | Why |\n|---|---|---|\n| 2 | [1] | words |\n| 1 | [3] | more |\n| 3 | [2] | few |",
    "| **Rank** | **Passage** |\n|---|---|\n| **2** | **[1]** |\n| **1** | **[3]** |\n| **3** | **[2]** |",
    "| Passage | Why | Rank |\n|---|---|---|\n| [1] | words | 2 |\n| [2] | few | 3 |\n| [3] | more | 1 |",
    '{"rank_1": "[3]", "rank_2": "[1]", "rank_3": "[2]"}',
    '{"[1]": "2nd", "[2]": "3rd", "[3]": "1st"}',
    '[{"rank": 2, "passage": "[1]"}, {"rank": 1, "passage": "[3]"}, {"rank": 3, "passage": "[2]"}]',
    '{"rank": 2, "passage": "[1]"}\n{"rank": 1, "passage": "[3]"}\n{"rank": 3, "passage": "[2]"}',
]
NUMBERS_ONLY = [
    "Rank 2: Passage 1\nRank 1: Passage 3\nRank 3: Passage 2",
    "Passage 1 is ranked second. Passage 2 is ranked third. Passage 3 is ranked first.",
    "Rank: 1, Passage: 3\nRank: 2, Passage: 1\nRank: 3, Passage: 2",
    "Passage: 1, Rank: 2\nPassage: 2, Rank: 3\nPassage: 3, Rank: 1",
    "- passage: 1\n  rank: 2\n- passage: 2\n  rank: 3\n- passage: 3\n  rank: 1",
    "- rank: 2\n  passage: 1\n- rank: 1\n  passage: 3\n- rank: 3\n  passage: 2",
    "1: 2nd\n2: 3rd\n3: 1st",
    "1 (rank 2)\n2 (rank 3)\n3 (rank 1)",
    "rank(1) = 2\nrank(2) = 3\nrank(3) = 1",
    '{"first": 3, "second": 1, "third": 2}',
    '{"1": {"rank": 2}, "2": {"rank": 3}, "3": {"rank": 1}}',
    '[{"passageId": 1, "rank": 2}, {"passageId": 2, "rank": 3}, {"passageId": 3, "rank": 1}]',
    '```json\n{"ranking": [{"id": 3, "reason": "a 2 b"}, {"id": 1, "reason": "c"}, {"id": 2, "reason": "d"}]}\n```',
]
IN_ORDER = [
    "| 1 | [3] | words |\n| 2 | [1] | words |\n| 3 | [2] | words |",
    "[3] (score: 3), [1] (score: 2), [2] (score: 1)",
    "[3] = 0.95\n[1] = 0.9\n[2] = 0.1",
    "[3]: 90%\n[1]: 50%\n[2]: 20%",
    "[3] ★★★\n[1] ★★☆\n[2] ★☆☆",
    "0.9: [3]\n0.5: [1]\n0.1: [2]",
    "1. [3] (score: 0.9)\n2. [1] (score: 0.5)\n3. [2] (score: 0.1)",
    "| Passage | Score |\n|---|---|\n| [3] | 0.9 |\n| [1] | 0.5 |\n| [2] | 0.1 |",
]
PLAIN = [
    "3.0 > 1.0 > 2.0",
    "Ranking: 3.0 > 1.0 > 2.0",
    "D3 > D1 > D2",
    "[D3] > [D1] > [D2]",
    "D3, D1, D2",
    "doc_3 > doc_1 > doc_2",
    "ID3 > ID1 > ID2",
    "Doc3 > Doc1 > Doc2",
]


@pytest.mark.parametrize("text", [*BY_RANK, *NUMBERS_ONLY, *IN_ORDER, *PLAIN])
def test_a_ranking_is_read_by_what_it_says(text):
    """The order of the identifiers in the text does not count."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status, answer.defects) == ((2, 0, 1), "ok", ())


@pytest.mark.parametrize("text", [*BY_RANK, *IN_ORDER])
def test_letters_are_read_as_numbers_are(text):
    """The same answers with alphabetic identifiers give the same ranking."""
    answer = read_answer(in_letters(text), ("A", "B", "C"))
    assert (answer.order, answer.status, answer.defects) == ((2, 0, 1), "ok", ())


@pytest.mark.parametrize(
    "text", ["2. [1]\n1. [3]\n3. [2]", "3) [2]\n2) [1]\n1) [3]", "2: [1]\n1: [3]\n3: [2]", "#2: [1]\n#1: [3]\n#3: [2]"]
)
def test_a_list_numbered_out_of_sequence_is_read_by_its_numbers(text):
    """A defect says so, since the model may have numbered carelessly."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status) == ((2, 0, 1), "repaired")
    assert answer.defects == ("numbered out of sequence: read by the numbers, not from the first to the last",)


@pytest.mark.parametrize(
    "text",
    [
        "From least to most relevant: [2], [1], [3]",
        "Ranked from worst to best:\n2\n1\n3",
        "In ascending order of relevance: [2] [1] [3]",
        "[2], [1], [3] (least to most relevant)",
    ],
)
def test_a_list_that_is_said_to_rise_is_read_from_its_end(text):
    """A defect says so."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status) == ((2, 0, 1), "repaired")
    assert answer.defects == ("ascending order: the answer says so, read from the last to the first",)


SCORES = "no ranking: a score beside each identifier, and they are not in the order of their scores"
NUMBERS = "no ranking: a number beside each identifier, and the order of neither is that of a ranking"
PAIRS = "no ranking: pairs joined by '>' that contradict each other, or ranks and passages"


@pytest.mark.parametrize(
    ("text", "defect"),
    [
        ("[1] (score: 2), [2] (score: 1), [3] (score: 3)", SCORES),
        ("[1] = 0.9\n[2] = 0.1\n[3] = 0.95", SCORES),
        ("[1] → 0.5, [2] → 0.1, [3] → 0.9", SCORES),
        ("[1]: 50%\n[2]: 20%\n[3]: 90%", SCORES),
        ("[1] ★★☆\n[2] ★☆☆\n[3] ★★★", SCORES),
        ("[1] gets 29 points, [2] gets 57 points, [3] gets 60 points", SCORES),
        ('[{"id": 1, "score": 0.5}, {"id": 2, "score": 0.1}, {"id": 3, "score": 0.9}]', SCORES),
        ("| Passage | Score |\n|---|---|\n| [1] | 0.5 |\n| [2] | 0.1 |\n| [3] | 0.9 |", SCORES),
        ("1 → 3\n2 → 1\n3 → 2", PAIRS),
        ("1 → 3, 2 → 1, 3 → 2", PAIRS),
        ("[1] → 2\n[2] → 3\n[3] → 1", PAIRS),
        ("Passage 1 → 2\nPassage 2 → 3\nPassage 3 → 1", PAIRS),
        ("2. 1\n1. 3\n3. 2", NUMBERS),
        ("| 2 | [1] | words |\n| 1 | [3] | words |\n| 3 | [2] | words |", NUMBERS),
        ("[1] got 7 votes\n[2] got 9 votes\n[3] got 8 votes", NUMBERS),
        ("3: [2]\n2: [1]\n1: [3]", NUMBERS),
        ("[1] is ranked 1st, [2] is ranked 1st", "no ranking: the ranks beside the identifiers contradict each other"),
        (
            "Rank 2: [1] > Rank 1: [3] > Rank 3: [2]",
            "no ranking: identifiers joined by '>' whose ranks say another order",
        ),
        (
            "From least to most relevant: [2] > [1] > [3]",
            "no ranking: identifiers joined by '>' beside words that say the best comes last",
        ),
        (
            "Worst: [2], [1], best: [3]",
            "no ranking: ranks out of sequence, and identifiers between them that have none",
        ),
    ],
)
def test_an_order_that_cannot_be_told_says_what_was_seen(text, defect):
    """The prompt's order is kept, and the defect gives the reason."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status, answer.defects) == ((0, 1, 2), "fallback", (defect,))


@pytest.mark.parametrize("text", ["[3] (2019)\n[1] (2021)\n[2] (2018)", "3 (most relevant)\n1\n2 (least relevant)"])
def test_years_and_remarks_at_the_ends_change_no_list(text):
    """Passages 3, 1, 2 in the order of the text."""
    answer = read_answer(text, ("1", "2", "3"))
    assert answer.order == (2, 0, 1)
    assert answer.status != "fallback"


def test_a_chain_with_signs_outranks_ranks_in_prose_that_it_contradicts():
    """The contradiction is a defect."""
    text = "[1] is ranked second, [3] is ranked first.\n\n[1] > [3] > [2]"
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status) == ((0, 2, 1), "repaired")
    assert any(defect.startswith("contradicting [3] > [1]") for defect in answer.defects)


@pytest.mark.parametrize("text", ["Vitamin D3, model T2", "v3.0 and 1.0", "D3 > D1", "3.0 > 1.0"])
def test_what_is_read_as_a_whole_only_is_no_identifier_in_a_passage(text):
    """Passages keep these words: only text that an answer would read as an identifier is escaped."""
    assert not [token for token in tokenize(normalise(text), "numeric") if token.kind == "name"]


ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth"),
    *("seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"),
)
FORMS = [
    *("Rank {r}: [{p}]", "Rank: {r}, Passage: {p}", "{o}: [{p}]", "{w}: [{p}]", "[{p}]: {o}", "[{p}] ({o})"),
    *("[{p}] is ranked {o}", "[{p}] is {w}", "[{p}] (rank {r})", "[{p}] - rank: {r}", "[{p}] → {o}", "[{p}] → {s}"),
    *("Passage {p} is at position {r}", "- passage: {p}\n  rank: {r}", "- rank: {r}\n  passage: [{p}]", "[{p}] #{r}"),
    *("| Rank {r} | [{p}] |", "| {r} | [{p}] | words |", "| [{p}] | words | {r} |", "{r}. [{p}]", "({r}) [{p}]"),
    *("{r} | [{p}]", "{r}. {p}", "[{p}]: {r}", "[{p}] ({r})", "[{p}] → {r}", "[{p}] takes {o} place"),
    *("[{p}] (score: {s})", "[{p}] = {s}", "{s}: [{p}]", "| [{p}] | {s} | words |", "| {s} | [{p}] |", "{p} ({s})"),
]


def written(form, rows, labels, separator):
    """Write rows in a form: `p` is the identifier, `r`, `o` and `w` its rank, `s` a score that decreases with the
    rank.
    """
    suffix = {1: "st", 2: "nd", 3: "rd"}
    return separator.join(
        form.format(
            p=labels[position], r=rank, o=f"{rank}{suffix.get(rank, 'th')}", w=ORDINALS[rank - 1], s=(99 - rank) / 100
        )
        for rank, position in rows
    )


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(
    form=st.sampled_from(FORMS),
    kind=st.sampled_from(["numeric", "alpha"]),
    order=st.integers(2, 12).flatmap(lambda n: st.permutations(range(n))),
    shuffle=st.randoms(use_true_random=False),
    separator=st.sampled_from(["\n", "\n\n", ", ", "; ", " "]),
)
@example(form="[{p}]: {o}", kind="numeric", order=[1, 0, 2], shuffle=None, separator=" ")
def test_no_other_order_is_ever_read_without_a_defect(form, kind, order, shuffle, separator):
    """For any row order, each form gives the ranking it states, or a status other than `ok`."""
    rows = list(enumerate(order, start=1))
    if shuffle is None:
        rows.sort(key=lambda row: row[1])
    else:
        shuffle.shuffle(rows)
    labels = identifiers(kind, len(order))
    answer = read_answer(written(form, rows, labels, "\n" if "|" in form or "\n" in form else separator), labels)
    assert answer.status != "ok" or answer.order == tuple(order)
