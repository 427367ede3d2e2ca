"""`rankllm-infer mcp` as used by clients: over a pipe, over HTTP with keys and hosts, and stopped by a signal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager, contextmanager

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from program import started, started_python

from rankllm_core.errors import RankLLMError
from rankllm_infer import make_request
from rankllm_infer.api_keys import read_keys
from rankllm_infer.mcp_server.settings import McpOptions
from rankllm_infer.mcp_server.transports import security

PATIENCE_S = 120
KEY, OTHER_KEY = "0123456789abcdef0123456789abcdef", "fedcba9876543210"
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
"""The first message of a client."""
CALL = {"query": "why is the sky blue", "documents": ["Cats sleep.", "Rayleigh scattering."]}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Three documents."""
    path = tmp_path_factory.mktemp("mcp") / "pets.tsv"
    path.write_text("a\tcats purr\nb\tcats and cats\nc\tfish swim\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def options(tiny_classifier, corpus):
    """A tiny random model and a collection to search."""
    folder = corpus.parent / "index"
    return ["--model-path", tiny_classifier, "--dtype", "float32", "--corpus", corpus, "--index", folder]


@pytest.fixture(scope="module")
def scores(tiny_classifier):
    """Model scores of the two documents of CALL, computed in this process."""
    from rankllm_infer import RerankOptions, load_reranker

    with load_reranker(tiny_classifier, RerankOptions(dtype="float32")) as reranker:
        [result] = reranker.rerank([make_request(CALL["query"], CALL["documents"])])
    return {candidate.docid: candidate.model_score for candidate in result.candidates}


async def check_tools(client, scores):
    """Both tools are listed and respond."""
    assert [tool.name for tool in (await client.list_tools()).tools] == ["rerank", "retrieve_and_rerank"]
    found = (await client.call_tool("rerank", CALL)).structured_content
    assert {result["id"]: result["score"] for result in found["results"]} == pytest.approx(scores, rel=1e-6)
    found = (await client.call_tool("retrieve_and_rerank", {"query": "cats"})).structured_content
    assert {result["id"] for result in found["results"]} == {"a", "b"}
    refused = await client.call_tool("rerank", CALL | {"top_n": -1})
    assert refused.is_error


def test_a_client_speaks_over_a_pipe(options, scores):
    """The client starts the program, as desktop applications do."""
    arguments = ["-m", "rankllm_infer", "mcp", *map(str, options)]
    server = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))

    async def session():
        async with Client(server) as client:
            await check_tools(client, scores)

    asyncio.run(asyncio.wait_for(session(), PATIENCE_S))


def test_standard_output_is_the_protocols_alone(options):
    """Every line is a message; logs go to standard error. The end of input ends the program."""
    messages = [HELLO, {"jsonrpc": "2.0", "method": "notifications/initialized"}]
    with started(["mcp", *options]) as process:
        process.stdin.write("".join(json.dumps(message) + "\n" for message in messages))
        process.stdin.flush()
        first = process.stdout.readline()
        out, err = process.communicate(timeout=PATIENCE_S)
        code = process.returncode
    assert [json.loads(line)["jsonrpc"] for line in (first + out).splitlines()] == ["2.0"]
    assert json.loads(first)["result"]["serverInfo"]["name"] == "rankllm"
    assert "Loading " in err
    assert code == 0


PROGRAM_WITHOUT_A_MODEL = """
import sys
import click
from mcp.server.lowlevel import Server
from rankllm_core.command_line import run_program
from rankllm_infer.mcp_server.transports import serve_stdio

group = click.Group(commands={"serve": click.Command("serve", callback=lambda: serve_stdio(Server("bare")))})
sys.argv = ["program", "serve"]
run_program(group)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_program_while_a_client_is_connected(number, code):
    """It does not wait for the client's next line."""
    with started_python("-c", PROGRAM_WITHOUT_A_MODEL) as process:
        process.stdin.write(json.dumps(HELLO) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == code
        assert (process.stdout.read(), process.stderr.read().strip()) == ("", "Stopped.")


@contextmanager
def listening(options, *more):
    """The program as an HTTP server on a free port: the process and its URL."""
    with started(["mcp", *options, "--transport", "http", "--port", 0, *more]) as process:
        for line in process.stderr:
            if found := re.match(r"Listening on (http://127\.0\.0\.1:\d+/mcp)$", line):
                yield process, found[1]
                return
        pytest.fail("it did not listen")


@asynccontextmanager
async def connected(url, **headers):
    """The SDK's client for a URL."""
    async with (
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


def hello(url, **headers):
    """Status and body of a first request."""
    accept = {"Accept": "application/json, text/event-stream"}
    answer = httpx2.post(url, json=HELLO, headers=accept | headers, timeout=PATIENCE_S, trust_env=False)
    return answer.status_code, answer.text


def test_clients_speak_over_http(options, scores, tmp_path, monkeypatch):
    """With a key and a known Host; others are rejected. A signal ends the program."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    keys = tmp_path / "keys.txt"
    keys.write_text(f"# of the tests\n{OTHER_KEY}\n\n{KEY}\n", encoding="utf-8")
    more = ("--api-key-file", keys, "--allowed-host", "rerank.example.org")

    async def sessions(url):
        async with (
            connected(url, Authorization=f"Bearer {KEY}") as one,
            connected(url, Authorization=f"bearer {OTHER_KEY}") as other,
        ):
            await asyncio.gather(check_tools(one, scores), check_tools(other, scores))

    with listening(options, *more) as (process, url):
        asyncio.run(asyncio.wait_for(sessions(url), PATIENCE_S))
        bearer = {"Authorization": f"Bearer {KEY}"}
        for wrong in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}, {"Authorization": "Bearer"}):
            status, text = hello(url, **wrong)
            assert (status, "API key" in text, KEY in text) == (401, True, False)
        assert hello(url, **bearer)[0] == 200
        assert hello(url, **bearer, Host="rerank.example.org")[0] == 200
        assert hello(url, **bearer, Host="evil.example.org")[0] == 421
        assert hello(url, **bearer, Origin="https://evil.example.org")[0] == 403
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("Stopped.\n")
    assert "Traceback" not in err
    assert KEY not in err


def test_hosts_that_are_answered():
    """The loopback's names, the listening address and the allowed hosts; any port unless one is given."""
    found = security(McpOptions(host="10.0.0.5", allowed_host=("a.example", "b.example:9000", "::2")))
    assert found.enable_dns_rebinding_protection
    assert found.allowed_hosts == [
        *("127.0.0.1", "127.0.0.1:*", "localhost", "localhost:*", "[::1]", "[::1]:*", "10.0.0.5", "10.0.0.5:*"),
        *("a.example", "a.example:*", "b.example:9000", "[::2]", "[::2]:*"),
    ]
    assert "https://a.example:*" in found.allowed_origins


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no API key; generate one: openssl rand -hex 32"),
        ("# nothing\n\n", "contains no API key; generate one: openssl rand -hex 32"),
        (
            "short\n",
            ":1: expected a key of at least 16 ASCII characters without spaces; generate one: openssl rand -hex 32",
        ),
        (f"\n{KEY} {KEY}\n", ":2: expected a key of at least 16 ASCII characters without spaces"),
    ],
)
def test_a_key_file_that_cannot_be_meant_is_refused(tmp_path, text, message):
    """In one line that does not show a key."""
    path = tmp_path / "keys.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RankLLMError, match=re.escape(message)) as refused:
        read_keys(path)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--port", "9"], 2, "--port has no effect with --transport stdio; leave it out"),
        (["--allowed-host", "h"], 2, "--allowed-host has no effect with --transport stdio; leave it out"),
        (
            ["--transport", "http", "--host", "0.0.0.0"],
            2,
            "--host 0.0.0.0 can be reached from other machines and needs",
        ),
        (["--transport", "http", "--api-key-file", "none.txt"], 1, "none.txt: no such file"),
        (["--corpus", "none.jsonl"], 1, "none.jsonl: no such file"),
        (["--transport", "http", "--port", "65536"], 2, "--port: expected a number from 0 to 65535, found 65536"),
        (["--request-timeout", "0"], 2, "0.0 is not in the range x>0"),
        (["--window-size", "0"], 2, "0 is not in the range x>=1"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_loaded(rankllm, words, code, message):
    """One line."""
    done = rankllm("mcp", "--model-path", "smollm2-pointwise", *words)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Loading" not in done.err


def test_a_bm25_index_without_its_corpus_is_named(rankllm, corpus, tmp_path):
    """It contains no texts."""
    from rankllm_infer.retrieval.bm25_cache import open_index

    open_index(corpus, folder=tmp_path / "index", k1=1.5)
    done = rankllm("mcp", "--model-path", "smollm2-pointwise", "--index", tmp_path / "index")
    assert done.code == 1
    assert "is a BM25 index, which contains no texts; also give its corpus: --corpus FILE" in done.err


def test_an_index_is_searched_with_the_settings_it_was_made_with(corpus, tmp_path):
    """It is not rebuilt for different settings."""
    from rankllm_infer.mcp_server.collection import open_collection
    from rankllm_infer.retrieval.bm25_cache import open_index, stored_settings

    folder = tmp_path / "index"
    open_index(corpus, folder=folder, k1=1.5, b=0.75)
    made = (folder / "rankllm-bm25.json").stat().st_mtime_ns
    request = open_collection(corpus, str(folder)).find("cats", k=5)
    assert {candidate.docid for candidate in request.candidates} == {"a", "b"}
    assert (folder / "rankllm-bm25.json").stat().st_mtime_ns == made
    assert stored_settings(folder) == (1.5, 0.75)
    assert stored_settings(tmp_path / "none") is None


def test_without_the_sdk_the_command_says_how_to_get_it(rankllm, monkeypatch):
    """One line, before anything is loaded."""
    monkeypatch.setitem(sys.modules, "mcp.server.lowlevel", None)
    done = rankllm("mcp", "--model-path", "smollm2-pointwise")
    assert done.code == 1
    assert done.err == (
        "Error: the MCP server needs the package mcp, which is not installed. "
        "Install it with: uv add 'rankllm-infer[mcp]'\n"
    )
