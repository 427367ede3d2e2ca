"""The form that rerankers are trained to write takes a fast path with the same result as the full reader."""

from __future__ import annotations

import re
from dataclasses import astuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankllm_core.answers.reader import ReadAnswer, read_answer, read_any_form, read_trained_form
from rankllm_core.types import identifiers

KINDS = ("numeric", "alpha")
windows = st.one_of(
    st.builds(identifiers, st.just("numeric"), st.integers(1, 100)),
    st.builds(identifiers, st.just("alpha"), st.integers(1, 26)),
)
any_labels = st.one_of(
    windows,
    st.lists(st.integers(0, 10**12).map(str), min_size=1, max_size=8, unique=True),
    st.lists(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), min_size=1, max_size=8, unique=True),
)
blanks = st.text(" ", max_size=2)
edges = st.text(" \n\t\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u2028\u3000", max_size=4)
DAMAGE = (
    *("", " ", "  ", "\n", "\t", "\r", "\xa0", "\u200b", "\ufeff", "0", "1", "2", "7", "10", "99", "A", "B", "b", "Z"),
    *(
        "[",
        "]",
        "[1]",
        "[2]",
        "[A]",
        "[B]",
        "[ 3 ]",
        "[03]",
        "[3.0]",
        "(1)",
        "［",
        "］",
        "［１］",
        "【2】",
        "①",
        "Ⓑ",
        "٣",
    ),
    *("<", ">", ">>", ">=", "=", "≻", "＞", "→", "&gt;", ",", ";", ".", ":", "-", "|", "*", "`", '"', "x", "=>", "<="),
    *("Passage ", "words ", "</s>", "<think>", "</think>", "<answer>", "</answer>", "[rankstart]", "[rankend]", "1. "),
    *(
        "from least to most relevant: ",
        "by ascending order",
        "rank 2",
        "score 0.5",
        "\n\n",
        "\x00",
        "\x1b[0m",
        "\ud800",
    ),
)


def kind_of(labels):
    return "alpha" if labels[0].isalpha() else "numeric"


def check_as_whole_reader(read, text, labels):
    """Compare all fields, since `n_ranked` is not part of the equality of answers."""
    assert astuple(read) == astuple(read_any_form(text, labels, kind_of(labels)))
    assert astuple(read) == astuple(read_answer(text, labels))


def is_trained_form(text, labels):
    """Return whether the text has every identifier once, in brackets, joined by `>`, and otherwise only whitespace."""
    return re.fullmatch(r"\s*\[\w+\](?: *> *\[\w+\])*\s*", text) is not None and sorted(
        re.findall(r"\[(\w+)\]", text)
    ) == sorted(labels)


@pytest.mark.parametrize(
    ("text", "labels", "order"),
    [
        ("[2] > [1] > [3]", "123", (1, 0, 2)),
        ("[B] > [A] > [C]", "ABC", (1, 0, 2)),
        ("[2]>[1]> [3]", "123", (1, 0, 2)),
        (" [2]  >  [1]\n", "12", (1, 0)),
        ("[1]", "1", (0,)),
        ("[A]", "A", (0,)),
        ("[12] > [7]", ("7", "12"), (1, 0)),
    ],
)
def test_the_trained_form_is_read_at_once(text, labels, order):
    """Whitespace around `>` and at the ends is optional."""
    read = read_trained_form(text, labels)
    assert read is not None
    assert astuple(read) == astuple(ReadAnswer(order=order, status="ok", defects=(), n_ranked=len(order)))
    check_as_whole_reader(read, text, labels)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        *(("", "12"), ("[2]", "12"), ("[2] > [2]", "12"), ("[2] > [1] > [2]", "12"), ("[2] > [1] > [3]", "12")),
        *(("[2] > [1] >", "12"), ("> [2] > [1]", "12"), ("[2] > [1].", "12"), ("Sure: [2] > [1]", "12")),
        *(("[2] < [1]", "12"), ("[2] = [1]", "12"), ("[2] >> [1]", "12"), ("[2], [1]", "12"), ("[2] [1]", "12")),
        *(("[02] > [1]", "12"), ("[ 2 ] > [1]", "12"), ("[2\u200b] > [1]", "12"), ("［2］ > [1]", "12")),
        *(("[２] > [1]", "12"), ("② > ①", "12"), ("2 > 1", "12"), ("(2) > (1)", "12"), ("[2 > 1]", "12")),
        *(("[b] > [a]", "AB"), ("[2] > [1]", "AB"), ("[B] > [A]", "12"), ("[2]\n> [1]", "12"), ("[2] \xa0> [1]", "12")),
        *(("<think></think>[2] > [1]", "12"), ("<answer>[2] > [1]</answer>", "12"), ("[2] > [1]</s>", "12")),
        ("[2] > [1] by ascending relevance", "12"),
    ],
)
def test_anything_else_is_left_to_the_whole_reader(text, labels):
    """Also if the full reader finds the same ranking."""
    assert read_trained_form(text, labels) is None


def test_an_answer_that_may_be_too_long_to_read_is_left_to_the_whole_reader():
    """The full reader reads 100,000 pieces, three per identifier here, and says where it stopped."""
    labels = identifiers("numeric", 40_000)
    text = " > ".join(f"[{label}]" for label in labels)
    assert read_trained_form(text, labels) is None
    assert read_answer(text, labels).status == "repaired"


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data(), labels=any_labels)
def test_every_permutation_in_the_trained_form_is_read_at_once(data, labels):
    """For any window, numeric or alphabetic identifiers, and any whitespace; the full reader gives the same result."""
    order = tuple(data.draw(st.permutations(range(len(labels)))))
    link = data.draw(blanks) + ">" + data.draw(blanks)
    text = data.draw(edges) + link.join(f"[{labels[position]}]" for position in order) + data.draw(edges)
    read = read_trained_form(text, labels)
    assert read is not None
    assert astuple(read) == (order, "ok", (), len(labels))
    check_as_whole_reader(read, text, labels)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(data=st.data(), labels=any_labels)
def test_a_damaged_answer_is_read_at_once_only_where_it_keeps_the_form(data, labels):
    """Missing, repeated or unknown identifiers, other brackets and signs, words, whitespace: no result differs."""
    names = [f"[{label}]" for label in data.draw(st.permutations(labels))]
    text = data.draw(st.sampled_from((" > ", ">", " >", "\n> ", ", ", " = "))).join(names)
    for damage in data.draw(st.lists(st.sampled_from(DAMAGE), max_size=3)):
        start = data.draw(st.integers(0, len(text)))
        text = text[:start] + damage + text[start + data.draw(st.integers(0, 4)) :]
    read = read_trained_form(text, labels)
    assert (read is not None) == is_trained_form(text, labels)
    if read is not None:
        check_as_whole_reader(read, text, labels)
