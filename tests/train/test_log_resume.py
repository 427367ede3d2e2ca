"""A resumed run logs the same as an uninterrupted one, wherever between two entries it was stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from distributed_runs import all_logged as entries  # noqa: E402
from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.checkpoints import checkpoints, seal  # noqa: E402
from rankllm_train.artifacts.run_record import load_record, save_record  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402
from rankllm_train.training.progress import Progress  # noqa: E402
from rankllm_train.training.step_sums import StepSums, Unlogged  # noqa: E402


@pytest.fixture(scope="module")
def recipes(tmp_path_factory, smollm2_tokenizer):
    """Six steps of two forward passes, each with a checkpoint; the first and every third step are logged."""
    folder = tmp_path_factory.mktemp("inputs")
    shared = {
        "model.name_or_path": save_tiny(folder / "tiny", smollm2_tokenizer),
        "model.precision": "fp32",
        "prompt.context_tokens": 1024,
        "data.group_size": 3,
        "batch.accumulation": 2,
        "batch.per_device": 2,
        "optim.learning_rate": 1e-3,
        "schedule.num_epochs": 2,
        "checkpoint.every": "1",
        "logging.every_steps": 3,
    }
    lists = write_records(folder / "d.jsonl", [listwise_record(i) for i in range(10)])
    groups = write_records(folder / "p.jsonl", [pointwise_record(i) for i in range(10)])
    return {
        "listwise": Recipe().changed(shared | {"data.train": lists, "objective.name": "combined"}),
        "pointwise": Recipe(method="pointwise").changed(shared | {"data.train": groups}),
    }


@pytest.fixture(scope="module")
def whole(recipes, tmp_path_factory):
    """Output folders of uninterrupted runs, by method."""
    done = {method: tmp_path_factory.mktemp(method) for method in recipes}
    for method, out in done.items():
        train(recipes[method].changed({"checkpoint.output_dir": str(out)}))
    return done


def without_steps(whole, out, *, above):
    """Copy a run without its later checkpoints."""
    shutil.copytree(whole, out)
    for checkpoint in checkpoints(out):
        if int(checkpoint.name.removeprefix("step_")) > above:
            shutil.rmtree(checkpoint)
    return out


@pytest.mark.parametrize(("method", "step"), [("listwise", 2), ("listwise", 5), ("pointwise", 4), ("pointwise", 3)])
def test_the_first_entry_after_a_resume_covers_the_steps_before_it(recipes, whole, tmp_path, method, step):
    """Loss, its parts, tokens and padding are bit-identical; with `latest`, in the run's own folder."""
    expected = entries(whole[method])
    assert sorted(expected) == [1, 3, 6]
    assert ("list_loss" in expected[6]) == (method == "listwise")
    out = without_steps(whole[method], tmp_path / "out", above=step)
    result = train(recipes[method].changed({"checkpoint.output_dir": str(out)}), resume_from="latest")
    assert entries(out) == expected
    each = entries_of_each_step(recipes[method], tmp_path / "each")
    own = [each[number]["loss"] for number in range(step + 1, 7)]
    assert result.loss == pytest.approx(sum(own) / len(own), rel=1e-5)  # of the resumed steps only


def entries_of_each_step(recipe, out):
    """The same run, logged at each step."""
    train(recipe.changed({"logging.every_steps": 1, "checkpoint.every": "none", "checkpoint.output_dir": str(out)}))
    return entries(out)


def test_sums_go_along_where_every_other_step_is_logged_from_then_on(recipes, whole, tmp_path):
    """`logging.every_steps` 2 from step 5, whose last entry was of step 3: the one of step 6 covers 4 to 6."""
    changes = {"checkpoint.output_dir": str(tmp_path), "logging.every_steps": 2}
    train(recipes["pointwise"].changed(changes), resume_from=str(whole["pointwise"] / "step_5"))
    assert entries(tmp_path) == {6: entries(whole["pointwise"])[6]}


class Interrupted(TrainerCallback):
    """Ctrl-C at the start of a step."""

    def __init__(self, *, after_step):
        self.after_step = after_step

    def on_step_begin(self, args, state, control, **arguments):
        if state.global_step == self.after_step:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_loses_nothing_of_the_log(recipes, whole, tmp_path):
    """Two steps after a checkpoint, and one after an entry; the closing line counts the tokens of the whole run."""
    recipe = recipes["listwise"].changed({"checkpoint.output_dir": str(tmp_path), "checkpoint.every": "2"})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, callbacks=[Interrupted(after_step=4)])
    assert [path.name for path in checkpoints(tmp_path)] == ["step_2", "step_4"]
    shutil.rmtree(tmp_path / "step_4")
    said = []
    train(recipe, resume_from="latest", callbacks=[Progress(said.append)])
    expected = entries(whole["listwise"])
    assert entries(tmp_path) == expected
    n_tokens = sum(entry["tokens"] for entry in expected.values())
    assert said[-1].startswith(f"trained on {n_tokens:,.0f} tokens; ")


STEP_S, LOADING_S = 0.3, 4


class Slow(TrainerCallback):
    """Slow steps, after a slower start."""

    def on_train_begin(self, args, state, control, **arguments):
        time.sleep(LOADING_S)

    def on_step_end(self, args, state, control, **arguments):
        time.sleep(STEP_S)


def test_speed_is_that_of_training_before_and_after_the_stop(recipes, tmp_path):
    """Three steps took three times as long as measured; loading time is not included."""
    recipe = recipes["pointwise"].changed({"checkpoint.output_dir": str(tmp_path)})
    train(recipe, callbacks=[Slow()])
    shutil.rmtree(tmp_path / "step_6")
    train(recipe, resume_from="latest", callbacks=[Slow()])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    times = {line["step"]: line["tokens"] / line["tokens_per_s"] for line in lines if "loss" in line}
    assert times[1] < LOADING_S
    assert 3 * STEP_S < times[6] < LOADING_S


def test_what_an_early_stop_logged_at_its_end_is_not_counted_twice(recipes, tmp_path):
    """Between two entries; with more patience, the run then logs what it would have without stopping."""
    changes = {
        "data.eval": recipes["pointwise"].data.train,
        "evaluation.every": "1",
        "evaluation.metric": "loss",
        "optim.learning_rate": 0.3,
        "schedule.num_epochs": 3,
        "logging.every_steps": 7,
    }
    recipe = recipes["pointwise"].changed(changes)
    patient = recipe.changed({"checkpoint.output_dir": str(tmp_path / "patient")})
    train(patient)
    hasty = recipe.changed({"evaluation.patience": 1, "checkpoint.output_dir": str(tmp_path / "hasty")})
    result = train(hasty)
    assert result.steps < 7, "the rate of this test should be so high that nothing is left to learn"
    assert result.steps in entries(tmp_path / "hasty")
    train(hasty.changed({"evaluation.patience": 0}), resume_from="latest")
    assert entries(tmp_path / "hasty") == entries(tmp_path / "patient")


@pytest.mark.parametrize(("step", "is_warned"), [(5, True), (3, False)])
def test_a_checkpoint_without_the_sums_is_resumed_with_a_warning(recipes, whole, tmp_path, step, is_warned):
    """Written by an older version; no warning if its last step was logged, since nothing is lost then."""
    out, told = without_steps(whole["pointwise"], tmp_path / "out", above=step), []
    folder = out / f"step_{step}"
    save_record(replace(load_record(folder), unlogged=None), folder)
    seal(folder, step=step)
    train(recipes["pointwise"].changed({"checkpoint.output_dir": str(out)}), resume_from="latest", say=told.append)
    warnings = [line for line in told if "saved no log sums" in line]
    assert len(warnings) == is_warned
    assert (entries(out) == entries(whole["pointwise"])) != is_warned
    assert all(f"only the steps after step {step};" in line and "\n" not in line for line in warnings)


def test_sums_are_kept_as_totals_by_another_number_of_processes():
    """Losses are means over processes, everything else is a sum; the same number of processes continues its own."""
    first = StepSums(loss=1.0, token_loss=0.25, list_loss=0.5, tokens=10, positions=12)
    second = StepSums(loss=2.0, token_loss=0.5, list_loss=0.75, tokens=20, positions=24)
    unlogged = Unlogged(after_step=3, by_process=(first, second))
    assert unlogged.mean_loss == 1.5
    assert [unlogged.of_process(i, processes=2) for i in (0, 1)] == [first, second]
    alone = StepSums(loss=1.5, token_loss=0.75, list_loss=1.25, tokens=30, positions=36)
    assert unlogged.of_process(0, processes=1) == alone
    assert [unlogged.of_process(i, processes=3) for i in range(3)] == [alone, StepSums(loss=1.5), StepSums(loss=1.5)]
