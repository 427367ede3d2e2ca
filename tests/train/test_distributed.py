"""Two processes with half the batch each equal one process (torchrun); and errors when they cannot be started."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from distributed_runs import (  # noqa: E402
    STEPS,
    TEVATRON,
    all_logged,
    assert_same_course,
    in_one_process,
    in_two_processes,
    largest_difference,
    logged,
    measured,
    served_scores,
    write_inputs,
)
from shared_files import REPOSITORY  # noqa: E402

from rankllm_core.errors import ConfigError, MissingPackageError, RankLLMError  # noqa: E402
from rankllm_core.files.manifest import find_damage  # noqa: E402
from rankllm_train.artifacts.run_record import load_record  # noqa: E402
from rankllm_train.cli import cli  # noqa: E402
from rankllm_train.cli.options import RecipeOptions, resolve_recipe  # noqa: E402
from rankllm_train.recipe.recipe import Recipe, load_recipe  # noqa: E402
from rankllm_train.training.distributed import check_launch, check_resumable_here, deepspeed_names, load_deepspeed  # noqa: E402

TORCHRUN = ("torchrun", "--standalone", "--nproc-per-node", "2", "-m", "rankllm_train")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, smollm2_tokenizer):
    return write_inputs(tmp_path_factory.mktemp("inputs"), smollm2_tokenizer)


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    ("method", "schedule", "changes"),
    [
        ("listwise", "cosine", {"objective.name": "combined", "objective.weighted": True}),
        ("pointwise", "linear", {"lora.enabled": True}),
    ],
    ids=["combined-full", "cross-entropy-lora"],
)
def test_torchrun_trains_as_one_process_does(inputs, tmp_path, method, schedule, changes):
    """Losses, gradient norms, learning rates, dev metrics, weights, and the scores of rankllm-infer."""
    values = inputs[method] | changes | {"schedule.lr_scheduler": schedule}
    one = in_one_process(Recipe(method=method), values, tmp_path / "one")
    two = in_two_processes((*TORCHRUN, method), values, tmp_path / "two")
    assert sorted(logged(two)) == list(range(1, STEPS + 1))
    assert_same_course(logged(two), logged(one), schedule=schedule)
    assert measured(two) == [pytest.approx(entry, abs=1e-4) for entry in measured(one)]
    assert largest_difference(two, one) < 1e-4
    assert largest_difference(two / "step_4", one / "step_4") < 1e-4
    scores, expected = served_scores(two), served_scores(one)
    assert scores == {docid: pytest.approx(score, abs=1e-3) for docid, score in expected.items()}


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_two_processes_resume_from_the_same_intact_checkpoint(inputs, tmp_path):
    """Process 0 verifies and decides; if there is no valid checkpoint, all end, and one line says why.

    Each process continues its own sums: a resumed run logs the same values as an undisturbed one, even if an entry
    covers steps from before the checkpoint.
    """
    values = inputs["listwise"] | {"lora.enabled": True, "objective.name": "combined", "logging.every_steps": 3}
    out = in_two_processes((*TORCHRUN, "listwise"), values, tmp_path / "two")
    expected, log = (out / "adapter_model.safetensors").read_bytes(), all_logged(out)
    assert sorted(log) == [1, 3, 6, 8]
    assert load_record(out / "step_4").unlogged["after_step"] == 3
    damaged = out / "step_8" / "rng_state_1.pth"  # written by the second process
    damaged.write_bytes(damaged.read_bytes()[:-1])
    resume = ("--resume-from-checkpoint", "latest")
    assert in_two_processes((*TORCHRUN, "listwise"), values, out, *resume) == out
    assert (out / "adapter_model.safetensors").read_bytes() == expected
    assert all_logged(out) == log
    assert find_damage(out / "step_8") is None
    with pytest.raises(RuntimeError, match=r"Error: --resume-from-checkpoint step_8: lora\.r was 4 and is now 2"):
        in_two_processes((*TORCHRUN, "listwise"), values | {"lora.r": 2}, out, *resume)


@pytest.mark.parametrize("name", deepspeed_names())
def test_every_shipped_deepspeed_configuration_says_what_its_name_says(name):
    """Stage and offload; batch sizes, precision and clipping come from the recipe."""
    config = load_deepspeed(name)
    zero = config["zero_optimization"]
    assert zero["stage"] == (3 if name.startswith("zero3") else 2)
    assert ("offload_optimizer" in zero) == name.endswith("-offload")
    assert ("offload_param" in zero) == (name == "zero3-offload")
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    assert {key: config[key] for key in sizes} == dict.fromkeys(sizes, "auto")
    assert (config["bf16"]["enabled"], config["fp16"]["enabled"]) == ("auto", "auto")


def test_zero_2_and_3_ship_with_and_without_offload():
    """Four names."""
    assert deepspeed_names() == ("zero2", "zero2-offload", "zero3", "zero3-offload")


def test_a_deepspeed_file_of_ones_own_is_read(tmp_path):
    """JSON with numbers as numbers; YAML too."""
    path = tmp_path / "mine.json"
    path.write_text('{"zero_optimization": {"stage": 2, "reduce_bucket_size": 5e8}}', encoding="utf-8")
    assert load_deepspeed(str(path))["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 5e8}
    path = tmp_path / "mine.yaml"
    path.write_text("zero_optimization: {stage: 1}\n", encoding="utf-8")
    assert load_deepspeed(str(path)) == {"zero_optimization": {"stage": 1}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "zero_optimization.stage: expected 0, 1, 2 or 3, found None"),
        ({"zero_optimization": {"stage": 3}}, "otherwise checkpoints contain no weights"),
    ],
)
def test_a_deepspeed_file_that_saves_nothing_is_refused(tmp_path, config, message):
    """A checkpoint must contain weights."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.json") as caught:
        load_deepspeed(str(path))
    assert message in str(caught.value)


def test_what_the_recipe_decides_is_left_out_of_a_deepspeed_file_with_a_warning(tmp_path):
    """Tevatron's file is taken as it is; its optimizer and its schedule are the recipe's."""
    path, said = tmp_path / "ds_config.json", []
    path.write_text(json.dumps(TEVATRON), encoding="utf-8")
    config = load_deepspeed(str(path), say=said.append)
    kept = {key: value for key, value in TEVATRON.items() if key not in ("optimizer", "scheduler")}
    assert config == kept | {"bf16": {"enabled": "auto"}}
    assert said == [
        f"Warning: --deepspeed {path}: the recipe decides optimizer (section optim) and scheduler (section schedule); "
        "the file's settings for it are ignored",
        f"Warning: --deepspeed {path}: bf16: has no loss scaling; loss_scale, initial_scale_power, loss_scale_window, "
        "hysteresis, min_loss_scale are ignored",
    ]
    assert load_deepspeed("zero3", say=said.append)
    assert len(said) == 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"zero_optimization": {"stage": 2}, "x": "\xff"}', r"mine\.json: not UTF-8"),
        ('{"zero_optimization": {"stage": 2}}'.encode("utf-16"), r"mine\.json: text in UTF-16, expected UTF-8"),
        (b'{"zero_optimization": {"stage": 2},\n "x": ?}', r"mine\.json:2: not JSON: Expecting value"),
        (b'{"zero_optimization": {"stage": 2}, "x": NaN}', r"mine\.json: contains NaN or an infinite number"),
        (b'{"zero_optimization": {"stage": 2}, "x": 1e999}', r"mine\.json: contains NaN or an infinite number"),
        (b'{"x": ' * 5000, r"mine\.json.*: not "),
        (b'{"x": ' + b"1" * 5000 + b"}", r"mine\.json: not usable: a number of more than 4300 digits"),
        (b"[1]", r"mine\.json: expected a mapping of names to values, found list"),
        (b"\x1f\x8b\x08\x00", r"mine\.json: damaged archive"),
        (b"", r"mine\.json:1: not JSON"),
        (b'{"zero_optimization": {"stage": true}}', "stage: expected 0, 1, 2 or 3, found True"),
        (b'{"zero_optimization": {"stage": 2.0}}', r"stage: expected 0, 1, 2 or 3, found 2\.0"),
        (b'{"zero_optimization": 2}', "stage: expected 0, 1, 2 or 3, found None"),
    ],
)
def test_what_is_no_deepspeed_file_is_named(tmp_path, data, message):
    """Whatever was given instead."""
    path = tmp_path / "mine.json"
    path.write_bytes(data)
    with pytest.raises(RankLLMError, match=message) as caught:
        load_deepspeed(str(path))
    assert "\n" not in str(caught.value)


def test_a_deepspeed_file_in_yaml_holds_finite_numbers(tmp_path):
    """As in JSON."""
    path = tmp_path / "mine.yaml"
    path.write_text("zero_optimization: {stage: 2}\ngradient_clipping: .inf\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml: contains NaN or an infinite number"):
        load_deepspeed(str(path))


def test_a_byte_order_mark_in_a_deepspeed_file_does_no_harm(tmp_path):
    """Windows editors write one."""
    path = tmp_path / "mine.json"
    path.write_bytes(b'\xef\xbb\xbf{"zero_optimization": {"stage": 2}}')
    assert load_deepspeed(str(path)) == {"zero_optimization": {"stage": 2}}


def test_an_unknown_deepspeed_name_is_told_from_the_known_ones():
    """The error lists all of them, and the closest one."""
    with pytest.raises(ConfigError) as caught:
        load_deepspeed("zero_3")
    assert "one of zero2, zero2-offload, zero3, zero3-offload; did you mean 'zero3'?" in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "asked", "message"),
    [
        ({}, {"deepspeed": True}, "started without a launcher"),
        ({"ACCELERATE_USE_FSDP": "true"}, {"deepspeed": False}, "use --deepspeed zero3"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {"deepspeed": False}, "add --deepspeed with one of zero2"),
        ({"LOCAL_RANK": "0"}, {"deepspeed": True, "precision": "bf16"}, "use --no-bf16"),
    ],
)
def test_processes_that_cannot_train_together_are_told_why(monkeypatch, environment, asked, message):
    """Before the model is loaded."""
    for name in ("LOCAL_RANK", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    expected = ConfigError if _has_deepspeed() or not asked["deepspeed"] else MissingPackageError
    with pytest.raises(expected) as caught:
        check_launch(**({"precision": "fp32", "has_accelerator": False} | asked))
    assert (message if expected is ConfigError else "uv add 'rankllm-train[deepspeed]'") in str(caught.value)


def _has_deepspeed():
    import importlib.util

    return importlib.util.find_spec("deepspeed") is not None


def test_a_checkpoint_is_read_only_by_processes_that_can(tmp_path):
    """DeepSpeed's state has one part per process; without DeepSpeed, a note suffices."""
    plain, sharded = tmp_path / "step_1", tmp_path / "step_2"
    (sharded / "global_step2").mkdir(parents=True)
    plain.mkdir()
    for rank in range(2):
        (plain / f"rng_state_{rank}.pth").touch()
        (sharded / f"rng_state_{rank}.pth").touch()
    assert check_resumable_here(plain, deepspeed=False, processes=2) == ()
    assert check_resumable_here(sharded, deepspeed=True, processes=2) == ()
    (note,) = check_resumable_here(plain, deepspeed=False, processes=4)
    assert "step_1 was written by 2 processes and is resumed by 4" in note
    with pytest.raises(ConfigError, match="optimizer state was written by 2 processes and cannot be read by 1"):
        check_resumable_here(sharded, deepspeed=True, processes=1)
    with pytest.raises(ConfigError, match="written without --deepspeed"):
        check_resumable_here(plain, deepspeed=True, processes=2)


@pytest.mark.parametrize(
    ("script", "method", "recipe", "batch"),
    [
        ("train_rank_zephyr.sh", "listwise", "rank-zephyr", 256),
        ("train_first_mistral.sh", "listwise", "first-mistral", 128),
        ("train_rankllama.sh", "pointwise", "rankllama", 128),
    ],
)
@pytest.mark.parametrize("gpus", [None, 2, 8])
def test_the_scripts_of_the_papers_keep_the_papers_batch(tmp_path, script, method, recipe, batch, gpus):
    """On any number of GPUs; the program itself resolves the script's command, and the changes are compared."""
    launched = _launched(tmp_path, script, *([str(gpus)] if gpus else []), "--learning-rate", "1e-6")
    assert launched[: launched.index("-m")][-8:] == [
        *("--num_processes", str(gpus or 4), "--main_process_port", "0"),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
    ]
    program = launched[launched.index("-m") + 1 :]
    assert program[:4] == ["rankllm_train", method, "--recipe", recipe]
    found = _resolved(program[1:])
    assert found.batch.per_device * found.batch.accumulation * (gpus or 4) == batch
    assert found.batch.deepspeed in deepspeed_names()
    assert found.optim.learning_rate == 1e-6
    expected = load_recipe(recipe)
    assert replace(found, batch=expected.batch, optim=expected.optim) == expected


def _launched(tmp_path, script, *arguments, has_deepspeed=True):
    """Return the arguments with which a script calls `accelerate`, if its Python has DeepSpeed or not."""
    for program, does in {
        "accelerate": 'printf "%s\\n" "$@"',
        "python": f"exit {0 if has_deepspeed else 1}",
    }.items():
        stand_in = tmp_path / program
        stand_in.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        stand_in.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = [REPOSITORY / "scripts" / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    return done.stdout.splitlines()


def _resolved(arguments):
    """Return the effective recipe of a command line."""
    method, *rest = arguments
    context = cli.get_command(None, method).make_context(method, rest)
    return resolve_recipe(method, RecipeOptions.of(context.params))


def test_what_deepspeeds_launcher_adds_is_no_hindrance():
    """It inserts the process's rank before the command."""
    result = CliRunner().invoke(cli, ["--local_rank=1", "recipes", "rank-zephyr", "--deepspeed", "zero3"])
    assert result.output == "batch.deepspeed: '' -> 'zero3'\n"


@pytest.mark.parametrize("script", ["train_rank_zephyr.sh", "train_first_mistral.sh", "train_rankllama.sh"])
def test_a_script_without_deepspeed_is_one_line(tmp_path, script):
    """It names the extra; accelerate would end with a traceback."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _launched(tmp_path, script, "2", has_deepspeed=False)
    assert caught.value.returncode == 1
    (line,) = caught.value.stderr.splitlines()
    assert line.startswith("DeepSpeed is not installed. Install it with: uv add 'rankllm-train[deepspeed]'")
    assert "uv run --package rankllm-train --extra deepspeed" in line
    assert caught.value.stdout == ""


def test_a_script_refuses_a_number_of_gpus_that_changes_the_batch(tmp_path):
    """128 lists per step in batches of 8 cannot be divided among 3."""
    with pytest.raises(subprocess.CalledProcessError) as caught:
        _launched(tmp_path, "train_first_mistral.sh", "3")
    assert "3 GPUs: expected a number that divides 16" in caught.value.stderr
