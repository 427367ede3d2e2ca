"""A few dozen steps teach the real model: on questions it has not seen, the loss falls and the order gets better.

The sample is small and easy, so that it can be learnt in a minute: each answer among answers to other questions. What a
longer run on harder lists gives is in docs/training-listwise.md and docs/training-pointwise.md.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from shared_files import REPOSITORY, data  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from rankllm_train.api import train  # noqa: E402
from rankllm_train.recipe import load_recipe  # noqa: E402

pytestmark = pytest.mark.slow
N_TRAIN, N_DEV = 96, 40
SCRIPT = REPOSITORY / "scripts" / "make_training_records.py"


class MeasureUntrained(TrainerCallback):
    """Has the untrained model evaluated as well."""

    def on_train_begin(self, args, state, control, **arguments):
        args.eval_on_start = True


def make_records(folder, *, queries, qrels, run, n):
    """Windows and groups of 4: an answer and three answers to other questions, of 20 words."""
    files = {"queries": queries, "qrels": qrels, "run": run, "corpus": "corpus.jsonl.gz"}
    options = [f"--{name}={data('nq_qed') / file}" for name, file in files.items()]
    sizes = ["--run-negatives=0", "--random-negatives=3", "--window=4", "--max-passage-words=20", f"--max-queries={n}"]
    command = [sys.executable, str(SCRIPT), *options, *sizes, f"--output-dir={folder}"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Training records, and dev records of other questions."""
    folder = tmp_path_factory.mktemp("records")
    train_run = "runs/bm25.train.top50.run.gz"
    make_records(
        folder / "train", queries="queries.train.tsv", qrels="qrels.train.txt", run=train_run, n=N_TRAIN
    )
    make_records(folder / "dev", queries="queries.tsv", qrels="qrels.txt", run="runs/bm25.run.gz", n=N_DEV)
    return folder


def learn(recipe, records, model_path, out, **changes):
    """Train by a shipped recipe, with changes. The evaluations of the untrained and of the trained model."""
    recipe = load_recipe(recipe)
    common = {
        "model.name_or_path": str(model_path),
        "data.train": str(records / "train" / f"{recipe.method}.jsonl"),
        "data.eval": str(records / "dev" / f"{recipe.method}.jsonl"),
        "data.max_records": N_TRAIN,
        "batch.per_device": 8,
        "batch.accumulation": 1,
        "evaluation.per_device": 8,
        "checkpoint.every": "none",
        "checkpoint.output_dir": str(out),
    }
    train(recipe.changed(common | changes), callbacks=[MeasureUntrained()])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    first, *_, last = [line for line in lines if "eval_loss" in line]
    assert (first["step"], last["step"]) == (0, N_TRAIN // 8)
    return first, last
