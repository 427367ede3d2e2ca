"""What goes wrong with `rankllm-infer rerank`: one line, the right status, found early, and nothing half-written."""

from __future__ import annotations

import math
import signal
import threading

import pytest
from chat_server import serving
from program import started
from ranking_server import failing_on, request, respond, write_jsonl

NO_MODEL = ["--model-path", "no/such/model/anywhere"]
"""Whoever gets as far as loading it fails with another message."""


@pytest.fixture
def requests(tmp_path):
    """A requests file with three queries."""
    return write_jsonl(tmp_path / "requests.jsonl", *(request(f"q{number}", 1, 2, 3) for number in (1, 2, 3)))


def names(folder):
    """All files of a folder, hidden ones included."""
    return sorted(path.name for path in folder.iterdir())


def served(server, *options):
    """Options for a server."""
    return ["--engine", "openai", "--base-url", server.base_url, "--model-path", "oracle", *options]


# Wrong usage: status 2.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one of --requests, --rerank-input, --run, --dataset and --query"),
        (
            ["--requests", "r", "--rerank-input", "r"],
            "give one of --requests, --rerank-input, --run, --dataset and --query",
        ),
        (["--run", "r", "--queries", "q"], "--run needs --corpus"),
        (["--requests", "r", "--queries", "q"], "--requests cannot be combined with --queries"),
        (["--rerank-input", "r", "--corpus", "q"], "--rerank-input cannot be combined with --corpus"),
        (["--dataset", "dl19"], "--dataset needs --retrieval-method"),
        (["--requests", "r", "--retrieval-method", "bm25"], "--requests cannot be combined with --retrieval-method"),
        (
            ["--requests", "r", "--retrieval-results-dir", "d"],
            "--requests cannot be combined with --retrieval-results-dir",
        ),
        (["--query", "q"], "--query needs --passages"),
        (["--requests", "r", "--passages", "p"], "--requests cannot be combined with --passages"),
        (["--query", "q", "--passages", "p", "--qrels", "x"], "--qrels cannot be combined with --query"),
        (["--query", "q", "--passages", "p", "--strict"], "--strict cannot be combined with --query"),
        (["--query", "q", "--passages", "p", "--max-queries", "1"], "--max-queries cannot be combined with --query"),
        (["--requests", "r", "--output", "o", "--json"], "--json has no effect without --query"),
        (["--requests", "r", "--output", "o", "--output-jsonl", "o"], "o: given for two outputs"),
        (["--requests", "r", "--output", "o", "--encoded-save-path", "p"], "--output and --encoded-save-path are the"),
        (["--requests", "r", "--trace", "o", "--output-format", "tsv"], "--output-format has no effect without --out"),
        (["--requests", "r", "--trace", "o", "--tag", "t"], "--tag has no effect without an --output in the TREC"),
        (["--requests", "r", "--output", "o.tsv", "--tag", "t"], "--tag has no effect without an --output in the TREC"),
        (["--requests", "r", "--output", "o", "--dtype", "float32", "--bf16"], "--dtype, --bf16 and --fp16 contradict"),
        (["--requests", "r", "--output", "o", "--fp16", "--bf16"], "--dtype, --bf16 and --fp16 contradict"),
        (["--requests", "r", "--output", "o", "--engine", "openai"], "engine openai and base_url go together"),
        (["--requests", "r", "--output", "o", "--base-url", "http://h/v1"], "engine openai and base_url go together"),
        (["--requests", "r", "--output", "o", "--timeout", "9"], "--timeout has no effect with --engine transformers"),
        (["--requests", "r", "--output", "o", "--seed", "9"], "--seed has no effect without --shuffle-candidates"),
        (["--requests", "r", "--output", "o", "--few-shot-file", "f"], "few_shot_file and num_few_shot_examples go"),
        (["--requests", "r", "--output", "o", "--window-size", "0"], "Invalid value for '--window-size'"),
        (["--requests", "r", "--output", "o", "--method", "setwise"], "Invalid value for '--method'"),
        (["--requests", "r", "--output", "o", "--reqests", "r"], "No such option '--reqests'"),
    ],
)
def test_contradictory_input_is_wrong_usage(tmp_path, rankllm, monkeypatch, options, message):
    """Status 2, before any file is read or a model is looked for."""
    monkeypatch.chdir(tmp_path)
    done = rankllm("rerank", *NO_MODEL, *options)
    assert (done.code, done.out) == (2, "")
    assert f"Error: {message}" in done.err
    assert "Loading" not in done.err
    assert names(tmp_path) == []


def test_a_model_must_be_named(rankllm):
    """The one option that is required."""
    done = rankllm("rerank", "--requests", "r")
    assert done.code == 2
    assert "Missing option '--model-path'" in done.err


# Errors of the user: status 1, before the model is loaded.


def test_an_output_that_exists_is_kept(tmp_path, rankllm, requests):
    """Found before the model is looked for; each of the outputs is checked."""
    for option in ("--output", "--output-jsonl", "--trace"):
        (tmp_path / "mine").write_text("mine\n", encoding="utf-8")
        done = rankllm("rerank", *NO_MODEL, "--requests", requests, option, tmp_path / "mine")
        assert (done.code, done.out) == (1, "")
        assert (
            done.err == f"Error: {tmp_path / 'mine'}: already exists; use --overwrite to replace it, or another name\n"
        )
        assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine\n"


def test_an_input_is_never_an_output(tmp_path, rankllm, requests):
    """Not even with --overwrite."""
    before = requests.read_bytes()
    done = rankllm("rerank", *NO_MODEL, "--requests", requests, "--output-jsonl", requests, "--overwrite")
    assert done.code == 1
    assert done.err == f"Error: {requests}: is both input and output; write to another file\n"
    assert requests.read_bytes() == before


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (None, [], "requests.jsonl: no such file"),
        ([], [], "the input contains no queries; nothing to rerank"),
        (["not JSON"], [], "requests.jsonl:3: not JSON"),
        (['{"query": "text"}'], [], "requests.jsonl:3: query: expected an object, found the string 'text'"),
        ([request("q1", 1)], [], "requests.jsonl:3: query 'q1' occurs again (first on line 1); list each query once"),
        (
            [request("q9", 1, doc={"docid": ""})],
            [],
            "requests.jsonl:3: query 'q9', candidate 1: docid: expected a non-empty string",
        ),
        ([request("q9", 1, doc={"score": math.nan})], [], "docid 'd1': score: expected a finite number, found NaN"),
        ([request("q9", 1, 2, doc={"docid": "d2"})], [], "query 'q9': docid 'd2' occurs twice"),
        (
            [request("q9", 1, doc={"docid": "a b"})],
            [],
            "query 'q9': docid 'a b': contains whitespace, which separates the columns of a TREC run; "
            "write TSV instead (--output-format tsv)",
        ),
        ([request("q 9", 1)], [], "qid 'q 9': contains whitespace"),
        (
            [request("q9", 1, doc={"docid": "a\tb"})],
            ["--output-format", "tsv"],
            "query 'q9': docid 'a\\tb': contains a tab",
        ),
        ([], ["--tag", "two words"], "tag 'two words': expected a word without spaces"),
        ([request("q9")], ["--strict"], "query 'q9': no candidates (--strict)"),
        (
            [request("q9", 1, doc={"doc": {"title": "T"}})],
            ["--strict"],
            "query 'q9', docid 'd1': passage without text: expected one of text, segment, contents, content",
        ),
    ],
)
def test_bad_input_is_found_before_the_model_is_loaded(tmp_path, rankllm, lines, options, message):
    """Wherever in the file it is: not one query is lost to it after hours, and no output is begun."""
    requests = tmp_path / "requests.jsonl"
    good = [request("q1", 1, 2), request("q2", 1, 2)]
    if lines is not None:
        write_jsonl(
            requests, *(good if lines or options else []), *(line for line in lines if not isinstance(line, str))
        )
        with requests.open("a", encoding="utf-8") as stream:
            stream.writelines(line + "\n" for line in lines if isinstance(line, str))
    before = names(tmp_path)
    done = rankllm("rerank", *NO_MODEL, "--requests", requests, "--output", tmp_path / "out", *options)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert names(tmp_path) == before


def test_docids_with_blanks_are_welcome_where_the_output_can_carry_them(tmp_path, rankllm):
    """Results and TSV runs are not refused for what only TREC runs cannot hold."""
    requests = write_jsonl(tmp_path / "requests.jsonl", request("q 1", 1, 2, doc={"docid": "a b"}))
    with serving(respond) as server:
        done = rankllm(
            *["rerank", *served(server), "--requests", requests],
            *["--output", tmp_path / "out.tsv", "--output-jsonl", tmp_path / "out.jsonl"],
        )
    assert done.code == 0, done.err
    assert (tmp_path / "out.tsv").read_text(encoding="utf-8") == "q 1\td2\t2.0\nq 1\ta b\t1.0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "qrels: no such file"),
        ("q1 d1 1 x y\n", "qrels:1: expected 4 columns"),
        ("x1 0 d1 1\n", "qrels: judges none of the 3 queries (the queries are 'q1', 'q2', 'q3'; it judges 'x1')"),
    ],
)
def test_judgements_that_cannot_be_used_are_found_before_the_model_is_loaded(
    tmp_path, rankllm, requests, text, message
):
    """Not after it has ranked everything."""
    if text is not None:
        (tmp_path / "qrels").write_text(text, encoding="utf-8")
    done = rankllm("rerank", *NO_MODEL, "--requests", requests, "--qrels", tmp_path / "qrels")
    assert (done.code, done.out) == (1, "")
    assert f"Error: {tmp_path}/{message}" in done.err
    assert "Loading" not in done.err


@pytest.mark.parametrize(
    ("passages", "stdin", "message"),
    [
        ("-", "\n \n", "Error: -: found no passages, expected one per line\n"),
        ("passages", "", "Error: passages: no such file\n"),
        ("-", '{"text": "a"}\n{"text": \n', "Error: -:2: not JSON: Expecting value\n"),
        (
            "-",
            '{"docid": null, "text": "a"}\n',
            "Error: -:1: docid: expected a non-empty string or an integer",
        ),
        ("-", '{"docid": 1, "text": "a"}\n{"docid": "1", "text": "b"}\n', "Error: query '1': docid '1' occurs twice"),
    ],
)
def test_bad_passages_of_one_query_are_one_line(tmp_path, rankllm, monkeypatch, passages, stdin, message):
    """With the line where there is one."""
    monkeypatch.chdir(tmp_path)
    done = rankllm("rerank", *NO_MODEL, "--query", "q", "--passages", passages, stdin=stdin)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--use-alpha", "--window-size", "30"],
            "30 passages per window, but there are 26 alphabetic identifiers; use",
        ),
        (
            ["--window-size", "5"],
            "need 0 < stride <= size, got stride=10, size=5; set --stride and --window-size",
        ),
        (["--q-max-len", "5"], "--q-max-len has no effect on a listwise reranker; leave it out"),
        (["--method", "pointwise", "--stride", "5"], "--stride has no effect on a pointwise reranker; leave it out"),
        (
            ["--prompt-template-path", "rank_zefyr"],
            "rank_zefyr: no such template; expected a file or the name of a bundled template; did",
        ),
        (
            ["--method", "pointwise", "--prompt-template-path", "rankllama"],
            "a chat server has no score head; use a yes",
        ),
        (["--few-shot-file", "gone.json", "--num-few-shot-examples", "1"], "gone.json: no such file"),
    ],
)
def test_options_that_the_model_cannot_have_are_one_line(tmp_path, rankllm, requests, options, message):
    """Status 1: whether they fit depends on the model's card."""
    with serving(respond) as server:
        done = rankllm("rerank", *served(server, *options), "--requests", requests, "--output", tmp_path / "out")
    assert (done.code, done.out) == (1, "")
    assert message in done.err.splitlines()[-1]
    assert not any(received.path.endswith("completions") for received in server.requests)
    assert names(tmp_path) == ["requests.jsonl"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no/such/model/anywhere", "Error: no/such/model/anywhere: no such model folder (a name on the hub looks like"),
        (
            "nobody/nothing",
            "Error: nobody/nothing: no such model folder, not in the hub's cache, and the hub cannot be",
        ),
    ],
)
def test_a_model_that_is_nowhere_is_one_line(tmp_path, rankllm, requests, model, message):
    """At once, also without a network."""
    done = rankllm("rerank", "--model-path", model, "--requests", requests, "--output", tmp_path / "out")
    assert done.code == 1
    assert done.err.splitlines()[0] == f"Loading {model} ..."
    assert done.err.splitlines()[1].startswith(message)
    assert len(done.err.splitlines()) == 2
    assert names(tmp_path) == ["requests.jsonl"]


def test_a_server_that_is_not_there_is_one_line(tmp_path, rankllm, requests):
    """At once, not after the retries of every prompt."""
    with serving(respond) as server:
        options = served(server)
    done = rankllm("rerank", *options, "--requests", requests, "--output", tmp_path / "out")
    assert done.code == 1
    assert done.err.splitlines()[1:] == [f"Error: no server at {server.base_url}: connection refused"]
    assert names(tmp_path) == ["requests.jsonl"]


def test_a_server_that_lists_other_models_is_doubted_but_asked(tmp_path, rankllm, requests):
    """Some servers take any name, some list only a part."""
    with serving(respond) as server:
        options = ["--engine", "openai", "--base-url", server.base_url, "--model-path", "alias"]
        done = rankllm("rerank", *options, "--requests", requests, "--output", tmp_path / "out")
    assert done.code == 0
    assert f"Warning: {server.base_url}: does not offer model 'alias'; available: oracle\n" in done.err


# Queries that fail: status 3.


@pytest.mark.parametrize("options", [[], ["--use-logits"], ["--method", "pointwise"]])
def test_a_query_that_the_server_refuses_fails_alone(tmp_path, rankllm, requests, options):
    """It is named with the reason and is in no output; the others are ranked; figures are of the others."""
    (tmp_path / "qrels").write_text("q1 0 d3 1\nq2 0 d3 1\n", encoding="utf-8")
    outputs = {"--output": "out.trec", "--output-jsonl": "out.jsonl", "--trace": "trace.jsonl"}
    with serving(failing_on("question q2")) as server:
        done = rankllm(
            *["rerank", *served(server, *options), "--requests", requests, "--qrels", tmp_path / "qrels"],
            *[word for option, name in outputs.items() for word in (option, tmp_path / name)],
        )
    assert done.code == 3
    assert ": ok 2, failed 1; " in done.err
    assert "Failed and omitted from all outputs: 1 query\n  query 'q2': http://127.0.0.1:" in done.err
    assert "cannot digest this" in done.err
    for name in outputs.values():
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "q1" in text
        assert "q2" not in text
        assert "q3" in text
    assert "Scores of the 1 judged queries among the 2 ranked by this run" in done.err
    assert done.out.startswith("reranked\tnDCG@10\t1.0000\n")


def test_where_every_query_fails_nothing_is_written(tmp_path, rankllm, requests):
    """Each is listed with its reason; no empty run is left that looks like a result."""
    with serving(failing_on("question")) as server:
        done = rankllm("rerank", *served(server), "--requests", requests, "--output", tmp_path / "out")
    assert (done.code, done.out) == (3, "")
    reasons = [line for line in done.err.splitlines() if line.endswith("cannot digest this")]
    assert [line.split(": ")[0] for line in reasons] == ["  query 'q1'", "  query 'q2'", "  query 'q3'"]
    assert done.err.splitlines()[-1] == "Error: no query could be ranked; nothing was written"
    assert names(tmp_path) == ["requests.jsonl"]


def test_one_query_that_fails_is_an_error_with_its_reason(tmp_path, rankllm):
    """No table is printed."""
    with serving(failing_on("what")) as server:
        done = rankllm("rerank", *served(server), "--query", "what", "--passages", "-", stdin="a\nb\n")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines()[-1].startswith("Error: query '1': ")
    assert done.err.splitlines()[-1].endswith("cannot digest this")


def test_a_passage_without_text_fails_its_query(tmp_path, rankllm):
    """Named with its docid; --strict finds it beforehand."""
    textless = request("q2", 1, 2, doc={"doc": {"url": "http://x"}})
    requests = write_jsonl(tmp_path / "requests.jsonl", request("q1", 1, 2), textless)
    with serving(respond) as server:
        done = rankllm("rerank", *served(server), "--requests", requests, "--output", tmp_path / "out")
    assert done.code == 3
    assert "  query 'q2': docid 'd1': passage without text: expected one of text, segment" in done.err


# Stopped by a signal: status 130 and 143.


@pytest.mark.parametrize(
    ("numbers", "code"),
    [([signal.SIGINT], 130), ([signal.SIGTERM], 143), ([signal.SIGTERM, signal.SIGTERM], 143)],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM twice"],
)
def test_a_stopped_run_leaves_nothing_half_written(tmp_path, requests, numbers, code):
    """One query is answered and written, the next one hangs: neither an output nor a part of one stays."""
    asked = threading.Event()

    def answer(received):
        if received.body and "question q2" in received.body["messages"][-1]["content"]:
            asked.set()
            server.stopped.wait(60)
        return respond(received)

    with serving(answer) as server:
        outputs = ("--output", tmp_path / "out", "--output-jsonl", tmp_path / "results")
        with started(["rerank", *served(server), "--requests", requests, *outputs]) as process:
            assert asked.wait(60)
            for number in numbers:
                process.send_signal(number)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == "Stopped."
    assert "Traceback" not in err
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part" or path.name in ("out", "results")]
