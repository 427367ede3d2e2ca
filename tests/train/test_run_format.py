"""The option --run-format of `train mine` and `train label`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from rankllm_train.cli import cli

UNSORTED = "q1\td3\t3\nq1\td2\t2\nq1\td1\t1\n"
"""Ranks: d1, d2, d3. As scores, the other way round."""
FILES = {
    "ranks": UNSORTED,
    "qrels": "q1 0 d1 1\n",
    "queries.tsv": "q1\twhat\n",
    "corpus.tsv": "d1\tone\nd2\ttwo\nd3\tthree\n",
}
SOURCES = ("--run", "ranks", "--qrels", "qrels", "--queries", "queries.tsv", "--corpus", "corpus.tsv")
MINE = ("mine", *SOURCES, "--output-path", "out.jsonl", "--max-rank", "2")
LABEL = ("label", *SOURCES, "--output-path", "out.jsonl", "--no-shuffle", "--min-window", "3")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli, arguments, standalone_mode=False)


@pytest.mark.parametrize("command", [MINE, LABEL])
def test_a_run_that_may_be_either_is_refused(folder, command):
    """If the list were reversed, negatives from its bottom would look like hard ones."""
    result = run(*command)
    assert "the third column (2) may be a score or a rank" in str(result.exception)
    assert not (folder / "out.jsonl").exists()


def test_mine_takes_negatives_from_the_top_of_the_ranks(folder):
    """Ranks 1 and 2 are d1, which is relevant, and d2; read as scores they would be d3 and d2."""
    for run_format, expected in (("msmarco", ["d2"]), ("tsv", ["d3", "d2"])):
        result = run(*MINE, "--run-format", run_format, "--overwrite")
        assert result.exception is None, result.exception
        (record,) = map(json.loads, (folder / "out.jsonl").read_text().splitlines())
        assert [passage["docid"] for passage in record["negative_passages"]] == expected


def test_label_shows_windows_in_the_order_of_the_ranks(folder):
    """With --no-shuffle, windows are in first-stage order."""
    result = run(*LABEL, "--run-format", "msmarco")
    assert result.exception is None, result.exception
    text = (folder / "out.jsonl").read_text()
    assert text.index("one") < text.index("two") < text.index("three")


def test_margins_need_scores(folder):
    """A run that contains ranks has no scores to compare."""
    result = run(*MINE, "--run-format", "msmarco", "--margin", "0.5")
    assert "ranks: contains ranks but no scores" in str(result.exception)
