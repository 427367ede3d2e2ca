"""The card describes how a checkpoint was trained."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from rankllm_core.card import (
    CARD_NAME,
    ListwiseCard,
    PointwiseCard,
    card_from_dict,
    load_card,
    published_card,
    save_card,
)
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import load_template

LISTWISE = ListwiseCard(
    template=load_template("rank_zephyr_alpha"),
    base_model="mistralai/Mistral-7B-Instruct-v0.3",
    identifiers="alpha",
    answer="first-token",
    bos="double",
    context_tokens=2048,
    max_passage_words=120,
    window_size=8,
    stride=4,
)
POINTWISE = PointwiseCard(
    template=load_template("rankllama-v2"), append_eos=True, query_tokens=16, passage_tokens=200, bos="single"
)


@pytest.mark.parametrize(
    "card",
    [
        LISTWISE,
        POINTWISE,
        ListwiseCard(template=load_template("rank_gpt")),
        PointwiseCard(template=load_template("rankllama")),
        PointwiseCard(template=load_template("qwen3_reranker"), head="yes-no"),
        replace(
            LISTWISE, template=replace(load_template("rank_zephyr"), name="mine", body="[{rank}] {candidate} \u201c\n")
        ),
    ],
)
def test_a_written_card_reads_back_as_it_was(tmp_path, card):
    """The template is included unchanged: inference needs only the checkpoint."""
    save_card(card, tmp_path)
    assert load_card(tmp_path) == card


def test_a_card_is_plain_yaml_with_the_whole_template(tmp_path):
    """The card is readable and independent of the templates bundled with other versions."""
    save_card(LISTWISE, tmp_path)
    values = yaml.safe_load((tmp_path / "rankllm.yaml").read_text(encoding="utf-8"))
    template = values.pop("template")
    assert values == {
        "format": 1,
        "kind": "listwise",
        "base_model": "mistralai/Mistral-7B-Instruct-v0.3",
        "identifiers": "alpha",
        "answer": "first-token",
        "bos": "double",
        "context_tokens": 2048,
        "max_passage_words": 120,
        "window": {"size": 8, "stride": 4},
    }
    assert template["name"] == "rank_zephyr_alpha"
    assert template["body"] == "[{rank}] {candidate}\n"


@pytest.mark.parametrize("weight", [0.25, 1])
def test_a_card_says_how_much_the_first_stage_counts(tmp_path, weight):
    """A card without the key uses the model's score alone."""
    for card in (
        ListwiseCard(template=load_template("rank_zephyr")),
        PointwiseCard(template=load_template("rankllama")),
    ):
        assert "fuse_weight" not in card.to_dict()
        save_card(replace(card, fuse_weight=weight), tmp_path)
        assert load_card(tmp_path).fuse_weight == weight


def test_a_card_may_say_what_the_identifiers_have_by_themselves(tmp_path):
    """The identifier prior survives writing and reading; a card without one has no such key."""
    card = ListwiseCard(template=load_template("rank_zephyr"), window_size=3, stride=2)
    assert "identifier_prior" not in card.to_dict()
    save_card(replace(card, identifier_prior=(0.5, -1.0, 2)), tmp_path)
    assert load_card(tmp_path).identifier_prior == (0.5, -1.0, 2.0)


def test_a_folder_without_a_card_has_none(tmp_path):
    """A missing card is not an error: published models have none."""
    assert load_card(tmp_path) is None


def test_what_a_card_leaves_out_has_the_papers_values():
    """Defaults: RankZephyr's window and lengths, RankLLaMA's lengths."""
    listwise = card_from_dict({"format": 1, "kind": "listwise", "template": "rank_zephyr"}, where="c")
    assert (listwise.window_size, listwise.stride, listwise.context_tokens, listwise.max_passage_words) == (
        20,
        10,
        4096,
        300,
    )
    assert (listwise.identifiers, listwise.answer, listwise.bos) == ("numeric", "permutation", "single")
    pointwise = card_from_dict({"format": 1, "kind": "pointwise", "template": "rankllama"}, where="c")
    assert (pointwise.query_tokens, pointwise.passage_tokens, pointwise.append_eos) == (32, 164, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contxt_tokens": 9}, r"c: contxt_tokens: unknown key; did you mean 'context_tokens'\?"),
        ({"window": {"size": 4, "strid": 2}}, r"c: window: strid: unknown key; did you mean 'stride'\?"),
        ({"window": 20}, "c: window: expected a mapping of names to values, found int"),
        ({"query_tokens": 32}, "c: query_tokens: unknown key"),
        (
            {"format": 4},
            "c: format 4: written by a newer rankllm-train; this rankllm-core reads formats up to 3; upgrade "
            "rankllm-core",
        ),
        ({"format": None}, "c: format: expected a number from 1 to 3, found None"),
        ({"format": True}, "c: format: expected a number from 1 to 3, found True"),
        ({"kind": "setwise"}, "c: kind: expected one of listwise, pointwise, pairwise; found 'setwise'"),
        ({"kind": "pairwise"}, "c: a pairwise card cannot hold the singleturn_listwise template 'rank_zephyr'"),
        ({"kind": "pointwise"}, "c: a pointwise card cannot hold the singleturn_listwise template 'rank_zephyr'"),
        ({"template": "rankllama"}, "c: a listwise card cannot hold the pointwise template 'rankllama'"),
        ({"template": "rank_zefyr"}, "c: .*did you mean 'rank_zephyr'"),
        ({"template": None}, "c: template: expected a mapping"),
        (
            {"template": {"name": "mine", "method": "singleturn_listwise", "body": "x"}},
            "c: .*template mine: body: expected",
        ),
        ({"context_tokens": "4096"}, "c: context_tokens: expected int, found str '4096'"),
        ({"context_tokens": True}, "c: context_tokens: expected int, found bool True"),
        ({"context_tokens": 0}, "c: .*context_tokens: expected a positive number, found 0"),
        ({"max_passage_words": -1}, "c: .*max_passage_words: expected a positive number, found -1"),
        ({"fuse_weight": "0.3"}, "c: fuse_weight: expected int or float, found str '0.3'"),
        ({"fuse_weight": 1.5}, "c: .*fuse_weight: expected a number from 0 to 1, found 1.5"),
        ({"identifier_prior": 0.5}, "c: identifier_prior: expected a list of numbers, found float 0.5"),
        ({"identifier_prior": [0.5, "x"]}, "c: identifier_prior: expected int or float, found str 'x'"),
        ({"identifier_prior": [0.5]}, "c: .*identifier_prior: 1 numbers, but a window has 20 identifiers"),
        (
            {"identifier_prior": [0.5, float("nan")], "window": {"size": 2, "stride": 1}},
            "c: .*identifier_prior: expected finite numbers, found",
        ),
        ({"identifiers": "roman"}, "c: .*identifiers: expected one of numeric, alpha; found 'roman'"),
        ({"answer": "logits"}, "c: .*answer: expected one of permutation, first-token; found 'logits'"),
        ({"bos": "triple"}, "c: .*bos: expected one of single, double; found 'triple'"),
        ({"window": {"size": 5, "stride": 6}}, "c: .*window: need 0 < stride <= size, got stride=6, size=5"),
        ({"window": {"size": 5, "stride": 0}}, "c: .*window: need 0 < stride <= size, got stride=0, size=5"),
        ({"identifiers": "alpha", "window": {"size": 27}}, "c: .*27 passages per window, but there are 26 alphabetic"),
    ],
)
def test_a_card_that_cannot_be_kept_is_refused(changes, message):
    """Each message names the file or the value, and what was expected."""
    values = {"format": 1, "kind": "listwise", "template": "rank_zephyr"} | changes
    with pytest.raises(ConfigError, match=message):
        card_from_dict(values, where="c")


def test_a_head_goes_with_a_layout():
    """Token logits are read after one text, so they cannot be combined with separately tokenized query and passage."""
    with pytest.raises(ConfigError, match="head 'yes-no' does not match template 'rankllama'"):
        PointwiseCard(template=load_template("rankllama"), head="yes-no")
    with pytest.raises(ConfigError, match="query_tokens: expected a positive number"):
        PointwiseCard(template=load_template("rankllama"), query_tokens=0)


def test_a_bad_card_in_a_folder_names_the_file(tmp_path):
    """The error names the file to correct."""
    (tmp_path / CARD_NAME).write_text("format: 1\nkind: listwise\ntemplate: rank_zephyr\nstrid: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"rankllm\.yaml: strid: unknown key"):
        load_card(tmp_path)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("castorini/rank_zephyr_7b_v1_full", ("listwise", "rank_zephyr", "numeric", "permutation", "double")),
        ("castorini/first_mistral", ("listwise", "rank_zephyr_alpha", "alpha", "first-token", "double")),
        ("castorini/rank_vicuna_7b_v1", ("listwise", "rank_vicuna", "numeric", "permutation", "double")),
    ],
)
def test_published_listwise_models_have_a_card(model, expected):
    """Per paper and repository: 20 passages per window, stride 10, 4096 tokens, both BOS."""
    card = published_card(model)
    assert (card.kind, card.template.name, card.identifiers, card.answer, card.bos) == expected
    assert (card.window_size, card.stride, card.context_tokens, card.max_passage_words) == (20, 10, 4096, 300)


def test_published_rankllama_has_a_card():
    """The published adapter: v1 layout, 32 query and 164 passage tokens, Llama 2 as base."""
    card = published_card("castorini/rankllama-v1-7b-lora-passage")
    assert (card.kind, card.template.name, card.head) == ("pointwise", "rankllama", "sequence-classification")
    assert (card.base_model, card.query_tokens, card.passage_tokens) == ("meta-llama/Llama-2-7b-hf", 32, 164)


@pytest.mark.parametrize("size", ["0.6B", "4B", "8B"])
def test_published_qwen3_rerankers_have_a_card(size):
    """All sizes use the same yes/no question."""
    card = published_card(f"Qwen/Qwen3-Reranker-{size}")
    assert (card.kind, card.template.name, card.head) == ("pointwise", "qwen3_reranker", "yes-no")


def test_hub_names_are_found_in_any_case_and_others_are_not():
    """Hub names are case-insensitive; an unknown model gets no card."""
    assert published_card("Castorini/RANK_ZEPHYR_7b_v1_full") is not None
    assert published_card("HuggingFaceTB/SmolLM2-135M-Instruct") is None


@pytest.mark.parametrize(
    "name", ["first_mistral", "/models/first_mistral", "models/first_mistral/", "me/First_Mistral"]
)
def test_a_copy_of_a_published_model_has_its_card(name):
    """A folder with the model's name gets its card, also with a trailing slash."""
    card = published_card(name)
    assert card is not None
    assert card.template.name == "rank_zephyr_alpha"


def test_a_pairwise_card_keeps_what_it_holds():
    """It is written in format 3 and read back; the limit applies to each passage."""
    values = {
        "format": 3,
        "kind": "pairwise",
        "template": "duot5",
        "query_tokens": 9,
        "base_model": "b",
        "fuse_weight": 0.5,
    }
    card = card_from_dict(values, where="c")
    assert (card.kind, card.query_tokens, card.passage_tokens, card.tokens_read) == (
        "pairwise",
        9,
        216,
        ("true", "false"),
    )
    assert card.to_dict()["format"] == 3
    assert card_from_dict(card.to_dict(), where="c") == card


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "yes-no"}, "c: head: unknown key"),
        ({"window": {"size": 3}}, "c: window: unknown key"),
        ({"passage_tokens": 0}, "c: .*passage_tokens: expected a positive number, found 0"),
        ({"template": "monot5"}, "c: a pairwise card cannot hold the pointwise template 'monot5'"),
        ({"bos": "triple"}, "c: .*bos: expected one of single, double; found 'triple'"),
    ],
)
def test_a_pairwise_card_that_cannot_be_kept_is_refused(changes, message):
    """The error has the usual form."""
    with pytest.raises(ConfigError, match=message):
        card_from_dict({"format": 3, "kind": "pairwise", "template": "duot5"} | changes, where="c")
