"""Which card is in force: what the model brings, what ships for it, what the options change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rankllm_core.card import ListwiseCard, PointwiseCard, save_card
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import load_template
from rankllm_infer.effective_card import resolve_card
from rankllm_infer.options import RerankOptions

FIRST = ListwiseCard(
    template=load_template("rank_zephyr_alpha"),
    identifiers="alpha",
    answer="first-token",
    context_tokens=2048,
    window_size=8,
    stride=4,
)
SCORED = PointwiseCard(template=load_template("rankllama"), query_tokens=16, passage_tokens=100)


def resolve(model="model", *, folder=None, score_head=False, **options):
    """The card in force."""
    return resolve_card(model, RerankOptions(**options), folder=folder, score_head=score_head)


def values(resolved):
    """What decides a prompt and how its answer is read: template first, the rest by kind."""
    card = resolved.card
    if card.kind == "listwise":
        return (card.template.name, card.identifiers, card.answer, card.window_size, card.stride)
    return (card.template.name, card.head, card.query_tokens, card.passage_tokens)


@pytest.mark.parametrize(
    ("score_head", "options", "expected"),
    [
        (False, {}, ("rank_zephyr", "numeric", "permutation", 20, 10)),
        (True, {}, ("rankllama", "sequence-classification", 32, 164)),
        (False, {"method": "pointwise"}, ("yes_no", "yes-no", 32, 164)),
        (True, {"method": "pointwise"}, ("rankllama", "sequence-classification", 32, 164)),
        (True, {"method": "listwise"}, ("rank_zephyr", "numeric", "permutation", 20, 10)),
        (False, {"template": "yes_no"}, ("yes_no", "yes-no", 32, 164)),
        (False, {"template": "rankllama-v2"}, ("rankllama-v2", "sequence-classification", 32, 164)),
        (False, {"use_alpha": True}, ("rank_zephyr_alpha", "alpha", "permutation", 20, 10)),
        (False, {"use_alpha": False}, ("rank_zephyr", "numeric", "permutation", 20, 10)),
        (False, {"use_logits": True}, ("rank_zephyr", "numeric", "first-token", 20, 10)),
        (
            False,
            {"use_logits": True, "use_alpha": True, "window_size": 26},
            ("rank_zephyr_alpha", "alpha", "first-token", 26, 10),
        ),
        (
            False,
            {"template": "rank_zephyr_alpha", "stride": 5},
            ("rank_zephyr_alpha", "alpha", "permutation", 20, 5),
        ),
        (True, {"q_max_len": 10, "p_max_len": 300}, ("rankllama", "sequence-classification", 10, 300)),
    ],
)
def test_a_model_without_a_card_is_asked_as_the_options_say(tmp_path, score_head, options, expected):
    """The default is generation with numbers, or the score head where the checkpoint has one; nothing is warned of."""
    resolved = resolve(folder=tmp_path, score_head=score_head, **options)
    assert (values(resolved), resolved.warnings) == (expected, ())
    assert resolved.origin == "no card; defaults"


@pytest.mark.parametrize(
    ("name", "expected", "bos"),
    [
        ("castorini/first_mistral", ("rank_zephyr_alpha", "alpha", "first-token", 20, 10), "double"),
        ("castorini/rank_zephyr_7b_v1_full", ("rank_zephyr", "numeric", "permutation", 20, 10), "double"),
        ("castorini/rank_vicuna_7b_v1", ("rank_vicuna", "numeric", "permutation", 20, 10), "double"),
        ("castorini/rankllama-v1-7b-lora-passage", ("rankllama", "sequence-classification", 32, 164), "single"),
        ("Qwen/Qwen3-Reranker-0.6B", ("qwen3_reranker", "yes-no", 512, 7500), "single"),
    ],
)
@pytest.mark.parametrize("folder", [None, "fetched"])
def test_a_published_model_needs_no_option(tmp_path, name, expected, bos, folder):
    """Its card ships with rankllm, for a server's model as well."""
    resolved = resolve(name, folder=tmp_path if folder else None, score_head=name.endswith("lora-passage"))
    assert (values(resolved), resolved.card.bos, resolved.warnings) == (expected, bos, ())
    assert name in resolved.origin


@pytest.mark.parametrize(
    "card", [FIRST, SCORED, replace(FIRST, template=replace(FIRST.template, body="[{rank}] {candidate} #\n"))]
)
def test_the_checkpoints_own_card_decides(tmp_path, card):
    """To the last letter of its template, even where that has the name of a shipped one."""
    save_card(card, tmp_path)
    resolved = resolve(str(tmp_path), folder=tmp_path)
    assert (resolved.card, resolved.warnings) == (card, ())
    assert resolved.origin == f"{tmp_path}/rankllm.yaml"


def test_the_checkpoints_own_card_comes_before_the_shipped_one(tmp_path):
    """A fine-tuned copy under a published name is prompted as it was fine-tuned."""
    save_card(FIRST, tmp_path)
    assert resolve("castorini/rank_zephyr_7b_v1_full", folder=tmp_path).card == FIRST


@pytest.mark.parametrize(
    ("card", "options", "changed", "named"),
    [
        (FIRST, {"window_size": 10}, {"window_size": 10}, ["--window-size", "10", "8"]),
        (FIRST, {"stride": 2}, {"stride": 2}, ["--stride", "2", "4"]),
        (FIRST, {"context_size": 999}, {"context_tokens": 999}, ["--context-size", "999", "2048"]),
        (FIRST, {"max_passage_words": 50}, {"max_passage_words": 50}, ["--max-passage-words", "50", "300"]),
        (FIRST, {"use_logits": False}, {"answer": "permutation"}, ["--no-use-logits", "permutation", "first-token"]),
        (
            FIRST,
            {"use_alpha": False},
            {"identifiers": "numeric", "template": load_template("rank_zephyr")},
            ["--no-use-alpha", "numeric", "alpha"],
        ),
        (replace(SCORED, fuse_weight=0.3), {"fuse_weight": 0.0}, {"fuse_weight": 0.0}, ["--fuse-weight", "0.0", "0.3"]),
        (SCORED, {"q_max_len": 20}, {"query_tokens": 20}, ["--q-max-len", "20", "16"]),
        (SCORED, {"p_max_len": 20}, {"passage_tokens": 20}, ["--p-max-len", "20", "100"]),
        (
            SCORED,
            {"template": "rankllama-v2"},
            {"template": load_template("rankllama-v2")},
            ["--prompt-template-path", "rankllama-v2", "rankllama"],
        ),
    ],
)
def test_a_contradiction_is_honoured_and_both_values_are_named(tmp_path, card, options, changed, named):
    """The one who asks decides, but does not learn it from a bad number."""
    save_card(card, tmp_path)
    resolved = resolve(str(tmp_path), folder=tmp_path, **options)
    assert resolved.card == replace(card, **changed)
    (warning,) = resolved.warnings
    assert warning.startswith(named[0] + ":")
    assert f" {named[1]}, " in warning
    assert warning.endswith(f"{tmp_path}/rankllm.yaml says {named[2]}")


@pytest.mark.parametrize(
    "options",
    [
        {"use_alpha": True, "use_logits": True, "window_size": 8, "stride": 4, "context_size": 2048},
        {"method": "listwise"},
        {"template": "rank_zephyr_alpha"},
    ],
)
def test_an_option_that_agrees_with_the_card_is_no_contradiction(tmp_path, options):
    """Nothing is warned of that is as it was trained."""
    save_card(FIRST, tmp_path)
    resolved = resolve(str(tmp_path), folder=tmp_path, **options)
    assert (resolved.card, resolved.warnings) == (FIRST, ())


def test_a_window_without_a_stride_leaves_the_cards_aside(tmp_path):
    """Only the sliding window has one: a smaller window needs no --stride, and nothing is said about it."""
    save_card(FIRST, tmp_path)
    resolved = resolve(str(tmp_path), folder=tmp_path, strategy="tournament", window_size=3)
    assert (resolved.card.window_size, resolved.card.stride) == (3, 3)
    (warning,) = resolved.warnings
    assert warning.startswith("--window-size: using window_size 3, ")
    with pytest.raises(ConfigError, match="need 0 < stride <= size, got stride=4, size=3"):
        resolve(str(tmp_path), folder=tmp_path, window_size=3)


@pytest.mark.parametrize(
    ("card", "method", "template"), [(FIRST, "pointwise", "yes_no"), (SCORED, "listwise", "rank_zephyr")]
)
def test_another_method_than_the_cards_leaves_the_card_aside(tmp_path, card, method, template):
    """None of its settings would fit; the warning names both methods."""
    save_card(card, tmp_path)
    resolved = resolve(str(tmp_path), folder=tmp_path, method=method)
    assert (resolved.card.kind, resolved.card.template.name) == (method, template)
    (warning,) = resolved.warnings
    assert warning.startswith(f"--method {method}: ")
    assert f"says {card.kind}" in warning


@pytest.mark.parametrize(
    ("options", "score_head", "message"),
    [
        ({"use_alpha": True, "window_size": 30}, False, "30 passages per window, but there are 26 alphabetic"),
        ({"window_size": 5, "stride": 6}, False, "need 0 < stride <= size, got stride=6, size=5"),
        ({"template": "yes_no", "method": "listwise"}, False, "is a pointwise template, but the method is listwise"),
        ({"template": "rank_zephyr", "method": "pointwise"}, False, "listwise template, but the method is pointwise"),
        (
            {"template": "rank_zefyr"},
            False,
            "no such template; expected a file or the name of a bundled template; did you mean",
        ),
        ({"q_max_len": 8}, False, "--q-max-len has no effect on a listwise reranker"),
        ({"p_max_len": 8}, False, "--p-max-len has no effect on a listwise reranker"),
        ({"use_logits": True}, True, "--use-logits has no effect on a pointwise reranker"),
        ({"use_alpha": False}, True, "--no-use-alpha has no effect on a pointwise reranker"),
        ({"window_size": 8}, True, "--window-size has no effect on a pointwise reranker"),
        ({"stride": 8}, True, "--stride has no effect on a pointwise reranker"),
        ({"context_size": 8}, True, "--context-size has no effect on a pointwise reranker"),
        ({"max_passage_words": 8}, True, "--max-passage-words has no effect on a pointwise reranker"),
        ({"num_passes": 2}, True, "--num-passes has no effect on a pointwise reranker"),
        ({"strategy": "full"}, True, "--strategy has no effect on a pointwise reranker"),
        ({"permutations": 2}, True, "--permutations has no effect on a pointwise reranker"),
        ({"shuffle_candidates": True}, True, "--shuffle-candidates has no effect on a pointwise reranker"),
        ({"variable_passages": False}, True, "--no-variable-passages has no effect on a pointwise reranker"),
        ({"free_decoding": True}, True, "--free-decoding has no effect on a pointwise reranker"),
        ({"decode_top_k": 3}, True, "--decode-top-k has no effect on a pointwise reranker"),
        ({"use_logits": True, "free_decoding": True}, False, "--free-decoding has no effect with FIRST"),
        ({"compile": True}, False, "--compile has no effect with generation, only for models that output scores"),
        ({"use_logits": True, "decode_top_k": 3}, False, "--decode-top-k has no effect with FIRST"),
        ({"system_message": "Hi"}, True, "--system-message has no effect on a pointwise reranker"),
        ({"few_shot_file": "f", "num_few_shot_examples": 1}, True, "--few-shot-file has no effect on a pointwise"),
    ],
)
def test_what_cannot_be_or_has_no_effect_is_refused(options, score_head, message):
    """Found before anything is loaded; the option is named as it is written on the command line."""
    with pytest.raises(ConfigError, match=message):
        resolve(score_head=score_head, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "setwise"}, "method: expected one of auto, listwise, pointwise, pairwise; found 'setwise'"),
        ({"engine": "tgi"}, "engine: expected one of transformers, vllm, openai; found 'tgi'"),
        ({"dtype": "int8"}, "dtype: expected one of auto, float32, bfloat16, float16; found 'int8'"),
        ({"num_gpus": 0}, "num_gpus: expected at least 1, found 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, found 0"),
        ({"num_passes": 0}, "num_passes: expected at least 1, found 0"),
        ({"num_passes": 2, "pass_depth": 1}, "pass_depth: expected at least 2, found 1"),
        (
            {"num_passes": 2, "pass_depth": 20, "top_k_candidates": 20},
            "--pass-depth 20 has no effect with --top-k-candidates 20",
        ),
        ({"pass_depth": 9}, "--pass-depth has no effect without --num-passes 2 or more"),
        ({"engine": "openai"}, "engine openai and base_url go together"),
        ({"base_url": "http://h/v1"}, "engine openai and base_url go together"),
        ({"few_shot_file": "f"}, "few_shot_file and num_few_shot_examples go together"),
        ({"num_few_shot_examples": 2}, "few_shot_file and num_few_shot_examples go together"),
        ({"seed": 3}, "--seed has no effect without --shuffle-candidates or --permutations"),
        (
            {"strategy": "quick"},
            "strategy: expected one of sliding, full, top-down, tournament, all-pairs, .*found 'quick'",
        ),
        ({"permutations": 0}, "permutations: expected at least 1, found 0"),
        ({"strategy": "full", "stride": 5}, "--stride has no effect with --strategy full"),
        ({"strategy": "top-down", "stride": 5}, "--stride has no effect with --strategy top-down"),
        ({"strategy": "full", "variable_passages": False}, "--no-variable-passages has no effect with --strategy full"),
        ({"rank_top_k": 5}, "--rank-top-k has no effect with --strategy sliding"),
        ({"strategy": "full", "rank_top_k": 5}, "--rank-top-k has no effect with --strategy full"),
        ({"decode_top_k": 0}, "decode_top_k: expected at least 1, found 0"),
        ({"free_decoding": True, "decode_top_k": 3}, "--decode-top-k has no effect with --free-decoding"),
        ({"timeout_s": 9.0}, "--timeout has no effect with --engine transformers"),
        ({"concurrency": 9}, "--concurrency has no effect with --engine transformers"),
        ({"engine": "vllm", "compile": True}, "--compile has no effect with --engine vllm"),
        ({"engine": "vllm", "free_decoding": True}, "--free-decoding has no effect with --engine vllm"),
        ({"engine": "vllm", "attn_implementation": "sdpa"}, "--attn-implementation has no effect with --engine vllm"),
        ({"attn_implementation": "fast"}, "attn_implementation: expected one of auto, sdpa, flash_attention_2, eager"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, message):
    """Whatever the model is."""
    with pytest.raises(ConfigError, match=message):
        RerankOptions(**options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "float32"),
        ("device", "cpu"),
        ("num_gpus", 2),
        ("batch_size", 4),
        ("batch_tokens", 4096),
        ("base_model", "b"),
        ("decode_top_k", 3),
    ],
)
def test_a_server_is_not_told_how_to_run_its_model(name, value):
    """Options of the engine transformers have no effect on a server."""
    option = "--" + name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"{option} has no effect with --engine openai"):
        RerankOptions(engine="openai", base_url="http://h/v1", **{name: value})


def test_identifiers_follow_the_words_of_the_template_that_is_asked_for(tmp_path):
    """Passages are called what the prompt says they are called; both changes to the card are named."""
    save_card(FIRST, tmp_path)
    resolved = resolve(str(tmp_path), folder=tmp_path, template="rank_gpt")
    assert (resolved.card.template.name, resolved.card.identifiers) == ("rank_gpt", "numeric")
    assert [warning.split(", ")[0] for warning in resolved.warnings] == [
        "--prompt-template-path: using template rank_gpt",
        "--no-use-alpha: using identifiers numeric",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "rank_vicuna", "use_alpha": True}, "describes numeric identifiers"),
        ({"template": "rank_zephyr_alpha", "use_alpha": False}, "describes alpha identifiers"),
        ({"template": "reasonrank"}, "reason first"),
    ],
)
def test_a_prompt_that_contradicts_itself_is_warned_of(tmp_path, options, message):
    """A model asked for letters over numbered passages ranks at random."""
    (warning,) = resolve(str(tmp_path), folder=tmp_path, **options).warnings
    assert message in warning


@pytest.mark.parametrize("template", ["rank_lrl", "rank_gpt_apeer", "reasonrank"])
def test_first_needs_an_answer_that_begins_with_an_identifier(tmp_path, template):
    """FIRST reads the token after `[`; these prompts ask for something else there."""
    with pytest.raises(ConfigError, match="do not start with an identifier"):
        resolve(str(tmp_path), folder=tmp_path, template=template, use_logits=True)


def test_fusing_contradicts_no_card_that_is_silent_about_it(tmp_path):
    """It is what the option is for; a share is from 0 to 1."""
    save_card(FIRST, tmp_path)
    resolved = resolve(str(tmp_path), folder=tmp_path, fuse_weight=0.5)
    assert (resolved.card, resolved.warnings) == (replace(FIRST, fuse_weight=0.5), ())
    with pytest.raises(ConfigError, match=r"--fuse-weight: expected a number from 0 to 1, found 2\.0"):
        resolve(str(tmp_path), folder=tmp_path, fuse_weight=2.0)
