"""Every recipe trains in bf16 under ZeRO-2 and ZeRO-3, fully and with LoRA: two processes, tiny models, no GPU.

`scripts/test-distributed` runs these tests in a separate environment with DeepSpeed. The environment variable PRESETS
restricts them to a comma-separated list of recipes.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from distributed_runs import logged, served_scores  # noqa: E402
from shared_files import REPOSITORY  # noqa: E402
from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.card import load_card  # noqa: E402
from rankllm_train.recipe.recipe import load_recipe, recipe_names  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    # The first one compiles DeepSpeed's extension.
    pytest.mark.timeout(2000),
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None,
        reason="needs DeepSpeed, which the common environment lacks: scripts/test-distributed has one of its own",
    ),
]
STEPS = 2
PRESETS = tuple(os.environ["PRESETS"].split(",")) if "PRESETS" in os.environ else recipe_names()
LORA = ("full", "lora")
AGAIN = "rankllama"
STAGES = ("zero2", "zero3")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, smollm2_tokenizer):
    """Map (recipe, full or LoRA, ZeRO stage) to its output folder; all are trained in one launch per stage.

    RankLLaMA's adapters are also resumed from the checkpoint of their first step, `(preset, "resumed", stage)`, and
    used as starting point of new ones, `(preset, "started", stage)`.
    """
    root = tmp_path_factory.mktemp("presets")
    model = save_tiny(root / "model", smollm2_tokenizer)
    lists = write_records(root / "lists.jsonl", [listwise_record(i, n=3) for i in range(8)])
    groups = write_records(root / "groups.jsonl", [pointwise_record(i) for i in range(8)])
    data = {"listwise": lists, "pointwise": groups}
    folders = {}
    for stage in STAGES:
        commands = []
        for preset, tuning in [*itertools.product(PRESETS, LORA), (AGAIN, "resumed"), (AGAIN, "started")]:
            method, folder = load_recipe(preset).method, root / f"{preset}-{tuning}-{stage}"
            folders[preset, tuning, stage] = folder
            values = {
                "model.name_or_path": model,
                "data.train": data[method],
                "lora.enabled": tuning != "full",
                "schedule.max_steps": STEPS,
                "batch.per_device": 1,
                "batch.accumulation": 2,
                "batch.deepspeed": stage,
                "lora.start_from": str(root / f"{preset}-lora-{stage}") if tuning == "started" else "",
                "checkpoint.every": "1" if preset == AGAIN and tuning != "full" else "none",
                "checkpoint.output_dir": str(folder),
                "logging.every_steps": 1,
            }
            settings = [part for path, value in values.items() for part in ("--set", f"{path}={json.dumps(value)}")]
            start = root / f"{preset}-lora-{stage}" / "step_1"
            resume = ["--resume-from-checkpoint", str(start)] if tuning == "resumed" else []
            commands.append([method, "--recipe", preset, *settings, *resume])
        launch(root / f"{stage}.json", commands)
    return folders


def launch(path, commands):
    """Run the commands on two processes."""
    path.write_text(json.dumps(commands), encoding="utf-8")
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [programs / "torchrun", "--standalone", "--nproc-per-node", "2", REPOSITORY / "tests/gloo_bf16.py", path],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{path.name} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-8000:]}")


CASES = [(preset, tuning) for preset in PRESETS for tuning in LORA]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("preset", "tuning"), CASES)
def test_every_preset_trains_in_bf16_under_zero(runs, preset, tuning, stage):
    """To the last step, with finite losses and gradients, and weights in the precision that DeepSpeed trains."""
    folder = runs[preset, tuning, stage]
    assert sorted(logged(folder)) == list(range(1, STEPS + 1))
    assert all(math.isfinite(value) for step in logged(folder).values() for value in step)
    weights = saved(folder, tuning)
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert all(bool(weight.isfinite().all()) for weight in weights.values())
    if load_card(folder).kind == "pointwise" and load_recipe(preset).prompt.head == "sequence-classification":
        assert any(name.endswith("score.weight") for name in weights)
    if tuning == "lora":
        assert any(bool(weight.any()) for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize(("preset", "tuning"), CASES)
def test_zero_3_trains_a_preset_as_zero_2_does(runs, preset, tuning):
    """In bf16 too: equal losses up to rounding, and both served models rank alike."""
    two, three = (runs[preset, tuning, stage] for stage in STAGES)
    for step, (loss, *_) in logged(two).items():
        assert logged(three)[step][0] == pytest.approx(loss, rel=0.03), step
    scores = served_scores(three)
    for docid, (_, score) in served_scores(two).items():
        if score is not None:
            assert scores[docid][1] == pytest.approx(score, abs=0.05)


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_trains_in_bf16_as_one_that_was_not_interrupted(runs, stage):
    """The float32 copy that DeepSpeed updates is restored: the second step and the weights are bit-identical."""
    whole, resumed = runs[AGAIN, "lora", stage], runs[AGAIN, "resumed", stage]
    assert logged(resumed) == {STEPS: logged(whole)[STEPS]}
    expected = saved(whole, "lora")
    found = saved(resumed, "lora")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("stage", STAGES)
def test_adapters_start_from_trained_ones_under_zero(runs, stage):
    """Score layer included: the first step, at rate 0, changes nothing; the second one changes little."""
    first, second = (saved(runs[AGAIN, tuning, stage], "lora") for tuning in ("lora", "started"))
    (score,) = (name for name in first if name.endswith("score.weight"))
    assert first.keys() == second.keys()
    assert (first[score] - second[score]).abs().max() < 0.01 < first[score].abs().max()
    assert not torch.equal(first[score], second[score])


def saved(folder, tuning):
    """Map name -> weight of the final model, or of its adapters."""
    from safetensors.torch import load_file

    (path,) = folder.glob("adapter_model.safetensors" if tuning == "lora" else "model*.safetensors")
    return load_file(path)
