"""`rerank` without an output: files in rerank_results/, named as rank_llm names them, and resumed by that name."""

from __future__ import annotations

import re
import time

import pytest
from chat_server import serving
from ranking_server import request, respond, write_jsonl

from rankllm_infer.cli.rerank.unnamed_outputs import model_name

TIME = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d"


@pytest.fixture
def server():
    """A server whose model knows how much each passage is worth."""
    with serving(respond) as server:
        yield server


@pytest.fixture
def command(server, tmp_path, monkeypatch):
    """`rerank` of three queries by that server, in an empty folder but for the requests."""
    monkeypatch.chdir(tmp_path)
    queries = (request("q1", 3, 9, 5), request("q2", 2, 1), request("q3", 1, 2, 3, 4))
    write_jsonl(tmp_path / "my questions.jsonl", *queries)
    model = ["--engine", "openai", "--base-url", server.base_url, "--model-path", "owner/a:b", "--concurrency", "1"]
    return ["rerank", *model, "--context-size", "2048", "--requests", "my questions.jsonl"]


def prompts(server):
    """What the model was asked, in order."""
    return [received.body["messages"][-1]["content"] for received in server.requests if received.body]


def test_run_and_results_are_named_for_what_they_are(tmp_path, rankllm, command):
    """Model, context, candidates, input, shuffling, time, window, passes, engine."""
    options = ["--shuffle-candidates", "--num-passes", "2", "--top-k-candidates", "3", "--window-size", "10"]
    done = rankllm(*command, *options, "--stride", "5")
    assert done.code == 0, done.err
    (run,) = (tmp_path / "rerank_results").glob("*/*.txt")
    name = rf"a-b_2048_3_my-questions_shuffled_{TIME}_window_10_pass_1_openai"
    assert re.fullmatch(rf"UNSPECIFIED/{name}\.txt", run.relative_to(tmp_path / "rerank_results").as_posix())
    assert len(run.read_text(encoding="utf-8").splitlines()) == 9
    assert len(run.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()) == 3
    assert done.err.startswith(f"Outputs: {run.relative_to(tmp_path)} and {run.stem}.jsonl\n")


def slowly(received):
    """So that the run notices its limit while the next prompt is in flight."""
    time.sleep(0.3)
    return respond(received)


def test_the_same_command_resumes_an_interrupted_run(tmp_path, rankllm, command, server):
    """Under the name that it began with; the query that was answered is not asked again."""
    server.respond = slowly
    stopped = rankllm(*command, "--max-total-tokens", "1")
    server.respond = respond
    assert stopped.code != 0
    (journal,) = (tmp_path / "rerank_results").glob("*/*.journal.jsonl")
    assert 1 <= len(prompts(server)) < 3
    done = rankllm(*command)
    assert done.code == 0, done.err
    asked = prompts(server)
    assert len(set(asked)) == 3
    assert asked.count(asked[0]) == 1
    (run,) = (tmp_path / "rerank_results").glob("*/*.txt")
    assert journal.name == f"{run.name}.journal.jsonl"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("castorini/rank_zephyr_7b_v1_full", "rank_zephyr_7b_v1_full"),
        ("training/models/ranking/RankZephyr/epoch_2", "RankZephyr_epoch_2"),
        ("out/checkpoint-500/", "out_checkpoint-500"),
        ("epoch_2", "epoch_2"),
        ("owner/name@main", "name-main"),
    ],
)
def test_a_checkpoint_is_named_with_its_folder(model, name):
    """A hub's model by its last part; nothing that a file system or a shell takes for something else."""
    assert model_name(model) == name


def test_figures_alone_write_nothing(tmp_path, rankllm, command):
    """--qrels without an output, as ever."""
    (tmp_path / "qrels").write_text("q1 0 d2 1\n", encoding="utf-8")
    done = rankllm(*command, "--qrels", "qrels")
    assert done.code == 0, done.err
    assert "nDCG@10" in done.out
    assert not (tmp_path / "rerank_results").exists()
