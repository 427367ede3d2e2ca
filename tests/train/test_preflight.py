"""Anything that cannot be trained is reported in one line before the first step."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.errors import MissingPackageError, RankLLMError  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.preflight import check_trackers  # noqa: E402
from rankllm_train.recipe.recipe import Recipe, save_recipe  # noqa: E402


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


def recipe_for(tiny, path, out, **changes):
    base = {
        "model.name_or_path": tiny,
        "model.precision": "fp32",
        "data.train": str(path),
        "prompt.context_tokens": 1024,
        "schedule.max_steps": 2,
        "checkpoint.every": "none",
        "checkpoint.output_dir": str(out),
    }
    return Recipe(method=changes.pop("method", "listwise")).changed(base | changes)


def listwise(change):
    """A valid record and one corrupted by `change`."""
    bad = listwise_record(1)
    change(bad)
    return [listwise_record(0), bad]


def pointwise(change):
    bad = pointwise_record(1)
    change(bad)
    return [pointwise_record(0), bad]


def answers(text):
    return lambda record: record["conversations"][-1].update(value=text)


LISTWISE = {
    "no turns": (
        listwise(lambda r: r.pop("conversations")),
        r":2: record 'r1': record: expected the key 'conversation",
    ),
    "no answer": (listwise(lambda r: r["conversations"].pop()), r":2: record 'r1': expected the turns human and gpt"),
    "repeated": (listwise(answers("[A] > [A] > [B]")), r":2: record 'r1': .*repeated \[A\], missing \[C\]"),
    "missing": (listwise(answers("[A] > [B]")), r":2: record 'r1': .*missing \[C\]"),
    "unknown": (listwise(answers("[A] > [B] > [D]")), r":2: record 'r1': .*unknown \[D\]"),
    "27 in letters": (
        [listwise_record(0, n=27, kind="numeric")],
        r":1: record 'r0': 27 passages, but alpha identifiers only go up to Z",
    ),
    "too long": ([listwise_record(0), listwise_record(2, n=20)], r":2: record 'r2': \d+ tokens exceed the context"),
    "empty file": ([], "no record"),
}


@pytest.mark.parametrize("name", LISTWISE)
def test_bad_listwise_records_are_named(tiny, tmp_path, name):
    """The error gives file, line and record; nothing is written."""
    records, message = LISTWISE[name]
    path = write_records(tmp_path / "d.jsonl", records)
    changes = {"data.identifiers": "alpha", "prompt.context_tokens": 600}
    with pytest.raises(RankLLMError, match=message) as caught:
        train(recipe_for(tiny, path, tmp_path / "out", **changes))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


POINTWISE = {
    "no positive": (pointwise(lambda r: r.update(positive_passages=[])), r":2: query 'q1': positive_passages is empty"),
    "no negative": (pointwise(lambda r: r.update(negative_passages=[])), r":2: query 'q1': no negative passage"),
    "no query": (pointwise(lambda r: r.pop("query")), r":2: query 'q1': record: expected the key 'query'"),
    "empty file": ([], "no records to train on"),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_bad_pointwise_records_are_named(tiny, tmp_path, name):
    """The error gives file, line and query; nothing is written."""
    records, message = POINTWISE[name]
    path = write_records(tmp_path / "p.jsonl", records)
    with pytest.raises(RankLLMError, match=message):
        train(recipe_for(tiny, path, tmp_path / "out", method="pointwise", **{"data.group_size": 4}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "changes", "note"),
    [
        ("listwise", {"data.overlong": "skip"}, "skipped 1 of "),
        ("listwise", {"data.overlong": "truncate"}, "truncated the passages of 1 records to fit the context"),
        ("listwise", {"data.bad_records": "skip", "prompt.context_tokens": 1024}, "skipped 1 of "),
        (
            "pointwise",
            {"data.group_size": 9},
            "2 records have fewer than 8 negatives, which are sampled with replacement",
        ),
    ],
)
def test_what_is_left_out_or_cut_is_counted(tiny, tmp_path, method, changes, note):
    """The counts are reported before training, which continues with the remaining records."""
    if method == "listwise":
        spoilt = listwise(answers("[A]"))[1]
        long = listwise_record(2, n=20)
        records = [listwise_record(0), spoilt if "data.bad_records" in changes else long]
    else:
        records = [pointwise_record(i) for i in range(2)]
    path = write_records(tmp_path / "d.jsonl", records)
    told = []
    changes = {"prompt.context_tokens": 500, "schedule.max_steps": 1} | changes
    train(recipe_for(tiny, path, tmp_path / "out", method=method, **changes), say=told.append)
    assert any(line.startswith(note) for line in told)


def test_a_model_without_a_chat_template_is_refused(tmp_path, llama2_tokenizer):
    """It could not be prompted at inference; the error lists the templates that need no chat template."""
    model = save_tiny(tmp_path / "bare", llama2_tokenizer)
    path = write_records(tmp_path / "d.jsonl", [listwise_record(0)])
    with pytest.raises(RankLLMError, match="no chat template; give the prompt template a chat_layout"):
        train(recipe_for(model, path, tmp_path / "out"))


def test_an_adapter_is_not_trained_on(tiny, tmp_path):
    """An adapter is rejected for every base; the error names a different base."""
    path = write_records(tmp_path / "d.jsonl", [listwise_record(0)])
    changes = {"lora.enabled": True, "lora.r": 4, "schedule.max_steps": 1}
    train(recipe_for(tiny, path, tmp_path / "a", **changes))
    with pytest.raises(RankLLMError, match="is an adapter; give its base"):
        train(recipe_for(str(tmp_path / "a"), path, tmp_path / "b"))


def test_positions_that_the_model_lacks_are_told(tiny, tmp_path):
    """The model has 1,024 positions; one record is longer, and pairs may be longer."""
    long = listwise_record(1)
    long["conversations"][1]["value"] += " word" * 1000
    path = write_records(tmp_path / "d.jsonl", [listwise_record(0), long])
    changes = {"prompt.context_tokens": 4096}
    with pytest.raises(RankLLMError, match=r"record 'r1': \d+ tokens, but the model has 1024 positions"):
        train(recipe_for(tiny, path, tmp_path / "out", **changes))
    pairs = write_records(tmp_path / "p.jsonl", [pointwise_record(0)])
    changes = {"method": "pointwise", "data.group_size": 4, "prompt.passage_tokens": 1000}
    with pytest.raises(RankLLMError, match="1032 tokens per pair, but the model has 1024 positions"):
        train(recipe_for(tiny, pairs, tmp_path / "out", **changes))


@pytest.mark.skipif(torch.accelerator.is_available(), reason="fp16 trains where there is a GPU")
def test_fp16_without_a_gpu_is_refused(tiny, tmp_path):
    """accelerate would silently train in float32."""
    path = write_records(tmp_path / "d.jsonl", [listwise_record(0)])
    with pytest.raises(RankLLMError, match="fp16 needs a GPU, but none is available; use --bf16, or --no-bf16"):
        train(recipe_for(tiny, path, tmp_path / "out", **{"model.precision": "fp16"}))


def test_a_tracker_that_cannot_be_had_is_refused(monkeypatch):
    """An unknown tracker, and one that is not installed."""
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    for names, error, message in (
        ("wandbb", RankLLMError, "--report-to wandbb: expected one of .*did you mean 'wandb'"),
        ("wandb", MissingPackageError, "--report-to wandb: wandb is not installed. Install it with: uv add wandb"),
    ):
        with pytest.raises(error, match=message):
            check_trackers(Recipe().changed({"logging.report_to": names}), pytest.fail)
    check_trackers(Recipe().changed({"logging.report_to": "none"}), pytest.fail)


FAKE_TRACKER = """
import json, pathlib
class SummaryWriter:
    '''Keeps what it is told in a file.'''
    def __init__(self, log_dir):
        self.path = pathlib.Path(log_dir) / "scalars.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
    def add_scalar(self, name, value, step):
        with self.path.open("a") as stream:
            stream.write(json.dumps([name, value, step]) + "\\n")
    def add_text(self, *arguments): pass
    def flush(self): pass
    def close(self): pass
"""
TRACKED = """
import sys
sys.modules["tensorboard"] = None  # the fake is to be found, whatever is installed
from rankllm_train.api import train
from rankllm_train.recipe.recipe import load_recipe
train(load_recipe(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_tracker_is_told_what_the_metrics_file_says(tiny, tmp_path):
    """A package with TensorBoard's interface is used in a separate process, since installed packages are looked up
    only once.
    """
    (tmp_path / "packages" / "tensorboardX").mkdir(parents=True)
    (tmp_path / "packages" / "tensorboardX" / "__init__.py").write_text(FAKE_TRACKER, encoding="utf-8")
    path = write_records(tmp_path / "d.jsonl", [listwise_record(i) for i in range(2)])
    out = tmp_path / "out"
    changes = {"logging.report_to": "tensorboard", "data.eval": path, "objective.name": "combined"}
    save_recipe(recipe_for(tiny, path, out, **changes), tmp_path)
    places = [str(tmp_path / "packages"), *filter(None, sys.path)]
    subprocess.run(
        [sys.executable, "-c", TRACKED, str(tmp_path / "recipe.yaml")],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
    )
    (told,) = out.glob("runs/*/scalars.jsonl")
    found = {(name, step): value for name, value, step in map(json.loads, told.read_text().splitlines())}
    for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        for key, value in entry.items():
            if key not in ("step", "epoch"):
                name = f"eval/{key[5:]}" if key.startswith("eval_") else f"train/{key}"
                assert found[name, entry["step"]] == value
    assert ("eval/ndcg@10", 2) in found
    assert (out / "curves.png").exists()


def test_a_folder_in_the_layout_of_the_hub_is_a_data_set(tiny, tmp_path):
    """`datasets` accepts a folder with files named train-*."""
    folder = tmp_path / "owner" / "data"
    (folder / "data").mkdir(parents=True)
    with gzip.open(folder / "data" / "train-00000-of-00001.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(listwise_record(i)) + "\n" for i in range(2))
    result = train(recipe_for(tiny, folder, tmp_path / "out"))
    assert result.steps == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/has-this-data", "neither a file nor an available data set on the hub"),
        ("data/train.jsonl", "data/train.jsonl: no such file"),
    ],
)
def test_data_that_is_nowhere_is_told(tiny, tmp_path, name, message):
    """A hub name without network access, and a path that does not exist."""
    with pytest.raises(RankLLMError, match=message):
        train(recipe_for(tiny, name, tmp_path / "out"))


def test_padding_and_speed_are_counted_by_hand(tiny, tmp_path):
    """Two records per batch of lengths a and b: the share of padding is 1 - (a + b) / (2 max(a, b))."""
    from transformers import AutoTokenizer

    from rankllm_train.methods.registry import prepare

    path = write_records(tmp_path / "d.jsonl", [listwise_record(0), listwise_record(2)])
    recipe = recipe_for(tiny, path, tmp_path / "out", **{"batch.per_device": 2, "schedule.max_steps": 1})
    a, b = map(len, prepare(recipe, AutoTokenizer.from_pretrained(tiny)).dataset.examples)
    assert a != b
    train(recipe)
    (line,) = (tmp_path / "out" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[:1]
    assert json.loads(line)["padding"] == pytest.approx(1 - (a + b) / (2 * max(a, b)), abs=1e-4)


def test_throughput_counts_real_tokens_over_the_time_of_training():
    """1,200 tokens in half a second: 0.75 s since the last reading minus 0.25 s of evaluation."""
    from rankllm_train.training.step_sums import Throughput

    seconds = iter((100.0, 100.75))
    throughput = Throughput(lambda: next(seconds))
    throughput.add({"lengths": torch.tensor([700, 500]), "input_ids": torch.zeros(2, 700)})
    assert throughput.tokens == (1200, 1400)
    throughput.pause(0.25)
    read = throughput.read(1200, 1400)
    assert (read["tokens"], read["tokens_per_s"]) == (1200, 2400.0)
    assert read["padding"] == pytest.approx(1 - 1200 / 1400, abs=1e-4)
    assert throughput.tokens == (0, 0)


def test_a_dev_loss_that_is_not_a_number_names_its_records(tiny, tmp_path):
    """The weights overflowed float32 in the previous step."""
    path = write_records(tmp_path / "d.jsonl", [listwise_record(0)])
    changes = {"data.eval": path, "optim.learning_rate": 1e38, "evaluation.every": "1"}
    with pytest.raises(RankLLMError, match=r"the dev loss is nan on .*d\.jsonl:1: record 'r0'"):
        train(recipe_for(tiny, path, tmp_path / "out", **changes))


FILES = ("step_1", "best", ".saving-step_4", ".replaced-step_4", "epoch_0")
FOLDERS = ("README.md", "curves.png", "metrics.jsonl", "recipe.yaml")


@pytest.mark.parametrize("name", FILES + FOLDERS)
def test_odd_things_in_the_output_folder_are_named(tiny, tmp_path, name):
    """A file in place of a folder or vice versa is reported before anything is loaded, and nothing is changed."""
    path = write_records(tmp_path / "p.jsonl", [pointwise_record(0)])
    out = tmp_path / "out"
    out.mkdir()
    if name in FILES:
        (out / name).write_text("x", encoding="utf-8")
    else:
        (out / name).mkdir()
    with pytest.raises(
        RankLLMError, match=rf"^--output-dir .*: {re.escape(name)} is a (file|folder), but a run writes"
    ):
        train(recipe_for(tiny, path, out, method="pointwise", **{"data.group_size": 4}))
    assert [item.name for item in out.iterdir()] == [name]
