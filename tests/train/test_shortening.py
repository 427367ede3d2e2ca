"""Passages of a prompt, including multi-line ones, and how they are truncated to fit."""

from __future__ import annotations

import pytest

from rankllm_core.prompts.template import ListwiseTemplate, load_template
from rankllm_core.text import first_words
from rankllm_train.data.rankings import target_ranks, with_identifiers
from rankllm_train.data.records import ListwiseRecord
from rankllm_train.data.shortening import fit, passage_spans, shortened

OPENING = "I will provide you with 3 passages.\n"
CLOSING = "Search Query: q.\nRank the 3 passages above."


def record(prompt, target="[3] > [1] > [2]"):
    return ListwiseRecord(path="d.jsonl", line=1, id="r", system=None, prompt=prompt, target=target)


def texts(prompt, template=None):
    return [prompt[start:end] for start, end in passage_spans(prompt, template)]


@pytest.mark.parametrize(
    ("passages", "expected"),
    [
        ("[1] a b\n[2] c\n[3] d e\n", ["a b", "c", "d e"]),
        ("[1] a\nb\n[2] c\n[3] d\ne\n", ["a\nb", "c", "d\ne"]),
        ("[1] a\n\nb\n\n[2]\nc\n[3] d\n\n\ne\n\n", ["a\n\nb", "\nc", "d\n\n\ne"]),
        ("[1] a\n[2] b\n[3] Search Query: x.\nand more\n", ["a", "b", "Search Query: x.\nand more"]),
        ("[1]\n[2] \n[3]\n", ["", "", ""]),
    ],
)
def test_a_passage_is_all_its_lines(passages, expected):
    """It extends to the next identifier, the last one to the instruction. Line breaks at its end are separators."""
    assert texts(OPENING + passages + CLOSING) == expected


@pytest.mark.parametrize("name", ["rank_zephyr", "rank_gpt_apeer", "query_behind_alpha", "reasonrank"])
def test_the_instruction_of_each_shipped_template_is_known(name):
    """Also if it does not begin with the query, or the template repeats the query after each passage."""
    template = load_template(name)
    labels = "ABC" if name == "query_behind_alpha" else "123"
    passages = ["one\ntwo", "three", "four\n\nfive six"]
    *_, human = template.render("what is q?", passages, labels=tuple(labels))
    assert texts(human.content) == texts(human.content, template) == passages


def test_the_given_template_says_where_the_last_passage_ends():
    """Without a template, text after the first line counts as the instruction if it looks like a known one."""
    template = ListwiseTemplate(
        name="own",
        method="singleturn_listwise",
        prefix="Read {num} texts for {query}.\n",
        body="[{rank}] {candidate}\n",
        suffix="Now sort them for {query}!",
    )
    (human,) = template.render("q", ["a", "b\nc"], labels=("1", "2"))
    assert texts(human.content, template) == ["a", "b\nc"]
    assert texts(human.content) == ["a", "b"]


def test_all_lines_of_a_passage_are_shortened():
    """Three words each, counted by hand; a passage with no more than that is unchanged."""
    prompt = OPENING + "[1] a b\nc d\ne\n[2] f\ng\n[3] h i j k\nl m\n" + CLOSING
    cut = shortened(record(prompt), 3)
    assert cut.prompt == OPENING + "[1] a b c\n[2] f\ng\n[3] h i j\n" + CLOSING
    assert shortened(record(prompt), 99).prompt == prompt


def test_as_many_words_stay_as_fit():
    """Counted in words: 6 of the opening, 3 identifiers, 9 of the closing, and up to 4 per passage: 4 + 2 + 4."""
    prompt = OPENING + "[1] a b\nc d\ne\n[2] f\ng\n[3] h i j k\nl m\n" + CLOSING
    around = len((OPENING + "[1] [2] [3] " + CLOSING).split())

    def count(tried):
        return len(tried.prompt.split())

    whole = fit(record(prompt), count, limit=around + 13)
    assert whole.prompt == prompt
    four = fit(record(prompt), count, limit=around + 11)
    assert four.prompt == OPENING + "[1] a b c d\n[2] f\ng\n[3] h i j k\n" + CLOSING
    assert fit(record(prompt), count, limit=around + 2) is None


def test_identifiers_change_around_passages_of_several_lines():
    """The last lines of the last passage are not the instruction: a ranking in them is escaped, not rejected."""
    prompt = OPENING + "[1] a\nb\n[2] c\n[3] d\nI like [2] > [1]\n" + CLOSING
    alpha = with_identifiers(record(prompt), "alpha")
    assert target_ranks(alpha) == (2, 3, 1)
    assert texts(alpha.prompt) == ["a\nb", "c", "d\nI like (2) > (1)"]


@pytest.mark.parametrize("name", ["rank_zephyr", "rank_zephyr_alpha", "rank_vicuna", "query_behind_alpha"])
@pytest.mark.parametrize("words", [1, 3, 6])
def test_a_shortened_prompt_is_the_one_that_inference_writes(name, words):
    """For multi-line passages longer than the limit, inference shows the first words of each on one line."""
    template = load_template(name)
    labels = tuple("ABC") if "alpha" in name else ("1", "2", "3")
    passages = ["a b\nc d\n\ne f g", "h\ni j k l m n", "o p q\nr s t u"]
    *_, written = template.render("what is q", passages, labels=labels)
    target = " > ".join(f"[{label}]" for label in labels)
    cut = shortened(record(written.content, target), words)
    *_, served = template.render("what is q", [first_words(p, words) for p in passages], labels=labels)
    assert cut.prompt == served.content
