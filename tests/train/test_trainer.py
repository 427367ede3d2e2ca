"""A run killed at any point resumes as if it had not been interrupted; a checkpoint is complete or absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.card import ListwiseCard, load_card  # noqa: E402
from rankllm_core.errors import RankLLMError  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.checkpoints import checkpoints, find_resumable, global_step  # noqa: E402
from rankllm_train.recipe.recipe import Recipe, load_recipe, save_recipe  # noqa: E402

STEPS = 6
COMMON = {
    "model.precision": "fp32",
    "prompt.context_tokens": 1024,
    "batch.accumulation": 2,
    "batch.per_device": 2,
    "optim.learning_rate": 1e-3,
    "optim.noisy_embedding_alpha": 5,
    "schedule.num_epochs": 2,
    "schedule.lr_scheduler": "cosine",
    "schedule.warmup_steps": 2,
    "checkpoint.every": "1",
    "lora.r": 4,
    "lora.dropout": 0.2,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


@pytest.fixture(scope="module")
def recipes(tiny, tmp_path_factory):
    """A listwise and a pointwise recipe with all random features enabled: 3 steps per epoch, 2 epochs."""
    folder = tmp_path_factory.mktemp("data")
    lists = write_records(folder / "d.jsonl", [listwise_record(i) for i in range(10)])
    groups = write_records(folder / "p.jsonl", [pointwise_record(i, n_negatives=12) for i in range(10)])
    shared = COMMON | {"model.name_or_path": tiny}
    return {
        "listwise": Recipe().changed(
            shared | {"data.train": lists, "objective.name": "combined", "lora.enabled": True}
        ),
        "pointwise": Recipe(method="pointwise").changed(
            shared | {"data.train": groups, "data.group_size": 4, "lora.enabled": True}
        ),
    }


def metrics(folder):
    """Step -> (loss, gradient norm, learning rate), exactly as logged."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    entries = [line for line in lines if "loss" in line]
    assert len({line["step"] for line in entries}) == len(entries), "a step was logged twice"
    return {line["step"]: (line["loss"], line["grad_norm"], line["learning_rate"]) for line in entries}


@pytest.fixture(scope="module")
def whole(recipes, tmp_path_factory):
    """Uninterrupted runs."""
    done = {}
    for method, recipe in recipes.items():
        out = tmp_path_factory.mktemp(f"whole-{method}")
        train(recipe.changed({"checkpoint.output_dir": str(out)}))
        done[method] = out
    return done


@pytest.mark.parametrize("method", ["listwise", "pointwise"])
@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_resumed_run_repeats_the_rest_bit_by_bit(recipes, whole, tmp_path, method, step):
    """Resumed within an epoch, at its end, and in the next: losses, gradient norms and rates are equal as numbers."""
    expected = metrics(whole[method])
    assert sorted(expected) == [1, 2, 3, 4, 5, 6]
    recipe = recipes[method].changed({"checkpoint.output_dir": str(tmp_path)})
    train(recipe, resume_from=str(whole[method] / f"step_{step}"))
    found = metrics(tmp_path)
    assert found == {number: values for number, values in expected.items() if number > step}


CHILD = """
import sys, time
from transformers import TrainerCallback
from rankllm_train.training import saved_trainer
from rankllm_train.api import train
from rankllm_train.recipe.recipe import load_recipe

def wait():
    print("HERE", flush=True)
    time.sleep(60)

class Slow(TrainerCallback):
    '''Stops for the killer at one place behind the third step.'''
    def on_substep_end(self, args, state, control, **arguments):
        if place == "inside accumulation" and state.global_step == 3:
            wait()

    def on_step_begin(self, args, state, control, **arguments):
        if place == "between steps" and state.global_step == 3:
            wait()

def save_card_slowly(card, folder):
    if "step_4" in str(folder):
        wait()
    save_card(card, folder)

recipe, place = load_recipe(sys.argv[1]), sys.argv[2]
if place == "inside a checkpoint":
    save_card, saved_trainer.save_card = saved_trainer.save_card, save_card_slowly
train(recipe, callbacks=[Slow()])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "place"),
    [
        ("listwise", "inside accumulation"),
        ("listwise", "inside a checkpoint"),
        ("pointwise", "between steps"),
    ],
)
def test_a_killed_run_goes_on_bit_by_bit(recipes, whole, tmp_path, method, place):
    """After SIGKILL and resuming from `latest`, adapter dropout, noise and drawn groups equal those of the
    uninterrupted run.
    """
    out = tmp_path / "out"
    recipe = recipes[method].changed({"checkpoint.output_dir": str(out)})
    save_recipe(recipe, tmp_path)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "recipe.yaml"), place],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert child.stdout.readline().strip() == "HERE"
    child.send_signal(signal.SIGKILL)
    child.wait()
    # Of the fourth checkpoint all is written but its card: it has not got its name, and is not taken for one.
    assert (out / ".saving-step_4").exists() == (place == "inside a checkpoint")
    assert find_resumable("latest", out) == out / "step_3"
    train(recipe, resume_from="latest")
    assert metrics(out) == metrics(whole[method])
    final = "adapter_model.safetensors"
    assert (out / final).read_bytes() == (whole[method] / final).read_bytes()


def test_every_checkpoint_is_complete(whole):
    """Each contains adapter, tokenizer, card, recipe and state; the final model is in the output folder itself."""
    found = checkpoints(whole["listwise"])
    assert [path.name for path in found] == [f"step_{n}" for n in range(1, STEPS + 1)]
    for folder in (*found, whole["listwise"]):
        names = {path.name for path in folder.iterdir()}
        assert names >= {
            "adapter_model.safetensors",
            "adapter_config.json",
            "tokenizer.json",
            "rankllm.yaml",
            "recipe.yaml",
        }
        assert isinstance(load_card(folder), ListwiseCard)
        page = (folder / "README.md").read_text(encoding="utf-8")
        assert "# A listwise reranker" in page
        assert "More Information Needed" not in page
    assert not list(whole["listwise"].glob(".saving-*"))


def test_a_half_written_checkpoint_is_never_taken(whole, tmp_path):
    """A temporary checkpoint folder or one without its state is ignored, however new it is."""
    import shutil

    shutil.copytree(whole["listwise"] / "step_2", tmp_path / "step_2")
    shutil.copytree(whole["listwise"] / "step_4", tmp_path / ".saving-step_4" / "checkpoint-4")
    shutil.copytree(whole["listwise"] / "step_5", tmp_path / "step_5")
    (tmp_path / "step_5" / "trainer_state.json").write_text('{"global_st', encoding="utf-8")
    assert find_resumable("latest", tmp_path) == tmp_path / "step_2"
    with pytest.raises(RankLLMError, match="not a complete checkpoint"):
        find_resumable(str(tmp_path / "step_5"), tmp_path)


def test_what_a_killed_run_left_aside_is_swept(recipes, tmp_path):
    """Temporary files of a killed run are removed and do not block the next run."""
    (tmp_path / ".saving-step_1" / "checkpoint-1").mkdir(parents=True)
    train(recipes["listwise"].changed({"checkpoint.output_dir": str(tmp_path), "schedule.max_steps": 1}))
    assert not list(tmp_path.glob(".saving-*"))
    assert global_step(tmp_path / "step_1") == 1


def test_epochs_are_numbered_from_zero_and_rotate(recipes, tmp_path):
    """`epoch_0`, `epoch_1` as in the original; --save-total-limit keeps the newest."""
    changes = {"checkpoint.output_dir": str(tmp_path), "checkpoint.every": "epoch"}
    train(recipes["listwise"].changed(changes | {"schedule.num_epochs": 2}))
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch_0", "epoch_1"]
    train(recipes["listwise"].changed(changes | {"checkpoint.keep": 1}), overwrite=True)
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch_1"]


def test_a_folder_with_checkpoints_is_not_trained_into_by_mistake(recipes, whole):
    """The error offers to resume, to overwrite, or to use another folder."""
    recipe = recipes["listwise"].changed({"checkpoint.output_dir": str(whole["listwise"])})
    with pytest.raises(RankLLMError, match="contains step_6, from an earlier run; use --resume-from-checkpoint latest"):
        train(recipe)


def test_a_changed_recipe_is_told_when_resuming(recipes, whole, tmp_path):
    """The resumed run differs from the run that was started."""
    told = []
    recipe = recipes["listwise"].changed({"checkpoint.output_dir": str(tmp_path), "optim.learning_rate": 5e-3})
    train(recipe, resume_from=str(whole["listwise"] / "step_5"), say=told.append)
    assert any("optim.learning_rate was 0.001 in step_5 and is now 0.005" in line for line in told)


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_records(recipes, tmp_path):
    """The learning rate makes the weights overflow float32 in one step."""
    changes = {"optim.learning_rate": 1e38, "schedule.warmup_steps": 0, "checkpoint.output_dir": str(tmp_path)}
    with pytest.raises(RankLLMError, match=r"step 2: the loss is nan on .*d\.jsonl:\d+: record 'r\d+'"):
        train(recipes["listwise"].changed(changes))


def test_weights_that_are_not_numbers_are_told_before_the_first_step(recipes, tmp_path, tiny, smollm2_tokenizer):
    """The model is damaged."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("inf"))
    model.save_pretrained(tmp_path / "broken")
    smollm2_tokenizer.save_pretrained(tmp_path / "broken")
    changes = {"model.name_or_path": str(tmp_path / "broken"), "checkpoint.output_dir": str(tmp_path / "out")}
    with pytest.raises(RankLLMError, match="the weights give logits that are not finite"):
        train(recipes["listwise"].changed(changes))


def test_accumulation_does_not_change_a_step(recipes, tmp_path):
    """4 x 1 and 1 x 4 log the same loss and gradient norm, with noise and dropout disabled."""
    found = []
    for per_device, accumulation in ((4, 1), (1, 4)):
        out = tmp_path / f"{per_device}"
        changes = {
            "batch.per_device": per_device,
            "batch.accumulation": accumulation,
            "optim.noisy_embedding_alpha": 0,
            "lora.dropout": 0.0,
            "checkpoint.every": "none",
            "checkpoint.output_dir": str(out),
        }
        train(recipes["listwise"].changed(changes))
        found.append(metrics(out))
    assert found[0].keys() == found[1].keys()
    for step, (loss, norm, rate) in found[0].items():
        assert found[1][step] == pytest.approx((loss, norm, rate), rel=1e-5)


def test_the_learning_rate_follows_the_schedule(whole):
    """Two steps of warm-up to 1e-3, then a cosine that would reach zero at the sixth step."""
    import math

    rates = [rate for _, _, rate in metrics(whole["listwise"]).values()]
    cosine = [1e-3 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]
    assert rates == pytest.approx([0.0, 5e-4, *cosine])


def test_the_log_tells_parts_speed_and_padding(whole):
    """Combined is token loss + 10 x list loss; tokens/s; the share of padding."""
    for line in (whole["listwise"] / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "loss" in entry:
            weight = 1.0  # unweighted ranknet
            assert entry["loss"] == pytest.approx(entry["token_loss"] + weight * entry["list_loss"], rel=1e-5)
            assert entry["tokens_per_s"] > 0
            assert 0 <= entry["padding"] < 0.5


def test_bf16_and_gradient_checkpointing_train(recipes, tmp_path):
    """With half precision, trained weights stay in float32; recomputation does not change the loss."""
    from safetensors.torch import load_file

    out = tmp_path / "half"
    changes = {"model.precision": "bf16", "batch.gradient_checkpointing": True, "schedule.max_steps": 2}
    changes |= {"checkpoint.output_dir": str(out), "lora.enabled": False, "checkpoint.every": "none"}
    result = train(recipes["listwise"].changed(changes))
    assert result.steps == 2
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.float32}


@pytest.mark.parametrize("head", ["sequence-classification", "yes-no"])
def test_adapters_on_a_base_in_half_precision_train(recipes, tmp_path, head):
    """The frozen base is bfloat16; trained weights and the output of the score layer are float32."""
    from safetensors.torch import load_file

    changes = {"model.precision": "bf16", "prompt.head": head, "schedule.max_steps": 2, "checkpoint.every": "none"}
    train(recipes["pointwise"].changed(changes | {"checkpoint.output_dir": str(tmp_path)}))
    weights = load_file(tmp_path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert any("score" in name for name in weights) == (head != "yes-no")


def test_gradient_checkpointing_changes_nothing(recipes, tmp_path):
    """The losses are the same with and without it."""
    found = []
    for on in (False, True):
        out = tmp_path / str(on)
        changes = {"batch.gradient_checkpointing": on, "schedule.max_steps": 2, "checkpoint.every": "none"}
        train(recipes["listwise"].changed(changes | {"checkpoint.output_dir": str(out)}))
        found.append({step: values[0] for step, values in metrics(out).items()})
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_saved_recipe_repeats_the_run(recipes, whole, tmp_path):
    """recipe.yaml in the output folder describes the complete run."""
    recipe = load_recipe(whole["pointwise"] / "recipe.yaml").changed({"checkpoint.output_dir": str(tmp_path)})
    train(recipe)
    assert metrics(tmp_path) == metrics(whole["pointwise"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.name_or_path": "/nowhere/at/all"}, "'/nowhere/at/all' cannot be loaded"),
        ({"data.train": "/nowhere/d.jsonl"}, "/nowhere/d.jsonl: no such file"),
        ({"data.train": ""}, "--train-dataset-path: missing"),
        ({"prompt.context_tokens": 100}, r"record 'r0': \d+ tokens exceed the context of 100"),
    ],
)
def test_what_cannot_be_trained_is_told_before_the_first_step(recipes, tmp_path, changes, message):
    """The error is one line, and nothing is written."""
    recipe = recipes["listwise"].changed(changes | {"checkpoint.output_dir": str(tmp_path / "out")})
    started = time.perf_counter()
    with pytest.raises(RankLLMError, match=message):
        train(recipe)
    assert time.perf_counter() - started < 30
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
