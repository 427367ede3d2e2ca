"""The wording of a template determines its identifiers and the answer it requests."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import yaml

from rankllm_core.card import ListwiseCard, card_from_dict
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import load_template, template_from_dict, template_names

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


@pytest.mark.parametrize("name", [n for n in template_names() if load_template(n).kind == "listwise"])
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
    """The token budget of the answer is computed for the template's own form."""
    assert load_template(name).write_answer(("1", "2", "3")) == answer


LISTWISE = {"method": "singleturn_listwise", "prefix": "Query: {query}", "body": "[{rank}] {candidate}"}


@pytest.mark.parametrize("name", WORDS)
def test_a_shipped_template_declares_what_its_words_say(name):
    """Declared and detected values agree, so a card with the text alone gives the same result."""
    path = resources.files("rankllm_core") / "templates" / f"{name}.yaml"
    declared = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"answer", "reasoning"} <= declared.keys()
    assert ("identifiers" in declared) == (WORDS[name][0] is not None)
    template = load_template(name)
    assert not template.has_declarations
    undeclared = {key: value for key, value in declared.items() if key not in ("identifiers", "answer", "reasoning")}
    assert template_from_dict(undeclared, name=name) == template


def test_a_declaration_overrules_the_words():
    """Unusual wording may mislead the detection; the file's declaration wins, also in a card."""
    words = LISTWISE | {"suffix": "Numerical identifiers are out of fashion. <answer> is a tag."}
    guessed = template_from_dict(words, name="mine")
    assert (guessed.identifiers, guessed.answer, guessed.reasoning) == (None, "chain", True)
    template = template_from_dict(words | {"identifiers": "alpha", "reasoning": False}, name="mine")
    assert (template.identifiers, template.is_chain) == ("alpha", True)
    assert template_from_dict(template.to_dict(), name="mine") == template
    card = ListwiseCard(template=template, identifiers="alpha")
    assert card.to_dict()["format"] == 2
    assert card_from_dict(card.to_dict(), where="c") == card
    assert ListwiseCard(template=guessed).to_dict()["format"] == 1


def test_a_form_that_the_system_message_asks_for_is_seen():
    """`[rankstart]` anywhere means that answers do not begin with an identifier, so FIRST cannot be used."""
    words = LISTWISE | {"system_message": "Answer as [rankstart] [2] > [1] [rankend]."}
    template = template_from_dict(words, name="mine")
    assert (template.answer, template.is_chain) == ("rankstart", False)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"identifiers": "roman"}, "template mine: identifiers: expected one of numeric, alpha; found 'roman'"),
        ({"answer": "prose"}, "template mine: answer: expected one of chain, rankstart, passages; found 'prose'"),
        ({"reasoning": "yes"}, "template mine: reasoning: expected bool, found str 'yes'"),
    ],
)
def test_a_declaration_is_checked(declared, message):
    """A wrong declaration gives a one-line error."""
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        template_from_dict(LISTWISE | declared, name="mine")
