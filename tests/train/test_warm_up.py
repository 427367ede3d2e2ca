"""Warm-up begins at learning rate 0, as in the originals; if this leaves no training steps, a one-line warning says
so.
"""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from training_fakes import pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_train.api import train  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402

RATE = 1e-2


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, smollm2_tokenizer):
    """A recipe with two records per step."""
    folder = tmp_path_factory.mktemp("inputs")
    return Recipe(method="pointwise").changed(
        {
            "model.name_or_path": save_tiny(folder / "tiny", smollm2_tokenizer),
            "model.precision": "fp32",
            "data.train": write_records(folder / "p.jsonl", [pointwise_record(i) for i in range(4)]),
            "data.group_size": 2,
            "batch.per_device": 2,
            "optim.learning_rate": RATE,
            "checkpoint.every": "none",
        }
    )


def trained(recipe, out, **schedule):
    """Return the messages and the logged learning rates."""
    told = []
    changes = {f"schedule.{key}": value for key, value in schedule.items()}
    train(recipe.changed(changes | {"checkpoint.output_dir": str(out)}), say=told.append)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in told if "warm-up" in line], [line["learning_rate"] for line in lines if "loss" in line]


@pytest.mark.parametrize(
    "schedule",
    [{"warmup_steps": 1}, {"warmup_ratio": 0.1}, {"warmup_steps": 5, "lr_scheduler": "constant_with_warmup"}],
)
def test_a_run_of_one_step_at_rate_0_is_warned_of(recipe, tmp_path, schedule):
    """It trains nothing: the weights are those of the base."""
    warnings, rates = trained(recipe, tmp_path, max_steps=1, **schedule)
    assert rates == [0]
    (line,) = warnings
    assert line.startswith("Warning: the only step of this run is the first of its warm-up, with learning rate 0, ")
    assert "\n" not in line
    base, found = (load_file(f"{folder}/model.safetensors") for folder in (recipe.model.name_or_path, tmp_path))
    assert all(torch.equal(found[name], base[name]) for name in found if name in base)


def test_a_warm_up_as_long_as_the_run_is_warned_of(recipe, tmp_path):
    """Of 4 steps, the second and last has a quarter of the rate."""
    warnings, rates = trained(recipe, tmp_path, max_steps=2, warmup_steps=4)
    assert rates == [0, RATE / 4]
    assert [line.partition(";")[0] for line in warnings] == [
        "Warning: the warm-up takes 4 steps, but the run has 2: the learning rate reaches 0.0025 instead of 0.01"
    ]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"max_steps": 1}, [RATE]),
        ({"max_steps": 1, "warmup_steps": 1, "lr_scheduler": "constant"}, [RATE]),
        ({"max_steps": 2, "warmup_steps": 1}, [0, RATE]),
    ],
)
def test_other_runs_are_not_warned_of(recipe, tmp_path, schedule, expected):
    """No warm-up, a schedule without one, and a warm-up that leaves a step: the rates are those of the originals."""
    warnings, rates = trained(recipe, tmp_path, **schedule)
    assert warnings == []
    assert rates == pytest.approx(expected)
