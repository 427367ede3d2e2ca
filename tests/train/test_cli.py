"""Command line: recipe, then options, then --set; the originals' commands work when pasted."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from training_fakes import listwise_record, save_tiny, write_records

from rankllm_core.errors import RankLLMError
from rankllm_train.cli import cli
from rankllm_train.cli.options import resolve_recipe
from rankllm_train.recipe.recipe import load_recipe


def run(*arguments):
    """Run the program and return its output; raises its error."""
    done = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


@pytest.fixture
def resolved(monkeypatch):
    """Return the recipe that a command line resolves to, without training."""
    import rankllm_train.cli.training

    def resolve(*arguments):
        seen = {}

        def keep(method, options):
            seen["recipe"] = resolve_recipe(method, options.recipe)

        monkeypatch.setattr(rankllm_train.cli.training, "run", keep)
        seen["output"] = run(*arguments).output
        return seen

    return resolve


# The commands of the original projects, without launcher: castorini/rank_llm@1b3cabb
# training/scripts/train_first_mistral.sh and texttron/tevatron@0545746 examples/rankllama/README.md.
FIRST_MISTRAL = """--model_name_or_path mistralai/Mistral-7B-Instruct-v0.3
 --train_dataset_path rryisthebest/rank_zephyr_training_data_alpha --num_train_epochs 3 --seed 42
 --per_device_train_batch_size 8 --gradient_accumulation_steps 4 --num_warmup_steps 50 --lr_scheduler_type cosine
 --gradient_checkpointing --output_dir models/ranking/FirstMistral --noisy_embedding_alpha 5 --objective combined
 --ranking_loss ranknet --weighted --with_tracking --report_to wandb --checkpointing_steps epoch"""
RANKLLAMA = """pointwise --deepspeed ds.json --output_dir models/ranking/RankLLaMA --recipe rankllama
 --model_name_or_path meta-llama/Llama-2-7b-hf --dataset_name Tevatron/msmarco-passage-aug --overwrite_output_dir
 --bf16 --per_device_train_batch_size 4 --gradient_accumulation_steps 8 --gradient_checkpointing
 --train_n_passages 16 --learning_rate 1e-4 --q_max_len 32 --p_max_len 196 --num_train_epochs 1 --logging_steps 10
 --save_steps 200 --dataset_proc_num 32 --lora --lora_r 32 --do_train"""


def test_the_command_of_first_mistral_is_its_recipe(resolved):
    """Pasted without a subcommand; it differs only in what the recipe adds, apart from tracking."""
    recipe = resolved(*FIRST_MISTRAL.split())["recipe"]
    shipped = load_recipe("first-mistral")
    assert recipe.optim == shipped.optim
    assert recipe.schedule == shipped.schedule
    assert recipe.batch == shipped.batch
    assert recipe.checkpoint == shipped.checkpoint
    assert recipe.objective.weight == shipped.objective.weight == 10
    assert recipe.logging.report_to == ("wandb",)


def test_the_command_of_rankllama_is_its_recipe(resolved):
    """Pasted; each option without effect is reported once."""
    seen = resolved(*RANKLLAMA.split())
    assert seen["recipe"].changed({"batch.deepspeed": ""}) == load_recipe("rankllama")
    assert seen["output"].count("has no effect in rankllm and is ignored") == 2


def test_recipe_then_options_then_set(resolved):
    """The later one takes precedence."""
    recipe = resolved(
        "listwise", "--recipe", "rank-zephyr", "--learning-rate", "1e-5", "--seed", "7", "--set", "schedule.seed=8"
    )["recipe"]
    assert (recipe.optim.learning_rate, recipe.schedule.seed, recipe.schedule.warmup_steps) == (1e-5, 8, 50)


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        (["--no-bf16"], "model.precision", "fp32"),
        (["--fp16"], "model.precision", "fp16"),
        (["--recipe", "rank-zephyr", "--no-gradient-checkpointing"], "batch.gradient_checkpointing", False),
        (["--recipe", "rank-zephyr", "--warmup-ratio", "0.1"], "schedule.warmup_steps", 0),
        (["--with-tracking"], "logging.report_to", ["all"]),
        (["--report-to", "tensorboard,wandb"], "logging.report_to", ["tensorboard", "wandb"]),
        (["--checkpointing_steps", "500"], "checkpoint.every", "500"),
        (["pointwise", "--input-format", "v2"], "prompt.template", "rankllama-v2"),
    ],
)
def test_options_mean_what_they_say(resolved, arguments, path, value):
    """Switches have a --no- form, and an option replaces the recipe's alternative key."""
    section, key = path.split(".")
    assert resolved(*arguments)["recipe"].to_dict()[section][key] == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "optim.learning_rat=1"], "optim.learning_rat: unknown key; did you mean 'learning_rate'?"),
        (
            ["--recipe", "rank-zefyr"],
            "rank-zefyr: no such recipe; expected a file or the name of a bundled recipe; did you mean",
        ),
        (["--recipe", "rankllama"], "it is a recipe for `train pointwise`, not `train listwise`"),
        (["--lora-r", "8"], "--lora-r: has no effect without --lora"),
        (["--start-from-adapter", "a"], "lora.start_from: has no effect without lora.enabled (--lora)"),
        (["--ranking-loss", "lambda"], "--ranking-loss: has no effect with --objective generation"),
        (["--bf16", "--fp16"], "give one of them"),
        (["--recipe", "rank-zephyr", "--set", "checkpoint.output_dir=''"], "--output-dir: missing"),
    ],
)
def test_a_wrong_command_is_one_line(arguments, message):
    """Before any heavy import."""
    with pytest.raises(RankLLMError) as caught:
        run(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_label_has_no_weight_beside_itself():
    """label_weight applies to teacher objectives, however it is set."""
    for way in (["--label-weight", "0.3"], ["--set", "objective.label_weight=0.3"]):
        with pytest.raises(
            RankLLMError, match=r"label_weight: has no effect with the objective cross-entropy; use kl or"
        ):
            run("pointwise", "--recipe", "rankllama", *way)


def test_recipes_are_listed_and_printed():
    """One line each; one in full with its comments; the effect of an override."""
    names = [line.split()[0] for line in run("recipes").output.splitlines()]
    assert names == [
        "bge-reranker",
        "first-mistral",
        "rank-zephyr",
        "rankllama",
        "smollm2-first",
        "smollm2-rankllama",
        "smollm2-yes-no",
    ]
    assert "# 4 GPUs x 8 x 4 = 128 lists per step." in run("recipes", "first-mistral").output
    shown = run("recipes", "first-mistral", "--seed", "1", "--set", "lora.enabled=true").output
    assert shown.splitlines() == ["lora.enabled: False -> True", "schedule.seed: 42 -> 1"]


def test_check_data_names_the_bad_records(tmp_path):
    """The command fails, so that a script stops."""
    bad = listwise_record(1)
    bad["conversations"][2]["value"] = "[A] > [A] > [B]"
    path = write_records(tmp_path / "d.jsonl", [listwise_record(0), bad])
    done = CliRunner().invoke(cli, ["check-data", path], standalone_mode=False)
    assert "d.jsonl:2: record 'r1': " in done.output
    assert isinstance(done.exception, RankLLMError)
    good = write_records(tmp_path / "good.jsonl", [listwise_record(0)])
    assert "1 records, 1 valid (1 alpha); with a system turn: 1" in run("check-data", good).output


def test_a_run_from_the_command_line_ends_in_a_model(tmp_path, smollm2_tokenizer):
    """Train, then merge; the output folder is printed."""
    pytest.importorskip("torch")
    tiny = save_tiny(tmp_path / "tiny", smollm2_tokenizer)
    data = write_records(tmp_path / "d.jsonl", [listwise_record(i) for i in range(4)])
    out = str(tmp_path / "out")
    command = ["--model-name-or-path", tiny, "--train-dataset-path", data, "--output-dir", out, "--no-bf16"]
    command += ["--objective", "combined", "--ranking-loss", "ranknet", "--weighted", "--max-train-steps", "2"]
    done = run(*command, "--lora", "--lora-r", "4", "--checkpointing-steps", "1", "--save-total-limit", "1")
    assert done.stdout.strip() == out
    assert "step 2/2 loss " in done.stderr
    assert (tmp_path / "out" / "step_2" / "rankllm.yaml").exists()
    assert not (tmp_path / "out" / "step_1").exists()
    run("merge", out, str(tmp_path / "merged"))
    assert (tmp_path / "merged" / "model.safetensors").exists()


def every_command(group=cli, *above):
    """Yield the words of each command and command group."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from every_command(command, *above, name)


@pytest.mark.parametrize("command", list(every_command()), ids=" ".join)
def test_help_is_quick(command):
    """--help of a command imports nothing that only a run needs, and describes the command."""
    slow = "{'torch', 'transformers', 'numpy', 'datasets', 'ftfy', 'rankllm_core.answers.reader', 'rankllm_train.api'}"
    code = (
        "import sys; from rankllm_train.cli import cli; cli.main([*sys.argv[1:], '--help'], standalone_mode=False); "
        f"print('SLOW', sorted({slow} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "SLOW []"
    assert done.stdout.startswith("Usage: ")


@pytest.mark.parametrize("name", ["listwise", "pointwise", "recipes", "mine", "label", "split"])
def test_each_option_is_listed_under_a_heading(name):
    """Only --help is left over, and a recipe option shows the default of its section."""
    command = cli.get_command(click.Context(cli), name)
    ungrouped = {option.name for option in command.params if isinstance(option, click.Option) and not option.hidden}
    ungrouped = {option for option in ungrouped if command.heading_of(option) == "Other"}
    assert not ungrouped
    if name == "listwise":
        text = run(name, "--help").output
        assert "--learning-rate FLOAT          Peak learning rate.  [default: 5e-06]" in text
        assert text.index("\nModel:") < text.index("\nData:") < text.index("\nOptimizer:")
