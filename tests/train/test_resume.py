"""A resumed run uses the settings it records from its first step; a finished run says so and changes nothing."""

from __future__ import annotations

import json
import math
import os
import shutil

import pytest
import yaml
from click.testing import CliRunner

torch = pytest.importorskip("torch")

from training_fakes import pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.errors import RankLLMError  # noqa: E402
from rankllm_core.prompts.template import load_template  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.checkpoints import checkpoints, final_step  # noqa: E402
from rankllm_train.artifacts.run_record import load_record  # noqa: E402
from rankllm_train.cli import cli  # noqa: E402
from rankllm_train.recipe.recipe import Recipe, load_recipe, save_recipe  # noqa: E402
from rankllm_train.recipe.settled import settle  # noqa: E402

STEPS, WARMUP, RATE = 4, 1, 1e-3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


@pytest.fixture(scope="module")
def recipe(tiny, tmp_path_factory):
    """Full fine-tuning with weight decay, three steps an epoch."""
    data = write_records(tmp_path_factory.mktemp("data") / "p.jsonl", [pointwise_record(i) for i in range(6)])
    return Recipe(method="pointwise").changed(
        {
            "model.name_or_path": tiny,
            "model.precision": "fp32",
            "data.train": data,
            "data.group_size": 3,
            "batch.per_device": 2,
            "optim.learning_rate": RATE,
            "optim.weight_decay": 0.01,
            "schedule.max_steps": STEPS,
            "schedule.warmup_steps": WARMUP,
            "checkpoint.every": "1",
        }
    )


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """The output folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("finished")
    train(recipe.changed({"checkpoint.output_dir": str(out)}))
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(finished, tmp_path / "out")


def metrics(folder, key):
    """Step -> value, as logged."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def contents(folder):
    """Path -> bytes and modification time of every file."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def linear(step, total, warmup):
    """Rises to 1 in `warmup` steps, falls to 0 at `total`."""
    return step / warmup if step < warmup else (total - step) / (total - warmup)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, lambda s: RATE * linear(s, STEPS, WARMUP)),
        ({"optim.learning_rate": 7e-3}, lambda s: 7e-3 * linear(s, STEPS, WARMUP)),
        ({"schedule.max_steps": 6}, lambda s: RATE * linear(s, 6, WARMUP)),
        ({"schedule.max_steps": 0, "schedule.num_epochs": 2}, lambda s: RATE * linear(s, 6, WARMUP)),
        ({"schedule.warmup_steps": 3}, lambda s: RATE * linear(s, STEPS, 3)),
        ({"schedule.warmup_steps": 0, "schedule.warmup_ratio": 0.75}, lambda s: RATE * linear(s, STEPS, 3)),
        ({"schedule.lr_scheduler": "constant"}, lambda s: RATE),
        (
            {"schedule.lr_scheduler": "cosine", "optim.learning_rate": 2e-3},
            lambda s: 2e-3 * (1 + math.cos(math.pi * (s - WARMUP) / (STEPS - WARMUP))) / 2,
        ),
        (
            {"schedule.lr_scheduler": "polynomial", "optim.learning_rate": 2e-3},
            lambda s: (2e-3 - 1e-7) * (1 - (s - WARMUP) / (STEPS - WARMUP)) + 1e-7,
        ),
    ],
)
def test_learning_rates_of_a_resumed_run_are_those_of_its_recipe(recipe, finished, tmp_path, changes, expected):
    """From the first resumed step the rates are those of a run that had the settings from the beginning; `s` is the
    number of steps done.
    """
    changed = recipe.changed(changes | {"checkpoint.output_dir": str(tmp_path)})
    result = train(changed, resume_from=str(finished / "step_2"))
    rates = metrics(tmp_path, "learning_rate")
    assert sorted(rates) == list(range(3, result.steps + 1))
    assert rates == {step: pytest.approx(expected(step - 1), rel=1e-12, abs=1e-18) for step in rates}
    assert load_recipe(tmp_path / "recipe.yaml") == settle(changed, {})
    assert [change["key"] for change in load_record(tmp_path).changes] == sorted(
        changes, key=list(changes).index
    ) or changes


def state(folder):
    """Parameters by name, and AdamW's moments and settings, from a checkpoint."""
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    return weights, saved["state"], saved["param_groups"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optim.weight_decay": 0.9},
        {"optim.adam_beta1": 0.5},
        {"optim.adam_beta2": 0.6},
        {"optim.adam_epsilon": 1e-3},
        {
            "optim.learning_rate": 5e-3,
            "optim.weight_decay": 0.5,
            "optim.adam_beta1": 0.7,
            "optim.adam_beta2": 0.8,
            "optim.adam_epsilon": 1e-4,
        },
    ],
    ids=lambda changes: "+".join(key.removeprefix("optim.") for key in changes) or "nothing",
)
def test_the_first_resumed_update_is_adamw_with_the_recipes_settings(recipe, finished, tmp_path, changes):
    """p' = p (1 - rate decay) - rate m' / (sqrt(v') + eps), bias-corrected (arXiv:1711.05101), for each weight. The
    gradient follows from the first moments, m' = b1 m + (1 - b1) g, and must reproduce the second moments.
    """
    changed = recipe.changed(changes | {"checkpoint.output_dir": str(tmp_path)})
    train(changed, resume_from=str(finished / "step_2"))
    (old, moments, _), (new, moments_3, groups) = state(finished / "step_2"), state(tmp_path / "step_3")
    optim, rate = changed.optim, metrics(tmp_path, "learning_rate")[3]
    names = named_by_group(old)
    assert [group["weight_decay"] for group in groups] == [optim.weight_decay, 0.0]
    b1, b2 = optim.adam_beta1, optim.adam_beta2
    for group, own in zip(groups, names, strict=True):
        assert group["betas"] == (b1, b2)
        for index, name in zip(group["params"], own, strict=True):
            m, v = (moments[index][key].double() for key in ("exp_avg", "exp_avg_sq"))
            m_3, v_3 = (moments_3[index][key].double() for key in ("exp_avg", "exp_avg_sq"))
            gradient = (m_3 - b1 * m) / (1 - b1)
            assert torch.allclose(v_3, b2 * v + (1 - b2) * gradient**2, rtol=1e-3, atol=1e-9), name
            step = m_3 / (1 - b1**3) / ((v_3 / (1 - b2**3)).sqrt() + optim.adam_epsilon)
            expected = old[name].double() * (1 - rate * group["weight_decay"]) - rate * step
            assert torch.allclose(new[name].double(), expected, rtol=0, atol=2e-7), name


def named_by_group(weights):
    """The names of decayed weights (matrices) and of the rest (norms), in model order."""
    from transformers import AutoModelForSequenceClassification, LlamaConfig

    config = LlamaConfig(
        vocab_size=weights["model.embed_tokens.weight"].shape[0],
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=1,
    )
    model = AutoModelForSequenceClassification.from_config(config)
    named = dict(model.named_parameters())
    return [[name for name in named if (named[name].dim() > 1) == is_matrix] for is_matrix in (True, False)]


def test_how_often_to_log_and_save_is_the_recipes_not_the_checkpoints(recipe, finished, tmp_path):
    """The Trainer would restore these intervals from its state."""
    data = recipe.data.train
    changes = {"checkpoint.every": "3", "logging.every_steps": 2, "schedule.max_steps": 8, "data.eval": data}
    changes |= {"evaluation.every": "4", "checkpoint.output_dir": str(tmp_path)}
    train(recipe.changed(changes), resume_from=str(finished / "step_2"))
    assert [path.name for path in checkpoints(tmp_path)] == ["step_3", "step_6", "step_8"]
    assert sorted(metrics(tmp_path, "loss")) == [4, 6, 8]
    assert sorted(metrics(tmp_path, "eval_loss")) == [4, 8]


@pytest.mark.parametrize(
    ("changes", "resume_from"),
    [
        ({}, "latest"),
        ({"schedule.max_steps": 3}, "latest"),
        ({"schedule.max_steps": 3}, "step_3"),
        ({"schedule.max_steps": 2}, "step_3"),
        ({"schedule.max_steps": 0, "schedule.num_epochs": 1}, "latest"),
        ({"schedule.max_steps": 0, "schedule.num_epochs": 1.2}, "latest"),
    ],
)
def test_where_nothing_is_left_to_train_it_is_said_and_nothing_is_written(recipe, out, changes, resume_from):
    """A finished run, fewer steps, fewer epochs: files keep their content and modification time."""
    before, told = contents(out), []
    changed = recipe.changed(changes | {"checkpoint.output_dir": str(out)})
    start = resume_from if resume_from == "latest" else str(out / resume_from)
    result = train(changed, resume_from=start, say=told.append)
    assert result.loss is None
    assert any("Nothing left to train" in line and "--max-train-steps" in line for line in told)
    assert contents(out) == before


def test_training_longer_follows_the_longer_schedule(recipe, out):
    """The fifth of five steps has the rate of a five-step run: a quarter of the peak."""
    result = train(recipe.changed({"schedule.max_steps": 5, "checkpoint.output_dir": str(out)}), resume_from="latest")
    assert result.steps == 5
    assert metrics(out, "learning_rate")[5] == pytest.approx(RATE / 4)
    assert final_step(out) == 5


@pytest.mark.parametrize("lost", ["rankllm.yaml", "manifest.json", "model.safetensors"])
def test_a_run_killed_before_its_model_was_in_place_is_completed(recipe, out, finished, lost):
    """Killed after the last checkpoint: nothing is trained, and the model is that of the complete run."""
    (out / lost).unlink()
    told = []
    train(recipe.changed({"checkpoint.output_dir": str(out)}), resume_from="latest", say=told.append)
    assert any("copied from step_4" in line for line in told)
    assert final_step(out) == STEPS
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert not (out / "model.safetensors").samefile(out / "step_4" / "model.safetensors")


def test_a_training_file_rewritten_in_between_is_refused(recipe, out, tmp_path):
    """The error says what to do; a copy of the original file is accepted."""
    data = tmp_path / "p.jsonl"
    shutil.copy(recipe.data.train, data)
    changed = recipe.changed({"checkpoint.output_dir": str(out), "data.train": str(data), "schedule.max_steps": 5})
    data.write_text(data.read_text(encoding="utf-8").replace("cats", "dogs"), encoding="utf-8")
    with pytest.raises(RankLLMError, match=r"--train-dataset-path .*p\.jsonl: does not match .* restore it, or start"):
        train(changed, resume_from="latest")
    shutil.copy(recipe.data.train, data)
    assert train(changed, resume_from="latest").steps == 5


def test_an_edited_template_file_is_refused(recipe, tmp_path):
    """The file name is unchanged but the text differs from the card; the same text under another name is accepted."""
    template, out = tmp_path / "mine.yaml", tmp_path / "out"
    text = yaml.safe_dump(load_template("rankllama").to_dict())
    template.write_text(text, encoding="utf-8")
    begun = recipe.changed({"prompt.template": str(template), "checkpoint.output_dir": str(out)})
    train(begun.changed({"schedule.max_steps": 1}))
    edited = text.replace("document: ", "passage: ")
    assert edited != text
    template.write_text(edited, encoding="utf-8")
    with pytest.raises(RankLLMError, match=r"the card's template differs from the checkpoint's .*Restore the prompt"):
        train(begun.changed({"schedule.max_steps": 2}), resume_from="latest")
    moved = tmp_path / "moved.yaml"
    moved.write_text(text, encoding="utf-8")
    changes = {"prompt.template": str(moved), "schedule.max_steps": 2}
    assert train(begun.changed(changes), resume_from="latest").steps == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lora-r", "8"), "lora.r was 4 and is now 8"),
        (("--lora-alpha", "8"), "lora.alpha was 64 and is now 8"),
        (("--no-lora",), "lora.enabled was True and is now False"),
        (("--lora-target-modules", "q_proj"), "lora.target_modules was"),
        (("--seed", "7"), "schedule.seed was 42 and is now 7"),
        (("--learning-rate", "nan"), "optim.learning_rate: expected a finite number, found nan"),
    ],
)
def test_what_cannot_be_resumed_with_is_one_line(recipe, tmp_path, options, message):
    """The command exits with status 1 and names the value, without a traceback."""
    out = tmp_path / "out"
    lora = {"lora.enabled": True, "lora.r": 4, "schedule.max_steps": 1, "checkpoint.output_dir": str(out)}
    train(recipe.changed(lora))
    save_recipe(recipe.changed(lora | {"schedule.max_steps": 2}), tmp_path)
    command = ["pointwise", "--recipe", str(tmp_path / "recipe.yaml"), "--resume-from-checkpoint", "latest", *options]
    error = CliRunner().invoke(cli, command).exception
    assert isinstance(error, RankLLMError)
    assert message in str(error)
    assert "\n" not in str(error)


def test_a_finished_run_ends_well_at_the_command_line(recipe, out, tmp_path):
    """Exit status 0 and the folder on standard output, without a mean loss over zero steps."""
    save_recipe(recipe.changed({"checkpoint.output_dir": str(out)}), tmp_path)
    command = ["pointwise", "--recipe", str(tmp_path / "recipe.yaml"), "--resume-from-checkpoint", "latest"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0
    assert result.stdout == f"{out}\n"
    assert "Nothing left to train: step_4 has completed 4 steps, and the recipe asks for 4 steps" in result.stderr
    assert "mean loss" not in result.stderr


def test_another_split_of_a_steps_records_is_the_same_data(recipe, finished, tmp_path):
    """One batch of two records or two of one give the same losses; three records per step are rejected."""
    changes = {"batch.per_device": 1, "batch.accumulation": 2, "checkpoint.output_dir": str(tmp_path / "a")}
    train(recipe.changed(changes), resume_from=str(finished / "step_2"))
    expected = {step: loss for step, loss in metrics(finished, "loss").items() if step > 2}
    assert metrics(tmp_path / "a", "loss") == pytest.approx(expected, rel=1e-5)
    changed = recipe.changed({"batch.per_device": 3, "checkpoint.output_dir": str(tmp_path / "b")})
    with pytest.raises(RankLLMError, match="expected 2 records per step"):
        train(changed, resume_from=str(finished / "step_2"))
    assert not os.path.exists(tmp_path / "b")
