"""Changes between interruption and resumption: prompt, input, outputs, and a full disk."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from ranking_fakes import make_request
from scripted_runs import OPTIONS, REQUESTS, Killed, contents, failing, journal_of, killed_after, rerank

from rankllm_core.errors import RankLLMError

TEMPLATE = {
    "method": "singleturn_listwise",
    "system_message": "Be fair.",
    "prefix": "Rank {num} passages for {query}.",
    "body": "[{rank}] {candidate}",
    "suffix": "Rank them for {query}.",
    "chat_layout": "vicuna",
}


@pytest.mark.parametrize("key", ["system_message", "suffix", "prefix", "chat_layout"])
def test_a_line_removed_from_the_template_is_refused(tmp_path, monkeypatch, key):
    """Otherwise four queries with one prompt and the rest with another would all be `ok`; likewise for an added
    line."""
    file = tmp_path / "t.yaml"
    shorter = {name: value for name, value in TEMPLATE.items() if name != key}
    for number, (before, after) in enumerate([(TEMPLATE, shorter), (shorter, TEMPLATE)]):
        folder = tmp_path / str(number)
        options = replace(OPTIONS, template=str(file))
        file.write_text("".join(f"{name}: {value!r}\n" for name, value in before.items()), encoding="utf-8")
        with suppress(Killed):
            rerank(monkeypatch, folder, answer=killed_after(8), options=options)
        journal = journal_of(folder).read_bytes()
        file.write_text("".join(f"{name}: {value!r}\n" for name, value in after.items()), encoding="utf-8")
        with pytest.raises(RankLLMError, match=f"with other settings: card template.{key} was .*, is .*Resume with"):
            rerank(monkeypatch, folder, options=options)
        assert journal_of(folder).read_bytes() == journal


@pytest.mark.parametrize("change", ["fewer", "more", "text", "order", "candidate"])
def test_another_input_is_refused(tmp_path, monkeypatch, change):
    """For any change in it."""
    changed = {
        "fewer": REQUESTS[:-1],
        "more": [*REQUESTS, make_request("new", 3)],
        "text": [replace(REQUESTS[0], query=replace(REQUESTS[0].query, text="x")), *REQUESTS[1:]],
        "order": REQUESTS[::-1],
        "candidate": [replace(REQUESTS[0], candidates=REQUESTS[0].candidates[1:]), *REQUESTS[1:]],
    }[change]
    with suppress(Killed):
        rerank(monkeypatch, tmp_path, answer=killed_after(8))
    with pytest.raises(RankLLMError, match='with other settings: input was "8 queries, sha256 '):
        rerank(monkeypatch, tmp_path, requests=changed)


@pytest.mark.parametrize("name", ["out.trec", "out.jsonl", "trace.jsonl"])
def test_an_output_that_somebody_edited_is_not_replaced(tmp_path, monkeypatch, whole, name):
    """Retrying a failed query would overwrite it: the edit is kept until the user decides."""
    folder = tmp_path / "failed"
    assert rerank(monkeypatch, folder, answer=failing) == 3
    with (folder / name).open("a", encoding="utf-8") as stream:
        stream.write("my notes\n")
    with pytest.raises(RankLLMError) as refused:
        rerank(monkeypatch, folder, resume=True)
    assert str(refused.value) == (
        f"{folder / name}: has changed since this run wrote it; move it away to have it rewritten, or use --overwrite"
    )
    assert (folder / name).read_text(encoding="utf-8").endswith("my notes\n")
    (folder / name).rename(tmp_path / "mine")
    assert rerank(monkeypatch, folder, resume=True) == 0
    assert contents(folder) == whole


@pytest.mark.parametrize("n_calls", range(3))
def test_a_disk_full_of_outputs_is_one_line_and_loses_nothing(tmp_path, monkeypatch, whole, n_calls):
    """Whichever output does not fit: the journal is complete, and the same command writes the outputs."""
    calls, original = iter(range(100)), os.replace

    def full(source, target):
        if next(calls) == n_calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source)
        original(source, target)

    folder = tmp_path / "full"
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(RankLLMError, match=r"cannot be written \(No space left on device\)$"):
            rerank(patched, folder)
    assert journal_of(folder).exists()
    assert len(contents(folder)) == n_calls
    assert rerank(monkeypatch, folder) == 0
    assert contents(folder) == whole
    assert sorted(path.name for path in folder.iterdir()) == sorted(whole)


@pytest.mark.parametrize("n_calls", [0, 1, 4, 9, 14])
def test_a_disk_full_of_journal_is_one_line_and_loses_one_line(tmp_path, monkeypatch, whole, n_calls):
    """Half a line was written; complete lines before it count."""
    calls, original = iter(range(1000)), os.write
    folder = tmp_path / "full"

    def full(handle, data):
        if Path(os.readlink(f"/proc/self/fd/{handle}")) == journal_of(folder) and next(calls) == n_calls:
            original(handle, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(handle, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(RankLLMError) as refused:
            rerank(patched, folder)
    assert str(refused.value) == f"{journal_of(folder)}: the journal cannot be written (No space left on device)"
    assert contents(folder) == {}
    assert rerank(monkeypatch, folder) == 0
    assert contents(folder) == whole


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys, whole):
    """As on some network file systems; the run is done nevertheless."""

    def no_locks(handle, *, blocking):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock, "lock_descriptor", no_locks)
    assert rerank(monkeypatch, tmp_path / "out") == 0
    message = f"Warning: {tmp_path}/out: this file system has no locks; do not start a second run on this output\n"
    assert message in capsys.readouterr().err
    assert contents(tmp_path / "out") == whole
    assert not journal_of(tmp_path / "out").exists()


def test_a_journal_that_cannot_be_deleted_is_named(tmp_path, monkeypatch, whole):
    """In a folder that became read-only meanwhile: everything is written, and the next run finds the leftover
    journal."""

    def refuse(path, *, missing_ok=False):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    folder = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(RankLLMError) as refused:
            rerank(patched, folder)
    assert str(refused.value) == f"{journal_of(folder)}: cannot be deleted (Permission denied); delete it"
    assert contents(folder) == whole
    assert rerank(monkeypatch, folder) == 0
    assert contents(folder) == whole
    assert not journal_of(folder).exists()
