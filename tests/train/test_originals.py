"""The command lines of rank_llm's and tevatron's training: every option is taken, or answered with a replacement."""

from __future__ import annotations

import dataclasses

import click
import original_parsers
import pytest
from click.testing import CliRunner

from rankllm_core.original_options import HUGGING_FACE_ARGUMENTS
from rankllm_train.cli import cli
from rankllm_train.cli.options import resolve_recipe
from rankllm_train.cli.originals import ORIGINALS
from rankllm_train.recipe.recipe import load_recipe


@pytest.mark.parametrize(("whose", "command", "options"), original_parsers.TRAIN, ids=lambda value: value.split()[0])
def test_no_option_of_the_originals_is_unknown(whose, command, options, capsys):
    """It parses, in both spellings, or one line says what to do; never `No such option`."""
    for name in options.split():
        for option in (f"--{name}", f"--{name.replace('_', '-')}"):
            said = original_parsers.answer_to(cli, command, option, "1")
            assert "\n" not in said
            if said:
                assert said.startswith(f"--{name.replace('_', '-')}: is an option of the original programs; "), said


def test_no_argument_of_todays_trainer_is_unknown(capsys):
    """Of the release of transformers that is installed."""
    transformers = pytest.importorskip("transformers")
    names = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(transformers.TrainingArguments)}
    assert names <= set(HUGGING_FACE_ARGUMENTS)
    assert not [name for name in names if "No such" in original_parsers.answer_to(cli, "pointwise", name, "1")]


def test_every_replacement_is_of_an_option_that_we_have():
    """What the table turns options into is taken by the command, and so is every option that its messages name."""
    own = {
        name
        for command in ("listwise", "pointwise")
        for parameter in cli.get_command(click.Context(cli), command).params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    for name, option in ORIGINALS.options["pointwise"].items():
        assert {part for part in option.becomes if part.startswith("--")} <= own, name
        if "rankllm-infer" not in option.instead:
            words = option.instead.replace(",", " ").replace(":", " ").split()
            assert {word for word in words if word.startswith("--")} <= own, name


@pytest.fixture
def resolved(monkeypatch):
    """The method and the recipe that a command line comes to, without training it; and what was said."""
    import rankllm_train.cli.training

    def resolve(*arguments):
        seen = {}

        def keep(method, options):
            seen.update(method=method, recipe=resolve_recipe(method, options.recipe))

        monkeypatch.setattr(rankllm_train.cli.training, "run", keep)
        done = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
        if done.exception is not None:
            raise done.exception
        return seen["method"], seen["recipe"], done.stderr

    return resolve


def test_tevatrons_options_mean_pointwise_and_lora(resolved):
    """RankLLaMA's recipe is the base, what is given goes over it, and a line says so."""
    method, recipe, said = resolved("--train_n_passages", "8", "--output_dir", "out")
    assert method == "pointwise"
    assert recipe == load_recipe("rankllama").changed({"data.group_size": 8, "checkpoint.output_dir": "out"})
    assert recipe.lora.enabled
    assert (recipe.lora.r, recipe.lora.alpha, recipe.lora.dropout) == (32, 64, 0.1)
    assert said.startswith("Options of tevatron: running `train pointwise --recipe rankllama`; ")


def test_tevatrons_later_options_mean_its_later_input(resolved):
    """There, LoRA is an option."""
    method, recipe, _ = resolved("--train_group_size", "8", "--append_eos_token", "--query_prefix", "query: ")
    assert (method, recipe.prompt.template, recipe.prompt.append_eos) == ("pointwise", "rankllama-v2", True)
    assert not recipe.lora.enabled
    assert resolved("--train_group_size", "8", "--lora", "--lora_r", "8")[1].lora.r == 8


def test_a_named_recipe_or_command_stays(resolved):
    """Nothing is added to what is said."""
    method, recipe, _ = resolved("--recipe", "smollm2-rankllama", "--train-n-passages", "4")
    assert (method, recipe.lora.r, recipe.data.group_size) == ("pointwise", 16, 4)
    method, recipe, said = resolved("pointwise", "--train-n-passages", "4")
    assert (method, recipe.lora.enabled, said) == ("pointwise", False, "")
    assert resolved("--weighted", "--objective", "combined")[0] == "listwise"


def test_arguments_of_the_trainer_reach_the_recipe(resolved):
    """Those with an effect; a default is no error, and true and false may follow a switch."""
    _, recipe, said = resolved(
        *["pointwise", "--adam_beta2", "0.95", "--run_name", "mine", "--save_only_model", "--bf16", "False"],
        *["--gradient_checkpointing", "True", "--max_steps", "-1", "--save_strategy", "steps", "--do_eval", "False"],
    )
    assert recipe.optim.adam_beta2 == 0.95
    assert recipe.logging.run_name == "mine"
    assert not recipe.checkpoint.resumable
    assert recipe.model.precision == "fp32"
    assert recipe.batch.gradient_checkpointing
    assert said == ""
