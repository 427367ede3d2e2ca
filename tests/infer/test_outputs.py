"""Outputs of a run: files appear whole or not at all, and the summary is complete."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from rankllm_core.data.records import read_requests
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.types import Candidate, Query, Request, Result, Usage, WindowTrace
from rankllm_infer.console import result_json, result_table, summary_lines
from rankllm_infer.jobs.outputs import NothingWrittenError, OutputFiles, Summary, open_outputs, run_format_of

CALL = WindowTrace(
    start=0,
    docids=("d1", "d2"),
    prompt="rank [1] [2]",
    response="[2] > [2]",
    order=(1, 0),
    status="repaired",
    defects=("repeated [2]", "missing [1]"),
    usage=Usage(calls=1, rounds=1, prompt_tokens=7, completion_tokens=5),
)


def result(qid="q1", scores=((2.0, None), (1.0, None)), **values):
    """A result with candidates d1, d2, ...; scores: (score, model score) of each."""
    candidates = tuple(
        Candidate(docid=f"d{number}", score=score, doc={"title": "T", "text": f"text {number}"}, model_score=said)
        for number, (score, said) in enumerate(scores, start=1)
    )
    return Result(query=Query(qid=qid, text=f"about {qid}"), candidates=candidates, **values)


FAILED = result("q2", status="failed", error="query 'q2': no answer")


def write(files, *results):
    """Write results to files."""
    with open_outputs(files) as writer:
        for one in results:
            writer.write(one)


@pytest.mark.parametrize(
    ("run_format", "text"),
    [
        ("trec", "q1 Q0 d1 1 2.0 mine\nq1 Q0 d2 2 1.0 mine\n"),
        ("tsv", "q1\td1\t2.0\nq1\td2\t1.0\n"),
        ("msmarco", "q1\td1\t1\nq1\td2\t2\n"),
    ],
)
def test_a_run_is_written_in_each_layout_without_the_failed(tmp_path, run_format, text):
    """qid, docid, rank, score and tag, as far as the format has them; failed queries have no line."""
    run = tmp_path / "run"
    write(OutputFiles(run=run, run_format=run_format, tag="mine"), result(), FAILED)
    assert run.read_text(encoding="utf-8") == text


def test_results_hold_everything_but_the_failed(tmp_path):
    """Texts, both scores, status, defects and usage, one query per line."""
    file = tmp_path / "results.jsonl"
    answered = result(scores=((2.0, -0.5), (1.0, None)), status="repaired", defects=("missing [1]",), usage=CALL.usage)
    write(OutputFiles(results=file), answered, FAILED)
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "query": {"text": "about q1", "qid": "q1"},
        "candidates": [
            {"docid": "d1", "score": 2.0, "doc": {"title": "T", "text": "text 1"}, "model_score": -0.5},
            {"docid": "d2", "score": 1.0, "doc": {"title": "T", "text": "text 2"}, "model_score": None},
        ],
        "status": "repaired",
        "defects": ["missing [1]"],
        "usage": {"calls": 1, "rounds": 1, "prompt_tokens": 7, "completion_tokens": 5},
    }
    assert result_json(answered) == line


def test_results_read_back_as_requests(tmp_path):
    """Candidates in their new order with their new scores; model scores are not carried over."""
    file = tmp_path / "results.jsonl.gz"
    write(OutputFiles(results=file), result(scores=((2.0, -0.5), (1.0, -1.5))))
    expected = result()
    assert list(read_requests(file)) == [Request(query=expected.query, candidates=expected.candidates)]


def test_a_trace_holds_every_call_in_the_originals_layout(tmp_path):
    """rank_llm's four keys plus how the answer was read; no line for failed queries."""
    file = tmp_path / "trace.jsonl"
    write(OutputFiles(trace=file), result(trace=(CALL,)), FAILED)
    (line,) = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "query": {"text": "about q1", "qid": "q1"},
        "invocations_history": [
            {
                "prompt": "rank [1] [2]",
                "response": "[2] > [2]",
                "input_token_count": 7,
                "output_token_count": 5,
                "start": 0,
                "docids": ["d1", "d2"],
                "order": [1, 0],
                "scores": None,
                "status": "repaired",
                "defects": ["repeated [2]", "missing [1]"],
            }
        ],
    }


def test_written_scores_strictly_fall_in_single_precision(tmp_path):
    """Scores that differ only in double precision would tie in trec_eval."""
    run = tmp_path / "run"
    close = [(1.0 - number * 1e-12, None) for number in range(50)]
    write(OutputFiles(run=run), result(scores=close))
    lines = [line.split() for line in run.read_text(encoding="utf-8").splitlines()]
    assert [fields[2] for fields in lines] == [f"d{number}" for number in range(1, 51)]
    read = [struct.unpack("f", struct.pack("f", float(fields[4])))[0] for fields in lines]
    assert all(later < earlier for earlier, later in pairwise(read))


def files_in(folder):
    """Names of all files, including hidden ones."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [RankLLMError("no"), KeyboardInterrupt(), OSError("full")])
def test_an_error_leaves_no_file_and_an_old_one_as_it_was(tmp_path, error):
    """Nothing is half-written, whatever stops the run."""
    (tmp_path / "run").write_text("old\n", encoding="utf-8")
    files = OutputFiles(run=tmp_path / "run", results=tmp_path / "results", trace=tmp_path / "trace")

    def stop():
        with open_outputs(files) as writer:
            writer.write(result())
            assert len(files_in(tmp_path)) == 4
            raise error

    with pytest.raises(type(error)):
        stop()
    assert files_in(tmp_path) == ["run"]
    assert (tmp_path / "run").read_text(encoding="utf-8") == "old\n"


def test_a_run_without_any_result_makes_no_file(tmp_path):
    """An empty run would look like a run without results."""
    with pytest.raises(NothingWrittenError):
        write(OutputFiles(run=tmp_path / "run", trace=tmp_path / "trace"), FAILED)
    assert files_in(tmp_path) == []


def test_two_outputs_cannot_be_one_file(tmp_path):
    """The later one would replace the earlier one."""
    with pytest.raises(ConfigError, match=r"out: given for two outputs; give each its own file"):
        OutputFiles(run=tmp_path / "run", results=tmp_path / "out", trace=tmp_path / "." / "out")


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("a.trec", None, "trec"),
        ("a", None, "trec"),
        ("a.tsv", None, "tsv"),
        ("a.tsv.gz", None, "tsv"),
        ("tsv", None, "trec"),
        ("a.tsv", "trec", "trec"),
        ("a.trec", "msmarco", "msmarco"),
    ],
)
def test_the_layout_follows_the_name_unless_asked_for(name, asked, expected):
    """TREC, or TSV for .tsv."""
    assert run_format_of(Path(name), asked) == expected


def test_a_run_is_written_as_its_name_says(tmp_path):
    """In Python as on the command line; an explicit format takes precedence over the name."""
    for asked, text in ((None, "q1\td1\t2.0\nq1\td2\t1.0\n"), ("trec", "q1 Q0 d1 1 2.0 mine\nq1 Q0 d2 2 1.0 mine\n")):
        run = tmp_path / "out.tsv"
        write(OutputFiles(run=run, run_format=asked, tag="mine"), result())
        assert run.read_text() == text


def test_a_summary_counts_everything_and_lists_every_failed_query():
    """Five with reasons, the others by qid: a failed query appears in no output, so it must appear here."""
    summary = Summary()
    summary.add(result("a", usage=Usage(calls=9, rounds=9, prompt_tokens=1000, completion_tokens=20)))
    summary.add(result("b", status="repaired", usage=Usage(calls=1, rounds=1, prompt_tokens=500)))
    summary.add(result("c", scores=()))
    for number in range(8):
        summary.add(result(f"f{number}", status="failed", error=f"query 'f{number}': reason {number}"))
    assert summary_lines(summary, seconds=1.25, files=[Path("out.trec")]) == [
        "11 queries in 1.2 s: ok 2, repaired 1, failed 8; 10 model calls, 1,500 prompt tokens, 20 generated; "
        "0.9 rounds per query",
        "Without candidates: 1 query ('c')",
        "Failed and omitted from all outputs: 8 queries",
        "  query 'f0': reason 0",
        "  query 'f1': reason 1",
        "  query 'f2': reason 2",
        "  query 'f3': reason 3",
        "  query 'f4': reason 4",
        "  and 3 more: f5, f6, f7",
        "Wrote out.trec",
    ]


def request_of(*docids):
    """A request whose candidates are in first-stage order."""
    candidates = tuple(Candidate(docid=docid, score=0.0, doc={"text": docid}) for docid in docids)
    return Request(query=Query(qid="q1", text="q"), candidates=candidates)


def test_a_table_shows_where_each_passage_was(monkeypatch):
    """New rank, old rank, docid, model score and text."""
    monkeypatch.setenv("COLUMNS", "80")
    table = result_table(result(scores=((2.0, -0.5), (1.0, -1.25))), request_of("d2", "d1"))
    assert table.splitlines() == [
        "rank  was  docid     score  text",
        "   1    2  d1       -0.500  Title: T Content: text 1",
        "   2    1  d2       -1.250  Title: T Content: text 2",
    ]


def test_a_table_does_not_mix_the_models_scores_with_ranks():
    """Candidates that were not shown to the model have no score."""
    table = result_table(result(scores=((3.0, 0.5), (2.0, None))), request_of("d1", "d2"))
    assert [line.split()[3] for line in table.splitlines()[1:]] == ["0.500", "-"]
    table = result_table(result(), request_of("d1", "d2"))
    assert [line.split()[3] for line in table.splitlines()[1:]] == ["2.000", "1.000"]


def test_a_table_says_how_a_bad_answer_was_read():
    """Statuses other than ok are shown with their defects."""
    table = result_table(result(status="repaired", defects=("missing [1]",)), request_of("d1", "d2"))
    assert table.splitlines()[-1] == "answer: repaired (missing [1])"


def test_a_passage_cannot_command_the_terminal():
    """Nor break its line: escapes, line ends, tabs and bidirectional controls are not printed."""
    doc = {"text": "one\x1b[2J\u202e two\r\nthree\tfour\x07"}
    candidate = Candidate(docid="d1", score=1.0, doc=doc)
    table = result_table(Result(query=Query(qid="q", text="q"), candidates=(candidate,)), request_of("d1"))
    assert table.splitlines()[1].endswith("  one two three four")
    assert len(table.splitlines()) == 2
