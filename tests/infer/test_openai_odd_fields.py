"""A reply with fields of unexpected types is an answer or a one-line error, never a traceback."""

from __future__ import annotations

import contextlib
import json

import pytest
from chat_server import Reply, logprobs_reply, serving
from openai_asking import first_prompt, text_prompt

from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.openai.engine import OpenAIEngine, OpenAISettings

pytestmark = pytest.mark.usefixtures("no_proxy")


ODD = [None, True, -1, 1e400, "x", [], {}, [[]], [{}], {"a": []}, 10**4000, "\ud800"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:12])
def test_a_field_of_another_type_is_never_a_bug(odd):
    """Each field of a reply, replaced in turn: an answer or a one-line error."""
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
