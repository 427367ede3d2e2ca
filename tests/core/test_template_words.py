"""A template's own words say which identifiers and which answer it is for."""

from __future__ import annotations

import pytest

from rankllm_core.prompts.template import load_template, template_names

WORDS = {
    "insert_rank": ("numeric", True),
    "nemotron_non_thinking": ("numeric", True),
    "query_behind_alpha": ("alpha", True),
    "qwen_non_thinking": ("numeric", True),
    "rank_gpt": ("numeric", True),
    "rank_gpt_apeer": (None, False),
    "rank_lrl": ("numeric", False),
    "rank_vicuna": ("numeric", True),
    "rank_zephyr": ("numeric", True),
    "rank_zephyr_alpha": ("alpha", True),
    "reasonrank": ("numeric", False),
}


@pytest.mark.parametrize("name", [n for n in template_names() if load_template(n).method != "pointwise"])
def test_the_words_name_identifiers_and_answer(name):
    """`numeric` or `alpha`, and whether the answer is a chain that begins with `[`."""
    template = load_template(name)
    assert (template.identifiers, template.is_chain) == WORDS[name]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("rank_zephyr", "[1] > [2] > [3]"),
        ("rank_lrl", "[PASSAGE1, PASSAGE2, PASSAGE3]"),
        ("rank_gpt_apeer", "[rankstart] [1] > [2] > [3] [rankend]"),
    ],
)
def test_room_is_kept_for_the_answer_that_is_asked_for(name, answer):
    """The answer's budget is counted on the template's own form."""
    assert load_template(name).write_answer(("1", "2", "3")) == answer
