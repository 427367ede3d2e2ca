"""Whatever a model writes, every passage appears exactly once in the result, with a status saying how it was read."""

from __future__ import annotations

import pytest

from rankllm_core.answers.reader import ReadAnswer, parse_permutation, read_answer
from rankllm_core.types import identifiers


def ranked(order: str) -> tuple[int, ...]:
    """`2 1 3` as 0-based positions."""
    return tuple(int(number) - 1 for number in order.split())


@pytest.mark.parametrize(
    ("text", "order", "defects"),
    [
        ("[2] > [1] > [3]", (1, 0, 2), ()),
        ("[2] > [9]", (1, 0, 2), ("unknown [9]", "missing [1]", "missing [3]")),
        ("", (0, 1, 2), ("missing [1]", "missing [2]", "missing [3]")),
    ],
)
def test_every_answer_becomes_a_total_order(text, order, defects):
    """Every passage appears exactly once, whatever the model writes."""
    assert parse_permutation(text, ("1", "2", "3")) == (order, defects)


def test_a_repeated_identifier_is_a_defect():
    """The first occurrence counts, and missing identifiers follow."""
    assert parse_permutation("[2] > [2]", ("1", "2")) == ((1, 0), ("repeated [2]", "missing [1]"))


# Answers that the parsers of other projects misread or fail on.
@pytest.mark.parametrize(
    ("text", "order", "status"),
    [
        ("[2] > [1] (area 5 m²) > [3]", "2 1 3", "repaired"),
        ("1" * 5000, "1 2 3", "fallback"),
        ("[0] > [2] > [1]", "2 1 3", "repaired"),
        ("Here are the 3 passages ranked: [2] > [1] > [3]", "2 1 3", "ok"),
        ("Because of the 1 query in 2019: [3] > [2] > [1]", "3 2 1", "ok"),
        ("<think>[1] is bad, [3] best</think> [3] > [2] > [1]", "3 2 1", "ok"),
        ("[3] > [3] > [2] > [1]", "3 2 1", "repaired"),
        ("[3] > [2] > [1]\nDone.", "3 2 1", "ok"),
        ("[C] > [A] > [B]", "1 2 3", "fallback"),
    ],
)
def test_malformed_answers_are_read_as_they_are_meant(text, order, status):
    """Prose, thinking, superscripts and very long numbers do not change the ranking."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status) == (ranked(order), status)


@pytest.mark.parametrize(
    ("kind", "text", "defect"),
    [
        ("numeric", "[C] > [A] > [B]", "no ranking: alphabetic identifiers where numeric ones were asked for"),
        ("numeric", "Sure: C > A > B", "no ranking: alphabetic identifiers where numeric ones were asked for"),
        ("alpha", "[3] > [1] > [2]", "no ranking: numeric identifiers where alphabetic ones were asked for"),
        ("alpha", "3 > 1", "no ranking: numeric identifiers where alphabetic ones were asked for"),
    ],
)
def test_the_wrong_kind_of_identifiers_is_said(kind, text, defect):
    """If prompt and model disagree on the identifiers, it is a fallback with a reason, not a silent identity."""
    assert read_answer(text, identifiers(kind, 3)) == ReadAnswer(order=(0, 1, 2), status="fallback", defects=(defect,))


@pytest.mark.parametrize(
    "text",
    [
        "[2]>[1]>[3]",
        "2 > 1 > 3",
        "2>1>3",
        "2, 1, 3",
        "2 1 3",
        "[2]\n[1]\n[3]",
        "[2] [1] [3]",
        "[2, 1, 3]",
        '["2", "1", "3"]',
        '```json\n{"ranking": [2, 1, 3]}\n```',
        "[2 > 1 > 3]",
        "(2) > (1) > (3)",
        "2] > [1] > [3]",
        "2 > [1] > [3]",
        "[2] > [1] > [3",
        "[2] > [1] > [3] > [",
        "> [2] > [1] > [3]",
        "[2]\n> [1]\n> [3]",
        "[2] -> [1] -> [3]",
        "[2] >> [1] >= [3]",
        "[2] &gt; [1] &gt; [3]",
        r"\[2\] > \[1\] > \[3\]",
        "**[2]** > **[1]** > **[3]**",
        "Passage 2 > Passage 1 > Passage 3",
        "PASSAGE2 > PASSAGE1 > PASSAGE3",
        "[PASSAGE2, PASSAGE1, PASSAGE3]",
        "[Passage 2] > [Passage 1] > [Passage 3]",
        "Document [2] > Document [1] > Document [3]",
        "Passages 2, 1 and 3",
        "1. [2]\n2. [1]\n3. [3]",
        "1. 2\n2. 1\n3. 3",
        "1. [2] > 2. [1] > 3. [3]",
        "- [2]\n- [1]\n- [3]",
        "[02] > [01] > [03]",
        "２ > １ > ３",
        "［２］＞［１］＞［３］",
        "【2】 > 【1】 > 【3】",
        "[٢] > [١] > [٣]",
        "② > ① > ③",
        "②①③",
        "❷ > ❶ > ❸",
        "[2] ≻ [1] ≻ [3]",
        "2 → 1 → 3",
        "[2]\u200b > \u200e[1] > [3]\ufeff",
        "[rankstart] [2] > [1] > [3] [rankend]",
        "I considered [1] > [2] > [3].\n<answer> [2] > [1] > [3] </answer>",
        "<think>1 > 2 > 3</think>\n<answer>[2] > [1] > [3]</answer>",
        "<think>I forgot to close it <answer>[2] > [1] > [3]</answer><|im_end|>",
        "<answer></answer> tags are needed: [2] > [1] > [3]",
        "[1] > [2] > [3]</think>[2] > [1] > [3]</s>",
        "[2] > [1] > [3] <think> or perhaps",
        "In the top 3, [2] > [1] > [3]",
        "The top 3: 2 > 1 > 3",
        "[3] is off-topic. Ranking: 2 > 1 > 3",
        "Of 20 passages, 3 count. [2] > [1] > [3] is the answer of 2019, with 1 doubt.",
        "[2] > [1] > [3]\n\nPassage 3 is about something else, see [3].",
        "e.g. [2] > [1]. Ranking: [2] > [1] > [3]",
        "[2] > [1] > [3]. Again: [2] > [1] > [3]",
    ],
)
def test_a_clean_ranking_is_ok_however_it_is_written(text):
    """Brackets, separators, markup, scripts and text around a complete ranking are ignored."""
    assert read_answer(text, ("1", "2", "3")) == ReadAnswer(order=(1, 0, 2), status="ok", defects=())


@pytest.mark.parametrize(
    ("text", "order", "defects"),
    [
        ("[1] = [2] > [3]", "1 2 3", ("tied [1] = [2]",)),
        ("[2] > [1] > foo > [3]", "2 1 3", ("stray 'foo'",)),
        ("[2] > [Passage Two] > [1] > [3]", "2 1 3", ("unknown [Passage Two]",)),
        ("[2] (better than [3]) > [1] > [3]", "2 1 3", ("stray '(better than [3])'",)),
        ("[3] is best, followed by [1] and [2].", "3 1 2", ("stray 'is best, followed by'",)),
        ("Best: [3] > [1]\nWorst: [2] > [9]", "3 1 2", ("unknown [9]", "stray 'Worst'")),
        ("[3] (score > 2)\n[1] (score > 1)\n[2]", "3 1 2", ("stray '(score > 2)'", "stray '(score > 1)'")),
        ("[1] > [2] > [3]. No: [3] > [1] > [2]", "3 1 2", ("contradicting [1] > [2] > [3]",)),
        ("The most relevant is passage 3.", "3 1 2", ("missing [1]", "missing [2]")),
        ("[2] > [1] because 3 is off-topic", "2 1 3", ("missing [3]",)),
        ("11 > [2] > [3] > [1]", "2 3 1", ("unknown [11]",)),
        ("[5000000000000] > [2] > [3] > [1]", "2 3 1", ("unknown [50000000000…]",)),
        ("[2] > [1] > [3] > [2] > [2] > [1]", "2 1 3", ("repeated [2]", "repeated [1]")),
        ("1 > [3] > [2] > [1]", "1 3 2", ("repeated [1]",)),
        ("２>１", "2 1 3", ("missing [3]",)),
        ("2", "2 1 3", ("missing [1]", "missing [3]")),
        ("<answer>[2] > [1]</answer> [3]", "2 1 3", ("missing [3]",)),
    ],
)
def test_what_is_wrong_is_named(text, order, defects):
    """A ranking with irregular parts is repaired, and each defect describes one."""
    answer = read_answer(text, ("1", "2", "3"))
    assert answer == ReadAnswer(order=ranked(order), status="repaired", defects=defects)


@pytest.mark.parametrize(
    "text",
    [
        "20 passages are provided.",
        "There are 3 passages from 2019.",
        "Home / News / Industry News / What",
        "2019-01-02",
        "2.1",
        "I cannot rank 2 of these.",
        "[9] > [8]",
        "½ m² ²",
        "[] > [] > []",
        "\x00\ud800\udfff",
        "\u202e\u05d0\u05d1 \u0661\u0662\u0663",
    ],
)
def test_text_without_a_ranking_falls_back(text):
    """Numbers in prose, dates, unknown identifiers and noise leave the prompt's order unchanged."""
    answer = read_answer(text, ("1", "2", "3"))
    assert (answer.order, answer.status) == ((0, 1, 2), "fallback")
    assert answer.defects[-3:] == ("missing [1]", "missing [2]", "missing [3]")


def test_thinking_that_never_ends_is_no_answer():
    """A tentative ranking in a truncated chain of thought is not used as the answer."""
    defects = ("no ranking: the answer ends inside <think>",)
    for text in ("<think>maybe [2] > [1] > [3]", "<think>the format is <answer>[2] > [1] > [3]</answer>, so"):
        assert read_answer(text, ("1", "2", "3")) == ReadAnswer(order=(0, 1, 2), status="fallback", defects=defects)


@pytest.mark.parametrize(
    ("text", "order", "defects"),
    [
        ("[B] > [A] > [C]", "2 1 3", ()),
        ("B A C", "2 1 3", ()),
        ("[B, A, C]", "2 1 3", ()),
        ("Ｂ > Ａ > Ｃ", "2 1 3", ()),
        ("Ⓑ > Ⓐ > Ⓒ", "2 1 3", ()),
        ("A remark: I think [B] > [A] > [C]", "2 1 3", ()),
        ("I'd say B > A > C, as A is a B", "2 1 3", ()),
        ("[b] > [a] > [c]", "2 1 3", ("lower-case [b]", "lower-case [a]", "lower-case [c]")),
        ("[AB] > [C]", "3 1 2", ("unknown [AB]", "missing [A]", "missing [B]")),
        ("[C] > [A] > [Z]", "3 1 2", ("unknown [Z]", "missing [B]")),
        ("[C] > [2] > [A]", "3 1 2", ("unknown [2]", "missing [B]")),
        ("The ranking is [A] > [C]", "1 3 2", ("missing [B]",)),
        ("I am A.", "1 2 3", ("missing [A]", "missing [B]", "missing [C]")),
    ],
)
def test_letters_of_prose_are_no_identifiers(text, order, defects):
    """With alphabetic identifiers, only letters written as identifiers count."""
    assert parse_permutation(text, ("A", "B", "C")) == (ranked(order), defects)


def test_many_defects_of_a_sort_are_counted():
    """Ten defects are listed, and the rest are counted."""
    answer = read_answer("[1]", identifiers("numeric", 20))
    assert answer.defects == (*(f"missing [{number}]" for number in range(2, 12)), "missing: 9 more")


@pytest.mark.parametrize(("n", "text", "status"), [(0, "[1] > [2]", "ok"), (1, "[1]", "ok"), (1, "", "fallback")])
def test_windows_of_no_or_one_passage_are_read(n, text, status):
    """Windows of zero or one passage have only one order."""
    answer = read_answer(text, identifiers("numeric", n))
    assert (answer.order, answer.status) == (tuple(range(n)), status)


@pytest.mark.parametrize("labels", [("1", "1"), ("1", "A"), ("a", "b"), ("[1]",), ("01", "02"), ("",)])
def test_labels_that_are_no_identifiers_are_refused(labels):
    """Labels that cannot be distinguished in an answer are an error of the caller."""
    with pytest.raises(ValueError, match="distinct"):
        read_answer("[1]", labels)


@pytest.mark.parametrize(
    "piece",
    [
        "[1] > ",
        "[9999999999] > ",
        "1 ",
        "1",
        "[",
        "(",
        "( 1",
        "<a",
        "</think>",
        "<answer>",
        "passage ",
        "1. [1] words ",
        " ",
        "\n",
        "= ",
        "&gt;",
        "①",
        "⑳4",
        "\ud800",
    ],
)
@pytest.mark.timeout(20)
def test_a_million_characters_are_read(piece):
    """Time is linear in the length, and the number of defects is bounded."""
    answer = read_answer("[2] > [3] > " + piece * (1_000_000 // len(piece)), identifiers("numeric", 20))
    assert sorted(answer.order) == list(range(20))
    assert len(answer.defects) < 100


def test_an_answer_that_is_too_long_is_read_from_its_beginning_and_says_so():
    """Text past a limit that no ranking reaches is dropped, with a defect."""
    answer = read_answer("[2] > [1] > [3] > " + "[1] > " * 200_000, ("1", "2", "3"))
    assert answer.order == (1, 0, 2)
    assert answer.status == "repaired"
    assert any(defect.startswith("unread text after character ") for defect in answer.defects)
