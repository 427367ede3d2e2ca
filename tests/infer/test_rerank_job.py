"""A run over many queries from Python: the same bytes as from the command, resumed where it was interrupted."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from chat_server import serving
from ranking_server import request, respond, write_jsonl

from rankllm_core.data.records import read_requests
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer import OutputFiles, RerankOptions, Watcher, rerank_to_files


@pytest.fixture
def records():
    """Three queries."""
    return [request(qid, *range(n)) for qid, n in (("q1", 5), ("q2", 3), ("q3", 4))]


def files_in(folder):
    """A run and its results."""
    folder.mkdir()
    return OutputFiles(run=folder / "out.trec", results=folder / "out.jsonl")


def prompts(server):
    """Prompts received by the server."""
    return [received for received in server.requests if received.body]


def contents(files):
    """Contents of the outputs."""
    return [path.read_bytes() for path in files.paths()]


def options_for(server):
    """A server that ranks."""
    return RerankOptions(engine="openai", base_url=server.base_url)


def test_a_run_from_python_writes_what_the_command_writes(tmp_path, rankllm, records):
    """Outputs and figures; nothing is printed."""
    source = write_jsonl(tmp_path / "requests.jsonl", *records)
    asked, written = files_in(tmp_path / "python"), files_in(tmp_path / "command")
    with serving(respond) as server:
        report = rerank_to_files(list(read_requests(source)), "oracle", options_for(server), files=asked)
        outputs = ["--output", written.run, "--output-jsonl", written.results]
        served = ["--engine", "openai", "--base-url", server.base_url, "--model-path", "oracle"]
        done = rankllm("rerank", *served, "--requests", source, *outputs)
    assert done.code == 0, done.err
    assert contents(asked) == contents(written)
    assert (report.n_ranked, report.written, report.summary.failures) == (3, asked.paths(), {})
    assert report.figures is None
    assert not report.can_retry


def test_judgements_give_figures(tmp_path, records):
    """The oracle ranks d0 first: judged relevant, it gives 1."""
    source = write_jsonl(tmp_path / "requests.jsonl", *records)
    requests = list(read_requests(source))
    best = {asked.query.qid: {asked.candidates[0].docid: 1} for asked in requests}
    with serving(respond) as server:
        files = files_in(tmp_path / "out")
        report = rerank_to_files(requests, "oracle", options_for(server), files=files, qrels=best)
    evaluation = report.figures.result()
    assert evaluation.n_queries == 3
    assert set(evaluation.means) == {"nDCG@10", "MRR@10", "Recall@100"}


@contextmanager
def stopped_after(n, what, progress):
    """Progress whose watcher is interrupted at the n-th answer."""
    looks = iter(range(n))

    def show():
        if next(looks, None) is None:
            raise KeyboardInterrupt

    yield show


def test_an_interrupted_run_resumes_and_tells_its_watcher(tmp_path, records):
    """The lines report progress; the next call computes what is missing and writes the same bytes."""
    source = write_jsonl(tmp_path / "requests.jsonl", *records)
    requests = list(read_requests(source))
    said: list[str] = []
    whole, torn = files_in(tmp_path / "whole"), files_in(tmp_path / "torn")
    watcher = Watcher(say=said.append, prompts=partial(stopped_after, 2))
    with serving(respond) as server:
        rerank_to_files(requests, "oracle", options_for(server), files=whole)
        n_asked = len(prompts(server))
        with pytest.raises(KeyboardInterrupt):
            rerank_to_files(requests, "oracle", options_for(server), files=torn, watcher=watcher)
        assert [path.name for path in torn.run.parent.iterdir()] == ["out.trec.journal.jsonl"]
        assert " of 3 queries done and saved in " in said[-1]
        server.requests.clear()
        rerank_to_files(requests, "oracle", options_for(server), files=torn)
        assert len(prompts(server)) < n_asked
    assert contents(torn) == contents(whole)


def test_outputs_that_exist_are_refused(tmp_path, records):
    """As on the command line."""
    source = write_jsonl(tmp_path / "requests.jsonl", *records)
    requests = list(read_requests(source))
    files = files_in(tmp_path / "out")
    files.run.write_text("mine", encoding="utf-8")
    with serving(respond) as server, pytest.raises(RankLLMError, match=r"out\.trec: already exists"):
        rerank_to_files(requests, "oracle", options_for(server), files=files)
    assert files.run.read_text(encoding="utf-8") == "mine"


def test_requests_that_can_be_read_once_only_are_refused(tmp_path, records):
    """A generator would be exhausted once the model is loaded, and the run would end as if complete."""
    source = write_jsonl(tmp_path / "requests.jsonl", *records)
    files = files_in(tmp_path / "out")
    with serving(respond) as server, pytest.raises(RankLLMError, match="found an iterator; use a list"):
        rerank_to_files(read_requests(source), "oracle", options_for(server), files=files)
    assert not list(files.run.parent.glob("*.trec"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": True, "overwrite": True}, "resume and overwrite contradict each other"),
        ({"files": OutputFiles()}, "expected at least one output"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(tmp_path, changes, message):
    """As on the command line."""
    arguments = {"files": files_in(tmp_path / "out")} | changes
    with pytest.raises(ConfigError, match=message):
        rerank_to_files([], "oracle", options_for(SimpleNamespace(base_url="http://h/v1")), **arguments)


def test_warnings_of_the_model_are_in_the_report(tmp_path, records):
    """Nobody watches a run from Python, so warnings about the card must not be lost."""
    source = write_jsonl(tmp_path / "requests.jsonl", *records)
    files = files_in(tmp_path / "out")
    with serving(respond) as server:
        options = replace(options_for(server), use_alpha=False)
        report = rerank_to_files(list(read_requests(source)), "castorini/first_mistral", options, files=files)
    assert any(warning.startswith("--no-use-alpha: using identifiers numeric, ") for warning in report.warnings)
