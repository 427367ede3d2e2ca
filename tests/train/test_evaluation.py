"""Dev metrics match hand counts, and evaluation does not disturb training."""

from __future__ import annotations

import json
import math

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_train.api import train  # noqa: E402
from rankllm_train.methods.registry import prepare  # noqa: E402
from rankllm_train.models.loading import load_model  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402
from rankllm_train.training.evaluation import ndcg, reciprocal_rank  # noqa: E402


def test_ndcg_and_mrr_by_hand():
    """Three passages ordered 2, 3, 1 by score, ignoring padding; a positive at rank 11 counts nothing."""
    scores = torch.tensor([[0.1, 0.9, 0.5, 99.0]])
    gains = torch.tensor([[3.0, 2.0, 1.0, -1.0]])
    found = 2 + 1 / math.log2(3) + 3 / math.log2(4)
    best = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(scores, gains).item() == pytest.approx(found / best)
    assert reciprocal_rank(scores, gains).item() == pytest.approx(1 / 3)
    low = torch.cat([torch.arange(11.0, 0, -1)])[None]
    only_last = torch.zeros(1, 11)
    only_last[0, 10] = 1
    assert ndcg(low, only_last).item() == 0
    assert reciprocal_rank(low, only_last).item() == 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


def entries(folder, key):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if key in line]


def loss_of(recipe, folder):
    """Return the loss of a saved model on all training data, in one batch."""
    from transformers import AutoTokenizer

    data = prepare(recipe, AutoTokenizer.from_pretrained(folder))
    section = recipe.changed({"model.name_or_path": str(folder)}).model
    is_classifier = recipe.method == "pointwise"
    kind = "sequence-classification" if is_classifier else "causal"
    model = load_model(section, kind=kind, lora=recipe.lora, seed=0).eval()
    batch = data.collator([data.dataset[i] for i in range(len(data.dataset))])
    with torch.no_grad():
        return data.objective.parts(data.objective.sums(model, batch), data.objective.counts(batch)).total.item()


@pytest.mark.parametrize("objective", ["generation", "combined", "cross-entropy"])
def test_measuring_does_not_disturb_training(tiny, tmp_path, objective):
    """Equal losses with and without dev data, with noise; the last dev loss is that of the kept model."""
    method = "pointwise" if objective == "cross-entropy" else "listwise"
    make = pointwise_record if method == "pointwise" else listwise_record
    path = write_records(tmp_path / "d.jsonl", [make(i) for i in range(4)])
    base = Recipe(method=method).changed(
        {
            "model.name_or_path": tiny,
            "model.precision": "fp32",
            "data.train": path,
            "data.group_size": 4,
            "prompt.context_tokens": 1024,
            "objective.name": objective,
            "optim.learning_rate": 1e-3,
            "optim.noisy_embedding_alpha": 5,
            "schedule.max_steps": 4,
            "batch.per_device": 2,
            "checkpoint.every": "none",
        }
    )
    train(base.changed({"checkpoint.output_dir": str(tmp_path / "a")}))
    dev = {"data.eval": path, "evaluation.every": "2", "evaluation.per_device": 3, "evaluation.keep_best": False}
    train(base.changed(dev | {"checkpoint.output_dir": str(tmp_path / "b")}))
    losses = [[entry["loss"] for entry in entries(tmp_path / name, "loss")] for name in "ab"]
    assert losses[0] == losses[1]
    measured = entries(tmp_path / "b", "eval_loss")
    assert [entry["step"] for entry in measured] == [2, 4]
    assert measured[1]["eval_loss"] == pytest.approx(loss_of(base, tmp_path / "b"), rel=1e-5)
    assert "eval_ndcg@10" in measured[0]


def test_generation_is_measured_by_the_order_that_its_first_token_gives(tiny, tmp_path):
    """As FIRST does: the ranking objective's metrics for the same weights. Not if 10 is two tokens."""
    path = write_records(tmp_path / "d.jsonl", [listwise_record(i) for i in range(4)])
    long = write_records(tmp_path / "long.jsonl", [listwise_record(0, n=10, kind="numeric")])
    base = {"model.name_or_path": tiny, "optim.learning_rate": 1e-12, "schedule.max_steps": 1}
    found = {}
    for objective, data in (("generation", path), ("ranking", path), ("generation", long)):
        changes = {"objective.name": objective, "data.train": data, "data.eval": data, "prompt.context_tokens": 1024}
        out = tmp_path / f"{objective}{data == long}"
        train(Recipe().changed(base | changes | {"model.precision": "fp32", "checkpoint.output_dir": str(out)}))
        [found[objective, data]] = entries(out, "eval_loss")
    for measure in ("eval_ndcg@10", "eval_mrr@10"):
        assert found["generation", path][measure] == pytest.approx(found["ranking", path][measure])
        assert measure not in found["generation", long]
