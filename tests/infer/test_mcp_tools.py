"""The tools of the MCP server, called by the SDK's client in this process: answers, limits, progress, cancelling."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import asynccontextmanager
from dataclasses import replace

import jsonschema
import pytest
import uvicorn
from mcp import Client
from ranking_fakes import PlainPairWriter, answer_by, make_method, number

from rankllm_core.card import PointwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Usage
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.mcp_server.answers import score_meaning
from rankllm_infer.mcp_server.arguments import Limits
from rankllm_infer.mcp_server.collection import open_collection
from rankllm_infer.mcp_server.server import Tools, limits_for, make_server
from rankllm_infer.mcp_server.settings import McpOptions
from rankllm_infer.mcp_server.transports import http_app
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings

PATIENCE_S = 30
MODES = ("legacy", "auto")
"""The handshake over streams, and the protocol of 2026-07-28."""
DOCUMENTS = ["d2", {"id": "b", "text": "d0"}, {"id": 7, "title": "T", "text": "d1"}]


def ascending():
    """The answer that puts d0 first, then d1, ..."""
    return answer_by(lambda text: number(text.split()[-1]))


def asked(reranker, name, arguments, *, mode="auto", limits=None, collection=None, progress=None):
    """What a client gets that calls one tool."""
    server = make_server(Tools(reranker, limits or Limits(), collection))

    async def call():
        async with Client(server, mode=mode) as client:
            return await client.call_tool(name, arguments, progress_callback=progress)

    return asyncio.run(asyncio.wait_for(call(), PATIENCE_S))


def error_of(done):
    """The one line of a tool's error."""
    assert done.is_error
    assert done.structured_content is None
    [content] = done.content
    assert "\n" not in content.text
    return content.text


@pytest.fixture
def listwise():
    """Windows of four, three passages a window new."""
    with Reranker(make_method(size=4, stride=3), ScriptedEngine(ascending())) as reranker:
        yield reranker


def pointwise(answer, **settings):
    """A reranker whose score of a pair is told by a function of its prompt."""
    card = PointwiseCard(template=load_template("rankllama"))
    return Reranker(PointwiseMethod(card, RankingSettings(**settings), PlainPairWriter()), ScriptedEngine(answer))


@pytest.mark.parametrize("mode", MODES)
def test_documents_come_back_in_the_models_order(listwise, mode):
    """With the positions and ids that they had."""
    done = asked(listwise, "rerank", {"query": "q", "documents": DOCUMENTS, "return_documents": True}, mode=mode)
    assert not done.is_error
    assert done.structured_content["results"] == [
        {"index": 1, "id": "b", "rank": 1, "score": None, "document": {"text": "d0"}},
        {"index": 2, "id": "7", "rank": 2, "score": None, "document": {"title": "T", "text": "d1"}},
        {"index": 0, "id": "1", "rank": 3, "score": None, "document": {"text": "d2"}},
    ]
    assert done.structured_content["usage"] == {
        "calls": 1,
        "rounds": 1,
        "prompt_tokens": 10,
        "completion_tokens": 3,
    }
    assert (done.structured_content["status"], done.structured_content["n_documents"]) == ("ok", 3)
    assert "without scores" in done.structured_content["score_meaning"]


def test_the_text_of_an_answer_is_its_structure(listwise):
    """For clients that show text only."""
    import json

    done = asked(listwise, "rerank", {"query": "q", "documents": DOCUMENTS, "top_n": 1.0})
    assert json.loads(done.content[0].text) == done.structured_content
    assert [result["id"] for result in done.structured_content["results"]] == ["b"]


def test_scores_are_the_models_and_their_meaning_is_told():
    """Of a pointwise model."""
    worth = {"d0": 0.5, "d1": 2.0}
    with pointwise(lambda prompt: Answer(scores=(worth[prompt.text.split("|")[2]],), usage=Usage(calls=1))) as reranker:
        found = asked(reranker, "rerank", {"query": "q", "documents": ["d0", "d1"]}).structured_content
    assert [(result["id"], result["score"]) for result in found["results"]] == [("2", 2.0), ("1", 0.5)]
    assert "higher is more relevant" in found["score_meaning"]


def test_the_meaning_of_scores_depends_on_the_model():
    """What they may be compared with, and whether they alone decide the rank."""
    pairs = PointwiseCard(template=load_template("rankllama"))
    assert "comparable across calls" in score_meaning(pairs, has_scores=True)
    assert "not comparable across windows" in score_meaning(make_method().card, has_scores=True)
    assert "before reranking" in score_meaning(replace(pairs, fuse_weight=0.5), has_scores=True)
    assert "before reranking" not in score_meaning(pairs, has_scores=True)


def test_a_fallback_says_so():
    """In status, defects and warnings; the order is the one that came."""
    with Reranker(
        make_method(), ScriptedEngine(lambda prompt: Answer(text="no idea", usage=Usage(calls=1)))
    ) as reranker:
        found = asked(reranker, "rerank", {"query": "q", "documents": ["d1", "d0"]}).structured_content
    assert found["status"] == "fallback"
    assert [result["index"] for result in found["results"]] == [0, 1]
    assert found["defects"]
    assert any("first-stage order" in warning for warning in found["warnings"])


def test_schemas_describe_calls_and_answers(listwise):
    """By the validator of JSON Schema; `retrieve_and_rerank` is listed with a collection only."""

    async def listed(tools):
        async with Client(make_server(tools)) as client:
            return (await client.list_tools()).tools

    [tool] = asyncio.run(listed(Tools(listwise, Limits(max_documents=3))))
    jsonschema.Draft202012Validator.check_schema(tool.input_schema)
    jsonschema.Draft202012Validator.check_schema(tool.output_schema)
    validator = jsonschema.Draft202012Validator(tool.input_schema)
    arguments = {"query": "q", "documents": DOCUMENTS}
    assert validator.is_valid(arguments)
    assert not validator.is_valid({"query": "q", "documents": [*DOCUMENTS, "d"]})
    assert not validator.is_valid({"query": "q", "documents": []})
    assert not validator.is_valid(arguments | {"instruction": "strict"})
    found = asked(listwise, "rerank", arguments).structured_content
    jsonschema.Draft202012Validator(tool.output_schema).validate(found)
    assert tool.annotations.read_only_hint


def test_an_instruction_is_taken_by_models_that_have_a_place_for_one():
    """The schema offers it there, and there alone."""
    takes = PointwiseCard(template=load_template("qwen3_reranker"), head="yes-no")
    assert limits_for(takes, McpOptions()).takes_instruction
    assert not limits_for(make_method().card, McpOptions()).takes_instruction


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"documents": ["d0"]}, "query: expected a non-empty string, found nothing"),
        ({"query": " ", "documents": ["d0"]}, "query: expected a non-empty string, found only whitespace"),
        (
            {"query": "q", "documents": "d0"},
            "documents: expected a list of at least one text or object, found a string",
        ),
        (
            {"query": "q", "documents": ["d0"] * 4},
            "documents: found 4, expected at most 3; rerank fewer per call, best first",
        ),
        ({"query": "q", "documents": ["d0", 5]}, "document 2: expected a text or an object, found int"),
        ({"query": "q", "documents": [{"id": "a"}]}, "document 1: passage without text"),
        (
            {"query": "q", "documents": [{"id": "a", "text": "x"}] * 2},
            "documents: id 'a' occurs twice; list each document once",
        ),
        ({"query": "q", "documents": ["d0"], "top_n": 0}, "top_n: expected an integer of at least 1, found 0"),
        ({"query": "q", "documents": ["d0"], "top_n": 1.5}, "top_n: expected an integer of at least 1, found 1.5"),
        (
            {"query": "q", "documents": ["d0"], "top_n": True},
            "top_n: expected an integer of at least 1, found a boolean",
        ),
        ({"query": "q", "documents": ["d0"], "k": 5}, "'k': unknown argument; expected query, documents, top_n"),
        (
            {"query": "q", "documents": ["d0"], "instruction": "strict"},
            "instruction: this model's prompt takes no instruction; leave it out",
        ),
        ({"query": "q", "documents": ["d0"], "return_documents": 1}, "return_documents: expected true or false"),
    ],
)
def test_arguments_that_do_not_fit_are_an_error_of_the_tool(listwise, arguments, message):
    """In one line, and the next call is answered."""
    done = asked(listwise, "rerank", arguments, limits=Limits(max_documents=3))
    assert error_of(done).startswith(message)
    assert not listwise.engine.asked


def test_an_unknown_tool_is_named(listwise):
    """With those that there are."""
    assert error_of(asked(listwise, "search", {})) == "'search': unknown tool; expected rerank"


def test_a_query_that_fails_is_an_error_of_the_tool():
    """With the engine's reason."""
    with Reranker(make_method(), ScriptedEngine(lambda prompt: EngineError("the model is gone"))) as reranker:
        done = asked(reranker, "rerank", {"query": "q", "documents": ["d0", "d1"]})
    assert error_of(done) == "the model is gone"


@pytest.mark.parametrize("mode", MODES)
def test_progress_counts_the_prompts(listwise, mode):
    """Thirteen documents in windows of four that move by three: four prompts, one after another."""
    told = []

    async def note(n_answered, total, message):
        told.append((n_answered, total))

    documents = [f"d{n}" for n in range(13)]
    asked(listwise, "rerank", {"query": "q", "documents": documents}, mode=mode, progress=note)
    assert told[-1] == (4, 4)
    assert told == sorted(set(told))


class Held(ScriptedEngine):
    """Takes a step when it is let."""

    def __init__(self, answer):
        super().__init__(answer, batch_size=1)
        self.steps = threading.Semaphore(0)
        self.is_at_work = threading.Event()

    def collect(self):
        self.is_at_work.set()
        assert self.steps.acquire(timeout=PATIENCE_S)
        return super().collect()


class Watched(Reranker):
    """Keeps the futures that it gave."""

    futures = ()

    def submit(self, request, **options):
        future = super().submit(request, **options)
        self.futures = (*self.futures, future)
        return future


async def cancel_and_call(client, reranker, engine):
    """Cancel a call of nine documents at its first prompt, and make another, which is answered with what is left."""
    documents = [f"d{n}" for n in range(9)]
    first = asyncio.create_task(client.call_tool("rerank", {"query": "long", "documents": documents}))
    assert await asyncio.to_thread(engine.is_at_work.wait, PATIENCE_S)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(client.call_tool("rerank", {"query": "short", "documents": ["d1", "d0"]}))
    while not (len(reranker.futures) == 2 and reranker.futures[0].cancelled()):
        await asyncio.sleep(0.01)
    engine.steps.release(2)
    return await second


@pytest.mark.parametrize("mode", MODES)
def test_a_cancelled_call_frees_its_slot_within_a_step(mode):
    """Its other prompts are never run, and the next call is answered."""
    engine = Held(ascending())

    async def calls(reranker):
        async with Client(make_server(Tools(reranker, Limits())), mode=mode) as client:
            return await cancel_and_call(client, reranker, engine)

    with Watched(make_method(size=2, stride=1), engine) as reranker:
        done = asyncio.run(asyncio.wait_for(calls(reranker), PATIENCE_S))
    assert [result["index"] for result in done.structured_content["results"]] == [1, 0]
    assert ["long" in prompt.text for prompt in engine.asked] == [True, False]


@asynccontextmanager
async def over_http(server):
    """A URL at which the server listens, in this event loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(http_app(server, McpOptions(transport="http")), log_level="warning")
        running = uvicorn.Server(config)
        task = asyncio.create_task(running.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
        running.should_exit = running.force_exit = True
        await task


@pytest.mark.parametrize("mode", MODES)
def test_a_call_that_is_cancelled_over_http_frees_its_slot(mode, monkeypatch):
    """By a message of the client's, or by the response that it no longer reads."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    engine = Held(ascending())

    async def calls(reranker):
        async with over_http(make_server(Tools(reranker, Limits()))) as url, Client(url, mode=mode) as client:
            return await cancel_and_call(client, reranker, engine)

    with Watched(make_method(size=2, stride=1), engine) as reranker:
        done = asyncio.run(asyncio.wait_for(calls(reranker), PATIENCE_S))
    assert [result["index"] for result in done.structured_content["results"]] == [1, 0]
    assert ["long" in prompt.text for prompt in engine.asked] == [True, False]


def test_a_call_that_takes_too_long_is_an_error_of_the_tool():
    """It names the option that sets the time."""
    engine = Held(ascending())
    threading.Timer(0.3, engine.steps.release, [9]).start()
    with Reranker(make_method(size=2, stride=1), engine) as reranker:
        arguments = {"query": "q", "documents": ["d2", "d1", "d0"]}
        done = asked(reranker, "rerank", arguments, limits=Limits(request_timeout_s=0.1))
    assert error_of(done).startswith("not finished within 0.1 s (--request-timeout)")


@pytest.fixture
def corpus(tmp_path):
    """Three documents, two of them with a cat."""
    path = tmp_path / "pets.jsonl"
    path.write_text(
        '{"id": "a", "text": "cat d2"}\n'
        '{"id": "b", "title": "Cats", "text": "cat cat d1"}\n'
        '{"id": "c", "text": "fish d0"}\n',
        encoding="utf-8",
    )
    return path


def test_a_collection_is_searched_and_reranked(listwise, corpus):
    """BM25 finds the two with a cat, b before a; the model's order is d1, d2: as found."""
    collection = open_collection(corpus, str(corpus.parent / "index"))
    found = asked(listwise, "retrieve_and_rerank", {"query": "cat"}, collection=collection).structured_content
    assert [(result["index"], result["id"]) for result in found["results"]] == [(0, "b"), (1, "a")]
    assert found["results"][0]["document"] == {"title": "Cats", "text": "cat cat d1"}
    found = asked(listwise, "retrieve_and_rerank", {"query": "cat fish", "k": 3, "top_n": 1}, collection=collection)
    assert [result["id"] for result in found.structured_content["results"]] == ["c"]
    assert found.structured_content["n_documents"] == 3


def test_a_search_that_finds_nothing_is_no_error(listwise, corpus):
    """An empty list, and the model is not asked."""
    collection = open_collection(corpus, str(corpus.parent / "index"))
    done = asked(listwise, "retrieve_and_rerank", {"query": "zebra"}, collection=collection)
    assert done.structured_content["results"] == []
    assert not listwise.engine.asked


def test_limits_of_a_search(listwise, corpus):
    """k is limited as documents are."""
    collection = open_collection(corpus, str(corpus.parent / "index"))
    done = asked(
        listwise, "retrieve_and_rerank", {"query": "cat", "k": 4}, limits=Limits(max_documents=3), collection=collection
    )
    assert error_of(done) == "k: found 4, expected at most 3"
    done = asked(listwise, "retrieve_and_rerank", {"query": "cat"}, limits=Limits(max_documents=3))
    assert error_of(done) == "'retrieve_and_rerank': unknown tool; expected rerank"
