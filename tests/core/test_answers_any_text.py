"""The reader accepts any text, including text that no model would write."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankllm_core.answers.reader import parse_permutation, read_answer
from rankllm_core.types import identifiers

PIECES = (
    *("[", "]", " > ", ">", "=", ", ", " ", "\n", "\n\n", "(", ")", "<", "-", ".", ":", '"', "&gt;", "*", "|"),
    *("0", "1", "2", "3", "4", "9", "10", "21", "007", "1" * 5000, "2019", "2.5", "5%", "1st"),
    *("A", "B", "C", "D", "Z", "a", "b", "[1]", "[2]", "[3]", "[A]", "[b]", "[C]", "[AB]", "[x y]", "1. ", "2) "),
    *("Passage ", "passages ", "Document", "PASSAGE", "words", "and", "I'm"),
    *("<think>", "</think>", "<answer>", "</answer>", "[rankstart]", "[rankend]", "<|im_end|>", "</s>"),
    *("²", "½", "①", "⑳", "❶", "Ⓐ", "３", "Ａ", "＞", "［", "【", "٣", "𝟏", "≻", "→"),
    *("\u200b", "\u202e", "\x00", "\ud800"),
)
# Lone surrogates reach us through JSON escapes, so they are among the characters.
any_text = st.text(st.characters(exclude_categories=()), max_size=60)
pieced_text = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
label_lists = st.sampled_from(
    [identifiers(kind, n) for kind in ("numeric", "alpha") for n in (1, 2, 3, 5, 20)] + [identifiers("numeric", 100)]
)
many = settings(max_examples=3_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def check(text, labels):
    """Check the guarantees for one answer."""
    answer = read_answer(text, labels)
    prompt_order = tuple(range(len(labels)))
    assert tuple(sorted(answer.order)) == prompt_order
    assert answer.status in ("ok", "repaired", "fallback")
    assert (answer.status == "ok") == (answer.defects == ())
    assert answer.status != "fallback" or answer.order == prompt_order
    assert len(answer.defects) < 100
    assert all(defect.isprintable() and len(defect) < 200 for defect in answer.defects)
    assert parse_permutation(text, labels) == (answer.order, answer.defects)


@pytest.mark.slow
@many
@given(text=pieced_text, labels=label_lists)
def test_pieces_of_answers_in_any_order_are_read(text, labels):
    """3,000 jumbled answers: always a permutation, never an exception, and the status matches the defects."""
    check(text, labels)


@pytest.mark.slow
@many
@given(text=any_text, labels=label_lists)
def test_any_characters_are_read(text, labels):
    """3,000 arbitrary texts: always a permutation, never an exception, and the status matches the defects."""
    check(text, labels)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["numeric", "alpha"]), n=st.integers(1, 26))
def test_every_well_formed_answer_is_read_exactly(data, kind, n):
    """A permutation written as the prompt requests is read back unchanged, with status `ok`."""
    labels = identifiers(kind, n)
    order = tuple(data.draw(st.permutations(range(n))))
    answer = read_answer(" > ".join(f"[{labels[position]}]" for position in order), labels)
    assert (answer.order, answer.status) == (order, "ok")
