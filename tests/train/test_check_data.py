"""Reported contents of a training file, and the records reported as bad."""

from __future__ import annotations

import json

import pytest
from shared_files import data

from rankllm_core.errors import RankLLMError
from rankllm_train.data.check_data import check_listwise
from rankllm_train.data.rankings import passage_identifiers, ranking_of, with_identifiers
from rankllm_train.data.records import read_listwise


def entry(name, lines, target, *, system=None, **more):
    turns = [{"from": "human", "value": "Rank.\n" + "\n".join(lines)}, {"from": "gpt", "value": target}]
    opening = [] if system is None else [{"from": "system", "value": system}]
    return {"id": name, "conversations": opening + turns, **more}


GOOD = [
    entry("one", ["[1] a", "[2] b"], "[2] > [1]"),
    entry("two", ["[A] a", "[B] b", "[C] c"], "[C] > [A] > [B]", system="You rank."),
    entry("three", ["[A] a", "[B] b"], "[A] > [B]", system="", docids=["d", "d"]),
]
BAD = {
    "no turns": ({"id": "no turns"}, "record: expected the key 'conversations'"),
    "no answer": ({"id": "no answer", "conversations": GOOD[0]["conversations"][:1]}, "found human"),
    "empty": (entry("empty", ["[1] a"], " "), "the target (gpt turn) is empty"),
    "no list": (entry("no list", ["a", "b"], "[1] > [2]"), "no line begins with [1] or [A]"),
    "gap": (entry("gap", ["[1] a", "[3] b"], "[1] > [2]"), "expected passage 2 to begin with [2]"),
    "prose": (entry("prose", ["[1] a", "[2] b"], "I rank [1] > [2]"), "target: expected only a ranking like"),
    "short": (entry("short", ["[1] a", "[2] b"], "[2]"), "missing [1]"),
    "double": (entry("double", ["[1] a", "[2] b"], "[2] > [1] > [2]"), "repeated [2]"),
    "foreign": (entry("foreign", ["[1] a", "[2] b"], "[2] > [1] > [7]"), "unknown [7]"),
    "letters": (entry("letters", ["[1] a", "[2] b"], "[B] > [A]"), "unknown [B] [A], missing [1] [2]"),
    "docids": (
        entry("docids", ["[1] a", "[2] b"], "[2] > [1]", docids=["d"]),
        "docids: expected 2, one per passage, found 1",
    ),
}


def test_a_good_file_is_counted(tmp_path):
    """Records by identifiers, by length, and with a system turn."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    report = check_listwise(path)
    assert (report.n_records, report.n_good, report.problems, report.stopped) == (3, 3, (), None)
    assert report.n_with_system == 2
    assert report.n_by_kind == {"numeric": 1, "alpha": 2}
    assert report.n_by_length == {2: 2, 3: 1}
    assert report.is_clean


def test_every_bad_record_is_named_with_its_reason(tmp_path):
    """One line each, with file, line and record; valid records around them are counted."""
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(GOOD[0]), *(json.dumps(bad) for bad, _ in BAD.values()), "{not json", json.dumps(GOOD[1])]
    path.write_text("\n".join(lines), encoding="utf-8")
    report = check_listwise(path)
    assert (report.n_records, report.n_good, report.is_clean) == (len(BAD) + 3, 2, False)
    assert len(report.problems) == len(BAD) + 1
    for line, (problem, (name, (_, reason))) in enumerate(zip(report.problems, BAD.items(), strict=False), start=2):
        assert problem.startswith(f"{path}:{line}: record '{name}': ")
        assert reason in problem
        assert "\n" not in problem
    assert report.problems[-1].startswith(f"{path}:{len(BAD) + 2}: not JSON")


def test_a_file_that_breaks_off_is_said_to(tmp_path):
    """Records before the break are counted; what follows cannot be found."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD)[:-60], encoding="utf-8")
    report = check_listwise(path)
    assert (report.n_good, report.problems, report.is_clean) == (2, (), False)
    assert report.stopped is not None
    assert report.stopped.startswith(f"{path}:1: not JSON")


def test_an_empty_file_is_not_clean(tmp_path):
    """Training on an empty file is never intended."""
    path = tmp_path / "a.jsonl"
    path.write_text("", encoding="utf-8")
    assert not check_listwise(path).is_clean


def test_a_missing_file_is_an_error(tmp_path):
    """Instead of a report."""
    with pytest.raises(RankLLMError, match="no such file"):
        check_listwise(tmp_path / "none.jsonl")


def test_all_real_records_are_good():
    """listwise_dl20: 4,425 windows of 20, numeric, without a system turn."""
    report = check_listwise(data("listwise_dl20") / "records.jsonl.xz")
    assert report.problems == ()
    assert (report.n_records, report.n_with_system, report.is_clean) == (4425, 0, True)
    assert report.n_by_kind == {"numeric": 4425}
    assert report.n_by_length == {20: 4425}


def test_all_real_records_change_to_letters_and_back():
    """The ranking is the same in letters; converted back, only text that looked like letter identifiers differs.

    12 records contain `[C]` and the like; 67 more contain other text that an answer reader accepts as identifiers, such
    as `[1,2]` and `[ U ]`.
    """
    changed = 0
    for record in read_listwise(data("listwise_dl20") / "records.jsonl.xz"):
        alpha = with_identifiers(record, "alpha")
        assert passage_identifiers(alpha.prompt) == tuple("ABCDEFGHIJKLMNOPQRST")
        positions = [ord(name) - ord("A") + 1 for name in ranking_of(alpha.target)]
        assert positions == [int(name) for name in ranking_of(record.target)]
        assert "e.g., [D] > [B], Only" in alpha.prompt
        back = with_identifiers(alpha, "numeric")
        assert back.target == record.target
        changed += back.prompt != record.prompt
    assert changed == 12 + 67
