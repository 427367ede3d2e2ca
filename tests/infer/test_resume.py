"""Nothing is lost: whatever stops `rankllm-infer rerank`, the same command goes on and gives the same bytes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from itertools import accumulate, count

import pytest
from chat_server import serving
from program import started
from ranking_server import failing_on, request, respond, write_jsonl

OUTPUTS = {"--output": "out.trec", "--output-jsonl": "out.jsonl", "--trace": "trace.jsonl"}
WINDOWS = ["--window-size", "10", "--stride", "5"]
N_PROMPTS = 10
"""Windows of 25, 3 and 30 candidates: 4 + 1 + 5."""


@pytest.fixture
def requests(tmp_path):
    """Three queries whose best passages are at the bottom."""
    records = [request(qid, *range(n)) for qid, n in (("q1", 25), ("q2", 3), ("q3", 30))]
    return write_jsonl(tmp_path / "requests.jsonl", *records)


def command(server, requests, folder, *options):
    """`rerank` with every output in a folder."""
    outputs = [word for option, name in OUTPUTS.items() for word in (option, folder / name)]
    model = ["--engine", "openai", "--base-url", server.base_url, "--model-path", "oracle"]
    return ["rerank", *model, "--requests", requests, *outputs, *WINDOWS, *options]


def contents(folder):
    """What the outputs hold."""
    return {name: (folder / name).read_bytes() for name in OUTPUTS.values()}


def journal_of(folder):
    """The journal beside the run."""
    return folder / "out.trec.journal.jsonl"


def known(record):
    """The answers in a line of a journal: qid, number, answer."""
    return record.get("answers", ())


def n_known(journal):
    """Answers in the whole lines of a journal."""
    return sum(len(known(record)) for record in records(journal))


def records(journal):
    """The whole lines of a journal, parsed; none where there is no journal yet."""
    lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def tear(journal, key):
    """Cut the journal within its last line that holds the key, as a kill leaves it in the middle of writing that."""
    ends = accumulate(map(len, journal.read_bytes().splitlines(keepends=True)))
    end = [end for end, record in zip(ends, records(journal), strict=False) if key in record][-1]
    os.truncate(journal, end - 5)


def prompts(server):
    """What the server was asked to rank."""
    return [str(received.body["messages"]) for received in server.requests if received.body]


def wait_until(claim):
    """Poll for up to a minute."""
    end = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def answering(n):
    """A server's model that answers so many prompts and leaves the next ones hanging until `go_on` is set."""
    go_on, left, lock = threading.Event(), iter(range(n)), threading.Lock()

    def answer(received):
        if received.body:
            with lock:
                is_answered = next(left, None) is not None
            if not is_answered:
                go_on.wait(60)
        return respond(received)

    return answer, go_on


@pytest.fixture
def whole(tmp_path, rankllm, requests):
    """The outputs of a run that nothing stopped."""
    with serving(respond) as server:
        done = rankllm(*command(server, requests, tmp_path / "whole"))
        assert done.code == 0, done.err
        assert len(prompts(server)) == N_PROMPTS
    assert not journal_of(tmp_path / "whole").exists()
    return contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("n_answers", "torn"), [(0, None), (1, None), (4, None), (6, "answers"), (6, "qid"), (9, None)]
)
def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path, rankllm, requests, whole, n_answers, torn):
    """kill -9 after so many answers, perhaps while an answer or a result is written: only what is lost is asked for."""
    answer, go_on = answering(n_answers)
    folder = tmp_path / "killed"
    journal = journal_of(folder)
    with serving(answer) as server:
        arguments = command(server, requests, folder)
        with started(arguments) as process:
            wait_until(lambda: n_known(journal) == n_answers and len(prompts(server)) > n_answers)
            # Of six answers one is q2's only one, so that q2 is, or is about to be, finished.
            wait_until(lambda: torn is None or any(torn in record for record in records(journal)))
            process.send_signal(signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
        assert sorted(path.name for path in folder.iterdir()) == ["out.trec.journal.jsonl"]
        if torn:
            tear(journal, torn)
        n_lost = n_answers - n_known(journal)
        assert n_lost >= (torn == "answers") if torn else n_lost == 0
        go_on.set()
        server.requests.clear()
        done = rankllm(*arguments)
        assert done.code == 0, done.err
        assert len(prompts(server)) == N_PROMPTS - n_answers + n_lost
    assert contents(folder) == whole
    assert sorted(path.name for path in folder.iterdir()) == sorted(OUTPUTS.values())
    assert f"Resuming from {journal}: " in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_run_says_how_to_go_on(tmp_path, rankllm, requests, whole, number, code):
    """Its status says what stopped it, its last lines how far it is; the same command goes on."""

    go_on, asked_of_q3 = threading.Event(), count()

    def answer(received):
        if received.body and "question q3" in str(received.body):
            (server.stopped if next(asked_of_q3) else go_on).wait(60)
        return respond(received)

    folder = tmp_path / "stopped"
    with serving(answer) as server:
        with started(command(server, requests, folder)) as process:
            wait_until(lambda: journal_of(folder).exists() and journal_of(folder).read_bytes().count(b'{"qid": ') == 2)
            # What writes q3's answer has counted the two before: a line is in the file before it is counted.
            go_on.set()
            wait_until(lambda: any(kept[0] == "q3" for record in records(journal_of(folder)) for kept in known(record)))
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (code, "")
        said = f"2 of 3 queries done and saved in {journal_of(folder)}; repeat the command to resume"
        assert [line for line in err.splitlines() if line][-2:] == [said, "Stopped."]
        server.respond = respond
        server.requests.clear()
        done = rankllm(*command(server, requests, folder))
        assert done.code == 0, done.err
        assert len(prompts(server)) == 4
    assert f"Resuming from {journal_of(folder)}: 2 of 3 queries done\n" in done.err
    assert ": ok 3; 10 model calls, 110 prompt tokens, 50 generated" in done.err
    assert contents(folder) == whole


def test_two_runs_never_write_the_same_output(tmp_path, rankllm, requests):
    """The second is refused at once, with --overwrite too, and does no harm to the first."""
    answer, go_on = answering(1)
    with serving(answer) as server:
        arguments = command(server, requests, tmp_path / "out")
        with started(arguments) as process:
            wait_until(lambda: n_known(journal_of(tmp_path / "out")) == 1)
            for options in ([], ["--overwrite"], ["--resume"]):
                done = rankllm(*arguments, *options)
                assert done.code == 1
                assert done.err == (
                    f"Error: {journal_of(tmp_path / 'out')}: another process is writing this output; "
                    "wait for it, or write to another name\n"
                )
            go_on.set()
            assert process.wait(60) == 0


@pytest.fixture
def failed(tmp_path, rankllm, requests):
    """A server that will now answer everything, and the command of a run in which q2 failed."""
    with serving(failing_on("question q2")) as server:
        arguments = command(server, requests, tmp_path / "failed")
        done = rankllm(*arguments)
        assert done.code == 3
        assert "Failed and omitted from all outputs: 1 query\n  query 'q2': " in done.err
        assert done.err.endswith("To retry only the failed queries, repeat the command with --resume\n")
        server.respond = respond
        server.requests.clear()
        yield server, arguments


def test_a_failed_query_is_tried_again_and_nothing_else_is(tmp_path, rankllm, whole, failed):
    """--resume; then the outputs are those of a run in which nothing failed, and the journal is gone."""
    server, arguments = failed
    assert b"q2" not in contents(tmp_path / "failed")["out.trec"]
    done = rankllm(*arguments, "--resume")
    assert done.code == 0, done.err
    (prompt,) = prompts(server)
    assert "question q2" in prompt
    assert contents(tmp_path / "failed") == whole
    assert not journal_of(tmp_path / "failed").exists()


def test_a_query_that_fails_again_is_kept_for_another_time(tmp_path, rankllm, whole, failed):
    """Status 3 each time; what is there stays."""
    server, arguments = failed
    server.respond = failing_on("question q2")
    before = contents(tmp_path / "failed")
    assert rankllm(*arguments, "--resume").code == 3
    assert contents(tmp_path / "failed") == before
    server.respond = respond
    assert rankllm(*arguments, "--resume").code == 0
    assert contents(tmp_path / "failed") == whole


def test_a_finished_run_is_not_repeated(tmp_path, rankllm, requests, failed):
    """With failed queries or without, and nothing is asked; --overwrite starts over."""
    server, arguments = failed
    run = tmp_path / "failed" / "out.trec"
    done = rankllm(*arguments)
    assert (done.code, prompts(server)) == (1, [])
    assert done.err == (
        f"Error: {run}: exists; 1 query of its run failed: --resume retries them, --overwrite starts over\n"
    )
    assert rankllm(*arguments, "--resume").code == 0
    for options in ([], ["--resume"]):
        done = rankllm(*arguments, *options)
        assert done.code == 1
        assert done.err == f"Error: {run}: already exists; use --overwrite to replace it, or another name\n"
    server.requests.clear()
    assert rankllm(*arguments, "--overwrite").code == 0
    assert len(prompts(server)) == N_PROMPTS


def test_outputs_that_were_only_half_there_are_written_again(tmp_path, rankllm, failed):
    """Killed between two outputs: nothing is asked, no model is loaded, all outputs are there."""
    server, arguments = failed
    folder = tmp_path / "failed"
    before = contents(folder)
    (folder / "trace.jsonl").unlink()
    lines = journal_of(folder).read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["are_complete"] is True
    journal_of(folder).write_bytes(b"".join(lines[:-1]))
    done = rankllm(*arguments)
    assert done.code == 3
    assert "Reranking: " not in done.err
    assert (contents(folder), server.requests) == (before, [])


def test_a_run_that_is_to_replace_outputs_is_gone_on_with_without_saying_so_again(tmp_path, rankllm, requests, whole):
    """--overwrite starts over each time; a stopped run says what to leave out. Until it is done the old ones stay."""
    folder = tmp_path / "old"
    folder.mkdir()
    for name in OUTPUTS.values():
        (folder / name).write_bytes(b"old\n")
    answer, go_on = answering(4)
    with serving(answer) as server:
        arguments = command(server, requests, folder)
        with started([*arguments, "--overwrite"]) as process:
            wait_until(lambda: n_known(journal_of(folder)) == 4)
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=60)
        assert f"saved in {journal_of(folder)}; repeat the command without --overwrite to resume\n" in err
        assert set(contents(folder).values()) == {b"old\n"}
        go_on.set()
        server.requests.clear()
        assert rankllm(*arguments).code == 0
        assert len(prompts(server)) == N_PROMPTS - 4
    assert contents(folder) == whole


def test_a_file_that_is_not_the_runs_own_is_not_replaced(tmp_path, rankllm, failed):
    """An output that was not among those of the run, or that appeared while it was broken off."""
    _, arguments = failed
    mine = tmp_path / "failed" / "mine"
    mine.write_text("mine", encoding="utf-8")
    changed = [mine if str(word).endswith("out.jsonl") else word for word in arguments]
    done = rankllm(*changed, "--resume")
    assert done.code == 1
    assert done.err == f"Error: {mine}: already exists; use --overwrite to replace it, or another name\n"
    assert mine.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--window-size", "9"],
            "card window.size was 10, is 9. Resume with the old settings, start over with --overwrite",
        ),
        (["--prompt-template-path", "rank_gpt"], 'card template.name was "rank_zephyr", is "rank_gpt"; card template.'),
        (["--system-message", "Be fair."], '--system-message was not set, is "Be fair.". Resume'),
        (
            ["--shuffle-candidates", "--seed", "7"],
            "--shuffle-candidates was false, is true; --seed was 0, is 7. Resume",
        ),
        (["--model-path", "other"], 'model was "oracle at http://127.0.0.1:'),
        (["--top-k-candidates", "2"], "--top-k-candidates was not set, is 2. Resume"),
        (["--max-queries", "2"], 'input was "3 queries, sha256 '),
    ],
)
def test_a_changed_option_is_refused_with_the_difference_named(tmp_path, rankllm, failed, options, message):
    """Two ways of ranking must not end up in one run. One line, before anything is asked; nothing is touched."""
    server, arguments = failed
    before = journal_of(tmp_path / "failed").read_bytes()
    done = rankllm(*arguments, *options, "--resume")
    assert done.code == 1
    (error,) = [line for line in done.err.splitlines() if line.startswith("Error: ")]
    assert error.startswith(f"Error: {journal_of(tmp_path / 'failed')}: an unfinished run with other settings: ")
    assert message in error
    assert "Reranking: " not in done.err
    assert prompts(server) == []
    assert journal_of(tmp_path / "failed").read_bytes() == before


def test_a_changed_passage_is_refused(tmp_path, rankllm, requests, failed):
    """The input counts with every letter; where the file is does not."""
    _, arguments = failed
    text = requests.read_text(encoding="utf-8")
    requests.write_text(text.replace("passage 7 worth 6", "passage 7 worth 8"), encoding="utf-8")
    done = rankllm(*arguments, "--resume")
    assert done.code == 1
    assert 'input was "3 queries, sha256 ' in done.err
    moved = tmp_path / "moved.jsonl"
    moved.write_text(text, encoding="utf-8")
    assert rankllm(*[moved if word == requests else word for word in arguments], "--resume").code == 0


def test_what_changes_no_result_may_change(tmp_path, rankllm, whole, failed):
    """More patience, fewer prompts at once, another key, another tag for the run."""
    _, arguments = failed
    done = rankllm(*arguments, "--resume", "--timeout", "9", "--concurrency", "2", "--tag", "rankllm")
    assert done.code == 0, done.err
    assert contents(tmp_path / "failed") == whole


def test_the_journal_is_beside_the_first_output_there_is(tmp_path, rankllm, requests):
    """Run, results, trace, in this order; a run that is begun with other outputs is not silently begun anew."""
    model = ["--engine", "openai", "--model-path", "oracle", "--requests", requests]
    with serving(failing_on("question q2")) as server:
        model += ["--base-url", server.base_url]
        for option, name in OUTPUTS.items():
            assert rankllm("rerank", *model, option, tmp_path / name).code == 3
            assert (tmp_path / f"{name}.journal.jsonl").exists()
        both = ["--output", tmp_path / "new.trec", "--output-jsonl", tmp_path / "out.jsonl"]
        done = rankllm("rerank", *model, *both)
    assert done.code == 1
    assert done.err == (
        f"Error: {tmp_path}/out.jsonl.journal.jsonl: unfinished run without the output {tmp_path}/new.trec; "
        "give the outputs it was started with, or delete it\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--requests", "r", "--output", "o", "--resume", "--overwrite"],
            "--resume resumes a run, --over",
        ),
        (["--requests", "r", "--qrels", "q", "--resume"], "--resume has no effect without an output"),
        (["--query", "q", "--passages", "p", "--resume"], "--resume cannot be combined with --query"),
    ],
)
def test_resuming_what_cannot_be_resumed_is_wrong_usage(tmp_path, rankllm, options, message):
    """Status 2."""
    done = rankllm("rerank", "--model-path", "m", *options)
    assert done.code == 2
    assert f"Error: {message}" in done.err
