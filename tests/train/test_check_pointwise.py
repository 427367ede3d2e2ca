"""`train check-data` recognizes both kinds of records by their keys and summarizes each."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from training_fakes import listwise_record, pointwise_record, write_records

from rankllm_core.errors import RankLLMError
from rankllm_train.cli import cli
from rankllm_train.data.check_data import ListwiseReport, PointwiseReport, check_data, check_pointwise


def changed(number, **changes):
    return pointwise_record(number) | changes


def passage(text, docid, **more):
    return {"docid": docid, "title": "", "text": text} | more


def checked(path, *options):
    """Return everything the command prints, and the error it ends with."""
    done = CliRunner().invoke(cli, ["check-data", str(path), *options], standalone_mode=False)
    assert done.exception is None or isinstance(done.exception, RankLLMError)
    return done.output, done.exception


BAD = {
    "no positives": (changed(1, positive_passages=[]), "positive_passages is empty"),
    "no negatives": (changed(1, negative_passages=[]), "no negative passage, expected at least one"),
    "null text": (changed(1, negative_passages=[passage(None, "n")]), "passage 1: text: expected a string, found null"),
    "no query": ({k: v for k, v in pointwise_record(1).items() if k != "query"}, "record: expected the key 'query'"),
    "both by docid": (
        changed(1, negative_passages=[passage("other words", "n"), passage("something else", "p1")]),
        "docid 'p1' is both a positive and a negative passage; remove one of them",
    ),
    "both by text": (
        changed(1, negative_passages=[passage("other words", "n"), passage(" This is  WORD1 indeed.", "m")]),
        "the negative passage 'm' has the same text as the positive 'p1'; remove one of them",
    ),
    "one text": (
        changed(1, negative_passages=[passage("this is word1 indeed", f"m{i}") for i in range(3)]),
        "all 4 passages have the same text, so there is no order to learn",
    ),
    "some teacher": (
        changed(1, negative_passages=[passage("a", "n", teacher_score=1.0)]),
        "expected a teacher score for all 2 passages or for none, but 1 have none",
    ),
    "nan teacher": (
        changed(1, negative_passages=[passage("a", "n", teacher_score=float("nan"))]),
        "score: expected a finite number, found NaN",
    ),
}


def test_a_good_pointwise_file_is_good(tmp_path):
    """60 records are counted, with exit status 0."""
    path = write_records(tmp_path / "p.jsonl", [pointwise_record(i, n_negatives=5 + i % 2) for i in range(60)])
    report = check_data(path)
    assert isinstance(report, PointwiseReport)
    assert (report.n_records, report.n_good, report.problems, report.is_clean) == (60, 60, (), True)
    assert (report.n_positives, report.n_with_teacher, report.n_by_negatives) == (60, 0, {5: 30, 6: 30})
    said, error = checked(path)
    assert error is None
    assert "60 records, 60 valid (pointwise); positives: 60; with teacher scores: 0" in said
    assert "30 with 5 negatives, 30 with 6 negatives" in said


@pytest.mark.parametrize("name", BAD)
def test_every_bad_pointwise_record_is_named_with_its_reason(tmp_path, name):
    """File, line, query and reason; the others are counted as valid."""
    record, reason = BAD[name]
    path = write_records(tmp_path / "p.jsonl", [pointwise_record(0), record, pointwise_record(2)])
    (problem,) = check_data(path).problems
    assert problem.startswith(f"{path}:2: query 'q1': ")
    assert reason in problem
    said, error = checked(path)
    assert problem in said
    assert str(error) == f"{path}: 1 of 3 records are invalid; correct them, or train with --bad-records skip"


def test_a_text_that_differs_in_a_sign_or_a_title_is_another_one(tmp_path):
    """`word1 != indeed`, and the same text under another title."""
    negatives = [passage("this is word1 != indeed", "m"), passage("this is word1 indeed", "n", title="About")]
    path = write_records(tmp_path / "p.jsonl", [changed(1, negative_passages=negatives)])
    assert check_data(path).is_clean


def test_lists_with_teacher_scores_are_pointwise_too(tmp_path):
    """Tevatron's other format; records without scores are reported."""
    scored = {"query_id": "q", "query": "q", "passages": [{"text": "a"}, {"text": "b"}], "scores": [2, 1]}
    path = write_records(tmp_path / "p.jsonl", [scored, pointwise_record(1)])
    report = check_data(path)
    assert (report.n_with_teacher, report.n_good) == (1, 2)
    assert "1 have no teacher scores, which --objective kl and margin require" in checked(path)[0]


def test_the_first_record_of_a_kind_says_what_the_file_holds(tmp_path):
    """Records before it that are neither, or not JSON, count as bad records of that kind."""
    path = tmp_path / "p.jsonl"
    lines = ["{torn", json.dumps({"id": 1}), "[1]", json.dumps(pointwise_record(0)), json.dumps({"id": 2})]
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    report = check_data(path)
    assert isinstance(report, PointwiseReport)
    assert [problem.split(": ")[0] for problem in report.problems] == [f"{path}:{line}" for line in (1, 2, 3, 5)]
    assert isinstance(check_data(write_records(tmp_path / "l.jsonl", [{"x": 1}, listwise_record(0)])), ListwiseReport)


def test_both_kinds_in_one_file_are_an_error_that_names_both(tmp_path):
    """Unless the kind is specified: then the others are bad records."""
    path = write_records(tmp_path / "m.jsonl", [listwise_record(0), listwise_record(1), pointwise_record(2)])
    _, error = checked(path)
    assert str(error).startswith(
        f"{path}: contains both listwise records (first in line 1) and pointwise records (first in line 3)"
    )
    assert len(check_data(path, kind="listwise").problems) == 1
    assert len(check_data(path, kind="pointwise").problems) == 2
    said, error = checked(path, "--kind", "pointwise")
    assert "3 records, 1 valid (pointwise)" in said
    assert error is not None


def test_two_kinds_of_identifiers_are_an_error(tmp_path):
    """As in training, which accepts either kind with --identifiers."""
    path = write_records(tmp_path / "m.jsonl", [listwise_record(0), listwise_record(1, kind="numeric")])
    said, error = checked(path)
    assert "2 records, 2 valid (1 alpha, 1 numeric)" in said
    assert (
        str(error) == f"{path}: contains both numeric and alpha identifiers; train with --identifiers alpha or numeric"
    )


def test_an_empty_file_is_an_error(tmp_path):
    """Whatever kind was expected."""
    path = write_records(tmp_path / "e.jsonl", [])
    for options in ([], ["--kind", "pointwise"]):
        assert str(checked(path, *options)[1]) == f"{path}: contains no records"


def test_a_file_that_breaks_off_is_said_to(tmp_path):
    """An array that is truncated in its third record."""
    path = tmp_path / "p.json"
    path.write_text(json.dumps([pointwise_record(i) for i in range(3)])[:-60], encoding="utf-8")
    report = check_pointwise(path)
    assert (report.n_good, report.is_clean) == (2, False)
    assert report.stopped.startswith(f"{path}:1: not JSON")


def test_a_list_of_one_passage_is_told_of(tmp_path):
    """Only the generation objective can learn from it."""
    path = write_records(tmp_path / "l.jsonl", [listwise_record(0), listwise_record(1, n=1)])
    said, error = checked(path)
    assert error is None
    assert "1 with a single passage have no order, which --objective ranking and combined require" in said


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "NaN",
        "1e999",
        '"text"',
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 10_000,
        '{"query_id": "q", "query": "\\ud800',
        '{"conversations": null}',
        '{"passages": {}, "query_id": "q", "query": "q"}',
        '{"positive_passages": [[]], "negative_passages": [], "query_id": "q", "query": "q"}',
    ],
)
def test_no_line_stops_the_check(tmp_path, line):
    """Each is one bad record, on one line, between valid ones."""
    good = json.dumps(pointwise_record(0))
    path = tmp_path / "p.jsonl"
    path.write_text(f"{good}\n{line}\n{good}\n", encoding="utf-8")
    report = check_data(path, kind="pointwise")
    (problem,) = report.problems
    assert problem.startswith(f"{path}:2: ")
    assert "\n" not in problem
    assert len(problem) < 500
    assert report.n_good == 2
