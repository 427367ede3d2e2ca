"""A run with dev data ends with its best evaluated model, regardless of rotation, kills and resumes."""

from __future__ import annotations

import json
import os
import shutil

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from rankllm_core.card import load_card, save_card  # noqa: E402
from rankllm_core.errors import ConfigError, RankLLMError  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.best import Best, evaluations_since, load_best, save_best, settle_best  # noqa: E402
from rankllm_train.artifacts.checkpoints import checkpoints, link_model, sweep  # noqa: E402
from rankllm_train.recipe.recipe import Recipe, save_recipe  # noqa: E402

STEPS = 6


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


def contrary(number):
    """Query whose positive lacks the query's word, so that what is learned from other groups is wrong here."""
    record = pointwise_record(number)
    (right,), (wrong, *others) = record["positive_passages"], record["negative_passages"]
    return record | {"positive_passages": [wrong], "negative_passages": [right, *others]}


@pytest.fixture(scope="module")
def recipe(tiny, tmp_path_factory):
    """Groups that are memorized at a high learning rate, evaluated on others, one of which contradicts them."""
    folder = tmp_path_factory.mktemp("data")
    return Recipe(method="pointwise").changed(
        {
            "model.name_or_path": tiny,
            "model.precision": "fp32",
            "data.train": write_records(folder / "d.jsonl", [pointwise_record(i) for i in range(6)]),
            "data.eval": write_records(folder / "dev.jsonl", [pointwise_record(6), pointwise_record(7), contrary(8)]),
            "data.group_size": 4,
            "optim.learning_rate": 0.1,
            "optim.noisy_embedding_alpha": 5,
            "schedule.max_steps": STEPS,
            "schedule.lr_scheduler": "constant",
            "checkpoint.every": "2",
            "evaluation.every": "1",
            "evaluation.metric": "loss",
        }
    )


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    return train(recipe.changed({"checkpoint.output_dir": str(out)}))


def measured(folder, key="eval_loss"):
    """Map step -> value of a dev metric."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_the_output_folder_holds_the_model_with_the_lowest_dev_loss(whole, recipe):
    """Neither the first nor the last model; its record says which, and evaluating it again gives its value."""
    losses = measured(whole.output_dir)
    assert sorted(losses) == list(range(1, STEPS + 1))
    step = min(losses, key=losses.get)
    assert step != STEPS, "the data of this test should make the last model a bad one"
    assert whole.best == Best(step=step, metric="loss", value=losses[step])
    assert load_best(whole.output_dir) == whole.best
    assert json.loads((whole.output_dir / "best.json").read_text(encoding="utf-8"))["step"] == step
    assert weights(whole.output_dir) == weights(whole.output_dir / "best")
    assert load_card(whole.output_dir / "best") == load_card(whole.output_dir)
    assert dev_loss(recipe, whole.output_dir) == pytest.approx(losses[step], rel=1e-5)


def dev_loss(recipe, folder):
    """Return the dev loss of a saved model."""
    from transformers import AutoTokenizer

    from rankllm_train.methods.registry import prepare
    from rankllm_train.models.loading import load_model

    data = prepare(recipe.changed({"data.train": recipe.data.eval}), AutoTokenizer.from_pretrained(folder))
    section = recipe.changed({"model.name_or_path": str(folder)}).model
    model = load_model(section, kind="sequence-classification", lora=recipe.lora, seed=0).eval()
    batch = data.collator([data.dataset[i] for i in range(len(data.dataset))])
    with torch.no_grad():
        return data.objective.parts(data.objective.sums(model, batch), data.objective.counts(batch)).total.item()


def test_without_keep_best_the_last_model_is_kept(whole, recipe, tmp_path):
    """No record says otherwise, even if an earlier run left one."""
    (tmp_path / "best.json").write_text("{}", encoding="utf-8")
    result = train(recipe.changed({"checkpoint.output_dir": str(tmp_path), "evaluation.keep_best": False}))
    assert result.best is None
    assert not (tmp_path / "best").exists()
    assert not (tmp_path / "best.json").exists()
    assert weights(tmp_path) == weights(whole.output_dir / f"step_{STEPS}") == weights(tmp_path / f"step_{STEPS}")


def test_rotation_does_not_take_the_best(recipe, whole, tmp_path):
    """Only the newest checkpoint remains; the best model, from an earlier one, is unchanged."""
    train(recipe.changed({"checkpoint.output_dir": str(tmp_path), "checkpoint.keep": 1}))
    assert [path.name for path in checkpoints(tmp_path)] == [f"step_{STEPS}"]
    assert load_best(tmp_path) == whole.best
    assert weights(tmp_path / "best") == weights(whole.output_dir)


def test_a_finished_run_can_be_gone_on_with(recipe, whole, tmp_path):
    """With nothing left to train, and with two more steps: the best model stays, and no temporary folders remain."""
    shutil.copytree(whole.output_dir, tmp_path / "run", copy_function=os.link)
    for steps in (STEPS, STEPS + 2):
        changed = recipe.changed({"checkpoint.output_dir": str(tmp_path / "run"), "schedule.max_steps": steps})
        result = train(changed, resume_from="latest")
        assert result.best == whole.best
        assert weights(tmp_path / "run") == weights(whole.output_dir)
        assert not list((tmp_path / "run").glob(".*"))


def test_later_checkpoints_are_not_left_to_mislead(recipe, whole, tmp_path):
    """Resuming from an earlier one would mix two histories in one folder: they are named, or deleted on request."""
    shutil.copytree(whole.output_dir, tmp_path / "run")
    changed = recipe.changed({"checkpoint.output_dir": str(tmp_path / "run"), "schedule.max_steps": 4})
    start = str(tmp_path / "run" / "step_2")
    with pytest.raises(RankLLMError, match="contains step_6, which is later than step_2"):
        train(changed, resume_from=start)
    train(changed, resume_from=start, overwrite=True)
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step_2", "step_4"]


class StopAt(TrainerCallback):
    """Ends a run like a bug would, at the end of a step."""

    def __init__(self, step):
        self.step = step

    def on_log(self, args, state, control, logs=None, **arguments):
        if state.global_step == self.step and "eval_loss" in (logs or {}):
            raise ZeroDivisionError


@pytest.mark.parametrize("step", [3, 5])
def test_an_interrupted_run_ends_with_the_same_best_model(recipe, whole, tmp_path, step):
    """Interrupted during evaluation between checkpoints; the resumed run knows the value to beat."""
    changed = recipe.changed({"checkpoint.output_dir": str(tmp_path)})
    with pytest.raises(ZeroDivisionError):
        train(changed, callbacks=[StopAt(step)])
    result = train(changed, resume_from="latest")
    assert result.best == whole.best
    assert measured(tmp_path) == measured(whole.output_dir)
    assert weights(tmp_path) == weights(whole.output_dir)


def test_patience_ends_a_run_after_so_many_worse_measurements(recipe, whole, tmp_path):
    """Two evaluations after the best one; a run resumed in between stops at the same step."""
    losses = measured(whole.output_dir)
    best = expected = None
    for step, loss in losses.items():
        if best is None or loss < losses[best]:
            best = step
        if step - best == 2:
            expected = step
            break
    assert expected is not None
    assert expected < STEPS
    patient = recipe.changed({"evaluation.patience": 2, "checkpoint.every": "1"})
    result = train(patient.changed({"checkpoint.output_dir": str(tmp_path / "a")}))
    assert (result.steps, result.best.step) == (expected, best)
    resumed = patient.changed({"checkpoint.output_dir": str(tmp_path / "b")})
    result = train(resumed, resume_from=str(tmp_path / "a" / f"step_{expected - 1}"))
    assert (result.steps, result.best.step) == (expected, best)
    assert weights(tmp_path / "b") == weights(tmp_path / "a")


def test_rankings_are_judged_by_ndcg_unless_told_otherwise(recipe):
    """Higher is better for nDCG; the generation objective is judged by its loss."""
    listwise = Recipe().changed({"data.eval": "d"})
    assert listwise.changed({"objective.name": "combined"}).best_metric == "ndcg@10"
    assert listwise.changed({"objective.name": "generation"}).best_metric == "loss"
    assert Recipe(method="pointwise").changed({"evaluation.metric": "mrr@10"}).best_metric == "mrr@10"
    assert Best(step=1, metric="ndcg@10", value=0.5).is_beaten_by(0.6)
    assert not Best(step=1, metric="ndcg@10", value=0.5).is_beaten_by(0.5)
    assert Best(step=1, metric="loss", value=0.5).is_beaten_by(0.4)
    assert not Recipe().keeps_best


def test_measurements_behind_the_best_are_counted_once():
    """In a Trainer's log that also contains a training entry for the same step."""
    log = [{"step": 2, "eval_loss": 1.0}, {"step": 4, "loss": 1.0}, {"step": 4, "eval_loss": 1.0, "eval_ndcg@10": 1}]
    assert evaluations_since(Best(step=2, metric="loss", value=1.0), [*log, {"step": 6, "eval_loss": 3.0}]) == 2


def test_the_last_step_is_measured_wherever_it_falls(recipe, tmp_path):
    """Five steps, evaluated every three."""
    changes = {"schedule.max_steps": 5, "evaluation.every": "3", "checkpoint.every": "none"}
    train(recipe.changed(changes | {"checkpoint.output_dir": str(tmp_path)}))
    assert sorted(measured(tmp_path)) == [3, 5]


@pytest.mark.parametrize("objective", ["generation", "combined"])
def test_listwise_adapters_are_kept_with_their_card(tiny, tmp_path, objective):
    """Evaluated and saved at the end of epochs: best model and checkpoint share their weight files on disk."""
    path = write_records(tmp_path / "d.jsonl", [listwise_record(i) for i in range(2)])
    changes = {
        "model.name_or_path": tiny,
        "model.precision": "fp32",
        "data.train": path,
        "data.eval": path,
        "prompt.context_tokens": 1024,
        "objective.name": objective,
        "lora.enabled": True,
        "lora.r": 4,
        "optim.learning_rate": 1e-3,
        "schedule.num_epochs": 2,
        "checkpoint.output_dir": str(tmp_path / "out"),
    }
    result = train(Recipe().changed(changes))
    best = tmp_path / "out" / "best"
    epoch = tmp_path / "out" / ("epoch_0" if result.best.step == 2 else "epoch_1")
    assert (best / "adapter_model.safetensors").samefile(epoch / "adapter_model.safetensors")
    # Files handed to users are not shared with those the run depends on; a card may be edited in either.
    out = tmp_path / "out"
    assert (out / "adapter_model.safetensors").read_bytes() == (best / "adapter_model.safetensors").read_bytes()
    for path in best.iterdir():
        assert not (out / path.name).samefile(path)
        assert (
            path.suffix == ".safetensors" or not (epoch / path.name).exists() or not (epoch / path.name).samefile(path)
        )
    assert load_card(best) == load_card(epoch)
    assert not (best / "trainer_state.json").exists()
    assert not (best / "optimizer.pt").exists()


@pytest.fixture
def kept(recipe, whole, tmp_path):
    """A best model of step 3 in `out`, as left by a killed run, with the recipe of that run."""
    out = tmp_path / "out"
    made_by = recipe.changed({"checkpoint.output_dir": str(out)})
    written = out / ".saving-best"
    written.mkdir(parents=True)
    save_card(load_card(whole.output_dir), written)
    save_recipe(made_by, written)
    save_best(Best(step=3, metric="loss", value=1.0), out, written=written)
    return made_by


@pytest.mark.parametrize(
    ("changes", "step", "is_kept"),
    [
        ({}, 2, True),
        ({}, 4, True),
        ({"optim.learning_rate": 0.5}, 4, True),
        ({"optim.learning_rate": 0.5}, 2, False),
        ({"evaluation.metric": "mrr@10"}, 4, False),
        ({"data.eval": "other.jsonl"}, 4, False),
    ],
)
def test_only_a_best_model_that_can_be_compared_survives_a_resume(kept, changes, step, is_kept):
    """It is dropped for another metric or other dev data, or if it is ahead of the checkpoint with other settings."""
    told = []
    recipe = kept.changed(changes)
    out = settle_and_load(recipe, step, told)
    assert (out is not None) == is_kept
    assert bool(told) != is_kept


def settle_and_load(recipe, step, told):
    from pathlib import Path

    out = Path(recipe.checkpoint.output_dir)
    settle_best(recipe, resumed=out / f"step_{step}", step=step, say=told.append)
    return load_best(out)


@pytest.mark.parametrize(("step", "is_taken"), [(4, True), (2, False)])
def test_a_run_that_goes_on_elsewhere_takes_the_best_of_its_past_along(kept, tmp_path, step, is_taken):
    """A best model ahead of the checkpoint is left where it is."""
    elsewhere = kept.changed({"checkpoint.output_dir": str(tmp_path / "elsewhere")})
    (tmp_path / "elsewhere").mkdir()
    settle_best(elsewhere, resumed=tmp_path / "out" / f"step_{step}", step=step, say=pytest.fail)
    assert (load_best(tmp_path / "elsewhere") is not None) == is_taken
    assert load_best(tmp_path / "out") is not None


def test_a_kill_between_two_renames_loses_no_best_model(kept, tmp_path):
    """The old folder was renamed but the new one was not; or both were, and the old one was not yet deleted."""
    out = tmp_path / "out"
    (out / "best").rename(out / ".replaced-best")
    sweep(out)
    assert load_best(out) is not None
    shutil.copytree(out / "best", out / ".replaced-best")
    (out / ".replaced-best" / "best.json").unlink()
    sweep(out)
    assert load_best(out) is not None
    assert not (out / ".replaced-best").exists()


def test_a_model_is_linked_without_the_state_of_its_run(tmp_path):
    """Optimizer, schedule and random states and DeepSpeed's folders are left out; other files and folders are
    included."""
    source = tmp_path / "step_1"
    (source / "global_step1").mkdir(parents=True)
    (source / "remote_code").mkdir()
    state = ["optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_0.pth", "trainer_state.json"]
    for name in [
        *state,
        "latest",
        "zero_to_fp32.py",
        "zero_to_torch.py",
        "config.json",
        "tokenizer.model",
        "remote_code/model.py",
    ]:
        (source / name).write_text(name, encoding="utf-8")
    link_model(source, tmp_path / "best")
    found = {str(path.relative_to(tmp_path / "best")) for path in (tmp_path / "best").rglob("*") if path.is_file()}
    assert found == {"config.json", "tokenizer.model", "remote_code/model.py"}


def test_a_new_run_does_not_overwrite_a_best_model_by_mistake(kept):
    """As with checkpoints: use another folder, or --overwrite-output-dir."""
    with pytest.raises(
        RankLLMError,
        match=r"contains best, from an earlier run; use --overwrite-output-dir to delete it, or another folder",
    ):
        train(kept)


def test_overwriting_begins_without_a_best_model(kept, whole):
    """The new run does not have to beat the earlier run's model with its loss of 1.0."""
    result = train(kept, overwrite=True)
    assert result.best == whole.best


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.eval": "", "evaluation.patience": 2, "evaluation.metric": ""}, "patience: has no effect without dev"),
        ({"data.eval": "", "evaluation.metric": "loss"}, "metric: has no effect without dev data"),
        ({"evaluation.patience": 2, "evaluation.keep_best": False}, "would keep a model that is not the best"),
        ({"evaluation.metric": "map"}, "evaluation.metric: expected one of loss, ndcg@10, mrr@10"),
    ],
)
def test_choices_that_do_nothing_are_refused(recipe, tmp_path, changes, message):
    """Before anything is loaded."""
    with pytest.raises(ConfigError, match=message):
        train(recipe.changed(changes | {"checkpoint.output_dir": str(tmp_path)}))


@pytest.mark.parametrize(
    ("objective", "kind", "n", "message"),
    [
        ("generation", "numeric", 11, "ndcg@10 is computed from the identifiers' logits"),
        ("generation", "alpha", 1, "no list with two or more passages, so ndcg@10 cannot be measured"),
    ],
)
def test_an_order_that_cannot_be_measured_is_told_before_the_first_step(tiny, tmp_path, objective, kind, n, message):
    """The metric needs identifiers of one token each (SmolLM2 splits 10 in two), and lists with an order."""
    changes = {
        "model.name_or_path": tiny,
        "data.train": write_records(tmp_path / "d.jsonl", [listwise_record(0, kind=kind)]),
        "data.eval": write_records(tmp_path / "dev.jsonl", [listwise_record(0, n=n, kind=kind)]),
        "evaluation.metric": "ndcg@10",
        "objective.name": objective,
        "checkpoint.output_dir": str(tmp_path / "out"),
    }
    with pytest.raises(ConfigError, match=message):
        train(Recipe().changed(changes))
    assert not (tmp_path / "out").exists()
