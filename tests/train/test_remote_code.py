"""Training runs code that comes with a model only if this is allowed, and only from a local folder."""

from __future__ import annotations

import json
import shutil
import sys
from io import StringIO

import pytest

pytest.importorskip("torch")

from remote_code import with_known_model, with_own_model, with_own_tokenizer
from tiny_models import change_json, save_adapter
from training_fakes import listwise_record, pointwise_record, save_tiny, write_records

from rankllm_core.card import ListwiseCard, save_card
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.prompts.template import load_template
from rankllm_train.api import train
from rankllm_train.artifacts.merge import merge
from rankllm_train.recipe.recipe import Recipe, load_recipe


@pytest.fixture(autouse=True)
def _yes(tmp_path, monkeypatch):
    """Answer yes to every prompt, and use a separate cache for allowed code."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "stdin", StringIO("y\n" * 99))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    """A tiny Llama."""
    from pathlib import Path

    return Path(save_tiny(tmp_path_factory.mktemp("tiny") / "model", smollm2_tokenizer))


def recipe(method, model, tmp_path, **changes):
    """A recipe of one step."""
    record = listwise_record if method == "listwise" else pointwise_record
    data = write_records(tmp_path / f"{method}.jsonl", [record(i) for i in range(3)])
    values = {
        "model.name_or_path": str(model),
        "model.precision": "fp32",
        "data.train": data,
        "schedule.max_steps": 1,
        "checkpoint.output_dir": str(tmp_path / "out"),
    }
    if method == "pointwise":
        values["data.group_size"] = 2
    return Recipe(method=method).changed(values | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.mark.parametrize("method", ["listwise", "pointwise"])
@pytest.mark.parametrize("make", [with_own_model, with_own_tokenizer])
def test_training_runs_no_code_whatever_is_typed(tiny, tmp_path, method, make):
    """The one-line error names the option."""
    folder = make(tiny, tmp_path / "model", tmp_path / "it-ran")
    with pytest.raises(RankLLMError, match="which is not run; allow it with --trust-remote-code") as caught:
        train(recipe(method, folder, tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "it-ran").exists()


def test_a_model_that_transformers_knows_is_trained_without_its_code(tiny, tmp_path):
    """The same holds at inference."""
    folder = with_known_model(tiny, tmp_path / "model", tmp_path / "it-ran")
    train(recipe("listwise", folder, tmp_path))
    assert not (tmp_path / "it-ran").exists()


def test_the_option_is_for_a_local_folder(tiny, tmp_path):
    """A recipe cannot allow it for a hub name or for code stored elsewhere."""
    with pytest.raises(ConfigError, match="allowed only for a local folder or a pinned revision, found 'o/m'"):
        train(recipe("listwise", "o/m", tmp_path, model__trust_remote_code=True))
    folder = with_own_model(tiny, tmp_path / "model", tmp_path / "it-ran")
    change_json(folder / "config.json", auto_map={"AutoConfig": "o/m--modeling.Config"})
    with pytest.raises(ConfigError, match="refers to code in another repository"):
        train(recipe("listwise", folder, tmp_path, model__trust_remote_code=True))


def test_merging_runs_no_code(tiny, tmp_path):
    """The base's own code is not run, whatever is typed."""
    base = with_own_model(tiny, tmp_path / "base", tmp_path / "it-ran")
    save_adapter(tmp_path / "adapter", tiny, task="CAUSAL_LM")
    save_card(ListwiseCard(template=load_template("rank_zephyr")), tmp_path / "adapter")
    with pytest.raises(RankLLMError, match="which is not run"):
        merge(tmp_path / "adapter", tmp_path / "out", base_model=str(base))
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("adapter_config.json", b"{", "adapter_config.json: not JSON"),
        ("adapter_config.json", b"[]", "adapter_config.json: expected a JSON object"),
        ("adapter_model.safetensors", b"", "damaged or incomplete weights"),
        ("adapter_model.safetensors", None, r"adapter_model.safetensors is missing"),
    ],
)
def test_a_damaged_adapter_is_one_line_when_merged(tiny, tmp_path, name, content, said):
    """The error is raised before the base is loaded."""
    save_adapter(tmp_path / "adapter", tiny, task="CAUSAL_LM")
    save_card(ListwiseCard(template=load_template("rank_zephyr")), tmp_path / "adapter")
    (tmp_path / "adapter" / name).unlink()
    if content is not None:
        (tmp_path / "adapter" / name).write_bytes(content)
    with pytest.raises(RankLLMError, match=said):
        merge(tmp_path / "adapter", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", b"", "damaged or incomplete weights"),
        ("config.json", b"[]", "expected a JSON object"),
        ("config.json", json.dumps({"model_type": "llama", "vocab_size": None}).encode(), "vocab_size: expected an"),
        ("tokenizer.json", b"{}", "cannot be loaded"),
    ],
)
def test_a_damaged_model_is_one_line_when_trained(tiny, tmp_path, name, content, said):
    """The check is the same as at inference."""
    shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(content)
    with pytest.raises(RankLLMError, match=said):
        train(recipe("listwise", tmp_path / "model", tmp_path))


@pytest.mark.parametrize("is_adapter", [False, True], ids=["full", "adapter"])
def test_code_that_runs_is_announced_and_recorded(tiny, tmp_path, is_adapter):
    """The message of inference is shown before the code runs; the recipe and the model page record it."""
    folder = with_own_model(tiny, tmp_path / "model", tmp_path / "it-ran")
    told = []

    def say(line):
        told.append((line, (tmp_path / "it-ran").exists()))

    out = train(recipe("listwise", folder, tmp_path, model__trust_remote_code=True, lora__enabled=is_adapter), say=say)
    assert (tmp_path / "it-ran").exists()
    announced = f"--trust-remote-code: code from {folder} runs with your permissions (config.json)"
    assert (announced, False) in told
    assert load_recipe(out.output_dir / "recipe.yaml").model.trust_remote_code
    page = (out.output_dir / "README.md").read_text(encoding="utf-8")
    where = "its folder before adding `--trust-remote-code --base-model FOLDER`"
    assert (where if is_adapter else "this folder before adding `--trust-remote-code`") in page
    assert (out.output_dir / "modeling_own.py").exists() != is_adapter


def test_code_that_does_not_run_is_told(tiny, tmp_path):
    """As at inference, the option reports if the model has no code to run."""
    told = []
    folder = with_known_model(tiny, tmp_path / "model", tmp_path / "it-ran")
    out = train(recipe("listwise", folder, tmp_path), say=told.append)
    assert any(f"{folder}: contains its own code (" in line and "which is not run" in line for line in told)
    assert "--trust-remote-code" not in (out.output_dir / "README.md").read_text(encoding="utf-8")
    told.clear()
    changes = {"model__trust_remote_code": True, "checkpoint__output_dir": str(tmp_path / "other")}
    train(recipe("listwise", tiny, tmp_path, **changes), say=told.append)
    assert f"Warning: --trust-remote-code has no effect: {tiny} contains no code of its own" in told
