"""--run-format, in every command of `rankllm-infer` that reads runs."""

from __future__ import annotations

import json

import pytest

UNSORTED = "q1\td2\t2\nq1\td1\t1\n"
"""Interpreted as ranks, d1 is first; as scores, d2."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """d1 is the only relevant document; `trec` finds it at rank 2."""
    files = {
        "ranks": UNSORTED,
        "trec": "q1 Q0 d2 1 9.0 t\nq1 Q0 d1 2 8.0 t\n",
        "qrels": "q1 0 d1 1\n",
        "queries.tsv": "q1\twhat\n",
        "corpus.tsv": "d1\tone\nd2\ttwo\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TEXTS = ("--queries", "queries.tsv", "--corpus", "corpus.tsv")
COMMANDS = {
    "evaluate": ("evaluate", "--qrels", "qrels", "-m", "RR", "ranks"),
    "compare": ("compare", "--qrels", "qrels", "-m", "RR", "trec", "ranks"),
    "report": ("report", "ranks", "--baseline", "trec", "--qrels", "qrels", *TEXTS, "--output", "page.html"),
    "prepare": (
        "prepare", "--retrieval-results", "ranks", "--query-data-name", "queries.tsv",
        "--corpus-data-name", "corpus.tsv", "--output-path", "out.jsonl", "--depth", "1",
    ),
    "rerank": ("rerank", "--model-path", "none", "--run", "ranks", *TEXTS, "--output", "out.trec"),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_run_that_may_be_either_is_refused(folder, rankllm, command):
    """One line naming the option; nothing is written."""
    before = sorted(path.name for path in folder.iterdir())
    done = rankllm(*command)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: ranks:2: query 'q1', docid 'd1': the third column (1) may be a score or a rank")
    assert "--run-format msmarco" in done.err
    assert done.err.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == before


def test_convert_names_its_own_option(folder, rankllm):
    """It is --from."""
    convert = ("convert", "--input", "ranks", "--output", "out.trec", "--to", "trec")
    assert "--from msmarco" in rankllm(*convert).err
    done = rankllm(*convert, "--from", "msmarco")
    assert done.code == 0, done.err
    assert [line.split()[2] for line in (folder / "out.trec").read_text().splitlines()] == ["d1", "d2"]


def test_evaluate_reads_ranks_as_told(folder, rankllm):
    """d1 at rank 1: reciprocal rank 1; interpreted as scores, 1/2."""
    assert rankllm(*COMMANDS["evaluate"], "--run-format", "msmarco").out == "ranks\tRR\t1.0000\n"
    assert rankllm(*COMMANDS["evaluate"], "--run-format", "tsv").out == "ranks\tRR\t0.5000\n"


def test_a_trec_run_beside_it_stays_one(folder, rankllm):
    """The format applies only to the ambiguous run."""
    done = rankllm(*COMMANDS["compare"], "--run-format", "msmarco", "--json")
    (figures,) = json.loads(done.out)["measures"].values()
    assert [(run["run"], run["mean"]) for run in figures] == [("trec", 0.5), ("ranks", 1.0)]


def test_prepare_keeps_the_best(folder, rankllm):
    """Depth 1 keeps d1."""
    assert rankllm(*COMMANDS["prepare"], "--run-format", "msmarco").code == 0
    assert [json.loads(line)["docid"] for line in (folder / "out.jsonl").read_text().splitlines()] == ["d1"]


def test_report_orders_the_page_by_it(folder, rankllm):
    """Like `evaluate`."""
    done = rankllm(*COMMANDS["report"], "--run-format", "msmarco")
    assert done.code == 0, done.err


def test_a_pilot_is_told_how_to_be_scored(folder, rankllm):
    """One of three queries: means over all three match trec_eval -c but mislead for a pilot run."""
    (folder / "qrels").write_text("q1 0 d1 1\nq2 0 d1 1\nq3 0 d1 1\n", encoding="utf-8")
    for command in ("evaluate", "compare"):
        done = rankllm(*COMMANDS[command], "--run-format", "msmarco")
        assert (
            "ranks: 2 of 3 judged queries missing from the run, counted as 0 ('q2', 'q3'); for a partial run, "
            in done.err
        )
        assert "--run-queries-only averages over the queries of the run" in done.err
    assert rankllm(*COMMANDS["report"], "--run-format", "msmarco").code == 0
    assert "for a partial run, --run-queries-only" in (folder / "page.html").read_text(encoding="utf-8")


def test_rerank_takes_it_for_runs_alone(folder, rankllm):
    """It has no effect on requests."""
    done = rankllm("rerank", "--model-path", "none", "--requests", "r.jsonl", "--run-format", "tsv", "--output", "o")
    assert done.code == 2
    assert "--requests cannot be combined with --run-format" in done.err
