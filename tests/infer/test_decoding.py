"""When answers are constrained to permutations, and when decoding is free."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from permutation_fakes import letter_tokenizer

from rankllm_core.card import ListwiseCard
from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.template import load_template
from rankllm_infer.engines.transformers.permutation_ids import check_permutations
from rankllm_infer.options import RerankOptions
from rankllm_infer.plan import make_method, plan_reranking
from rankllm_infer.ranking.settings import RankingSettings

SERVER = {"engine": "openai", "base_url": "http://127.0.0.1:1/v1"}


@pytest.mark.parametrize(
    ("template", "options", "is_free"),
    [
        ("rank_zephyr", {}, False),
        ("rank_zephyr", {"free_decoding": True}, True),
        ("rank_zephyr", SERVER, True),
        ("rank_lrl", {}, False),
        ("rank_gpt_apeer", {}, False),
        ("reasonrank", {}, True),
        ("rank_zephyr", {"system_message": "Think, then write <answer> [2] > [1] </answer>."}, True),
        ("rank_zephyr", {"decode_top_k": 3}, False),
    ],
)
def test_answers_are_held_to_permutations_unless_something_speaks_against_it(tmp_path, template, options, is_free):
    """Exceptions: a flag, a server, or a prompt that has the model reason first."""
    plan = plan_reranking(tmp_path, RerankOptions(template=template, **options))
    assert plan.read == ("text" if is_free else "permutation")


def test_the_top_of_a_window_is_not_decoded_where_the_model_reasons_first(tmp_path):
    """Reported before a model is loaded."""
    with pytest.raises(ConfigError, match="--decode-top-k has no effect with template reasonrank"):
        plan_reranking(tmp_path, RerankOptions(template="reasonrank", decode_top_k=3))


def check(chat_template, *, merges=(), **settings):
    """Method of a card that constrains answers to permutations of letters, checked by the engine."""
    tokenizer = letter_tokenizer(merges=merges)
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}\n{% endfor %}" + chat_template
    card = ListwiseCard(template=load_template("rank_zephyr_alpha"), identifiers="alpha")
    method = make_method(card, RankingSettings(**({"free_decoding": False} | settings)), tokenizer)
    if method.sample is not None:
        check_permutations(tokenizer, method.sample)
    return method


def test_a_prompt_that_opens_the_models_thinking_is_answered_freely_with_a_warning():
    """Its answer begins with reasoning, not with a ranking. Closed reasoning is not affected."""
    method = check("<think>\n")
    (warning,) = method.warnings
    assert method.read == "text"
    assert "the chat template makes the model reason first: its answers are decoded freely" in warning
    method = check("<think>\n\n</think>\n\n")
    assert (method.read, method.warnings) == ("permutation", ())
    with pytest.raises(
        ConfigError, match="--decode-top-k has no effect: the chat template makes the model reason first"
    ):
        check("<think>\n", decode_top_k=3)


def test_a_tokenizer_without_such_answers_is_refused_unless_decoding_is_free():
    """`A] > [B` is one token, but no other pair is."""
    merges = [("A", "]"), ("A]", " "), ("A] ", ">"), ("A] >", " "), ("A] > ", "["), ("A] > [", "B")]
    with pytest.raises(ContractError, match="use --free-decoding"):
        check("", merges=merges)
    assert check("", merges=merges, free_decoding=True).read == "text"
