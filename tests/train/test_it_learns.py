"""A few steps teach the real model: on unseen questions, the loss falls and the ranking improves.

The samples are small, so that one minute suffices. Pointwise groups are easy: the answer among answers to other
questions. Listwise windows contain BM25's candidates in BM25's order, with the answer to be ranked first: in a few
steps, a model of this size learns to rank all passages and to respect their order; telling them apart takes longer.
Margins are at most about half of what was observed.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from shared_files import data  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from rankllm_train.api import train  # noqa: E402
from rankllm_train.recipe.recipe import load_recipe  # noqa: E402

pytestmark = pytest.mark.slow
FILES = {
    "train": ("queries.train.tsv", "qrels.train.txt", "runs/bm25.train.top50.run.gz"),
    "dev": ("queries.tsv", "qrels.txt", "runs/bm25.run.gz"),
}
N_QUERIES = {"train": 56, "dev": 12}
WINDOWS = ("label", "--depth=16", "--min-window=6", "--max-window=6", "--no-shuffle", "--max-passage-words=12")
GROUPS = ("mine", "--negatives-per-query=0", "--random-negatives=2")
COMMON = {"batch.per_device": 8, "batch.accumulation": 1, "evaluation.per_device": 8, "checkpoint.every": "none"}
GROUPS_OF_3 = {"data.group_size": 3, "prompt.query_tokens": 16, "prompt.passage_tokens": 24, "schedule.max_steps": 7}


class MeasureUntrained(TrainerCallback):
    """Evaluates the untrained model as well."""

    def on_train_begin(self, args, state, control, **arguments):
        args.eval_on_start = True


def make_records(folder, command):
    """Create Natural Questions records: `train.jsonl` and `dev.jsonl`, with different questions."""
    corpus = data("nq_qed/corpus.jsonl.gz")
    for split, (queries, qrels, run) in FILES.items():
        named = {"queries": queries, "qrels": qrels, "run": run}
        paths = [f"--{name}={data(f'nq_qed/{file}')}" for name, file in named.items()]
        written = [f"--output-path={folder / split}.jsonl", f"--max-queries={N_QUERIES[split]}"]
        program = [sys.executable, "-m", "rankllm_train", *command]
        subprocess.run([*program, f"--corpus={corpus}", *paths, *written], check=True)
    return folder


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """Six BM25 candidates, 12 words each, in BM25's order."""
    return make_records(tmp_path_factory.mktemp("windows"), WINDOWS)


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """An answer and two answers to other questions."""
    return make_records(tmp_path_factory.mktemp("groups"), GROUPS)


def learn(name, records, *, model, out, changes):
    """Train a bundled recipe with changes; return the evaluations before and after training."""
    recipe = load_recipe(name)
    where = {
        "model.name_or_path": str(model),
        "data.train": str(records / "train.jsonl"),
        "data.eval": str(records / "dev.jsonl"),
        "checkpoint.output_dir": str(out),
    }
    train(recipe.changed(COMMON | where | changes), callbacks=[MeasureUntrained()])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    first, last = (line for line in lines if "eval_loss" in line)
    assert (first["step"], last["step"]) == (0, changes["schedule.max_steps"])
    return first, last


def test_cross_entropy_teaches_an_adapter_to_find_the_answer(groups, smollm2_path, tmp_path):
    """Observed: loss 0.98 to 0.15, nDCG@10 0.866 to 0.969 (chance: 1.10 and 0.71)."""
    first, last = learn("smollm2-yes-no", groups, model=smollm2_path, out=tmp_path, changes=GROUPS_OF_3)
    assert last["eval_loss"] < first["eval_loss"] - 0.4
    assert last["eval_ndcg@10"] > first["eval_ndcg@10"] + 0.05


@pytest.mark.parametrize(
    ("objective", "loss_falls_by", "ndcg_rises_by"), [("ranking", 0.018, 0.014), ("combined", 0.35, 0.012)]
)
def test_first_teaches_an_order(windows, smollm2_path, tmp_path, objective, loss_falls_by, ndcg_rises_by):
    """Observed: ranking loss 0.078 to 0.044, nDCG@10 0.966 to 0.991; combined 1.24 to 0.52, 0.966 to 0.991."""
    changes = {"objective.name": objective, "schedule.max_steps": 5}
    first, last = learn("smollm2-first", windows, model=smollm2_path, out=tmp_path, changes=changes)
    assert last["eval_loss"] < first["eval_loss"] - loss_falls_by
    assert last["eval_ndcg@10"] > first["eval_ndcg@10"] + ndcg_rises_by


def test_generation_teaches_to_write_rankings(windows, smollm2_path, tmp_path):
    """Observed: loss 0.46 to 0.09, and nDCG@10 of the order read as in FIRST 0.966 to 0.987."""
    changes = {"objective.name": "generation", "schedule.max_steps": 4}
    first, last = learn("smollm2-first", windows, model=smollm2_path, out=tmp_path, changes=changes)
    assert last["eval_loss"] < first["eval_loss"] - 0.18
    assert last["eval_ndcg@10"] > first["eval_ndcg@10"] + 0.01
