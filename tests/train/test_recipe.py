"""A recipe contains every setting of a run under validated names."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import fields

import pytest
import yaml

from rankllm_core.errors import ConfigError
from rankllm_train.recipe.loop_sections import OptimSection, ScheduleSection
from rankllm_train.recipe.recipe import (
    SECTIONS,
    Recipe,
    load_recipe,
    parse_setting,
    recipe_differences,
    recipe_names,
    recipe_text,
    save_recipe,
)

# Read from castorini/rank_llm@1b3cabb training/scripts and training/utils, and from
# texttron/tevatron@0545746 examples/rankllama; FlagOpen/FlagEmbedding@f3172a0 examples/finetune/reranker/encoder_only.
ORIGINALS = {
    "rank-zephyr": {
        "method": "listwise",
        "model.name_or_path": "HuggingFaceH4/zephyr-7b-beta",
        "data.train": "rryisthebest/rank_zephyr_training_data_alpha",
        "objective.name": "generation",
        "schedule.num_epochs": 3.0,
        "schedule.seed": 42,
        "schedule.lr_scheduler": "cosine",
        "schedule.warmup_steps": 50,
        "batch.per_device": 4,
        "batch.accumulation": 16,
        "batch.gradient_checkpointing": True,
        "optim.learning_rate": 5e-6,
        "optim.noisy_embedding_alpha": 5.0,
        "checkpoint.every": "epoch",
        "prompt.bos": "single",
    },
    "first-mistral": {
        "model.name_or_path": "mistralai/Mistral-7B-Instruct-v0.3",
        "objective.name": "combined",
        "objective.ranking_loss": "ranknet",
        "objective.weighted": True,
        "objective.ranking_weight": 10.0,
        "batch.per_device": 8,
        "batch.accumulation": 4,
        "optim.learning_rate": 5e-6,
        "optim.noisy_embedding_alpha": 5.0,
        "schedule.warmup_steps": 50,
        "schedule.num_epochs": 3.0,
    },
    "rankllama": {
        "method": "pointwise",
        "model.name_or_path": "meta-llama/Llama-2-7b-hf",
        "data.group_size": 16,
        "prompt.query_tokens": 32,
        "prompt.passage_tokens": 196,
        "lora.enabled": True,
        "lora.r": 32,
        "lora.alpha": 64,
        "lora.dropout": 0.1,
        "lora.target_modules": ["q_proj", "v_proj", "o_proj", "down_proj", "up_proj", "gate_proj"],
        "optim.learning_rate": 1e-4,
        "schedule.num_epochs": 1.0,
        "schedule.warmup_ratio": 0.1,
        "checkpoint.every": "200",
        "logging.every_steps": 10,
    },
    "bge-reranker": {
        "method": "pointwise",
        "model.name_or_path": "BAAI/bge-reranker-base",
        "data.group_size": 8,
        "prompt.query_tokens": 256,
        "prompt.passage_tokens": 256,
        "lora.enabled": False,
        "optim.learning_rate": 6e-5,
        "optim.weight_decay": 0.01,
        "schedule.num_epochs": 4.0,
        "schedule.warmup_ratio": 0.1,
        "batch.per_device": 2,
        "batch.accumulation": 1,
        "batch.gradient_checkpointing": True,
        "checkpoint.every": "1000",
    },
}


def flat(recipe):
    values = {}
    for key, value in recipe.to_dict().items():
        values |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return values


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_recipes_of_the_papers_hold_the_originals_numbers(name):
    """Every hyperparameter of the presets matches the reference."""
    found = flat(load_recipe(name))
    assert {key: found[key] for key in ORIGINALS[name]} == ORIGINALS[name]


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_describes_itself(name):
    """A bundled file has no unknown keys, and `train recipes` lists it."""
    assert load_recipe(name).description
    assert "#" in recipe_text(name)


def test_four_gpus_make_the_originals_batches():
    """256 lists for RankZephyr, 128 for FirstMistral, 128 groups for RankLLaMA (as in the paper)."""
    papers = [name for name in ORIGINALS if name != "bge-reranker"]  # whose authors name two GPUs, and no paper
    sizes = {n: load_recipe(n).batch.per_device * load_recipe(n).batch.accumulation * 4 for n in papers}
    assert sizes == {"rank-zephyr": 256, "first-mistral": 128, "rankllama": 128}


@pytest.mark.parametrize(
    ("loss", "weighted", "weight"),
    [("ranknet", True, 10.0), ("ranknet", False, 1.0), ("listnet", False, 0.1), ("lambda", False, 1.0)],
)
def test_the_ranking_loss_weighs_what_it_did_in_the_originals(loss, weighted, weight):
    """The default weight is 10, 0.1 or 1."""
    recipe = Recipe().changed({"objective.ranking_loss": loss, "objective.weighted": weighted})
    assert recipe.objective.weight == weight


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optim.learning_rat": 1}, "optim.learning_rat: unknown key; did you mean 'learning_rate'?"),
        ({"optm.learning_rate": 1}, "optm: unknown key; did you mean 'optim'?"),
        ({"optim.learning_rate": "high"}, "optim.learning_rate: expected int or float, found str 'high'"),
        ({"optim.learning_rate": -1}, "optim.learning_rate: expected a number above 0, found -1.0"),
        ({"lora.r": 1.5}, "lora.r: expected int, found float 1.5"),
        ({"lora.enabled": 1}, "lora.enabled: expected bool, found int 1"),
        ({"objective.name": "cross-entropy"}, "expected one of generation, ranking, combined"),
        ({"checkpoint.every": "sometimes"}, "checkpoint.every: expected 'epoch', 'none' or a number of steps"),
        ({"schedule.warmup_steps": 3, "schedule.warmup_ratio": 0.1}, "contradict each other"),
        ({"data.group_size": 1}, "data.group_size: expected 2 or more, found 1"),
        ({"optim.adam_beta1": 1}, "optim.adam_beta1: expected a number from 0 to below 1, found 1.0"),
        ({"optim.adam_epsilon": 0}, "optim.adam_epsilon: expected a number above 0, found 0.0"),
        ({"optim.weight_decay": 10**400}, "optim.weight_decay: expected a finite number"),
        ({"schedule.seed": 2**32}, "schedule.seed: expected at most 4294967295, found 4294967296"),
        (
            {"schedule.lr_scheduler": "polynomial", "optim.learning_rate": 1e-7},
            "optim.learning_rate: expected more than 1e-07, where the polynomial schedule ends, found 1e-07",
        ),
    ],
)
def test_a_wrong_value_is_an_error_that_says_where(overrides, message):
    """The error gives section, key, the value found and what was expected."""
    with pytest.raises(ConfigError) as caught:
        Recipe().changed(overrides)
    assert message in str(caught.value)


FLOATS = [
    f"{section.name}.{key.name}"
    for section in fields(Recipe)
    if section.name in SECTIONS
    for key in fields(getattr(Recipe(), section.name))
    if str(key.type).startswith("float")
]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "nan", "inf", "-Infinity", "1e999"])
def test_every_number_of_a_recipe_is_finite(value):
    """NaN passes comparisons, and an infinite learning rate ends in a NaN loss; YAML, --set and options are all
    checked.
    """
    assert len(FLOATS) > 10
    for name in FLOATS:
        with pytest.raises(ConfigError, match=rf"{name}: expected a finite number, found -?(nan|inf)"):
            Recipe().changed({name: value})
        with pytest.raises(ConfigError, match=rf"{name}: expected a finite number, found -?(nan|inf)"):
            Recipe().changed(dict([parse_setting(f"{name}={value}")]))


@pytest.mark.parametrize("section", [OptimSection, ScheduleSection])
def test_sections_made_in_python_are_finite(section):
    """Values are checked also without a recipe file."""
    for key in fields(section):
        if key.type == "float":
            with pytest.raises(ConfigError, match=f"{key.name}: expected .*, found nan"):
                section(**{key.name: math.nan})


@pytest.mark.parametrize(
    "value",
    ["2001-99-99", "0x_", "1" * 5000, '!!int "abc"', "[" * 3000, "*a", "!!python/name:os.system", "\x00", "{a: a: b}"],
)
def test_no_value_of_a_setting_is_a_traceback(value):
    """Invalid YAML is read as text, and text is not accepted as a number."""
    with pytest.raises(ConfigError) as caught:
        Recipe().changed(dict([parse_setting(f"optim.learning_rate={value}")]))
    assert str(caught.value).startswith("optim.learning_rate: expected ")
    assert len(str(caught.value)) < 300


def test_a_recipe_file_is_named_in_its_errors(tmp_path):
    """The file name precedes the key."""
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {learning_rat: 1}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: optim\.learning_rat: unknown key"):
        load_recipe(path)


def test_an_unknown_recipe_is_told_from_a_known_one():
    """The error suggests the closest name."""
    with pytest.raises(ConfigError, match="did you mean 'rank-zephyr'"):
        load_recipe("rank_zephyr")


def test_numbers_that_yaml_reads_as_text_are_numbers():
    """YAML 1.1 reads 5e-6 as a string, and 500 as a number where text is expected."""
    values = yaml.safe_load("{optim: {learning_rate: 5e-6}, checkpoint: {every: 500}}")
    recipe = Recipe().changed(values)
    assert recipe.optim.learning_rate == 5e-6
    assert recipe.checkpoint.every_steps == 500


def test_a_saved_recipe_is_the_same_recipe(tmp_path):
    """Every value survives saving and loading."""
    recipe = load_recipe("rankllama").changed({"lora.target_modules": "q_proj,k_proj", "checkpoint.output_dir": "x"})
    save_recipe(recipe, tmp_path)
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_differences_name_what_an_override_changes():
    """Only changed keys are listed, with section, key, old and new value."""
    recipe = load_recipe("rankllama")
    changed = recipe.changed({"lora.r": 8})
    assert recipe_differences(recipe, changed) == {"lora.r": (32, 8)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.learning_rate=1e-5", ("optim.learning_rate", "1e-5")),
        ("lora.enabled=true", ("lora.enabled", True)),
        ("objective.ranking_weight=null", ("objective.ranking_weight", None)),
        ("data.train=a=b", ("data.train", "a=b")),
    ],
)
def test_a_setting_is_read_as_yaml(text, expected):
    """The value in `--set section.key=value` is parsed as YAML."""
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["optim.learning_rate", "learning_rate=1"])
def test_a_setting_without_section_or_value_is_refused(text):
    """Section and value are both required."""
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        parse_setting(text)


def test_every_field_of_a_recipe_is_documented():
    """Every key has a description, since `train recipes` is generated from it."""
    import inspect

    from rankllm_train.recipe import loop_sections, sections

    source = inspect.getsource(sections) + inspect.getsource(loop_sections)
    for section in dataclasses.fields(Recipe):
        for owner in (getattr(Recipe(), section.name),):
            if dataclasses.is_dataclass(owner):
                for field in dataclasses.fields(owner):
                    lines = source.split(f"class {type(owner).__name__}:", 1)[1].split(f"    {field.name}: ", 1)[1]
                    assert lines.split("\n")[1].strip().startswith('"""'), f"{section.name}.{field.name}"
