"""A signal at any moment: the run either finishes with status 0, or is resumed by the same command with the same
bytes."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from chat_server import serving
from ranking_server import request, respond, write_jsonl
from scripted_runs import contents, journal_of

from rankllm_infer.jobs.journal import Journal
from rankllm_infer.jobs.outputs import LastSteps, last_steps

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def command(tmp_path):
    """`rerank` of three queries into a folder, and a server that ranks."""
    records = [request(qid, *range(n)) for qid, n in (("q1", 5), ("q2", 3), ("q3", 4))]
    requests = write_jsonl(tmp_path / "requests.jsonl", *records)
    with serving(respond) as server:

        def arguments(folder):
            model = ["--engine", "openai", "--base-url", server.base_url, "--model-path", "oracle"]
            outputs = ["--output", folder / "out.trec", "--output-jsonl", folder / "out.jsonl"]
            return ["rerank", *model, "--requests", requests, *outputs, "--trace", folder / "trace.jsonl"]

        yield arguments


def signal_at(monkeypatch, owner, name, number, *, call, before):
    """Signal the process when a function is called for the n-th time, before or after the call."""
    original, calls = getattr(owner, name), iter(range(10**6))

    def signalled(*args, **kwargs):
        is_now = next(calls) == call
        if is_now and before:
            os.kill(os.getpid(), number)
        result = original(*args, **kwargs)
        if is_now and not before:
            os.kill(os.getpid(), number)
        return result

    monkeypatch.setattr(owner, name, signalled)


POINTS = {
    "before the answers are kept": (Journal, "keep", 0, True),
    "after a query is finished": (Journal, "add", 1, False),
    "before the outputs are noted": (Journal, "note_outputs", 0, True),
    "after the outputs are noted": (Journal, "note_outputs", 0, False),
    "before the first output appears": (os, "replace", 0, True),
    "after the first output appeared": (os, "replace", 0, False),
    "before the last output appears": (os, "replace", 2, True),
    "after the last output appeared": (os, "replace", 2, False),
    "before the journal is over": (Journal, "remove", 0, True),
    "after the journal is over": (Journal, "remove", 0, False),
    "before the journal is closed": (Journal, "__exit__", 0, True),
    "after the journal is closed": (Journal, "__exit__", 0, False),
}
DONE = list(POINTS)[4:]
"""From here on there is nothing left to stop."""


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("point", POINTS)
def test_a_signal_either_stops_the_run_or_comes_too_late(tmp_path, rankllm, command, monkeypatch, point, number):
    """Status 130 or 143 and a journal to resume, or status 0 and all outputs; never a mixture."""
    assert rankllm(*command(tmp_path / "whole")).code == 0
    owner, name, call, before = POINTS[point]
    folder = tmp_path / "signalled"
    with monkeypatch.context() as patched:
        signal_at(patched, owner, name, number, call=call, before=before)
        done = rankllm(*command(folder))
    if point in DONE:
        assert done.code == 0, done.err
        assert "Ignored the signal to stop: the run had already finished\n" in done.err
    else:
        assert done.code == 128 + number, done.err
        assert "done and saved in" in done.err or not journal_of(folder).exists()
        assert contents(folder) == {}
        assert rankllm(*command(folder)).code == 0
    assert contents(folder) == contents(tmp_path / "whole")
    assert sorted(path.name for path in folder.iterdir()) == ["out.jsonl", "out.trec", "trace.jsonl"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_is_obeyed():
    """A disk may hang while the outputs are synced."""
    said = []

    def signalled():
        with last_steps(said.append) as last:
            last.begin()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        signalled()
    assert said == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_is_never_signalled():
    """Python sets handlers only in the main thread; other threads have nothing to do."""
    last = LastSteps()
    thread = threading.Thread(target=last.begin)
    before = [signal.getsignal(number) for number in SIGNALS]
    thread.start()
    thread.join()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_outputs_are_on_the_disk_before_the_journal_goes(tmp_path, rankllm, command, monkeypatch):
    """In this order: the journal's note of its outputs, each output, its name, and finally removal of the journal."""
    events = []

    def noted(owner, name, describe):
        original = getattr(owner, name)

        def noting(*args, **kwargs):
            described = describe(*args)
            result = original(*args, **kwargs)
            events.append((name, described))
            return result

        monkeypatch.setattr(owner, name, noting)

    def name_of(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        return "unfinished" if path.suffix == ".part" else path.name

    noted(os, "fsync", name_of)
    noted(os, "replace", lambda old, new: Path(new).name)
    noted(Path, "unlink", lambda path: path.name)
    folder = tmp_path / "out"
    assert rankllm(*command(folder)).code == 0
    journal = journal_of(folder).name
    ended = events.index(("fsync", journal), len(events) - events[::-1].index(("fsync", journal)) - 1)
    last = [event for event in events[ended:] if event[1] in (journal, "unfinished", "out", *contents(folder))]
    replaced = [name for kind, name in last if kind == "replace"]
    assert sorted(replaced) == sorted(contents(folder))
    expected = [("fsync", journal)]
    for name in replaced:
        expected += [("fsync", "unfinished"), ("replace", name), ("fsync", "out")]
    assert last == [*expected, ("unlink", journal)]
