"""`train mine`, `train label` and `train split` on the command line, in sequence, and their errors."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from collections_on_disk import Collection
from shared_files import data

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_train.cli import cli

FILES = {"run": "run.trec", "qrels": "qrels.txt", "queries": "queries.tsv", "corpus": "corpus.jsonl"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Current folder with thirty queries of five candidates each, the second of which is relevant."""
    files = Collection(tmp_path)
    files.run({f"q{i}": {f"d{i}-{j}": 9 - j for j in range(5)} for i in range(30)})
    files.qrels({f"q{i}": {f"d{i}-1": 1} for i in range(30)})
    files.queries({f"q{i}": f"question number {i}" for i in range(30)})
    files.corpus({f"d{i}-{j}": f"passage {j} about {i}" for i in range(30) for j in range(5)})
    monkeypatch.chdir(tmp_path)
    return files


def run(*arguments):
    """Run the program and return its result; raises its error."""
    done = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done


def sources(*names):
    """Return the options that name the files."""
    return [word for name in names or FILES for word in (f"--{name}", FILES[name])]


def test_from_a_collection_to_checked_windows_and_groups(folder):
    """Mine and split; label, split and check. The output names the files written; counts go to standard error."""
    mined = run("mine", *sources(), "--output-path", "groups.jsonl.gz", "--negatives-per-query", "2")
    assert mined.stdout == "groups.jsonl.gz\n"
    assert "made               30  records\n" in mined.stderr
    parted = run("split", "groups.jsonl.gz", "--output-dir", "parts", "--dev-fraction", "0.3")
    assert parted.stdout == "parts/train.jsonl\nparts/dev.jsonl\n"
    assert len(folder.read("parts/train.jsonl")) + len(folder.read("parts/dev.jsonl")) == 30
    labelled = run("label", *sources(), "--output-path", "windows.jsonl", "--identifiers", "alpha")
    assert labelled.stdout == "windows.jsonl\n"
    parts = ("--train-output", "train.jsonl.gz", "--dev-output", "dev.jsonl")
    run("split", "windows.jsonl", *parts, "--dev-fraction", "0.3")
    checked = [run("check-data", name) for name in ("windows.jsonl", "train.jsonl.gz", "dev.jsonl")]
    assert "30 records, 30 valid (30 alpha); with a system turn: 30" in checked[0].stderr
    # The same query is on the same side, in groups and in windows.
    dev = [record["query_id"] for record in folder.read("parts/dev.jsonl")]
    assert [record["id"] for record in folder.read("dev.jsonl")] == [f"{qid}_1" for qid in dev]


def test_the_snake_case_of_every_option_is_accepted(folder):
    """As in the commands of the original projects."""
    run("mine", *sources(), "--output_path", "a.jsonl", "--negatives_per_query", "2", "--max_rank", "4")
    run("label", *sources(), "--output_path", "b.jsonl", "--no_shuffle", "--windows_per_query", "2")
    run("split", "a.jsonl", "--output_dir", "parts", "--dev_fraction", "0.5", "--no_link_positives")


def test_a_report_holds_counts_and_options(folder):
    """Counts of records read, made and skipped, and the options used."""
    run("mine", *sources(), "--output-path", "a.jsonl", "--report", "report.json", "--max-queries", "3")
    report = json.loads(folder.path("report.json").read_text(encoding="utf-8"))
    assert report["read"] == {"queries": 30, "candidates": 150}
    assert report["made"] == {"records": 3, "positives": 3, "negatives of the run": 12}
    beyond = {"what": "queries", "reason": "beyond --max-queries", "n": 27, "examples": ["q3", "q4", "q5"]}
    assert beyond in report["left_out"]
    assert (report["options"]["run"], report["options"]["max_queries"]) == ("run.trec", 3)


def test_a_report_is_json_that_every_program_reads(folder):
    """JSON has no infinity, so it is written as text."""
    taught = ("--teacher-run", "run.trec", "--teacher-margin=-inf")
    run("mine", *sources(), *taught, "--output-path", "a.jsonl", "--report", "report.json")

    def refuse(constant):
        raise ValueError(constant)

    report = json.loads(folder.path("report.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert report["options"]["teacher_margin"] == "-inf"


def test_an_output_is_replaced_only_with_leave(folder):
    """An input is never replaced."""
    command = ["mine", *sources(), "--output-path"]
    run(*command, "a.jsonl")
    with pytest.raises(RankLLMError, match=r"a\.jsonl: already exists; use --overwrite"):
        run(*command, "a.jsonl")
    run(*command, "a.jsonl", "--overwrite")
    with pytest.raises(RankLLMError, match=r"corpus\.jsonl: is both input and output"):
        run(*command, "corpus.jsonl", "--overwrite")
    with pytest.raises(RankLLMError, match="is named for two outputs"):
        run(*command, "b.jsonl", "--report", "b.jsonl")
    folder.path("link").symlink_to(folder.folder)
    for same in ("link/b.jsonl", "new/../b.jsonl"):
        with pytest.raises(RankLLMError, match="is named for two outputs"):
            run(*command, "b.jsonl", "--report", same)
    with pytest.raises(RankLLMError, match=r"a\.jsonl: is both input and output"):
        run("split", "a.jsonl", "--train-output", "a.jsonl", "--dev-output", "b.jsonl", "--overwrite")


RESULTS = ["label", "--results", "results.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine", *sources(), "--teacher-margin", "1"], "--teacher-margin: has no effect without --teacher-run"),
        (["mine", *sources(), "--margin", "nan"], "--margin: expected a number, found nan"),
        (["mine", *sources(), "--relative-margin", "inf"], "--relative-margin: expected a finite fraction"),
        (
            ["mine", *sources(), "--teacher-run", "run.trec", "--teacher-margin", "nan"],
            "--teacher-margin: expected a number, found nan",
        ),
        (["mine", *sources(), "--with-teacher-scores"], "--with-teacher-scores: needs --teacher-run"),
        (["mine", *sources(), "--min-rank", "9", "--max-rank", "3"], "expected 1 <= --min-rank <= --max-rank"),
        (["label", *sources("run")], "give either --qrels or --results"),
        ([*RESULTS, "--qrels", "qrels.txt"], "give either --qrels or --results"),
        (["label", *sources("run", "qrels")], "--qrels: also needs --queries, --corpus"),
        (["label", *sources(), "--worst-status", "ok"], "--worst-status: has no effect with --qrels"),
        ([*RESULTS, "--teacher-run", "run.trec"], "--teacher-run: has no effect with --results"),
        ([*RESULTS, "--no-require-relevant"], "--require-relevant: has no effect with --results"),
        ([*RESULTS, "--run", "run.trec"], "--run: has no effect on shuffled windows with --results"),
        ([*RESULTS, "--no-shuffle"], "--no-shuffle: also needs --run with --results"),
        (["label", *sources(), "--max-window", "1"], "expected 2 <= --min-window <= --max-window"),
        (["label", *sources(), "--prompt-template-path", "rank_zefyr"], "rank_zefyr: no such template"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(folder, arguments, message):
    """Each names the option, and nothing is written."""
    with pytest.raises(RankLLMError) as caught:
        run(*arguments, "--output-path", "out.jsonl")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folder.path("out.jsonl").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--train-output", "a"], ["--output-dir", "a", "--dev-output", "b"]],
)
def test_split_wants_to_know_where(folder, arguments):
    """Either a folder or both files."""
    run("mine", *sources(), "--output-path", "a.jsonl")
    with pytest.raises(ConfigError, match="give either --output-dir, or both --train-output and --dev-output"):
        run("split", "a.jsonl", *arguments)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_there_is_named(folder, name):
    """In a one-line error."""
    folder.path(FILES[name]).unlink()
    for command in ("mine", "label"):
        with pytest.raises(RankLLMError, match=rf"{FILES[name]}: no such file"):
            run(command, *sources(), "--output-path", "out.jsonl")


def test_results_of_a_reranker_become_windows(folder):
    """In the format written by `rerank --output-jsonl`, produced by the core."""
    from rankllm_core.data.records import result_to_dict
    from rankllm_core.types import Candidate, Query, Result

    candidates = tuple(Candidate(docid=d, score=float(-i), doc={"text": f"about {d}"}) for i, d in enumerate("cab"))
    lines = [Result(query=Query(qid=str(i), text=f"query {i}"), candidates=candidates) for i in range(3)]
    folder.jsonl([result_to_dict(line) for line in lines], "results.jsonl")
    run(*RESULTS, "--output-path", "out.jsonl", "--min-window", "3", "--report", "report.json")
    for record in folder.read("out.jsonl"):
        order = [
            record["docids"][int(name.strip("[]")) - 1] for name in record["conversations"][-1]["value"].split(" > ")
        ]
        assert order == ["c", "a", "b"]
    report = json.loads(folder.path("report.json").read_text(encoding="utf-8"))
    assert report["made"]["records"] == 3


def test_graded_judgements_of_real_data_make_good_records(folder):
    """TREC DL 2021, grades 2 and 3 relevant; judged passages missing from the corpus are skipped and counted."""
    collection = data("trec_dl21")
    files = {"run": "runs/BM25.run.gz", "queries": "queries.tsv", "corpus": "corpus.jsonl.gz", "qrels": "qrels.txt"}
    named = [word for name, file in files.items() for word in (f"--{name}", str(collection / file))]
    more = ("--min-relevance", "2", "--windows-per-query", "4", "--no-shuffle", "--report", "report.json")
    run("label", *named, "--output-path", "out.jsonl", *more)
    report = json.loads(folder.path("report.json").read_text(encoding="utf-8"))
    missing = [loss["n"] for loss in report["left_out"] if loss["reason"] == "not in the corpus"]
    assert sum(missing) > 0
    assert f"{report['made']['records']} valid (" in run("check-data", "out.jsonl").stderr
