"""`rankllm-infer report` as a user sees it."""

from __future__ import annotations

import json

import pytest
from report_files import CALL, TRACE, write_files, write_lines


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The small ranking, and the folder to be in."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(rankllm, *arguments):
    return rankllm("report", "--qrels", "qrels", "-m", "RR", *arguments)


def test_the_page_lies_beside_the_run(folder, rankllm):
    """Standard output stays empty; a line says what is missing, and one where the page is."""
    done = report(rankllm, "new.jsonl", "--baseline", "base.run")
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[:-1] == [
        "new.jsonl: 1 of 3 judged queries missing from the run, counted as 0 ('q3'); for a partial run, "
        "--run-queries-only averages over the queries of the run",
        "new.jsonl: no text for 1 query ('q3')",
        "new.jsonl: no text for 1 passage ('x')",
    ]
    assert done.err.splitlines()[-1].startswith("Wrote new.jsonl.html (3 queries, 0.0 MB)")
    again = report(rankllm, "new.jsonl", "--baseline", "base.run")
    assert (again.code, again.err) == (
        1,
        "Error: new.jsonl.html: already exists; use --overwrite to replace it, or another name\n",
    )


def test_the_order_of_the_requests_is_the_baseline_where_none_is_given(folder, rankllm):
    """q1 in the requests: a b c, RR 1/3, as in the run."""
    done = report(rankllm, "new.jsonl", "--requests", "requests.jsonl", "--run-queries-only")
    assert done.code == 0, done.err
    page = (folder / "new.jsonl.html").read_text(encoding="utf-8")
    assert "first stage (requests.jsonl)" in page
    assert "0.6667" in page


def test_further_runs_are_in_the_figures(folder, rankllm):
    """And corrected for; names are as long as it takes to tell the runs apart."""
    (folder / "other").mkdir()
    (folder / "other" / "base.run").write_bytes((folder / "base.run").read_bytes())
    done = report(rankllm, "new.jsonl", "--baseline", "base.run", "--also", "other/base.run", "--output", "p.html")
    assert done.code == 0, done.err
    assert "other/base.run" in (folder / "p.html").read_text(encoding="utf-8")


def test_a_run_without_texts_takes_them_from_a_collection(folder, rankllm):
    """--queries and --corpus, as elsewhere."""
    (folder / "queries.tsv").write_text("q1\twhich?\nq2\twhat?\nq3\twho?\n", encoding="utf-8")
    (folder / "corpus.tsv").write_text("a\tAlder.\nb\tBirch.\nc\tCedar.\nx\tLarch.\n", encoding="utf-8")
    (folder / "new.run").write_text("q1 Q0 c 1 1 t\n", encoding="utf-8")
    done = report(rankllm, "new.run", "--baseline", "base.run", "--queries", "queries.tsv", "--corpus", "corpus.tsv")
    assert done.code == 0, done.err
    assert "Cedar." in (folder / "new.run.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["new.jsonl"], 2, "give --baseline, or --requests"),
        (["new.jsonl", "--baseline", "new.jsonl"], 2, "new.jsonl is given twice"),
        (["new.jsonl", "--baseline", "base.run", "--queries", "q"], 2, "--queries and --corpus go together"),
        (["base.run", "--baseline", "new.jsonl"], 2, "base.run is a run, which contains no texts; give --requests"),
        (["new.jsonl", "--baseline", "gone.run"], 1, "gone.run: no such file"),
        (["new.jsonl", "--baseline", "base.run", "--output", "base.run", "--overwrite"], 1, "is both input and output"),
        (["new.jsonl", "--baseline", "foreign.run"], 1, "foreign.run: no query of the run is judged"),
        (
            ["base.run", "--baseline", "new.jsonl", "--requests", "foreign.jsonl"],
            1,
            "contains none of the run's 3 queries",
        ),
        (["base.run", "--baseline", "new.jsonl", "--requests", "bare.jsonl"], 1, "contains none of the run's passages"),
        (["new.jsonl", "--baseline", "base.run", "--trace", "broken.trace"], 1, "broken.trace:1: not JSON"),
        (["new.jsonl", "--baseline", "base.run", "--trace", "new.jsonl"], 1, "expected the key 'invocations_history'"),
        (["new.jsonl", "--baseline", "base.run", "--trace", "qids.trace"], 1, "contains none of the run's queries"),
        (
            ["new.jsonl", "--baseline", "base.run", "--trace", "docids.trace"],
            1,
            "shown docid 'z', which new.jsonl does not",
        ),
        (
            ["new.jsonl", "--baseline", "base.run", "--trace", "order.trace"],
            1,
            "expected each position of 2 docids once",
        ),
        (["usage.jsonl", "--baseline", "base.run"], 1, "usage.calls: expected a whole number from 0, found -1"),
    ],
)
def test_errors_are_one_line_and_leave_no_page(folder, rankllm, arguments, code, message):
    """What does not match is told, with the file and what it holds."""
    (folder / "foreign.run").write_text("x Q0 a 1 1 t\n", encoding="utf-8")
    requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
    write_lines(folder / "foreign.jsonl", [requests[0] | {"query": {"qid": "x", "text": "x"}}])
    write_lines(folder / "bare.jsonl", [requests[0] | {"candidates": []}])
    (folder / "broken.trace").write_text('{"query"', encoding="utf-8")
    write_lines(folder / "qids.trace", [TRACE[0] | {"query": {"qid": "x", "text": ""}}])
    write_lines(folder / "docids.trace", [TRACE[0] | {"invocations_history": [CALL | {"docids": ["a", "z"]}]}])
    write_lines(folder / "order.trace", [TRACE[0] | {"invocations_history": [CALL | {"order": [0, 0]}]}])
    write_lines(folder / "usage.jsonl", [requests[0] | {"usage": {"calls": -1}}])
    done = report(rankllm, *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert code == 2 or len(done.err.splitlines()) == 1
    assert not list(folder.glob("*.html"))
