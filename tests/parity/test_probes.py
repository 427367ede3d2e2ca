"""The probe that training records with its own forward pass is what inference computes from the checkpoint alone."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from probed_models import CARDS, change_weights, load, small_tokenizer  # noqa: E402
from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.card import load_card  # noqa: E402
from rankllm_core.prompts.template import load_template  # noqa: E402
from rankllm_infer.plan import make_method  # noqa: E402
from rankllm_infer.ranking.settings import RankingSettings  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.merge import merge  # noqa: E402
from rankllm_train.artifacts.probing import probe_prompts  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer():
    """Small, so that models load in no time."""
    return small_tokenizer()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), tokenizer)


KINDS = {
    "head": {"method": "pointwise", "prompt.head": "sequence-classification"},
    "yes-no": {"method": "pointwise", "prompt.head": "yes-no"},
    "single-token": {"method": "pointwise", "prompt.head": "single-token"},
    "FIRST": {"objective.name": "ranking"},
    "generation": {"objective.name": "generation"},
}


def trained(tiny, out, kind, **changes):
    """The folder of a model that was trained for a few steps."""
    is_pointwise = KINDS[kind].get("method") == "pointwise"
    records = [pointwise_record(i) if is_pointwise else listwise_record(i) for i in range(4)]
    base = {
        "model.name_or_path": tiny,
        "model.precision": "fp32",
        "data.train": write_records(out.with_suffix(".jsonl"), records),
        "data.group_size": 4,
        "checkpoint.output_dir": str(out),
        "checkpoint.every": "none",
        "schedule.max_steps": 3,
        "optim.learning_rate": 1e-2,
        "prompt.context_tokens": 1024,
        "lora.r": 4,
    }
    asked = base | KINDS[kind] | changes
    return train(Recipe(method=asked.pop("method", "listwise")).changed(asked)).output_dir


def doubts(folder, dtype="float32", **options):
    """Warnings of a model that is loaded and verified."""
    with load(folder, dtype, verify=True, **options) as reranker:
        return list(reranker.warnings)


@pytest.mark.parametrize(
    "card",
    [
        *(card for card in CARDS.values() if card.kind != "pairwise"),  # which is not trained
        replace(CARDS["head"], template=load_template("rankllama-v2"), append_eos=True),
        replace(CARDS["FIRST"], bos="double", template=load_template("rank_vicuna"), identifiers="numeric"),
        replace(CARDS["generation"], template=load_template("rank_gpt")),
    ],
    ids=lambda card: f"{card.kind}-{card.template.name}",
)
def test_the_ids_of_a_probe_are_those_at_inference(tokenizer, card):
    """Rows as they are served, of whatever template and BOS rule."""
    asked = replace(card, answer="first-token", window_size=9, stride=9) if card.kind == "listwise" else card
    method = make_method(asked, RankingSettings(), tokenizer)
    for prompt in probe_prompts(card, tokenizer, positions=None):
        assert prompt.rows == tuple(served.token_ids for served in next(method.flow(prompt.request)))


@pytest.mark.parametrize(
    ("kind", "lora"),
    [*((kind, False) for kind in KINDS), ("head", True), ("FIRST", True), ("generation", True)],
    ids=lambda value: {True: "lora", False: "full"}.get(value, value),
)
def test_a_trained_checkpoint_is_verified_where_it_is_loaded(tiny, tmp_path, kind, lora):
    """In float32 the scores are the same to the last printed digits but one; in bfloat16 they are near."""
    out = trained(tiny, tmp_path / "out", kind, **{"lora.enabled": lora})
    assert load_card(out).probe.dtype == "float32"
    with load(out, verify=True) as reranker:
        assert reranker.warnings == ()
        assert reranker.verify().difference < 1e-4
    assert doubts(out, "bfloat16") == []


@pytest.mark.parametrize(
    ("kind", "lora", "dtype"), [("head", True, "bfloat16"), ("FIRST", True, "bfloat16"), ("FIRST", False, "float32")]
)
def test_the_dtype_of_a_probe_is_that_of_the_weights(tiny, tmp_path, kind, lora, dtype):
    """Trained in bf16: a frozen base is rounded to it; weights that are trained are kept, and read, in float32."""
    out = trained(tiny, tmp_path / "out", kind, **{"lora.enabled": lora, "model.precision": "bf16"})
    assert load_card(out).probe.dtype == dtype
    assert doubts(out) == doubts(out, "bfloat16") == []


def test_each_checkpoint_has_a_probe_of_its_own_weights(tiny, tmp_path):
    """Those of every step, the best one and the final one; a resumed run compares cards without them."""
    dev = write_records(tmp_path / "dev.jsonl", [listwise_record(9)])
    changes = {"checkpoint.every": "1", "data.eval": dev, "evaluation.every": "1"}
    out = trained(tiny, tmp_path / "out", "FIRST", **changes)
    folders = [out / "step_1", out / "step_2", out / "step_3", out / "best", out]
    probes = [load_card(folder).probe for folder in folders]
    assert len(set(probes[:3])) == 3
    assert probes[3] == probes[4]
    assert probes[3] in probes[:3]
    assert all(doubts(folder) == [] for folder in folders)


def test_a_resumed_run_records_what_an_unbroken_one_does(tiny, tmp_path):
    """The checkpoint's probe is no reason to refuse it."""
    whole = trained(tiny, tmp_path / "whole", "FIRST", **{"checkpoint.every": "1"})
    path = write_records(tmp_path / "again.jsonl", [listwise_record(i) for i in range(4)])
    part = shutil.copytree(whole, tmp_path / "part")
    shutil.rmtree(part / "step_3")
    from rankllm_train.recipe.recipe import RECIPE_NAME, load_recipe

    recipe = load_recipe(whole / RECIPE_NAME).changed({"checkpoint.output_dir": str(part), "data.train": path})
    train(recipe, resume_from="latest")
    assert load_card(part).probe == load_card(whole).probe


def test_a_merged_model_keeps_the_probe_of_its_adapter(tiny, tmp_path):
    """It is the same model; merged into another base, it is not, and the probe says so."""
    out = trained(tiny, tmp_path / "out", "head", **{"lora.enabled": True})
    merged = merge(out, tmp_path / "merged")
    assert load_card(merged).probe == load_card(out).probe
    assert doubts(merged) == doubts(merged, "bfloat16") == []
    other = shutil.copytree(tiny, tmp_path / "other")
    change_weights(other, lambda name, tensor: -tensor if "layers.0" in name else tensor)
    (warning,) = doubts(merge(out, tmp_path / "wrong", base_model=str(other)))
    assert "differ from those recorded in its card" in warning


def test_a_trained_checkpoint_that_was_damaged_is_told(tiny, tmp_path):
    """A score layer drawn anew, as transformers does where a checkpoint lacks it."""
    out = trained(tiny, tmp_path / "out", "head", **{"optim.learning_rate": 5e-2})
    (out / "manifest.json").unlink()  # which would tell of it first
    draw = torch.Generator().manual_seed(5)
    change_weights(out, lambda name, t: torch.randn(t.shape, generator=draw) if name == "score.weight" else t)
    (warning,) = doubts(out)
    assert "differ from those recorded in its card" in warning


def test_a_model_too_short_for_a_probe_gets_none(tokenizer):
    """A prompt of four short passages is longer than its positions."""
    assert probe_prompts(CARDS["generation"], tokenizer, positions=64) == ()
    assert len(probe_prompts(CARDS["generation"], tokenizer, positions=2048)) == 2
