"""A plan combines model, card and options before anything is loaded; it is made once and never changed."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest

from rankllm_core.card import ListwiseCard, PointwiseCard, save_card
from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.template import load_template
from rankllm_infer.checkpoints import model_files
from rankllm_infer.effective_card import EffectiveCard, fit_card
from rankllm_infer.engines.openai.settings import OpenAISettings
from rankllm_infer.engines.transformers.batches import TransformersSettings
from rankllm_infer.engines.vllm.settings import VllmSettings
from rankllm_infer.options import RerankOptions
from rankllm_infer.plan import plan_reranking


@pytest.fixture
def adapter(tmp_path):
    """An adapter folder with its base next to it; no weights."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"max_position_embeddings": 512}', encoding="utf-8")
    folder = tmp_path / "adapter"
    folder.mkdir()
    named = {"base_model_name_or_path": str(base), "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(named), encoding="utf-8")
    return folder


def test_an_adapters_settings_are_read_once(adapter, monkeypatch):
    """And its base's configuration: the plan stores them."""
    read = []

    def noting(path):
        read.append(path)
        return json.loads(path.read_text()) if path.exists() else None

    monkeypatch.setattr(model_files, "read_model_json", noting)
    plan = plan_reranking(adapter)
    assert plan.files.own.adapter["task_type"] == "CAUSAL_LM"
    assert (plan.files.base.path.name, plan.files.base.positions) == ("base", 512)
    assert len(read) == len(set(read)) == 4


def test_a_plan_is_frozen_and_holds_no_options(adapter):
    """`RerankOptions` are consumed by the plan: later code cannot read them."""
    plan = plan_reranking(adapter)
    with pytest.raises(FrozenInstanceError):
        plan.card = None

    def parts(value):
        yield value
        if is_dataclass(value):
            for field in fields(value):
                yield from parts(getattr(value, field.name))

    assert not [part for part in parts(plan) if isinstance(part, RerankOptions)]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (
            {"device": "cpu", "dtype": "float16", "batch_size": 3, "batch_tokens": 9, "attn_implementation": "eager"},
            TransformersSettings(
                device="cpu", dtype="float16", batch_size=3, batch_tokens=9, attn_implementation="eager"
            ),
        ),
        ({"num_gpus": 2, "base_model": "base"}, TransformersSettings(num_gpus=2)),
        (
            {
                "engine": "vllm",
                "dtype": "float32",
                "num_gpus": 4,
                "batch_size": 3,
                "batch_tokens": 9,
                "vllm_args": ("a=1",),
            },
            VllmSettings(dtype="float32", num_gpus=4, batch_size=3, batch_tokens=9, more=("a=1",)),
        ),
        (
            {"engine": "openai", "base_url": "http://h/v1", "api_key": "k", "timeout_s": 5.0, "concurrency": 2},
            OpenAISettings(base_url="http://h/v1", model="adapter", api_key="k", timeout_s=5.0, concurrency=2),
        ),
    ],
)
def test_an_engines_options_become_its_settings(adapter, monkeypatch, options, settings):
    """Each option under its own name, without those of other engines."""
    monkeypatch.chdir(adapter.parent)
    plan = plan_reranking("adapter", RerankOptions(**options))
    assert plan.engine == settings
    assert (plan.files is None) is (options.get("engine") == "openai")


def test_what_ranks_is_read_from_the_options(adapter):
    """One seed shuffles candidates, another only permutations."""
    options = RerankOptions(shuffle_candidates=True, seed=7, num_passes=2, top_k_candidates=9, with_trace=True)
    found = plan_reranking(adapter, options).ranking
    assert (found.shuffle_seed, found.permutation_seed, found.num_passes) == (7, 7, 2)
    assert (found.top_k_candidates, found.with_trace, found.free_decoding) == (9, True, False)
    found = plan_reranking(adapter, RerankOptions(permutations=3, seed=7)).ranking
    assert (found.shuffle_seed, found.permutation_seed, found.permutations) == (None, 7, 3)


@pytest.mark.parametrize(
    ("template", "options", "read"),
    [
        ("rank_zephyr", {}, "permutation"),
        ("rank_zephyr", {"free_decoding": True}, "text"),
        ("rank_zephyr", {"engine": "vllm"}, "text"),
        ("rank_zephyr", {"use_logits": True}, "first-token"),
        ("rankllama", {}, "head"),
        ("yes_no", {}, "first-token"),
    ],
)
def test_how_the_model_is_read_is_known_before_it_is_loaded(adapter, template, options, read):
    """By card and options; it decides which head is loaded."""
    assert plan_reranking(adapter, RerankOptions(template=template, **options)).read == read


def test_a_base_is_looked_for_after_everything_that_needs_none(adapter):
    """Downloading a base is expensive: contradictions are reported first."""
    named = {"base_model_name_or_path": "/gone", "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(named), encoding="utf-8")
    with pytest.raises(ConfigError, match="--decode-top-k 2: --strategy tournament needs the first 10"):
        plan_reranking(adapter, RerankOptions(strategy="tournament", decode_top_k=2))
    save_card(ListwiseCard(template=load_template("rank_zephyr"), base_model="another/model"), adapter)
    with pytest.raises(ContractError, match="the card names base model 'another/model', but adapter_config"):
        plan_reranking(adapter)


def test_a_server_has_no_score_head(tmp_path):
    """Reported before the server is contacted."""
    options = RerankOptions(engine="openai", base_url="http://127.0.0.1:9/v1", template="rankllama")
    with pytest.raises(ConfigError, match="a chat server has no score head; use a yes/no template"):
        plan_reranking("m", options)


LISTWISE = ListwiseCard(template=load_template("rank_zephyr"), context_tokens=4096)
POINTWISE = PointwiseCard(template=load_template("rankllama"), query_tokens=32, passage_tokens=164)


@pytest.mark.parametrize(
    ("card", "positions", "asked", "context", "said"),
    [
        (LISTWISE, None, True, 4096, 0),
        (LISTWISE, 4096, True, 4096, 0),
        (LISTWISE, 2048, False, 2048, 1),
        (POINTWISE, 196, False, None, 0),
    ],
)
def test_a_card_is_fitted_to_the_positions_of_the_model(card, positions, asked, context, said):
    """A default context is reduced with a note; the planned card is unchanged."""
    effective = EffectiveCard(card=card, origin="", warnings=(), is_context_asked=asked)
    fitted, notes = fit_card(effective, positions)
    assert (getattr(fitted, "context_tokens", None), len(notes)) == (context, said)
    assert effective.card == card


@pytest.mark.parametrize(
    ("card", "positions", "message"),
    [
        (LISTWISE, 2048, "--context-size 4096: the model has 2048 positions"),
        (POINTWISE, 195, r"pairs of 32 \+ 164 tokens: the model has 195 positions"),
    ],
)
def test_what_was_asked_for_and_does_not_fit_is_an_error(card, positions, message):
    """One token too many."""
    with pytest.raises(ConfigError, match=message):
        fit_card(EffectiveCard(card=card, origin="", warnings=(), is_context_asked=True), positions)


def test_the_file_of_examples_is_remembered(adapter, tmp_path):
    """For the fingerprint of a run, which hashes its contents."""
    file = tmp_path / "shots.json"
    file.write_text('[{"conversations": [{"role": "user", "value": "v"}]}]', encoding="utf-8")
    plan = plan_reranking(adapter, RerankOptions(few_shot_file=str(file), num_few_shot_examples=1))
    assert (plan.few_shot_file, len(plan.ranking.few_shot)) == (Path(file), 1)
