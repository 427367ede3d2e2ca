"""Every recipe setting either takes effect in a resumed run or is rejected: none is recorded without being used."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_train.artifacts.run_record import RECORD_NAME, RunRecord, load_record, save_record
from rankllm_train.artifacts.source_identity import source_identities
from rankllm_train.recipe.recipe import Recipe, recipe_differences, save_recipe
from rankllm_train.recipe.resume_rules import (
    APPLIED,
    BY_CONTENT,
    HARMLESS,
    REFUSED,
    check_batch,
    check_changes,
    check_sources,
)

KEYS = ["method", "description"] + [
    f"{section.name}.{item.name}"
    for section in dataclasses.fields(Recipe)
    if dataclasses.is_dataclass(getattr(Recipe(), section.name))
    for item in dataclasses.fields(getattr(Recipe(), section.name))
]
BASE = Recipe().changed({"lora.enabled": True, "data.train": "d.jsonl", "data.eval": "dev.jsonl"})
OTHER = {
    "method": ("pointwise", {"objective.name": ""}),
    "model.precision": ("fp32", {}),
    "model.attn_implementation": ("sdpa", {}),
    "data.identifiers": ("alpha", {}),
    "data.overlong": ("skip", {}),
    "data.bad_records": ("skip", {}),
    "prompt.bos": ("double", {}),
    "prompt.head": ("yes-no", {}),
    "prompt.query_tokens": (40, {}),
    "prompt.passage_tokens": (40, {}),
    "objective.name": ("ranking", {}),
    "objective.ranking_loss": ("listnet", {}),
    "objective.label_weight": (0.5, {"method": "pointwise", "objective.name": "kl"}),
    "schedule.lr_scheduler": ("cosine", {}),
    "schedule.warmup_ratio": (0.5, {}),
    "lora.dropout": (0.5, {}),
    "lora.enabled": (False, {}),
    "optim.adam_beta1": (0.8, {}),
    "optim.adam_beta2": (0.9, {}),
    "batch.by_length": (True, {"batch.per_device": 2}),
    "checkpoint.every": ("7", {}),
    "evaluation.every": ("7", {}),
    "evaluation.metric": ("mrr@10", {}),
    "evaluation.keep_best": (False, {}),
}
"""Key -> another value, and what else it needs."""


def other(key):
    """A recipe, and one that differs from it in `key` only."""
    value, needed = OTHER.get(key, (None, {}))
    base = BASE.changed(needed)
    if value is None:
        section, _, name = key.partition(".")
        found = getattr(getattr(base, section), name) if name else getattr(base, section)
        kinds = {bool: lambda: not found, int: lambda: found + 3, float: lambda: found * 2 + 1}
        value = kinds.get(type(found), lambda: ("a", "b") if isinstance(found, tuple) else f"other{found}")()
        value = 2.0 if found is None else value
    return base, base.changed({key: value})


@pytest.fixture
def step_3(tmp_path):
    """A checkpoint reduced to what the rules read."""
    folder = tmp_path / "step_3"
    folder.mkdir()
    save_record(RunRecord(step=3, steps_per_epoch=5, records_per_step=8), folder)
    return folder


def test_every_key_of_a_recipe_has_one_rule():
    """A new key needs a decision."""
    ruled = [*REFUSED, *APPLIED, *HARMLESS, *BY_CONTENT]
    assert sorted(ruled) == sorted(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_is_refused_by_name_or_told_and_recorded(step_3, key):
    """One key at a time is changed to another valid value."""
    base, changed = other(key)
    differences = recipe_differences(base, changed)
    assert key in differences
    save_recipe(base, step_3)
    told = []
    if key in REFUSED:
        with pytest.raises(RankLLMError, match=rf"{key} was .* and is now .*: .*Restore the checkpoint's value"):
            check_changes(changed, resumed=step_3, say=told.append)
        return
    record = check_changes(changed, resumed=step_3, say=told.append)
    if key not in APPLIED:
        assert (told, record.changes) == ([], ())
        return
    (line,) = told
    old, new = differences[key]
    assert line == f"Warning: {key} was {old!r} in step_3 and is now {new!r}; the new value applies from step 4 on"
    assert record.changes == ({"after_step": 3, "key": key, "old": old, "new": new},)


def test_a_record_comes_back_with_its_changes(step_3):
    """Changes are carried from checkpoint to checkpoint."""
    change = {"after_step": 3, "key": "optim.learning_rate", "old": 1.0, "new": 2.0}
    record = dataclasses.replace(
        load_record(step_3), changes=(change,), best={"step": 2, "metric": "loss", "value": 0.5}
    )
    save_record(record, step_3)
    assert load_record(step_3) == record


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "nonsense": 2}', "[" * 100_000])
def test_what_is_no_record_is_one_line(step_3, content):
    """Any file content gives a one-line error."""
    (step_3 / RECORD_NAME).write_text(content, encoding="utf-8")
    with pytest.raises(RankLLMError, match=r"training_run\.json: is not a record of a training run"):
        load_record(step_3)


@pytest.mark.parametrize(
    ("per_device", "accumulation", "processes", "hint"),
    [
        (2, 4, 1, None),
        (8, 1, 1, None),
        (1, 4, 2, None),
        (2, 2, 1, "2 x 2 = 4; use --gradient-accumulation-steps 4"),
        (2, 4, 2, "2 processes x 2 x 4 = 16; use --gradient-accumulation-steps 2"),
        (3, 1, 1, "3 x 1 = 3; change --per-device-train-batch-size"),
    ],
)
def test_a_steps_records_may_be_split_anew_and_not_be_others(step_3, per_device, accumulation, processes, hint):
    """With eight records per step, the position in the data follows from the number of steps done."""
    recipe = BASE.changed({"batch.per_device": per_device, "batch.accumulation": accumulation})
    if hint is None:
        check_batch(load_record(step_3), recipe, resumed=step_3, processes=processes)
        return
    with pytest.raises(RankLLMError) as caught:
        check_batch(load_record(step_3), recipe, resumed=step_3, processes=processes)
    assert "expected 8 records per step, found " in str(caught.value)
    assert str(caught.value).endswith(hint)


@pytest.fixture
def inputs(tmp_path, step_3):
    """A recipe with data and base as files, and a checkpoint's record of them."""
    for name in ("d.jsonl", "dev.jsonl", "base/config.json", "base/model.safetensors", "base/tokenizer.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    paths = {key: str(tmp_path / name) for key, name in (("data.train", "d.jsonl"), ("data.eval", "dev.jsonl"))}
    recipe = BASE.changed(paths | {"model.name_or_path": str(tmp_path / "base")})
    save_recipe(recipe, step_3)
    return recipe, RunRecord(step=3, sources=source_identities(recipe))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("d.jsonl", r"--train-dataset-path .*d\.jsonl: has changed since step_3 was written .*start a new run"),
        ("dev.jsonl", r"--eval-dataset-path .*dev\.jsonl: has changed since .*under another name"),
        ("base/config.json", r"--model-name-or-path .*base: has changed since step_3 was written"),
        ("base/tokenizer.json", r"--model-name-or-path .*base: has changed since step_3 was written"),
        ("base/model.safetensors", r"--model-name-or-path .*base: has changed since step_3 was written"),
    ],
)
@pytest.mark.parametrize("how", ["rewritten", "gone"])
def test_inputs_that_were_rewritten_or_are_gone_are_refused(tmp_path, step_3, inputs, name, message, how):
    """Files are compared by content, not date; with an adapter, the base's weights are compared too."""
    recipe, record = inputs
    (tmp_path / name).unlink()
    if how == "rewritten":
        (tmp_path / name).write_text(name.upper(), encoding="utf-8")
    with pytest.raises(RankLLMError, match=message):
        check_sources(record, recipe, resumed=step_3, now=source_identities(recipe))


def test_inputs_may_move(tmp_path, step_3, inputs):
    """The same bytes under other names are accepted."""
    recipe, record = inputs
    moved = {}
    for key, old, new in (
        ("data.train", "d.jsonl", "e.jsonl"),
        ("data.eval", "dev.jsonl", "d.jsonl"),
        ("model.name_or_path", "base", "elsewhere"),
    ):
        (tmp_path / old).rename(tmp_path / new)
        moved[key] = str(tmp_path / new)
    recipe = recipe.changed(moved)
    check_sources(record, recipe, resumed=step_3, now=source_identities(recipe))


def test_other_dev_data_is_another_name_and_other_training_data_another_run(tmp_path, step_3, inputs):
    """Dev data may change because it does not affect training."""
    recipe, record = inputs
    (tmp_path / "new.jsonl").write_text("new", encoding="utf-8")
    other_dev = recipe.changed({"data.eval": str(tmp_path / "new.jsonl")})
    check_sources(record, other_dev, resumed=step_3, now=source_identities(other_dev))
    other_data = recipe.changed({"data.train": str(tmp_path / "new.jsonl")})
    with pytest.raises(RankLLMError, match=r"new\.jsonl: does not match .*d\.jsonl, which step_3 was trained on"):
        check_sources(record, other_data, resumed=step_3, now=source_identities(other_data))


def test_weights_of_a_base_that_is_trained_in_full_do_not_matter(tmp_path, inputs):
    """The weights are read from the checkpoint; configuration and tokenizer are read again."""
    recipe, _ = inputs
    recipe = recipe.changed({"lora.enabled": False})
    before = source_identities(recipe)
    (tmp_path / "base" / "model.safetensors").unlink()
    assert source_identities(recipe) == before
    (tmp_path / "base" / "config.json").write_text("other", encoding="utf-8")
    assert source_identities(recipe) != before


def test_a_record_is_readable_json(step_3):
    """The record can be read by people who want to know how a model was made."""
    assert json.loads((step_3 / RECORD_NAME).read_text(encoding="utf-8"))["records_per_step"] == 8
