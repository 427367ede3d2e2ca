"""Servers that are dead, hostile or odd: bounded replies, no secret in an answer, an end to a run in vain."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import math
import resource
import socket
import threading
import time
import zlib
from random import Random

import pytest
from chat_server import Reply, chat_reply, logprobs_reply, serving
from ranking_server import request, write_jsonl

from rankllm_core.prompts.template import Message, Span
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.engines.openai.breaker import Breaker, BreakerLimits, ServerGoneError
from rankllm_infer.engines.openai.engine import OpenAIEngine, OpenAISettings, server_models
from rankllm_infer.engines.openai.http import with_retries
from rankllm_infer.engines.openai.problems import ServerProblem
from rankllm_infer.engines.openai.reply import MAX_REPLY_BYTES
from rankllm_infer.options import RerankOptions

KEY = "sk-secret/0123456789+"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


async def no_sleep(delay_s: float) -> None:
    """Try again at once."""


def ask(url: str, prompt: Prompt | None = None, **options) -> Answer | EngineError:
    """One prompt's outcome."""
    engine = OpenAIEngine(OpenAISettings(base_url=url, model="m", **{"max_retries": 0} | options), sleep=no_sleep)
    with contextlib.closing(engine):
        engine.submit(0, prompt or text_prompt())
        return engine.collect()[0][1]


def text_prompt() -> Prompt:
    return Prompt(text="x", read="text", messages=(Message("user", (Span("Rank."),)),), max_new_tokens=9)


def first_prompt(*identifiers: str) -> Prompt:
    return Prompt(text="x", read="first-token", identifiers=identifiers, messages=text_prompt().messages)


# Log-probabilities


@pytest.mark.parametrize("sampled", [-0.47, -0.4700001, -0.46998])
def test_a_sampled_word_that_is_reported_twice_counts_once(sampled):
    """`content` and `top_logprobs` may differ in the last digits: P(yes) is not doubled."""
    reply = logprobs_reply([("yes", -0.47), ("no", -1.2)])
    reply["choices"][0]["logprobs"]["content"][0]["logprob"] = sampled
    with serving(lambda _: reply) as server:
        answer = ask(server.base_url, first_prompt("yes", "no"))
    assert answer.scores == pytest.approx((-0.47, -1.2))


def test_other_spellings_still_add_up():
    """`yes`, ` Yes` and `YES` are three tokens, wherever the sampled one stands."""
    likeliest = [("yes", math.log(0.5)), (" Yes", math.log(0.125)), ("YES", math.log(0.0625)), ("no", math.log(0.25))]
    with serving(lambda _: logprobs_reply(likeliest)) as server:
        answer = ask(server.base_url, first_prompt("yes", "no"))
    assert answer.scores == pytest.approx((math.log(0.6875), math.log(0.25)))


@pytest.mark.parametrize("untold", [-9999.0, -9999, -99999.5])
def test_what_stands_for_no_probability_is_none(untold):
    """OpenAI and vLLM write -9999.0 for what they do not tell."""
    with serving(lambda _: logprobs_reply([("A", -0.1), ("B", untold)])) as server:
        assert ask(server.base_url, first_prompt("A", "B")).scores == (-0.1, -math.inf)


def test_identifiers_that_are_all_untold_are_an_error():
    """A ranking of -9999.0 everywhere is none."""
    with serving(lambda _: logprobs_reply([("The", -0.1), ("A", -9999.0), ("B", -9999.0)])) as server:
        assert "none of the identifiers A, B" in str(ask(server.base_url, first_prompt("A", "B")))


# Bounded replies


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_packed_reply_is_bounded_before_it_is_unpacked(packing):
    """200 MB of `>` in 0.2 MB; the memory that it takes is bounded too."""
    body = json.dumps(chat_reply("@")).encode().replace(b"@", b">" * (200 << 20))
    packed = gzip.compress(body, compresslevel=9) if packing == "gzip" else zlib.compress(body, 9)
    del body
    assert len(packed) < 300_000
    before = memory_mb()
    with serving(lambda _: Reply(packed, headers={"Content-Encoding": packing})) as server:
        answer = ask(server.base_url, max_retries=5)
    assert str(answer).endswith("the reply is larger than 8 MB")
    assert len(server.requests) == 1  # asking again would cost as much
    assert memory_mb() - before < 100


def test_a_packed_reply_is_read_though_none_was_asked_for():
    """Some gateways pack whatever they send."""
    packed = gzip.compress(json.dumps(chat_reply("[2] > [1]")).encode())
    with serving(lambda _: Reply(packed, headers={"Content-Encoding": "gzip"})) as server:
        assert ask(server.base_url).text == "[2] > [1]"
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("body", "encoding", "said"),
    [
        (gzip.compress(b"{}" * 99, mtime=0)[:-9], "gzip", "packing ends too early"),
        (b"no gzip", "gzip", "packing is damaged"),
        (b"x", "br", "packed as 'br', which was not asked for"),
        (b"x", "zstd", "packed as 'zstd'"),
    ],
)
def test_a_reply_that_cannot_be_unpacked_is_named(body, encoding, said):
    """In one line."""
    with serving(lambda _: Reply(body, headers={"Content-Encoding": encoding})) as server:
        assert said in str(ask(server.base_url))


def endless(start: bytes, chunk: bytes, *, pause_s: float = 0.0):
    """A listener that sends `start`, then `chunk` for ever."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                connection = listener.accept()[0]
                with contextlib.suppress(OSError), connection:
                    connection.sendall(start)
                    while True:
                        connection.sendall(chunk)
                        time.sleep(pause_s)

    threading.Thread(target=serve, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("start", "chunk"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 500 Broken\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: " + b"y" * 60000 + b"\r\n"),
    ],
)
def test_a_reply_without_end_is_broken_off(start, chunk):
    """Body or headers, whatever length they promise: within seconds, in little memory."""
    listener, url = endless(start, chunk)
    before = memory_mb()
    with listener:
        began = time.monotonic()
        answer = ask(url, timeout_s=20)
        assert time.monotonic() - began < 10
    assert isinstance(answer, EngineError)
    assert memory_mb() - before < 100


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_a_drip_ends_at_the_time_limit(start):
    """In the body and in the headers; for prompts and for the list of models."""
    listener, url = endless(start, b"x", pause_s=0.02)
    with listener:
        began = time.monotonic()
        assert "no answer within 0.3 s" in str(ask(url, timeout_s=0.3))
        with pytest.raises(EngineError, match=r"within 0.3 s; is the server up\?"):
            server_models(OpenAISettings(base_url=url, model="m", timeout_s=0.3))
        assert time.monotonic() - began < 5


def test_a_list_of_models_is_bounded_as_well():
    """It is read before the first prompt."""
    body = b'{"data": [' + b'{"id": "m"},' * (MAX_REPLY_BYTES // 10) + b"{}]}"
    with serving(lambda _: Reply(body)) as server, pytest.raises(EngineError, match="larger than 8 MB"):
        server_models(OpenAISettings(base_url=server.base_url, model="m"))


def test_an_answer_of_millions_of_characters_is_refused():
    """Within the bound of a reply, but longer than anything that was asked for."""
    with serving(lambda _: chat_reply(">" * 5_000_000)) as server:
        assert "5000000 characters, expected at most 1048576" in str(ask(server.base_url))


ODD = [None, True, -1, 1e400, "x", [], {}, [[]], [{}], {"a": []}, 10**4000, "\ud800"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
def test_a_field_of_another_type_is_never_a_bug(odd):
    """Each field of a reply, replaced in turn: an answer, or one line."""
    replies = [odd]
    good = logprobs_reply({"A": -1.0, "B": -2.0})
    for path in (
        ("choices",),
        ("choices", 0),
        ("choices", 0, "message"),
        ("choices", 0, "message", "content"),
        ("choices", 0, "finish_reason"),
        ("choices", 0, "logprobs"),
        ("choices", 0, "logprobs", "content"),
        ("choices", 0, "logprobs", "content", 0),
        ("choices", 0, "logprobs", "content", 0, "token"),
        ("choices", 0, "logprobs", "content", 0, "logprob"),
        ("choices", 0, "logprobs", "content", 0, "top_logprobs"),
        ("choices", 0, "logprobs", "content", 0, "top_logprobs", 0),
        ("usage",),
        ("usage", "prompt_tokens"),
        ("usage", "completion_tokens"),
    ):
        reply = json.loads(json.dumps(good))
        part = reply
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = odd
        replies.append(reply)
    replies += [Reply({"error": odd}, 400), Reply({"detail": [{"loc": odd, "msg": "x"}]}, 422), Reply(odd, 500)]
    waiting = iter(replies)
    with serving(lambda _: next(waiting)) as server:
        engine = OpenAIEngine(OpenAISettings(base_url=server.base_url, model="m", max_retries=0, concurrency=1))
        with contextlib.closing(engine):
            for ticket in range(len(replies)):
                engine.submit(ticket, first_prompt("A", "B") if ticket % 2 else text_prompt())
            outcomes = {}
            while len(outcomes) < len(replies):
                outcomes |= dict(engine.collect())
    for outcome in outcomes.values():
        assert "\n" not in str(outcome)
        if isinstance(outcome, Answer):
            assert outcome.usage.prompt_tokens < 1 << 53


# Secrets


@pytest.mark.parametrize("spelled", [KEY, "sk-secret%2F0123456789%2B"])
def test_a_key_that_the_server_repeats_is_in_no_answer(spelled):
    """Answers go into traces, results and journals."""
    said = f"[1] > [2] {spelled}"
    with serving(lambda _: chat_reply(said)) as server:
        assert ask(server.base_url, api_key=KEY).text == "[1] > [2] ***"
    for token in (spelled, f"x{spelled}"):
        with serving(lambda _, token=token: logprobs_reply({token: -0.1})) as server:
            error = str(ask(server.base_url, first_prompt("A"), api_key=KEY))
        assert "none of the identifiers" in error
        assert "sk-sec" not in error


def test_the_password_in_an_address_is_in_no_message():
    """It is as secret as a key."""
    with serving(lambda _: Reply({"error": {"message": "no user wizard with password hush-hush-hush"}}, 400)) as server:
        url = server.base_url.replace("//", "//wizard:hush-hush-hush@")
        error = str(ask(url))
    assert "hush" not in error
    assert "hush" not in repr(OpenAISettings(base_url=url, model="m"))
    assert "hush" not in repr(RerankOptions(engine="openai", base_url=url))


def test_a_key_is_in_no_repr_of_the_options():
    """They are printed when something is debugged."""
    assert KEY not in repr(RerankOptions(engine="openai", base_url="http://h/v1", api_key=KEY))


def test_a_key_is_not_sent_where_a_server_redirects_to():
    """The other server is never asked."""
    with serving(lambda _: chat_reply("x")) as other:
        moved = Reply(b"", 307, {"Location": f"{other.base_url}/chat/completions?key={KEY}"})
        with serving(lambda _: moved) as server:
            error = str(ask(server.base_url, api_key=KEY, max_retries=3))
            with pytest.raises(EngineError, match="307"):
                server_models(OpenAISettings(base_url=server.base_url, model="m", api_key=KEY))
    assert other.requests == []
    assert "redirected to" in error
    assert KEY not in error


def test_a_key_that_the_server_repeats_reaches_no_file(rankllm, monkeypatch, tmp_path):
    """Trace, results, run and screen, of a run through the command line."""
    requests = write_jsonl(tmp_path / "requests.jsonl", request("q", 0, 1, 2))
    outputs = [tmp_path / name for name in ("out.trec", "out.jsonl", "trace.jsonl")]
    options = ("--output", outputs[0], "--output-jsonl", outputs[1], "--trace", outputs[2])
    with serving(lambda _: chat_reply(f"[1] > [2] {KEY}")) as server:
        command = ("rerank", "--engine", "openai", "--base-url", server.base_url, "--model-path", "m")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        done = rankllm(*command, "--requests", requests, *options)
    assert any(received.headers.get("authorization") for received in server.requests)
    assert done.code == 0
    for text in (done.out, done.err, *(path.read_text(encoding="utf-8") for path in outputs)):
        assert KEY not in text


# Dead servers


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_needs_failures_in_a_row_and_time():
    """Six tries without a reply, and four seconds; an answer starts the count over."""
    clock = Clock()
    breaker = Breaker(clock=clock)

    def fail(at: float):
        clock.now = at
        breaker.failed("connection refused", where="http://h/v1", began=at, is_silent=True)

    for _ in range(50):
        fail(0.0)
    breaker.reset()
    for second in range(5):
        fail(10.0 + second)
    with pytest.raises(ServerGoneError) as caught:
        fail(15.0)
    assert str(caught.value) == (
        "http://h/v1: the server has stopped answering (6 tries in a row failed within 5 s, the last: connection "
        "refused); the run stops here, and the same command resumes it once the server is back"
    )


def test_a_proxy_before_a_dead_server_is_given_more_time():
    """A status of 500 or more is a sign of life of somebody: thirty in a row, over a minute."""
    clock = Clock()
    breaker = Breaker(BreakerLimits(n_faults=3, faults_s=60.0), clock=clock)
    for at in (0.0, 1.0, 2.0, 59.0):
        clock.now = at
        breaker.failed("502 Bad Gateway", where="w", began=at, is_silent=False)
    clock.now = 61.0
    with pytest.raises(ServerGoneError, match="5 tries in a row failed within 61 s"):
        breaker.failed("502 Bad Gateway", where="w", began=61.0, is_silent=False)


def queries(n: int):
    return [request(f"q{number}", *range(3)) for number in range(n)]


def test_a_run_over_a_dead_server_stops_and_is_resumed(rankllm, tmp_path):
    """16 queries: two answers, then silence. One line within seconds; the same command asks only what is missing."""
    requests = write_jsonl(tmp_path / "requests.jsonl", *queries(16))
    lock, n_answered, is_up = threading.Lock(), [0], threading.Event()

    def respond(received):
        if "models" in received.path:
            return {"data": [{"id": "m"}]}
        with lock:
            n_answered[0] += 1
            answers = n_answered[0] <= 2 or is_up.is_set()
        if not answers:
            server.stopped.wait(30)
        return chat_reply("[3] > [2] > [1]")

    output = tmp_path / "out.trec"
    with serving(respond) as server:
        command = ("rerank", "--engine", "openai", "--base-url", server.base_url, "--model-path", "m")
        command += ("--requests", requests, "--output", output, "--timeout", 1)
        began = time.monotonic()
        stopped = rankllm(*command)
        assert time.monotonic() - began < 12
        assert stopped.code == 1
        errors = [line for line in stopped.err.splitlines() if line.startswith("Error:")]
        assert len(errors) == 1
        assert "stopped answering" in errors[0]
        assert not output.exists()
        is_up.set()
        asked = len(server.requests)
        resumed = rankllm(*command)
    assert resumed.code == 0, resumed.err
    assert len(server.requests) - asked == 1 + 14  # the list of models, and what was not answered
    assert len(output.read_text(encoding="utf-8").splitlines()) == 16 * 3


def test_an_engine_can_be_used_again_when_the_server_is_back():
    """What the dead server was asked is dropped, and the count starts over."""
    is_up = threading.Event()

    def respond(received):
        if not is_up.is_set():
            server.stopped.wait(0.5)
        return chat_reply("x")

    limits = BreakerLimits(n_silent=3, silent_s=0.0)
    with serving(respond) as server:
        options = OpenAISettings(base_url=server.base_url, model="m", timeout_s=0.2)
        engine = OpenAIEngine(options, sleep=no_sleep, breaker=Breaker(limits))
        with contextlib.closing(engine):
            engine.submit(1, text_prompt())
            with pytest.raises(ServerGoneError):
                engine.collect()
            engine.cancel([1])
            assert engine.collect() == []
            is_up.set()
            engine.submit(2, text_prompt())
            assert engine.collect()[0][1].text == "x"


def test_answers_that_came_before_the_end_are_given_first():
    """They are paid for, and the journal keeps them."""
    release = threading.Event()

    def respond(received):
        if received.body["messages"][0]["content"] == "good":
            return chat_reply("x")
        release.wait(5)
        return Reply(b"", 500)

    limits = BreakerLimits(n_faults=1, faults_s=0.0)
    with serving(respond) as server:
        options = OpenAISettings(base_url=server.base_url, model="m")
        engine = OpenAIEngine(options, sleep=no_sleep, breaker=Breaker(limits))
        with contextlib.closing(engine):
            for ticket, said in ((1, "bad"), (2, "good")):
                messages = (Message("user", (Span(said),)),)
                engine.submit(ticket, Prompt(text="x", read="text", messages=messages, max_new_tokens=9))
            assert engine.collect() == [(2, Answer(text="x", usage=Usage(calls=1)))]
            release.set()
            with pytest.raises(ServerGoneError):
                engine.collect()


def test_a_prompt_is_not_retried_for_hours():
    """A server that asks for two minutes each time is given up after a quarter of an hour."""
    waits = []

    async def sleep(delay_s):
        waits.append(delay_s)
        clock.now += delay_s

    clock = Clock()

    async def attempt():
        raise ServerProblem("busy", status=429, is_retryable=True, retry_after_s=1e9)

    options = OpenAISettings(base_url="http://h/v1", model="m", max_retries=1000)
    with pytest.raises(EngineError, match="gave up after 8 tries"):
        asyncio.run(with_retries(attempt, options=options, sleep=sleep, random=Random(0), clock=clock))
    assert waits == [120.0] * 7
