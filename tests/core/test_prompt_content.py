"""Prompts are compared, never parsed: any comparable objects may stand for them."""

from __future__ import annotations

import pytest

from rankllm_core.prompts.content import (
    PromptFindings,
    count_findings,
    find_in_prompts,
    find_same,
    is_blank,
    may_look_alike,
)

PASSAGES = (("", "cats sleep"), ("T", "dogs bark"), ("", "planes fly"))


def look(write, passages=PASSAGES):
    """The findings for prompts written by this function."""
    return find_in_prompts([write(*passage) for passage in passages], passages, write)


@pytest.mark.parametrize(
    ("write", "nothing", "same"),
    [
        (lambda title, text: f"q {title} {text}", (), ()),
        (lambda title, text: "q", (0, 1, 2), ()),
        (lambda title, text: ("q", *text), (), ()),
        (lambda title, text: ("q",), (0, 1, 2), ()),
        (lambda title, text: f"q {title}", (0, 2), ()),
        (lambda title, text: f"q {'' if text.startswith('d') else text}", (1,), ()),
        (lambda title, text: f"q {text[1:2]}", (), ()),
        (lambda title, text: f"q {len(text) > 1}", (), ((1, 0), (2, 0))),
        # Cut behind the blanks that a tokenizer writes before a passage, two of them where there is no title.
        (lambda title, text: (1, 2, 3, *("  " if not title else " ") * bool(text)), (0, 1, 2), ()),
    ],
)
def test_what_a_prompt_does_not_show_is_found(write, nothing, same):
    """Prompts that show nothing of a passage, or are the same for two passages."""
    found = look(write)
    assert (found.nothing, found.same) == (nothing, same)
    assert found.all_show_nothing == (len(nothing) == 3)


def test_blank_passages_are_left_out_of_account():
    """The remaining passages may still all be invisible."""
    found = look(lambda title, text: "q", (("", " "), ("", "cats"), (" ", "")))
    assert (found.n_prompts, found.nothing, found.all_show_nothing) == (1, (1,), True)
    assert look(lambda title, text: "q", (("", ""),)) == PromptFindings()


def test_copies_are_no_fault():
    """The passages are equal or differ in whitespace only."""
    texts = ["a b", "a  b", " a b\n", "a c"]
    assert find_same(["k"] * 4, range(4), texts.__getitem__) == ((3, 0),)
    assert find_same(["k", "l", "k", "m"], range(4), texts.__getitem__) == ()


def test_only_passages_that_begin_alike_may_look_alike():
    """A limit of 16 tokens shows at least two characters."""
    passages = [("", "abc"), ("", "abd"), ("", "acb"), ("a", "b"), ("", " ab")]
    assert may_look_alike(passages, 16) == [0, 1, 4]
    assert may_look_alike(passages, 1) == [0, 1, 2, 3, 4]
    assert may_look_alike(passages, 100) == []


def test_defects_are_counted_as_they_are_written():
    """Also after the position that a listwise reranker puts before them."""
    found = PromptFindings(n_prompts=3, nothing=(0,), same=((2, 1),))
    defects = found.defects(["x", "y", "z"])
    assert defects == (
        "docid 'x': prompt holds nothing of the passage",
        "docid 'z': shown exactly as docid 'y', whose passage differs",
    )
    assert count_findings(["missing [1]", *defects, *(f"ranks 1-3: {defect}" for defect in defects)]) == (2, 2)
    assert count_findings([]) == (0, 0)


@pytest.mark.parametrize(("passage", "expected"), [(("", ""), True), ((" ", "\n"), True), (("T", ""), False)])
def test_a_title_alone_is_something(passage, expected):
    """A title alone can be shown."""
    assert is_blank(passage) is expected
