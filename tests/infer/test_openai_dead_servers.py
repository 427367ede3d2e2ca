"""A run with a server that stopped responding ends soon, and resumes where it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from random import Random

import pytest
from chat_server import Reply, chat_reply, serving
from openai_asking import no_sleep, text_prompt
from ranking_server import request, write_jsonl

from rankllm_core.prompts.template import Message, Span
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.engines.openai.breaker import Breaker, BreakerLimits, ServerGoneError
from rankllm_infer.engines.openai.engine import OpenAIEngine, OpenAISettings
from rankllm_infer.engines.openai.http import with_retries
from rankllm_infer.engines.openai.problems import ServerProblem

pytestmark = pytest.mark.usefixtures("no_proxy")


class Clock:
    """A clock set by the test."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_needs_failures_in_a_row_and_time():
    """Six tries without a reply, and four seconds; an answer resets the count."""
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
        "http://h/v1: the server has stopped answering (6 consecutive tries failed within 5 s, last: connection "
        "refused); the run stops here; repeat the command to resume it once the server is back"
    )


def test_a_proxy_before_a_dead_server_is_given_more_time():
    """A status of 500 or more shows that something is alive: thirty in a row, over a minute."""
    clock = Clock()
    breaker = Breaker(BreakerLimits(n_faults=3, faults_s=60.0), clock=clock)
    for at in (0.0, 1.0, 2.0, 59.0):
        clock.now = at
        breaker.failed("502 Bad Gateway", where="w", began=at, is_silent=False)
    clock.now = 61.0
    with pytest.raises(ServerGoneError, match="5 consecutive tries failed within 61 s"):
        breaker.failed("502 Bad Gateway", where="w", began=61.0, is_silent=False)


def queries(n: int):
    return [request(f"q{number}", *range(3)) for number in range(n)]


def test_a_run_over_a_dead_server_stops_and_is_resumed(rankllm, tmp_path):
    """16 queries: two answers, then silence. One line within seconds; the same command asks only the missing
    prompts."""
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
    """Prompts of the dead server are dropped, and the count is reset."""
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
    """They have been paid for, and the journal keeps them."""
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
    """A server that requests two minutes each time is given up after a quarter of an hour."""
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
