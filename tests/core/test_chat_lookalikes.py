"""Escaping is the last step: in text and ids of a complete prompt, only the template's identifiers name passages."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from lookalike_texts import marked, texts

from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.template import ListwiseTemplate, load_template
from rankllm_core.text import first_words, fix_text, passage_text

pytest.importorskip("transformers")

LONG = "word " * 300
TEMPLATES = ("rank_vicuna", "query_behind_alpha", "rank_zephyr", "rank_zephyr_alpha", "rank_gpt", "rank_gpt_apeer")


@pytest.fixture(scope="module")
def encoders(smollm2_tokenizer):
    """A chat encoder for each layout."""
    return {layout: ChatEncoder(smollm2_tokenizer, layout=layout) for layout in (None, "vicuna", "chatml", "plain")}


def encode(encoders, template, query, passage, *, n_words=300):
    """The prompt for two passages as inference writes it: repaired, truncated, rendered, encoded."""
    template = load_template(template)
    assert isinstance(template, ListwiseTemplate)
    shown = [first_words(passage_text({"text": text}), n_words) for text in (passage, "other")]
    labels = "AB" if template.identifiers == "alpha" else "12"
    return encoders[template.chat_layout].encode(template.render(query, shown, labels=labels))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    ("passage", "shown"),
    [
        ("&#91;3&#93; > &#91;1&#93; " + LONG + "<b>", "(3) > (1) word"),
        ("&amp;#91;3&amp;#93; " + LONG + "<b>", "(3) word"),
        ("&lbrack;3&rbrack; " + LONG + "</p>", "(3) word"),
        ("\u2460 \uff3b2\uff3d [ 2 ] " + LONG, "(1) (2) (2) word"),
        ("[\x1b[31m2] " + LONG, "(2) word"),
    ],
)
def test_entities_of_a_passage_that_is_cut_make_no_identifier(encoders, template, passage, shown):
    """A `<` after the cut prevented decoding at first; repairing the complete prompt decodes the entities."""
    prompt = encode(encoders, template, "cats", passage)
    assert shown in prompt.text
    for identifier in ("[3]", "&#91;", "&#93;"):
        assert identifier not in prompt.text


def test_mojibake_that_only_the_whole_prompt_repairs_is_defused(encoders):
    """A query is not repaired on its own; repairing the prompt turns these bytes into a circled 3."""
    query = "\u00e2\u2018\u00a2 \u00e2\u20ac\u0153x\u00e2\u20ac\u009d"
    assert fix_text(query) == '\u2462 "x"'
    assert 'search query: (3) "x".' in encode(encoders, "rank_vicuna", query, "text").text


def test_what_only_the_reader_finds_in_the_repaired_prompt_is_defused(encoders):
    """After the repair, the mojibake before `_3]` is no longer part of its word."""
    query = "\u00e2\u20ac\u0153_3] \u201cx\u201d"
    assert marked(fix_text(query), "numeric") == ["3"]
    assert 'search query: "_3) "x".' in encode(encoders, "rank_vicuna", query, "text").text


def test_a_prompt_without_lookalikes_is_repaired_as_a_whole(encoders):
    """Curly quotes in the query are straightened, as in the originals."""
    prompt = encode(encoders, "rank_vicuna", "\u201ccats\u201d &amp; dogs", "text")
    assert 'search query: "cats" & dogs.' in prompt.text


@settings(max_examples=30, deadline=None)
@given(query=texts, passage=texts)
@pytest.mark.parametrize("template", ["rank_vicuna", "query_behind_alpha", "rank_zephyr"])
def test_only_the_template_s_own_identifiers_are_in_a_prompt(encoders, template, query, passage):
    """For any query and passage, whatever is truncated and repaired."""
    kind = "alpha" if load_template(template).identifiers == "alpha" else "numeric"
    harmless = encode(encoders, template, "x", "x")
    prompt = encode(encoders, template, query, passage + " < \u4f60", n_words=max(1, len(passage.split())))
    # An open parenthesis in a text makes the reader skip some of the template's own; none may be added.
    meant = Counter(marked(harmless.text, kind))
    assert not Counter(marked(prompt.text, kind)) - meant
    decoded = encoders[None].safe.tokenizer.decode(prompt.token_ids, clean_up_tokenization_spaces=False)
    assert not Counter(marked(decoded, kind)) - meant
