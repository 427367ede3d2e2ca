"""Batches of similar lengths: less padding, the same steps, and a resumed run continues identically."""

from __future__ import annotations

import json
import random

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.errors import ConfigError  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.preflight import check_by_length  # noqa: E402
from rankllm_train.encoding.batches import by_length_sampler  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402
from rankllm_train.training.progress import Progress  # noqa: E402

LENGTHS = [10, 90, 20, 80, 30, 70, 40, 60]


def recipe_of(*, per_device, accumulation, **changes):
    batch = {"batch.per_device": per_device, "batch.accumulation": accumulation, "batch.by_length": True}
    return Recipe().changed(batch | changes)


def test_a_step_is_cut_by_length():
    """Eight records, one step of two passes: long ones together, short ones together, none twice."""
    passes = list(by_length_sampler(LENGTHS, recipe_of(per_device=4, accumulation=2), share=(0, 1)))
    assert len(passes) == 2
    assert sorted(index for batch in passes for index in batch) == list(range(8))
    long, short = sorted(([LENGTHS[index] for index in batch] for batch in passes), key=max, reverse=True)
    assert min(long) > max(short)


def test_processes_share_a_step_without_overlap():
    """Two processes, two steps: equally many passes each, every record once, and each step as random as before."""
    recipe = recipe_of(per_device=2, accumulation=1)
    shares = [list(by_length_sampler(LENGTHS, recipe, share=(number, 2))) for number in (0, 1)]
    assert [len(share) for share in shares] == [2, 2]
    assert sorted(index for share in shares for batch in share for index in batch) == list(range(8))


def test_the_order_comes_from_the_seed_and_the_epoch():
    """Another seed or epoch gives another order; the same ones the same."""

    def order(seed, epoch):
        sampler = by_length_sampler(
            LENGTHS, recipe_of(per_device=2, accumulation=2, **{"schedule.seed": seed}), share=(0, 1)
        )
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 0)
    assert order(1, 1) != order(5, 1)


def padding(batches, lengths):
    """Return the fraction of positions without a token, with every batch padded to its longest record."""
    positions = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[i] for batch in batches for i in batch) / positions


def test_less_is_padded_than_in_random_order():
    """Lengths from 1,300 to 3,500 in batches of four: at most a fifth of the padding otherwise."""
    draw = random.Random(1)
    lengths = [round(draw.triangular(1300, 3500, 1800)) for _ in range(320)]
    order = draw.sample(range(320), 320)
    apart = padding([order[i : i + 4] for i in range(0, 320, 4)], lengths)
    together = padding(by_length_sampler(lengths, recipe_of(per_device=4, accumulation=16), share=(0, 1)), lengths)
    assert apart > 0.1
    assert together < apart / 5


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("listwise", {"batch.per_device": 1}, "has no effect with batch.per_device 1"),
        ("pointwise", {"batch.per_device": 2}, "applies to listwise records only"),
    ],
)
def test_an_option_without_effect_is_refused(method, changes, message):
    """Nothing is padded in a batch of one; a group's length is unknown before its epoch."""
    with pytest.raises(ConfigError, match=message):
        Recipe(method=method).changed(changes | {"batch.by_length": True})


def test_a_step_of_one_pass_is_refused():
    """There is nothing to cut."""
    with pytest.raises(ConfigError, match=r"set batch\.accumulation to 2 or more"):
        check_by_length(recipe_of(per_device=4, accumulation=1), processes=1)
    check_by_length(recipe_of(per_device=4, accumulation=1), processes=2)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, smollm2_tokenizer):
    """Ten records of three lengths, with all randomness enabled: 3 steps per epoch, 2 epochs."""
    folder = tmp_path_factory.mktemp("by-length")
    return recipe_of(
        per_device=2,
        accumulation=2,
        **{
            "model.name_or_path": save_tiny(folder / "tiny", smollm2_tokenizer),
            "model.precision": "fp32",
            "data.train": write_records(folder / "d.jsonl", [listwise_record(i) for i in range(10)]),
            "prompt.context_tokens": 1024,
            "objective.name": "combined",
            "optim.learning_rate": 1e-3,
            "optim.noisy_embedding_alpha": 5,
            "schedule.num_epochs": 2,
            "checkpoint.every": "1",
            "lora.enabled": True,
            "lora.r": 4,
            "lora.dropout": 0.2,
        },
    )


def entries(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line for line in lines if "loss" in line}


def test_a_resumed_run_keeps_the_order_and_tells_its_padding(recipe, tmp_path):
    """From within the second epoch: bit-identical losses. At the end, one line with tokens and padding."""
    said = []
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(recipe.changed({"checkpoint.output_dir": str(whole)}), callbacks=[Progress(said.append)])
    train(recipe.changed({"checkpoint.output_dir": str(resumed)}), resume_from=str(whole / "step_4"))
    expected, found = entries(whole), entries(resumed)
    assert sorted(expected) == [1, 2, 3, 4, 5, 6]
    assert {s: found[s]["loss"] for s in found} == {s: expected[s]["loss"] for s in (5, 6)}
    # Every record twice; the fraction of padding refers to positions, so tokens / (1 - fraction) is their number.
    tokens = sum(entry["tokens"] for entry in expected.values())
    positions = sum(entry["tokens"] / (1 - entry["padding"]) for entry in expected.values())
    padding = f"{1 - tokens / positions:.1%}"
    assert said[-1] == f"trained on {tokens:,.0f} tokens; {padding} of the computed positions were padding"
