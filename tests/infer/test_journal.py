"""The journal: nothing written is lost, nothing incomplete is used, and no other run is resumed."""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
from pathlib import Path

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_core.types import Candidate, Query, Request, Result, Usage, WindowTrace
from rankllm_infer.engines.base import Answer
from rankllm_infer.jobs.journal import Journal, journal_path

SETTINGS = {"model": "m", "--window-size": 20, "input": "abc"}
ANSWER = Answer(text="[2] > [1]", scores=(0.1, -math.inf), usage=Usage(calls=1, prompt_tokens=7, completion_tokens=3))


def asked(qid):
    """Answers to the prompts of a query of `result`."""
    candidates = (Candidate(docid=f"d{n}", score=9.0 - n, doc={"text": f"passage {n}"}) for n in (1, 2))
    return Request(query=Query(qid=qid, text=f"text of {qid}"), candidates=tuple(candidates))


def result(qid, *, status="ok"):
    """A result with a trace, numbers without a short JSON form, and a text that is not valid UTF-8."""
    first, second = asked(qid).candidates
    if status == "failed":
        return Result(query=asked(qid).query, candidates=(first, second), status="failed", error="no answer")
    call = WindowTrace(
        start=0,
        docids=("d1", "d2"),
        prompt="passage \ud800\u2028",
        response="[2] > [1]",
        order=(1, 0),
        status="repaired",
        defects=("stray",),
        scores=(0.1, -math.inf),
        usage=Usage(calls=1, prompt_tokens=7),
    )
    return Result(
        query=asked(qid).query,
        candidates=(
            Candidate(docid="d2", score=2.0, doc=second.doc, model_score=0.1 + 0.2),
            Candidate(docid="d1", score=1.0, doc=first.doc),
        ),
        status="repaired",
        defects=("stray",),
        usage=Usage(calls=1, prompt_tokens=7, completion_tokens=3),
        trace=(call,),
    )


def begin(path, *entries):
    """A journal with these answers (qid, number) and results."""
    with Journal(path) as journal:
        journal.begin(SETTINGS)
        for entry in entries:
            journal.add(entry) if isinstance(entry, Result) else journal.keep([(*entry, ANSWER)])
    return path


def test_it_is_beside_the_output():
    """Whatever the extension of the output."""
    assert str(journal_path(Path("runs/out.trec.gz"))) == "runs/out.trec.gz.journal.jsonl"


def test_results_come_back_as_they_were(tmp_path):
    """Every field and every bit of every number; passages and query come from the request."""
    path = begin(tmp_path / "journal", result("q1"), result("q2", status="failed"), result("q3"))
    assert "passage 1" not in path.read_text(encoding="utf-8")
    with Journal(path) as journal:
        assert [journal.result(asked(qid)) for qid in ("q3", "q2", "q1")] == [
            result("q3"),
            result("q2", status="failed"),
            result("q1"),
        ]
        assert (journal.n_finished, journal.n_failed) == (3, 1)


def test_answers_come_back_until_their_query_is_finished(tmp_path):
    """Those of finished queries are not kept."""
    path = begin(tmp_path / "journal", ("q1", 0), ("q2", 0), ("q1", 1), result("q1"), ("q2", 1))
    with Journal(path) as journal:
        assert [journal.recall("q2", number) for number in (0, 1, 2)] == [ANSWER, ANSWER, None]
        assert journal.recall("q1", 0) is None
        assert [journal.is_finished(qid) for qid in ("q1", "q2")] == [True, False]


def test_each_line_is_on_the_disk_when_the_call_returns(tmp_path):
    """One per finished query: a later kill cannot lose it."""
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.begin(SETTINGS)
        for number in range(1, 4):
            journal.add(result(f"q{number}"))
            lines = path.read_bytes().split(b"\n")
            assert [json.loads(line).get("qid") for line in lines[1:-1]] == [f"q{n}" for n in range(1, number + 1)]
            assert lines[-1] == b""


def test_a_journal_cut_anywhere_loses_at_most_its_last_line(tmp_path):
    """Wherever a kill truncates the file, earlier whole lines count and the journal continues."""
    whole = begin(tmp_path / "whole", ("q1", 0), result("q1"), ("q2", 0)).read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    assert len(ends) == 4
    near = {end + step for end in ends for step in (-2, -1, 0, 1)}
    for kept in sorted({*range(0, len(whole), 23), *near} & {*range(len(whole) + 1)}):
        path = tmp_path / "journal"
        path.write_bytes(whole[:kept])
        with Journal(path) as journal:
            n_lines = sum(end <= kept for end in ends)
            assert journal.settings == (SETTINGS if n_lines else {})
            assert journal.is_finished("q1") == (n_lines >= 3)
            assert (journal.recall("q1", 0) is not None) == (n_lines == 2)
            assert (journal.recall("q2", 0) is not None) == (n_lines == 4)
            journal.begin(SETTINGS)
            journal.add(result("q3"))
        with Journal(path) as journal:
            assert journal.result(asked("q3")) == result("q3")
            assert journal.n_finished == 1 + (n_lines >= 3)


def test_damage_in_the_middle_is_an_error_not_a_loss(tmp_path):
    """A bad line before the last one was not caused by a kill; nothing is modified."""
    path = begin(tmp_path / "journal", result("q1"), result("q2"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(damaged := lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(RankLLMError, match=r"journal:2: damaged .* start over with --overwrite"):
        Journal(path)
    assert path.read_bytes() == damaged


def test_a_file_of_another_kind_is_not_overwritten(tmp_path):
    """A user's notes that happen to have this name."""
    path = tmp_path / "journal"
    path.write_text("my notes", encoding="utf-8")
    with pytest.raises(RankLLMError, match="not a journal of this version"):
        Journal(path)
    assert path.read_text(encoding="utf-8") == "my notes"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--window-size": 10}, "other settings: --window-size was 20, is 10. Resume"),
        ({"--seed": 3}, "other settings: --seed was not set, is 3. Resume"),
        ({"model": "n", "input": "x", "--window-size": 1, "more": 2}, 'input was "abc", is "x"; and 1 more. Resume'),
        ({"model": "a" * 500 + "b"}, r'model was "m", is "aaaaa'),
    ],
)
def test_another_run_is_refused_with_the_difference_named(tmp_path, changes, message):
    """The same output name with a changed option must not mix two runs; one line, and nothing is modified."""
    path = begin(tmp_path / "journal", result("q1"))
    before = path.read_bytes()
    with Journal(path) as journal, pytest.raises(RankLLMError) as refused:
        journal.begin(SETTINGS | changes)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 500
    assert path.read_bytes() == before


def test_a_setting_that_was_removed_is_a_difference(tmp_path):
    """A prompt without its system message differs, although no setting of the new run mentions it."""
    path = begin(tmp_path / "journal", result("q1"))
    removed = {name: value for name, value in SETTINGS.items() if name != "--window-size"}
    with Journal(path) as journal, pytest.raises(RankLLMError, match=r"--window-size was 20, is not set\. Resume"):
        journal.check(removed)
    with Journal(path) as journal:
        journal.check(removed, unknown=["--window-size"])
        journal.check(SETTINGS | {"a setting of no effect": None})


def test_every_difference_is_named(tmp_path):
    """The first ones with their values, the others by name."""
    with Journal(tmp_path / "journal") as journal:
        journal.begin({f"s{n}": n for n in range(6)})
        with pytest.raises(RankLLMError) as refused:
            journal.check({})
    assert "s0 was 0, is not set; s1 was 1, is not set; s2 was 2, is not set; and 3 more. " in str(refused.value)
    assert str(refused.value).endswith(" (also changed: s3, s4, s5)")


def test_where_long_texts_differ_that_place_is_shown(tmp_path):
    """Two templates with the same first thousand characters."""
    with Journal(tmp_path / "journal") as journal:
        journal.begin({"prefix": "x" * 1000 + "old end"})
        with pytest.raises(RankLLMError, match=r'prefix was \.\.\.x{10}old end", is \.\.\.x{10}new end"\.'):
            journal.check({"prefix": "x" * 1000 + "new end"})


def test_failed_queries_are_finished_until_they_are_forgotten(tmp_path):
    """When retried they start over: their recorded answers may be the cause of the failure."""
    path = begin(tmp_path / "journal", ("q2", 0), result("q1"), result("q2", status="failed"))
    with Journal(path) as journal:
        assert journal.is_finished("q2")
        journal.begin(SETTINGS)
        journal.forget_failed()
        assert not journal.is_finished("q2")
        assert journal.recall("q2", 0) is None
        assert journal.n_failed == 0
        journal.add(result("q2"))
    with Journal(path) as journal:
        assert (journal.n_finished, journal.n_failed) == (2, 0)
        assert journal.result(asked("q2")) == result("q2")


def test_a_journal_to_begin_anew_is_kept_until_it_is_begun(tmp_path):
    """An earlier error must not cost the old journal."""
    path = begin(tmp_path / "journal", result("q1"))
    before = path.read_bytes()
    with Journal(path, is_new=True) as journal:
        assert not journal.is_finished("q1")
    assert path.read_bytes() == before
    with Journal(path, is_new=True) as journal:
        journal.begin(SETTINGS | {"model": "another"})
        journal.add(result("q2"))
    with Journal(path) as journal:
        assert journal.settings["model"] == "another"
        assert [journal.is_finished(qid) for qid in ("q1", "q2")] == [False, True]


def test_what_nobody_would_miss_leaves_no_file(tmp_path):
    """Not started, started without answers, finished and removed."""
    path = tmp_path / "journal"
    with Journal(path):
        pass
    assert not path.exists()
    begin(path)
    assert not path.exists()
    begin(path, result("q1"))
    with Journal(path) as journal:
        journal.remove()
    assert not path.exists()


def test_it_remembers_which_outputs_are_its_own(tmp_path):
    """Those it was started to replace and those it has written, with or without a kill in between."""
    path, run, results = (tmp_path / name for name in ("journal", "run", "results"))
    with Journal(path) as journal:
        journal.begin(SETTINGS, outputs=[run])
        journal.add(result("q1"))
    with Journal(path) as journal:
        assert (journal.outputs, journal.is_complete) == ({str(run)}, False)
        journal.begin(SETTINGS)
        journal.note_outputs([results], are_complete=False)
    with Journal(path) as journal:
        assert (journal.outputs, journal.is_complete) == ({str(run), str(results)}, False)
        journal.begin(SETTINGS)
        journal.note_outputs([results], are_complete=True)
    with Journal(path) as journal:
        assert journal.is_complete
        journal.begin(SETTINGS)
        journal.add(result("q2"))
    with Journal(path) as journal:
        assert not journal.is_complete


def _open_in_a_process_of_its_own(path, replies):
    try:
        with Journal(path):
            replies.put("opened")
    except RankLLMError as error:
        replies.put(str(error))


def test_two_processes_never_have_it_open(tmp_path):
    """The second process gets an error; once the first has ended, it succeeds."""
    path = tmp_path / "journal"
    context = multiprocessing.get_context("fork")
    replies = context.Queue()
    said = []
    with Journal(path):
        for _ in range(2):
            process = context.Process(target=_open_in_a_process_of_its_own, args=(path, replies))
            process.start()
            said.append(replies.get(timeout=60))
            process.join()
    assert said == [f"{path}: another process is writing this output; wait for it, or write to another name"] * 2
    process = context.Process(target=_open_in_a_process_of_its_own, args=(path, replies))
    process.start()
    assert replies.get(timeout=60) == "opened"
    process.join()


def _write_until_the_disk_is_full(path, replies):
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, resource.RLIM_INFINITY))
    try:
        with Journal(path) as journal:
            journal.begin(SETTINGS)
            journal.add(result("q2"))
    except RankLLMError as error:
        replies.put(str(error))


def test_a_full_disk_is_one_line_and_costs_the_last_line_only(tmp_path):
    """The incomplete line is discarded, and the journal continues without it."""
    path = begin(tmp_path / "journal", result("q1"))
    size = path.stat().st_size
    context = multiprocessing.get_context("fork")
    replies = context.Queue()
    process = context.Process(target=_write_until_the_disk_is_full, args=(path, replies))
    process.start()
    assert replies.get(timeout=60) == f"{path}: the journal cannot be written (File too large)"
    process.join()
    assert path.stat().st_size == size + 100
    with Journal(path) as journal:
        assert (journal.is_finished("q1"), journal.is_finished("q2")) == (True, False)
        journal.begin(SETTINGS)
    assert path.stat().st_size == size


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    """A file is in the way."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RankLLMError, match="file/journal: the journal cannot be written"):
        Journal(tmp_path / "file" / "journal")
