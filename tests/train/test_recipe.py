"""A recipe says every choice of a run, in names that are checked."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from rankllm_core.errors import ConfigError
from rankllm_train.recipe import (
    Recipe,
    load_recipe,
    parse_setting,
    recipe_differences,
    recipe_names,
    recipe_text,
    save_recipe,
)

# Reference section 2.11 (rank_llm 1b3cabb) and tevatron 2.3, 2.4.
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
}


def flat(recipe):
    values = {}
    for key, value in recipe.to_dict().items():
        values |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return values


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_recipes_of_the_papers_hold_the_originals_numbers(name):
    """Every hyper-parameter of the presets, as the reference lists it."""
    found = flat(load_recipe(name))
    assert {key: found[key] for key in ORIGINALS[name]} == ORIGINALS[name]


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_describes_itself(name):
    """Nothing in a shipped file is unknown, and `train recipes` has a line for it."""
    assert load_recipe(name).description
    assert "#" in recipe_text(name)


def test_four_gpus_make_the_originals_batches():
    """256 lists for RankZephyr, 128 for FirstMistral, 128 groups for RankLLaMA (the paper's)."""
    sizes = {n: load_recipe(n).batch.per_device * load_recipe(n).batch.accumulation * 4 for n in ORIGINALS}
    assert sizes == {"rank-zephyr": 256, "first-mistral": 128, "rankllama": 128}


@pytest.mark.parametrize(
    ("loss", "weighted", "weight"),
    [("ranknet", True, 10.0), ("ranknet", False, 1.0), ("listnet", False, 0.1), ("lambda", False, 1.0)],
)
def test_the_ranking_loss_weighs_what_it_did_in_the_originals(loss, weighted, weight):
    """10, 0.1 or 1 where the recipe says nothing."""
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
        ({"schedule.warmup_steps": 3, "schedule.warmup_ratio": 0.1}, "say it twice"),
        ({"data.group_size": 1}, "data.group_size: expected 2 or more, found 1"),
    ],
)
def test_a_wrong_value_is_an_error_that_says_where(overrides, message):
    """Section and key, what was found and what was expected."""
    with pytest.raises(ConfigError) as caught:
        Recipe().changed(overrides)
    assert message in str(caught.value)


FLOATS = [
    f"{section.name}.{item.name}"
    for section in dataclasses.fields(Recipe)
    if dataclasses.is_dataclass(getattr(Recipe(), section.name))
    for item in dataclasses.fields(getattr(Recipe(), section.name))
    if str(item.type).startswith("float")
]


@pytest.mark.parametrize("value", ["nan", ".nan", float("inf"), "-inf", "1e999"])
@pytest.mark.parametrize("path", FLOATS)
def test_a_number_that_is_not_finite_is_refused(path, value):
    """From an option, from `--set`, from YAML: a comparison with a bound would let NaN pass."""
    number = yaml.safe_load(value) if isinstance(value, str) and value.startswith(".") else value
    with pytest.raises(ConfigError, match=rf"{path}: expected .*, found -?(nan|inf)$"):
        Recipe().changed({path: number})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optim.adam_beta1": 1.0}, "optim.adam_beta1: expected a number from 0 to below 1, found 1.0"),
        ({"optim.adam_beta2": -0.1}, "optim.adam_beta2: expected a number from 0 to below 1, found -0.1"),
        ({"optim.adam_epsilon": 0}, "optim.adam_epsilon: expected a number above 0, found 0.0"),
        ({"schedule.seed": 2**32}, "schedule.seed: expected 4294967295 or less, found 4294967296"),
        (
            {"schedule.lr_scheduler": "polynomial", "optim.learning_rate": 1e-7},
            "optim.learning_rate: the polynomial schedule ends at 1e-07, expected more, found 1e-07",
        ),
    ],
)
def test_what_torch_numpy_or_transformers_would_refuse_is_refused_first(overrides, message):
    """In one line, before anything is loaded."""
    with pytest.raises(ConfigError) as caught:
        Recipe().changed(overrides)
    assert message in str(caught.value)


def test_a_recipe_file_is_named_in_its_errors(tmp_path):
    """The file comes before the key."""
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {learning_rat: 1}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: optim\.learning_rat: unknown key"):
        load_recipe(path)


def test_an_unknown_recipe_is_told_from_a_known_one():
    """The nearest name is given."""
    with pytest.raises(ConfigError, match="did you mean 'rank-zephyr'"):
        load_recipe("rank_zephyr")


def test_numbers_that_yaml_reads_as_text_are_numbers():
    """YAML 1.1 reads 5e-6 as a string, and 500 as a number where a word may stand."""
    values = yaml.safe_load("{optim: {learning_rate: 5e-6}, checkpoint: {every: 500}}")
    recipe = Recipe().changed(values)
    assert recipe.optim.learning_rate == 5e-6
    assert recipe.checkpoint.every_steps == 500


def test_a_saved_recipe_is_the_same_recipe(tmp_path):
    """Every value comes back."""
    recipe = load_recipe("rankllama").changed({"lora.target_modules": "q_proj,k_proj", "checkpoint.output_dir": "x"})
    save_recipe(recipe, tmp_path)
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_differences_name_what_an_override_changes():
    """Old and new by section and key, and nothing else."""
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
    """`--set section.key=value`."""
    assert parse_setting(text) == expected


@pytest.mark.parametrize("text", ["optim.learning_rate", "learning_rate=1"])
def test_a_setting_without_section_or_value_is_refused(text):
    """Both are needed."""
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        parse_setting(text)


def test_every_field_of_a_recipe_is_documented():
    """`train recipes` and the code are the only places to look: no key without a sentence."""
    import inspect

    import rankllm_train.recipe_sections as module

    source = inspect.getsource(module)
    for section in dataclasses.fields(Recipe):
        for owner in (getattr(Recipe(), section.name),):
            if dataclasses.is_dataclass(owner):
                for field in dataclasses.fields(owner):
                    lines = source.split(f"class {type(owner).__name__}:", 1)[1].split(f"    {field.name}: ", 1)[1]
                    assert lines.split("\n")[1].strip().startswith('"""'), f"{section.name}.{field.name}"
