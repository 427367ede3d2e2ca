"""ZeRO-2 and ZeRO-3 on two processes train like one process, with the commands that users run.

`scripts/test-distributed` runs these tests in a separate environment with DeepSpeed.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from distributed_runs import (  # noqa: E402
    LEARNING_RATE,
    STEPS,
    TEVATRON,
    assert_same_course,
    in_one_process,
    in_two_processes,
    largest_difference,
    logged,
    measured,
    rate,
    served_scores,
    write_inputs,
)
from shared_files import REPOSITORY  # noqa: E402

from rankllm_core.card import load_card  # noqa: E402
from rankllm_core.probe import Comparison  # noqa: E402
from rankllm_train.artifacts.checkpoints import checkpoints  # noqa: E402
from rankllm_train.recipe.recipe import Recipe, load_recipe  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    # The first one compiles DeepSpeed's extension.
    pytest.mark.timeout(2000),
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None,
        reason="needs DeepSpeed, which the common environment lacks: scripts/test-distributed has one of its own",
    ),
]
ACCELERATE = ("accelerate", "launch", "--use_deepspeed", "--num_processes", "2", "-m", "rankllm_train")
COMBINED = {"objective.name": "combined", "objective.weighted": True}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, smollm2_tokenizer):
    return write_inputs(tmp_path_factory.mktemp("inputs"), smollm2_tokenizer)


def assert_trained_alike(two, one, *, schedule):
    """Losses, gradient norms, learning rates, dev metrics, complete checkpoints, weights, and served scores."""
    assert sorted(logged(two)) == list(range(1, STEPS + 1))
    assert_same_course(logged(two), logged(one), schedule=schedule)
    assert measured(two) == [pytest.approx(entry, abs=1e-4) for entry in measured(one)]
    assert [path.name for path in checkpoints(two)] == ["step_4", "step_8"]
    for folder, expected in ((two, one), (two / "step_4", one / "step_4")):
        # Probes are compared below, since rounding differs between processes.
        cards = [replace(load_card(path), probe=None) for path in (folder, expected)]
        assert cards[0] == cards[1]
        assert {path.name for path in folder.iterdir()} >= {path.name for path in expected.iterdir()} - OPTIMIZER
        assert largest_difference(folder, expected) < 1e-4
        probes = [load_card(path).probe for path in (expected, folder)]
        assert Comparison(recorded=probes[0], found=probes[1]).difference < 1e-3
    assert not list(two.glob(".saving-*"))
    # DeepSpeed puts scripts into checkpoints; a model must not contain code.
    assert not [*two.glob("*.py"), *two.glob("best/*.py")]
    scores = served_scores(two)
    assert scores == {docid: pytest.approx(score, abs=1e-3) for docid, score in served_scores(one).items()}


# texttron/tevatron@130ed2c examples/rankllama/README.md, with `--module rankllm_train` for its reranker_train.py.
LAUNCHED = (
    "--include localhost:0,1,2,3 --module rankllm_train --deepspeed ds_config.json --output_dir model_rankllama "
    "--train_n_passages 16"
)


def test_the_line_of_tevatrons_launcher_is_read_as_it_is(tmp_path):
    """Four slots of this machine, and everything behind the program is the program's."""
    from deepspeed.launcher.runner import parse_args, parse_inclusion_exclusion

    found = parse_args(LAUNCHED.split())
    assert (found.module, found.user_script) == (True, "rankllm_train")
    assert found.user_args == LAUNCHED.partition("rankllm_train ")[2].split()
    assert parse_inclusion_exclusion({"localhost": 8}, found.include, "") == {"localhost": [0, 1, 2, 3]}


def test_deepspeeds_launcher_trains_as_one_process_does(inputs, tmp_path):
    """Two slots in a hostfile, tevatron's configuration file and options: pointwise and LoRA are inferred."""
    (tmp_path / "hostfile").write_text("localhost slots=2\n", encoding="utf-8")
    (tmp_path / "ds_config.json").write_text(json.dumps(TEVATRON), encoding="utf-8")
    values = {key: value for key, value in inputs["pointwise"].items() if key != "data.group_size"}
    one = in_one_process(load_recipe("rankllama"), values | {"data.group_size": 4}, tmp_path / "one")
    # The addresses keep it from asking the host by ssh, which a machine for tests need not run.
    local = ("--no_ssh_check", "--master_addr", "127.0.0.1")
    hosts = ("--hostfile", str(tmp_path / "hostfile"), *local, "--include", "localhost:0,1")
    launcher = ("deepspeed", *hosts)
    options = ("--deepspeed", str(tmp_path / "ds_config.json"), "--train_n_passages", "4")
    two = in_two_processes((*launcher, "--module", "rankllm_train"), values, tmp_path / "two", *options)
    assert_trained_alike(two, one, schedule="linear")


OPTIMIZER = {"optimizer.pt", "rng_state.pth"}
"""Stored in DeepSpeed's files, and in one file per process."""


@pytest.mark.parametrize(
    ("method", "schedule", "changes"),
    [
        ("listwise", "cosine", COMBINED | {"lora.enabled": True}),
        ("pointwise", "linear", {}),
    ],
    ids=["combined-lora", "cross-entropy-full"],
)
def test_zero_2_trains_as_one_process_does(inputs, tmp_path, method, schedule, changes):
    """Through `accelerate launch`."""
    values = inputs[method] | changes | {"schedule.lr_scheduler": schedule}
    one = in_one_process(Recipe(method=method), values, tmp_path / "one")
    two = in_two_processes((*ACCELERATE, method, "--deepspeed", "zero2"), values, tmp_path / "two")
    assert_trained_alike(two, one, schedule=schedule)


@pytest.mark.parametrize(
    ("script", "recipe", "schedule", "changes"),
    [
        ("train_first_mistral.sh", "first-mistral", "cosine", {}),
        ("train_rank_zephyr.sh", "rank-zephyr", "cosine", {"lora.enabled": True}),
        ("train_rankllama.sh", "rankllama", "linear", {}),
    ],
    ids=["first-mistral-full", "rank-zephyr-lora", "rankllama-lora"],
)
def test_zero_3_trains_as_one_process_does(inputs, tmp_path, script, recipe, schedule, changes):
    """With the scripts for the papers' recipes, including gradient checkpointing, on a tiny model."""
    base = load_recipe(recipe)
    values = inputs[base.method] | changes
    one = in_one_process(base, values, tmp_path / "one")
    command = (str(REPOSITORY / "scripts" / script), "2")
    two = in_two_processes(command, values, tmp_path / "two")
    assert_trained_alike(two, one, schedule=schedule)
    if recipe == "rankllama":
        again = in_two_processes(command, values, tmp_path / "again", "--resume-from-checkpoint", str(two / "step_4"))
        assert logged(again) == {step: values for step, values in logged(two).items() if step > 4}
        assert largest_difference(again, two) == 0
        # The recipe replaces the settings of the loaded optimizer and schedule, in DeepSpeed's copies too.
        faster = values | {"optim.learning_rate": 10 * LEARNING_RATE}
        again = in_two_processes(command, faster, tmp_path / "c", "--resume-from-checkpoint", str(two / "step_4"))
        rates = {step: found[2] for step, found in logged(again).items()}
        assert rates == {step: pytest.approx(10 * rate(step, kind=schedule)) for step in range(5, STEPS + 1)}
        assert largest_difference(again, two) > 1e-3


def test_zero_2_logs_the_same_after_a_resume(inputs, tmp_path):
    """Logging every third step: the entry of step 6 covers two steps after the checkpoint, and one before it."""
    values = inputs["listwise"] | COMBINED | {"logging.every_steps": 3}
    command = (*ACCELERATE, "listwise", "--deepspeed", "zero2")
    two = in_two_processes(command, values, tmp_path / "two")
    again = in_two_processes(command, values, tmp_path / "again", "--resume-from-checkpoint", str(two / "step_4"))
    expected, found = everything_logged(two), everything_logged(again)
    assert sorted(expected) == [1, 3, 6, 8]
    assert found == {step: expected[step] for step in (6, 8)}


def everything_logged(folder):
    """Map step -> all logged training values except speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    entries = [line for line in lines if "loss" in line]
    return {entry["step"]: {key: entry[key] for key in entry if key != "tokens_per_s"} for entry in entries}
