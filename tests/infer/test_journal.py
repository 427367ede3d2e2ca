"""The journal: nothing finished is lost, nothing torn is believed, no other run is continued."""

from __future__ import annotations

import pytest
from rankllm_core.errors import RankLLMError
from rankllm_core.types import Candidate, Query, Result, Usage
from rankllm_infer.journal import Journal, journal_path, model_fingerprint, open_journal

SETTINGS = {"model": "m", "window_size": 20, "input": "abc"}


def result(qid: str, *, status: str = "ok") -> Result:
    candidates = (Candidate(docid="d2", score=2.0, model_score=0.5), Candidate(docid="d1", score=1.0))
    return Result(
        query=Query(qid=qid, text=f"text of {qid}"),
        candidates=candidates,
        status=status,
        usage=Usage(calls=1, prompt_tokens=7, completion_tokens=3),
        error="no answer" if status == "failed" else None,
    )


def begin(path, qids) -> None:
    with open_journal(path, SETTINGS) as journal:
        for qid in qids:
            journal.add(result(qid), trace=None)


def test_what_was_added_is_there_when_the_journal_is_opened_again(tmp_path):
    """Entries come back in the order asked for, whatever the order they were written in."""
    path = journal_path(tmp_path / "out.trec")
    assert path.name == "out.trec.journal.jsonl"
    begin(path, ["q1", "q2", "q3"])
    with open_journal(path, SETTINGS) as journal:
        assert len(journal) == 3
        assert "q2" in journal
        assert "q9" not in journal
        entries = list(journal.entries(["q3", "q1"]))
    assert [entry.qid for entry in entries] == ["q3", "q1"]
    assert entries[0].ranking == (("d2", 2.0), ("d1", 1.0))
    assert entries[0].usage == Usage(calls=1, prompt_tokens=7, completion_tokens=3)
    assert '"text of q3"' in entries[0].result


@pytest.mark.parametrize("kept", range(0, 400, 7))
def test_a_journal_cut_anywhere_loses_at_most_what_was_being_written(tmp_path, kept):
    """Whatever byte a kill leaves as the last one, whole lines before it count and the journal goes on."""
    path = tmp_path / "journal"
    begin(path, ["q1", "q2"])
    whole = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    path.write_bytes(whole[:kept])
    finished = sum(end <= kept for end in ends[1:])
    with open_journal(path, SETTINGS) as journal:
        assert len(journal) == finished
        journal.add(result("q2"), trace=None) if finished < 2 else None
    with open_journal(path, SETTINGS) as journal:
        assert "q2" in journal


def test_another_run_is_refused_with_the_difference_named(tmp_path):
    """The same output name with a changed option must not mix two runs."""
    path = tmp_path / "journal"
    begin(path, ["q1"])
    before = path.read_bytes()
    with pytest.raises(RankLLMError, match="window_size was 20, is 10"):
        open_journal(path, SETTINGS | {"window_size": 10})
    assert path.read_bytes() == before


def test_damage_in_the_middle_is_an_error_not_a_loss(tmp_path):
    """A bad line that is not the last one was not made by a kill."""
    path = tmp_path / "journal"
    begin(path, ["q1", "q2"])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(RankLLMError, match="damaged at byte"):
        open_journal(path, SETTINGS)


def test_failed_queries_are_kept_until_they_are_forgotten(tmp_path):
    """A failed query counts as done for the same command, and is asked again after `forget_failed`."""
    path = tmp_path / "journal"
    with open_journal(path, SETTINGS) as journal:
        journal.add(result("q1"), trace="t")
        journal.add(result("q2", status="failed"), trace=None)
    with open_journal(path, SETTINGS) as journal:
        assert "q2" in journal
        assert journal.forget_failed() == 1
        assert "q2" not in journal
        journal.add(result("q2"), trace=None)
        (entry,) = journal.entries(["q2"])
        assert entry.status == "ok"
    with open_journal(path, SETTINGS) as journal:
        assert next(journal.entries(["q2"])).status == "ok"


def test_a_finished_run_leaves_no_journal(tmp_path):
    """`remove` deletes the file."""
    journal: Journal = open_journal(tmp_path / "journal", SETTINGS)
    journal.remove()
    assert not (tmp_path / "journal").exists()


def test_a_changed_checkpoint_has_another_fingerprint(tmp_path):
    """Configuration and weights both count."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"0" * 100)
    first = model_fingerprint(tmp_path)
    assert first == model_fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1" * 100)
    assert model_fingerprint(tmp_path) != first
