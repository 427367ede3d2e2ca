"""`rankllm-infer models`: all models known by name, and details of one."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from rankllm_core.errors import RankLLMError
from rankllm_infer.checkpoints.hub import SHIPPED
from rankllm_infer.cli import cli
from rankllm_infer.known_models import find_known_model, known_models
from rankllm_infer.option_table import ENGINES

READABLE = {
    "permutation": set(ENGINES),
    "first-token": set(ENGINES),
    "yes-no": set(ENGINES),
    "single-token": {"transformers", "vllm"},
    "sequence-classification": {"transformers", "vllm"},
    "two-tokens": set(ENGINES),
}
"""Quantity read from a model -> engines that provide it. Servers provide log-probabilities, but neither logits nor
heads."""


def models(*args):
    """Run `models`."""
    return CliRunner().invoke(cli, ["models", *args], standalone_mode=False)


def test_the_table_has_a_line_for_every_name():
    """Bundled rerankers come first; columns are aligned with their headings."""
    lines = models().stdout.splitlines()
    heading, rows = lines[0], lines[1:]
    patterns = [pattern for facts in known_models() for pattern in facts.known.patterns]
    assert [row.split()[0] for row in rows] == patterns
    assert set(patterns[:2]) == set(SHIPPED.values())
    starts = [match.start() for match in re.finditer(r"(?<=  )\S|^\S", heading)]
    assert len(starts) == 7
    for row in rows:
        assert all(row[start - 1 : start + 1].strip() == row[start] for start in starts[1:])


def test_a_line_says_how_a_model_is_read_and_how_far_that_was_checked():
    """Name, kind, head, template, engines, licence, verified."""
    rows = [re.split(r" {2,}", line) for line in models().stdout.splitlines()]
    assert [
        *("castorini/rank_zephyr_7b_v1_full", "listwise", "permutation", "rank_zephyr"),
        *("transformers vllm openai", "MIT", "on random weights of this architecture"),
    ] in rows
    assert [
        *("castorini/rankllama-v1-7b-lora-doc", "pointwise", "sequence-classification", "rankllama"),
        *("transformers vllm", "Llama 2", "from its documentation"),
    ] in rows


def test_one_model_is_told_whole():
    """Its prompt, limits, sources and unconfirmed facts."""
    text = models("castorini/first_qwen3_8b").stdout
    assert text.startswith("castorini/first_qwen3_*\n")
    for words in (
        "output       identifier logits after the first bracket\n",
        "limits       context_tokens 4,096, max_passage_words 300, window_size 20, stride 10\n",
        "source       castorini/rank_llm@1b3cabb src/rank_llm/rerank/prompt_templates/rank_zephyr_alpha_templ",
        "unconfirmed  whether the models were trained with an empty think block.",
        "\n  system_message:\n    You are RankLLM, an intelligent assistant that",
        "\n  body:\n    [{rank}] {candidate}\n",
    ):
        assert words in text


def test_an_adapter_is_told_with_its_base():
    """And a note that the base is required."""
    text = models("rankllama-v1-13b-lora-passage").stdout
    assert "base         meta-llama/Llama-2-13b-hf (this is an adapter)\n" in text
    assert "output       the score head\n" in text


@pytest.mark.parametrize("name", ["Qwen/Qwen3-Reranker-4B", "qwen3-reranker-4b", "qwen3_reranker"])
def test_a_name_may_be_the_hubs_its_last_part_or_the_cards(name):
    """The hub name, its last part or the card's name, in any letter case."""
    assert find_known_model(name).known.name == "qwen3_reranker"


def test_json_is_one_record_a_model():
    """With the full template; one record if a single model is requested."""
    records = [json.loads(line) for line in models("--json").stdout.splitlines()]
    assert [record["name"] for record in records] == [facts.known.name for facts in known_models()]
    (record,) = [json.loads(line) for line in models("smollm2-pointwise", "--json").stdout.splitlines()]
    assert (record["kind"], record["head"], record["is_adapter"]) == ("pointwise", "yes-no", True)
    assert record["verified"] == "against published weights"
    assert record["template"]["body"] == "Passage: {document}\nQuery: {query}\nRelevant?"
    assert record["limits"] == {"query_tokens": 32, "passage_tokens": 112}
    assert record["unconfirmed"] == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rank_zephir", "did you mean 'castorini/rank_zephyr_7b_v1_full'?"),
        ("castorini/rankllama-v1-7b-lora-docs", "did you mean 'castorini/rankllama-v1-7b-lora-doc'?"),
        ("smollm2-frist", "did you mean 'smollm2-first'?"),
        ("zzzz", "zzzz: unknown model; `rankllm-infer models` lists the known ones"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(name, says):
    """No traceback, and no list of all names."""
    result = models(name)
    assert isinstance(result.exception, RankLLMError)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("facts", known_models(), ids=lambda facts: facts.known.name)
def test_a_model_names_engines_that_can_read_it(facts):
    """Transformers runs every model; the other engines run those whose outputs they provide."""
    assert facts.known.engines[0] == "transformers"
    assert set(facts.known.engines) <= READABLE[facts.head]
