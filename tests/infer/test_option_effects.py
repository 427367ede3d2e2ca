"""Scope and effect of each `rerank` option match its row: in rejections, card and fingerprint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from option_values import FOR_PYTHON, OPTIONS, SET, options, write_files

from rankllm_core.errors import ConfigError
from rankllm_infer.checkpoints.model_files import find_model
from rankllm_infer.effective_card import resolve_card
from rankllm_infer.engines.openai.settings import OpenAISettings
from rankllm_infer.engines.transformers.batches import TransformersSettings
from rankllm_infer.jobs.fingerprint import changed_names, run_settings
from rankllm_infer.option_table import ALL_METHODS, ENGINES
from rankllm_infer.options import RerankOptions
from rankllm_infer.plan import RerankPlan
from rankllm_infer.ranking.settings import RankingSettings


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Current folder, with the files that the options name."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    return tmp_path


# What an option applies to.

FOREIGN_ENGINE = [
    (name, engine)
    for name, row in OPTIONS.items()
    if name not in (*FOR_PYTHON, "base_url")  # base_url and its engine go together, which is said by itself
    for engine in ENGINES
    if engine not in row.option.engines
]


@pytest.mark.parametrize(("name", "engine"), FOREIGN_ENGINE)
def test_an_option_of_another_engine_is_refused_by_its_flag(name, engine):
    """As spelled by the user."""
    flag = SET[name].words.split()[0]
    with pytest.raises(ConfigError, match=rf"^{flag} has no effect with --engine {engine}; leave it out$"):
        options(name, engine=engine)


def test_a_key_without_a_server_is_refused_by_the_fields_name():
    """It has no flag."""
    with pytest.raises(ConfigError, match=r"^api_key has no effect with --engine vllm; leave it out$"):
        RerankOptions(engine="vllm", api_key="k")


ASKED = {
    "pointwise": ({"method": "pointwise"}, "on a pointwise reranker"),
    "pairwise": ({"method": "pairwise"}, "on a pairwise reranker"),
    "FIRST": ({"method": "listwise", "use_logits": True}, "with FIRST|on a listwise reranker"),
    "generation": ({"method": "listwise", "use_logits": False}, "with generation|on a listwise reranker"),
}
FOREIGN_METHOD = [
    (name, method)
    for name, row in OPTIONS.items()
    if name != "use_logits"  # it chooses between the two
    for method in ALL_METHODS
    if method not in row.option.methods
]


@pytest.mark.parametrize(("name", "method"), FOREIGN_METHOD)
def test_an_option_of_another_method_is_refused_by_its_flag(name, method):
    """Or by the flag it requires."""
    changes, why = ASKED[method]
    flags = [SET[name].words.split()[0]]
    flags += [SET[other].words.split()[0] for other in SET[name].beside if other in SET and other not in changes]
    flags += ["--strategy"] if "top_down" in SET[name].beside else []
    with pytest.raises(ConfigError, match=rf"^({'|'.join(flags)}) has no effect ({why})"):
        resolve_card("m", options(name, **changes), folder=None, score_head=False)


def test_what_applies_is_written_down():
    """By hand, for options that are not supported by every engine and method."""
    restricted = {"FIRST": ["identifier_prior"], "generation": ["decode_top_k", "free_decoding"]}
    restricted |= {"FIRST, pointwise and pairwise": ["compile"], "pointwise": ["instruction"]}
    restricted |= {"pointwise and pairwise": ["p_max_len", "q_max_len"]}
    restricted["listwise and pairwise"] = ["rank_top_k", "strategy"]
    restricted["listwise"] = [
        *("context_size", "few_shot_file", "max_passage_words", "num_few_shot_examples", "num_passes", "pass_depth"),
        *("permutations", "seed", "shuffle_candidates", "stride", "system_message"),
        *("use_alpha", "use_logits", "variable_passages", "window_size"),
    ]
    for methods, names in restricted.items():
        found = [name for name, row in OPTIONS.items() if f"{methods} only" in row.scope.split("; ")]
        assert sorted(found) == names
    by_engines = {
        "not with --engine openai": {"base_model", "batch_size", "batch_tokens", "dtype", "num_gpus"}
        | {"revision", "trust_remote_code", "verify"},
        "--engine transformers only": {"attn_implementation", "compile", "decode_top_k", "device", "free_decoding"},
        "--engine vllm only": {"vllm_args"},
        "--engine openai only": {"api_key", "base_url", "concurrency", "timeout_s"},
    }
    for scope, names in by_engines.items():
        assert {name for name, row in OPTIONS.items() if scope in row.scope.split("; ")} == names
    assert set().union(*by_engines.values()) == {name for name, row in OPTIONS.items() if row.option.engines != ENGINES}


# The card and the fingerprint.


def settings(model, asked):
    """Settings of a run with these options, and the resulting card."""
    server = TransformersSettings()
    files = None
    if asked.engine == "openai":
        server = OpenAISettings(base_url=asked.base_url, model=model)
    else:
        files = find_model(model, asked.base_model)
    # Put together here: a plan is refused where the model does not go with the option.
    plan = RerankPlan(
        model=model,
        files=files,
        card=resolve_card(model, asked, folder=None, score_head=False),
        ranking=RankingSettings(),
        read="text",
        engine=server,
        warnings=(),
        asked=asked.settings(),
        few_shot_file=Path(asked.few_shot_file) if asked.few_shot_file else None,
    )
    return run_settings(plan, requests="3 queries")


WITHOUT = {
    "engine": RerankOptions(),
    "base_url": RerankOptions(engine="openai", base_url="http://other:1/v1"),
    "few_shot_file": RerankOptions(few_shot_file="copy.json", num_few_shot_examples=1),
    "num_few_shot_examples": RerankOptions(few_shot_file="shots.json", num_few_shot_examples=2),
}
"""Reference for an option whose default is not comparable."""


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "api_key"])
def test_the_fingerprint_holds_an_option_as_its_row_says(folder, name):
    """Its value, the card, what was loaded or found in a file, or nothing."""
    effect, flag = OPTIONS[name].option.effect, SET[name].words.split()[0].replace("--no-", "--")
    asked, without = options(name), WITHOUT.get(name)
    without = without or replace(asked, **{name: OPTIONS[name].default})
    changed = changed_names(settings("m", without), settings("m", asked))
    if effect == "option":
        assert flag in changed
    elif effect == "card":
        assert changed
        assert all(setting.startswith("card ") for setting in changed)
    else:
        assert changed == (["model"] if name == "base_url" else [])


def test_an_adapters_base_counts_by_its_files(folder):
    """A copy of the base is the same base."""
    for base, text in (("b", "{}"), ("copy", "{}"), ("other", '{"layers": 2}')):
        Path(base).mkdir()
        Path(base, "config.json").write_text(text, encoding="utf-8")
    Path("m/adapter_config.json").write_text('{"base_model_name_or_path": "b"}', encoding="utf-8")
    known = settings("m", RerankOptions())
    assert changed_names(known, settings("m", RerankOptions(base_model="copy"))) == []
    assert changed_names(known, settings("m", RerankOptions(base_model="other"))) == ["base model"]


def test_what_counts_by_contents_and_not_at_all():
    """By hand; options of the card are covered above."""
    by_effect = {}
    for name, row in OPTIONS.items():
        by_effect.setdefault(row.option.effect, set()).add(name)
    assert by_effect["none"] == {"api_key", "timeout_s", "concurrency", "verify"}
    assert by_effect["loaded"] == {"dtype", "device"}
    assert by_effect["content"] == {"base_url", "base_model", "few_shot_file", "revision"}
    assert by_effect["card"] == {name for name, row in OPTIONS.items() if row.option.card}
    assert {row.option.card for row in OPTIONS.values()} - {None} == {
        "kind",
        "template",
        "identifiers",
        "answer",
        "context_tokens",
        "max_passage_words",
        "window_size",
        "stride",
        "query_tokens",
        "passage_tokens",
        "identifier_prior",
        "fuse_weight",
    }
