"""Outputs under awkward names: one line where it cannot work, links that stay links, no file of somebody else's."""

from __future__ import annotations

import os

import pytest
from chat_server import serving
from ranking_server import failing_on, request, respond, write_jsonl


@pytest.fixture
def server():
    """A server that ranks."""
    with serving(respond) as running:
        yield running


@pytest.fixture
def command(tmp_path, server):
    """`rerank` of two queries, without outputs."""
    requests = write_jsonl(tmp_path / "requests.jsonl", request("q1", 1, 2, 3), request("q2", 2, 1))
    model = ["--engine", "openai", "--base-url", server.base_url, "--model-path", "oracle"]
    return ["rerank", *model, "--requests", requests]


@pytest.mark.parametrize("option", ["--output", "--output-jsonl", "--trace"])
@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "x" * 242, "x" * 246, "x" * 255, "x" * 256, "ü" * 125, "x" * 5000]
)
def test_a_name_that_no_file_can_have_is_one_line(rankllm, command, server, tmp_path, monkeypatch, option, name):
    """Empty, a folder, too long for the file or for the journal beside it; before anything is asked."""
    monkeypatch.chdir(tmp_path)
    done = rankllm(*command, option, name)
    assert done.code in (1, 2)
    assert done.err.splitlines()[-1].startswith("Error: ")
    assert done.err.count("Error: ") == 1
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()[-1]) < 300
    assert server.requests == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.jsonl"]


@pytest.mark.parametrize("name", ["x" * 241, "ü" * 120, "a b\nc", "-"])
def test_every_other_name_works(rankllm, command, tmp_path, monkeypatch, name):
    """Up to the last byte that leaves room for the journal's name."""
    monkeypatch.chdir(tmp_path)
    done = rankllm(*command, "--output", name)
    assert done.code == 0, done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "requests.jsonl"])


@pytest.mark.parametrize("exists", [True, False])
def test_a_linked_output_stays_a_link(rankllm, command, tmp_path, exists):
    """What it leads to is written, here and after a resume."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.trec").symlink_to(tmp_path / "disk" / "run")
    if exists:
        (tmp_path / "disk" / "run").write_text("old\n", encoding="utf-8")
        done = rankllm(*command, "--output", tmp_path / "out.trec")
        assert done.code == 1
        assert "out.trec: already exists; use --overwrite" in done.err
    options = ["--overwrite"] if exists else []
    done = rankllm(*command, "--output", tmp_path / "out.trec", *options)
    assert done.code == 0, done.err
    assert (tmp_path / "out.trec").is_symlink()
    assert (tmp_path / "disk" / "run").read_text(encoding="utf-8").startswith("q1 Q0 d3 1 ")
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["run"]


def test_two_names_of_one_file_are_not_two_outputs(rankllm, command, tmp_path):
    """A link and what it leads to."""
    (tmp_path / "link").symlink_to(tmp_path / "run")
    done = rankllm(*command, "--output", tmp_path / "run", "--output-jsonl", tmp_path / "link")
    assert done.code == 2
    assert "given for two outputs" in done.err


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--resume"]])
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_named_like_the_journal_is_not_followed(rankllm, command, server, tmp_path, options, exists):
    """What it leads to is somebody else's, and stays as it is, or is not made."""
    theirs = tmp_path / "theirs"
    if exists:
        theirs.write_text('{"rankllm_journal": 2, ', encoding="utf-8")
    journal = tmp_path / "out.trec.journal.jsonl"
    journal.symlink_to(theirs)
    done = rankllm(*command, "--output", tmp_path / "out.trec", *options)
    assert done.code == 1
    assert done.err == f"Error: {journal}: is a symbolic link; remove it\n"
    assert journal.is_symlink()
    assert theirs.exists() == exists
    assert not exists or theirs.read_text(encoding="utf-8") == '{"rankllm_journal": 2, '
    assert server.requests == []


def test_a_journal_that_links_to_itself_is_one_line(rankllm, command, tmp_path):
    """Nothing to follow, and nothing to write."""
    journal = tmp_path / "out.trec.journal.jsonl"
    journal.symlink_to(journal.name)
    done = rankllm(*command, "--output", tmp_path / "out.trec")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert done.err.startswith(f"Error: {journal}: ")


def test_what_is_no_file_is_no_journal(rankllm, command, tmp_path):
    """A named pipe, a folder."""
    for make in (os.mkfifo, os.mkdir):
        journal = tmp_path / "out.trec.journal.jsonl"
        make(journal)
        done = rankllm(*command, "--output", tmp_path / "out.trec", "--overwrite")
        assert done.code == 1
        assert done.err.startswith(f"Error: {journal}: expected ")
        journal.rmdir() if journal.is_dir() else journal.unlink()


def test_a_run_resumes_its_linked_output(rankllm, command, server, tmp_path):
    """A failed query is asked again, and the link stays."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.trec").symlink_to(tmp_path / "disk" / "run")
    server.respond = failing_on("question q2")
    assert rankllm(*command, "--output", tmp_path / "out.trec").code == 3
    server.respond = respond
    assert rankllm(*command, "--output", tmp_path / "out.trec", "--resume").code == 0
    assert (tmp_path / "out.trec").is_symlink()
    assert b"q2 Q0 d1 1 " in (tmp_path / "disk" / "run").read_bytes()
