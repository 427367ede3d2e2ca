"""When a run stops, which model it keeps if the metric ties, and how its last steps are logged."""

from __future__ import annotations

import json
import time

import pytest

torch = pytest.importorskip("torch")

from training_fakes import pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.best import Best, load_best  # noqa: E402
from rankllm_train.artifacts.checkpoints import checkpoints  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402
from rankllm_train.training import saved_trainer  # noqa: E402


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, smollm2_tokenizer):
    """Groups evaluated on themselves after each step: the order is learned long before the loss stops falling."""
    folder = tmp_path_factory.mktemp("inputs")
    data = write_records(folder / "p.jsonl", [pointwise_record(i) for i in range(4)])
    return Recipe(method="pointwise").changed(
        {
            "model.name_or_path": save_tiny(folder / "tiny", smollm2_tokenizer),
            "model.precision": "fp32",
            "data.train": data,
            "data.eval": data,
            "data.group_size": 3,
            "batch.per_device": 4,
            "optim.learning_rate": 3e-3,
            "schedule.lr_scheduler": "constant",
            "schedule.max_steps": 12,
            "checkpoint.every": "5",
            "evaluation.every": "1",
            "evaluation.metric": "ndcg@10",
            "evaluation.patience": 2,
        }
    )


def metrics(folder, key):
    """Step -> value, as logged."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


@pytest.mark.parametrize(
    ("value", "loss", "is_better"),
    [
        (0.6, 9.0, True),
        (0.5, 0.4, True),
        (0.5, 0.5, False),
        (0.5, 0.6, False),
        (0.4, 0.1, False),
        (0.5 + 1e-12, 0.6, False),
        (0.5 - 1e-12, 0.4, True),
    ],
)
def test_of_equal_metrics_the_lower_dev_loss_is_better(value, loss, is_better):
    """Metrics that differ only by rounding are equal; if the losses are equal too, the earlier model is kept."""
    assert Best(step=1, metric="ndcg@10", value=0.5, loss=0.5).is_beaten_by(value, loss=loss) == is_better


def test_a_loss_is_compared_as_it_is():
    """A loss needs no tie-break; and records of earlier versions contain no loss."""
    assert Best(step=1, metric="loss", value=0.5).is_beaten_by(0.5 - 1e-12, loss=0.5 - 1e-12)
    assert not Best(step=1, metric="ndcg@10", value=0.5).is_beaten_by(0.5, loss=0.1)


def test_a_saturated_metric_neither_stops_a_run_nor_keeps_an_early_model(recipe, tmp_path):
    """nDCG@10 reaches 1.0; while the loss falls, the run continues, and the model with the lowest loss is kept."""
    result = train(recipe.changed({"checkpoint.output_dir": str(tmp_path)}))
    ndcg, loss = metrics(tmp_path, "eval_ndcg@10"), metrics(tmp_path, "eval_loss")
    saturated = [step for step in ndcg if ndcg[step] == 1.0]
    assert len(saturated) > 3, "the data of this test should be learnt by heart"
    assert result.best.step == min(saturated, key=loss.get)
    assert (result.best.value, result.best.loss) == (1.0, loss[result.best.step])
    assert load_best(tmp_path).loss == loss[result.best.step]
    assert result.steps == min(12, result.best.step + 2)


@pytest.fixture(scope="module")
def stopped(recipe, tmp_path_factory):
    """A run stopped early by its patience: with such a high rate, the loss soon stops falling."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    changes = {"evaluation.metric": "loss", "optim.learning_rate": 0.3, "checkpoint.output_dir": str(out)}
    changes |= {"logging.every_steps": 4}
    result = train(recipe.changed(changes))
    assert result.steps < 9, "the rate of this test should be so high that nothing is left to learn"
    return recipe.changed(changes), result


def test_a_run_that_stopped_early_says_so_and_does_nothing_when_resumed(stopped):
    """This can be repeated any number of times; the last checkpoint is from the step where the run stopped."""
    recipe, result = stopped
    out = result.output_dir
    assert checkpoints(out)[-1].name == f"step_{result.steps}"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    for _ in range(2):
        told = []
        again = train(recipe, resume_from="latest", say=told.append)
        assert (again.steps, again.loss, again.best) == (result.steps, None, result.best)
        assert any(f"the run stopped early at step {result.steps}" in line and "--patience" in line for line in told)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("changes", [{"evaluation.patience": 4}, {"evaluation.patience": 0, "schedule.max_steps": 9}])
def test_more_patience_lets_it_continue(stopped, tmp_path, changes):
    """The copy in another folder leaves the fixture unchanged."""
    recipe, result = stopped
    changed = recipe.changed(changes | {"checkpoint.output_dir": str(tmp_path)})
    again = train(changed, resume_from=str(checkpoints(result.output_dir)[-1]))
    assert again.steps > result.steps


@pytest.mark.parametrize("changes", [{"evaluation.patience": 1}, {"schedule.max_steps": 11}])
def test_less_patience_or_fewer_steps_train_no_further(stopped, tmp_path, changes):
    """Only more steps or remaining patience extends a run that stopped early."""
    recipe, result = stopped
    changed = recipe.changed(changes | {"checkpoint.output_dir": str(tmp_path)})
    again = train(changed, resume_from=str(checkpoints(result.output_dir)[-1]))
    assert (again.steps, again.loss) == (result.steps, None)


def test_more_steps_let_it_continue_with_the_same_patience(stopped, tmp_path):
    """The run continues for at least one step."""
    recipe, result = stopped
    changed = recipe.changed({"schedule.max_steps": 13, "checkpoint.output_dir": str(tmp_path)})
    assert train(changed, resume_from=str(checkpoints(result.output_dir)[-1])).steps > result.steps


def test_what_a_run_logs_covers_every_step_it_trained(stopped):
    """The first step, every fourth and the last ones are logged, wherever patience stopped the run."""
    _, result = stopped
    loss = metrics(result.output_dir, "loss")
    assert sorted(loss) == sorted({1, *range(4, result.steps + 1, 4), result.steps})


def test_the_last_steps_are_logged_as_they_are_by_themselves(recipe, tmp_path):
    """Entries over two steps are their mean; the last entry, over one step, is its own value; no token is lost."""
    found = {}
    for every in (1, 2):
        out = tmp_path / str(every)
        changes = {"data.eval": "", "evaluation.metric": "", "evaluation.patience": 0, "schedule.max_steps": 5}
        changes |= {"logging.every_steps": every, "checkpoint.every": "none", "checkpoint.output_dir": str(out)}
        train(recipe.changed(changes))
        found[every] = {key: metrics(out, key) for key in ("loss", "tokens", "grad_norm", "learning_rate")}
    each, pairs = found[1], found[2]
    assert sorted(pairs["loss"]) == [1, 2, 4, 5]
    assert pairs["loss"][4] == pytest.approx((each["loss"][3] + each["loss"][4]) / 2)
    assert pairs["loss"][5] == each["loss"][5]
    assert sum(pairs["tokens"].values()) == sum(each["tokens"].values())
    assert (pairs["grad_norm"][5], pairs["learning_rate"][5]) == (each["grad_norm"][5], each["learning_rate"][5])


def test_writing_checkpoints_and_models_is_no_training_time(recipe, tmp_path, monkeypatch):
    """Each save takes 1.5 s here, between steps of milliseconds; tokens / (tokens/s) is the time that was counted."""
    slow_s = 1.5
    write = saved_trainer.save_card

    def slowly(card, folder):
        time.sleep(slow_s)
        write(card, folder)

    monkeypatch.setattr(saved_trainer, "save_card", slowly)
    changes = {"schedule.max_steps": 3, "checkpoint.every": "2", "checkpoint.output_dir": str(tmp_path)}
    train(recipe.changed(changes))
    tokens, speed = metrics(tmp_path, "tokens"), metrics(tmp_path, "tokens_per_s")
    assert tokens[3] / speed[3] < slow_s
    assert tokens[2] / speed[2] < slow_s
