"""The openai engine with a real server on this machine."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count

import pytest
from chat_server import ChatServer, Reply, chat_reply, logprobs_reply, serving

from rankllm_core.errors import ConfigError, MissingPackageError
from rankllm_core.prompts.template import Message, Span
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.engines.openai.engine import OpenAIEngine, OpenAISettings, check_server, server_models

KEY = "sk-secret-0123456789"
REFUSED_KEY = {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": "invalid_api_key"}}


pytestmark = pytest.mark.usefixtures("no_proxy")


@contextlib.contextmanager
def engine_for(server: ChatServer | str, **options):
    """An engine that does not actually wait between tries: its waits are recorded in `engine.slept`."""
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    url = server if isinstance(server, str) else server.base_url
    engine = OpenAIEngine(OpenAISettings(base_url=url, model="m", **options), sleep=sleep)
    engine.slept = slept
    try:
        yield engine
    finally:
        engine.close()


def text_prompt(*, user: str = "Rank.", max_new_tokens: int = 9, untrusted: bool = False) -> Prompt:
    messages = (Message("system", (Span("Be brief."),)), Message("user", (Span(user, untrusted),)))
    return Prompt(text=user, read="text", messages=messages, max_new_tokens=max_new_tokens)


def first_prompt(*identifiers: str, opening: str = "[") -> Prompt:
    messages = (Message("user", (Span("Rank."),)),)
    messages += (Message("assistant", (Span(opening),)),) if opening else ()
    return Prompt(text="Rank.", read="first-token", identifiers=identifiers, messages=messages)


def collected(engine: OpenAIEngine, number: int) -> dict[int, Answer | EngineError]:
    """The next answers by ticket."""
    answers: dict[int, Answer | EngineError] = {}
    while len(answers) < number:
        answers |= dict(engine.collect())
    return answers


def ask(engine: OpenAIEngine, prompt: Prompt) -> Answer | EngineError:
    engine.submit(0, prompt)
    return collected(engine, 1)[0]


def sequence(*replies):
    """A `respond` that gives the replies in order and then repeats the last."""
    numbers = count()
    return lambda received: replies[min(next(numbers), len(replies) - 1)]


def test_the_servers_text_and_token_counts_become_the_answer():
    """Text and usage come from the server's reply."""
    reply = chat_reply("[2] > [1]", prompt_tokens=41, completion_tokens=6)
    with serving(lambda _: reply) as server, engine_for(server) as engine:
        answer = ask(engine, text_prompt())
    assert answer == Answer(text="[2] > [1]", usage=Usage(calls=1, prompt_tokens=41, completion_tokens=6))


def test_a_prompt_is_sent_as_chat_turns_and_decoded_greedily():
    """The server receives the turns, the length and temperature 0, and thinking is disabled."""
    with serving(lambda _: chat_reply("x")) as server, engine_for(server) as engine:
        ask(engine, text_prompt())
    (received,) = server.requests
    assert received.path == "/v1/chat/completions"
    assert received.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Rank."}],
        "temperature": 0,
        "max_tokens": 9,
        "chat_template_kwargs": {"enable_thinking": False},
    }


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None}, ""),
        ({"role": "assistant"}, ""),
        ({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "[1]"}]}, "[1]"),
    ],
)
def test_an_empty_answer_is_an_answer(message, text):
    """Servers return an empty answer as null or omit it; some return it in parts."""
    reply = {"choices": [{"message": message}]}
    with serving(lambda _: reply) as server, engine_for(server) as engine:
        assert ask(engine, text_prompt()) == Answer(text=text, usage=Usage(calls=1))


def test_control_tokens_of_a_passage_reach_the_server_broken():
    """The template's own control tokens are kept."""
    with serving(lambda _: chat_reply("x")) as server, engine_for(server) as engine:
        ask(engine, text_prompt(user="hi<|im_end|>", untrusted=True))
        ask(engine, text_prompt(user="hi<|im_end|>"))
    assert [r.body["messages"][1]["content"] for r in server.requests] == ["hi< |im_end|>", "hi<|im_end|>"]


def test_lone_surrogates_are_sent_as_replacement_characters():
    """They cannot be encoded in UTF-8, as JSON requires; pairs become the character they represent."""
    with serving(lambda _: chat_reply("x")) as server, engine_for(server) as engine:
        ask(engine, text_prompt(user="a\ud800b\udc00 \ud83d\ude00 é", untrusted=True))
    assert server.requests[0].body["messages"][1]["content"] == "a\ufffdb\ufffd \U0001f600 é"


def test_the_key_is_sent_as_a_bearer_token_and_only_where_there_is_one():
    """Local servers need no key."""
    with serving(lambda _: chat_reply("x")) as server:
        for key in (KEY, f"{KEY}\n", None, ""):
            with engine_for(server, api_key=key) as engine:
                ask(engine, text_prompt())
    assert [r.headers.get("authorization") for r in server.requests] == [f"Bearer {KEY}", f"Bearer {KEY}", None, None]


def test_the_key_is_in_no_error_and_no_repr():
    """Not even if the server echoes it."""
    with serving(lambda _: Reply(REFUSED_KEY, 401)) as server, engine_for(server, api_key=KEY) as engine:
        error = ask(engine, text_prompt())
    assert str(error).endswith(
        "401 Unauthorized: Incorrect API key provided: ***. (invalid_api_key); "
        "set OPENAI_API_KEY to a key that the server accepts"
    )
    assert KEY not in repr(OpenAISettings(base_url="http://h/v1", model="m", api_key=KEY))
    with pytest.raises(ConfigError) as caught:
        OpenAISettings(base_url="http://h/v1", model="m", api_key="sk-sécret")
    assert "cret" not in str(caught.value).replace("secret", "")


def test_first_token_scores_are_the_reported_log_probabilities():
    """The likeliest spelling counts, other letter case does not match, and unreported identifiers are -inf."""
    likeliest = [("B", -0.5), (" A", -1.5), ("A", -3.0), ("b", -3.5), (" ", -4.0)]
    with serving(lambda _: logprobs_reply(likeliest)) as server, engine_for(server) as engine:
        answer = ask(engine, first_prompt("A", "B", "C"))
    assert answer == Answer(scores=(-1.5, -0.5, -math.inf), usage=Usage(calls=1, prompt_tokens=7, completion_tokens=1))


def test_first_token_continues_the_begun_answer():
    """The opening `[` is sent as the assistant's unfinished turn."""
    with serving(lambda _: logprobs_reply({"A": -0.1})) as server, engine_for(server, top_logprobs=5) as engine:
        ask(engine, first_prompt("A", "B"))
    body = server.requests[0].body
    assert body["messages"][-1] == {"role": "assistant", "content": "["}
    asked = ("add_generation_prompt", "continue_final_message", "max_tokens", "logprobs", "top_logprobs", "temperature")
    assert tuple(body[name] for name in asked) == (False, True, 1, True, 5, 0)


def test_yes_and_no_sum_their_spellings():
    """0.5 + 0.125 for yes, 0.25 for no; the assistant's turn is not prefilled."""
    likeliest = {"yes": math.log(0.5), "No": math.log(0.25), " YES": math.log(0.125), "yesterday": math.log(0.1)}
    prompt = first_prompt("yes", "no", opening="")
    with serving(lambda _: logprobs_reply(likeliest)) as server, engine_for(server) as engine:
        answer = ask(engine, prompt)
    assert answer.scores == pytest.approx((math.log(0.625), math.log(0.25)))
    assert "continue_final_message" not in server.requests[0].body


@pytest.mark.parametrize(
    ("reply", "prompt", "said"),
    [
        (chat_reply("A"), first_prompt("A"), "returned no log-probabilities; FIRST is not possible .*--no-use-logits"),
        (chat_reply("yes"), first_prompt("yes", "no", opening=""), "pointwise scoring is not possible"),
        (logprobs_reply({"The": -0.1, " cat": -3}), first_prompt("A", "B"), "none of the identifiers A, B .*'The', "),
        (logprobs_reply({"<think>": -0.1}), first_prompt("yes", "no", opening=""), "none of the identifiers yes, no"),
        (logprobs_reply({"[": -0.1, "A": -3}), first_prompt("A", "B"), "started a new answer .*--no-use-logits"),
        (logprobs_reply({"1": -0.1, "2": -3}), first_prompt("1", "2", "10"), "none of the identifiers above 9 .*alpha"),
        (
            Reply({"error": {"message": "Unrecognized request argument supplied: continue_final_message"}}, 400),
            first_prompt("A", "B"),
            "continue_final_message; the server cannot continue .*FIRST is not possible .*--no-use-logits",
        ),
        (
            Reply({"error": {"message": "You are not allowed to request logprobs from this model"}}, 403),
            first_prompt("A", "B"),
            "does not return the requested log-probabilities; FIRST is not possible .*--no-use-logits",
        ),
    ],
)
def test_a_server_that_cannot_be_read_is_an_error_that_says_what_to_do(reply, prompt, said):
    """A ranking read from the wrong tokens would be worse than none. It is not retried."""
    with serving(lambda _: reply) as server, engine_for(server) as engine:
        answer = ask(engine, prompt)
    assert isinstance(answer, EngineError)
    assert re.search(said, str(answer)), str(answer)
    assert engine.slept == []
    assert len(server.requests) == 1


def test_numeric_identifiers_above_nine_are_read_where_they_are_tokens():
    """Models like Llama 3 encode 10 as one token."""
    reply = logprobs_reply({"10": -0.5, "1": -1.0})
    with serving(lambda _: reply) as server, engine_for(server) as engine:
        answer = ask(engine, first_prompt("1", "2", "10"))
    assert answer.scores == (-1.0, -math.inf, -0.5)


def test_as_many_requests_are_under_way_as_allowed_and_no_more():
    """Three at a time, regardless of the queue."""
    met = threading.Barrier(3, timeout=5)

    def respond(received):
        met.wait()
        return chat_reply("x")

    with serving(respond) as server, engine_for(server, concurrency=3) as engine:
        for ticket in range(12):
            engine.submit(ticket, text_prompt())
        answers = collected(engine, 12)
    assert set(answers) == set(range(12))
    assert server.most_at_once == 3


def test_a_slow_prompt_holds_up_nobody_and_tickets_stay_with_their_answers():
    """The slow one comes back last, and each answer has its own ticket."""
    others_are_done = threading.Event()

    def respond(received):
        user = received.body["messages"][1]["content"]
        if user == "0":
            others_are_done.wait(5)
        return chat_reply(f"answer {user}")

    with serving(respond) as server, engine_for(server, concurrency=2) as engine:
        for ticket in range(5):
            engine.submit(ticket, text_prompt(user=str(ticket)))
        fast = collected(engine, 4)
        others_are_done.set()
        slow = collected(engine, 1)
    assert {ticket: answer.text for ticket, answer in fast.items()} == {i: f"answer {i}" for i in (1, 2, 3, 4)}
    assert slow[0].text == "answer 0"


def test_passing_problems_are_tried_again_after_growing_waits():
    """Waits of 0.5, 1 and 2 seconds, each shortened by at most half."""
    replies = (Reply({}, 500), Reply(b"busy", 503), Reply({}, 408), chat_reply("at last"))
    with serving(sequence(*replies)) as server, engine_for(server) as engine:
        assert ask(engine, text_prompt()).text == "at last"
    assert len(engine.slept) == 3
    assert all(full / 2 <= wait <= full for wait, full in zip(engine.slept, (0.5, 1.0, 2.0), strict=True))


def test_the_servers_own_waiting_time_is_kept():
    """Seconds or a date, limited to two minutes."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    waits = [Reply({}, 429, {"Retry-After": value}) for value in ("7", "0", date, "86400")]
    with serving(sequence(*waits, chat_reply("x"))) as server, engine_for(server) as engine:
        assert ask(engine, text_prompt()).text == "x"
    seven, zero, minute, day = engine.slept
    assert (seven, zero, day) == (7.0, 0.0, 120.0)
    assert 50 <= minute <= 60


def test_a_lasting_problem_is_an_error_and_never_an_answer():
    """It reports the number of tries and the last problem; other prompts continue."""

    def respond(received):
        is_bad = received.body["messages"][1]["content"] == "bad"
        return Reply({"error": {"message": "out of\nmemory"}}, 500) if is_bad else chat_reply("fine")

    with serving(respond) as server, engine_for(server, max_retries=2) as engine:
        engine.submit(1, text_prompt(user="bad"))
        engine.submit(2, text_prompt(user="good"))
        answers = collected(engine, 2)
    assert str(answers[1]) == (
        f"{server.base_url}: gave up after 3 tries; last problem: 500 Internal Server Error: out of memory"
    )
    assert answers[2].text == "fine"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, {"error": {"message": "bad\x1b[31m request"}}, "400 Bad Request: bad [31m request"),
        (400, {"error": {"message": "This model's maximum context length is 4096 tokens"}}, "--max-passage-words or"),
        (401, {"error": "no"}, "401 Unauthorized: no; no key was sent; set OPENAI_API_KEY to a key that the server"),
        (403, {"message": "no"}, "403 Forbidden: no; check that the key may use model 'm'"),
        (404, {"detail": "Not Found"}, "check the model name 'm' and --base-url, which usually ends in /v1"),
        (413, b"<html>too large</html>", "use a smaller --max-passage-words or --context-size"),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "too big", "input": "x"}]}, "Entity: too big (body.n)"),
        (429, {"error": {"message": "no credit", "code": "insufficient_quota"}}, "no credit (insufficient_quota)"),
        (307, b"", "307 Temporary Redirect"),
    ],
)
def test_a_refusal_is_not_tried_again(status, body, said):
    """Retrying would not help; the message contains the server's reply and advice, in one line."""
    with serving(lambda _: Reply(body, status)) as server, engine_for(server) as engine:
        answer = ask(engine, text_prompt())
    assert isinstance(answer, EngineError)
    assert said in str(answer).replace("Unprocessable Content", "Unprocessable Entity")
    assert "\n" not in str(answer)
    assert len(server.requests) == 1


def test_a_long_message_is_shortened():
    """A proxy's full error page is not one line."""
    with serving(lambda _: Reply(b"word " * 1000, 400)) as server, engine_for(server) as engine:
        answer = ask(engine, text_prompt())
    assert len(str(answer)) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"<html>gateway</html>",
        b"",
        b"[]",
        b"\xff\xfe",
        {},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"message": {"content": 3}}]},
        {"error": {"message": "upstream fell over"}},
        {"choices": [{"message": {"content": "half an ans"}, "finish_reason": "error"}]},
    ],
)
def test_a_broken_reply_is_tried_again(body):
    """An incomplete reply is the server's fault and never an answer."""
    with serving(sequence(Reply(body), chat_reply("whole"))) as server, engine_for(server) as engine:
        assert ask(engine, text_prompt()).text == "whole"
    assert len(server.requests) == 2


@pytest.mark.parametrize("logprob", ["NaN", "null", '"-1"', "0.5", "true", "-1" + "0" * 400])
def test_a_log_probability_that_is_none_is_a_broken_reply(logprob):
    """NaN is never sorted."""
    entry = '{"token": "A", "logprob": %s, "top_logprobs": []}' % logprob  # noqa: UP031
    body = '{"choices": [{"logprobs": {"content": [%s]}}]}' % entry  # noqa: UP031
    replies = (Reply(body.encode()), logprobs_reply({"A": -1.0}))
    with serving(sequence(*replies)) as server, engine_for(server) as engine:
        assert ask(engine, first_prompt("A")).scores == (-1.0,)


def test_a_withheld_answer_is_an_error():
    """An answer withheld by the server's content filter is not an empty answer."""
    reply = {"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}
    with serving(lambda _: reply) as server, engine_for(server) as engine:
        assert "content filter" in str(ask(engine, text_prompt()))


def test_a_server_that_does_not_answer_in_time_is_given_up():
    """After retries, which count like those for any other problem."""
    with (
        serving(lambda _: server.stopped.wait(5)) as server,
        engine_for(server, timeout_s=0.2, max_retries=1) as engine,
    ):
        answer = ask(engine, text_prompt())
    assert str(answer).endswith("gave up after 2 tries; last problem: no answer within 0.2 s")


def test_a_server_that_drips_is_given_up_as_well():
    """The time limit applies to the whole answer, not to each byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            with listener.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(100):
                    connection.sendall(b" ")
                    time.sleep(0.02)

        thread = threading.Thread(target=drip)
        thread.start()
        with engine_for(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout_s=0.3, max_retries=0) as engine:
            answer = ask(engine, text_prompt())
        thread.join()
    assert str(answer).endswith("gave up after 1 try; last problem: no answer within 0.3 s")


@pytest.fixture
def nobody() -> str:
    """An address with no listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


def test_a_refused_connection_is_tried_again_then_named(nobody):
    """A server may be restarting."""
    with engine_for(nobody, max_retries=3) as engine:
        answer = ask(engine, text_prompt())
    assert str(answer) == f"{nobody}: gave up after 4 tries; last problem: connection refused"
    assert len(engine.slept) == 3


def openai_like(received):
    """Rejects what OpenAI's reasoning models reject, one parameter at a time."""
    refusals = {
        "chat_template_kwargs": "Unrecognized request argument supplied: chat_template_kwargs",
        "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
        "temperature": "Unsupported value: 'temperature' does not support 0 with this model.",
    }
    for name, message in refusals.items():
        if name in received.body:
            return Reply({"error": {"message": message, "param": name}}, 400)
    return chat_reply("x")


def test_what_a_server_refuses_is_left_out_from_then_on(caplog):
    """Learned once for the whole run; a warning states that answers may then differ between runs."""
    with caplog.at_level(logging.WARNING), serving(openai_like) as server, engine_for(server) as engine:
        assert [ask(engine, text_prompt()).text for _ in range(3)] == ["x", "x", "x"]
    assert len(server.requests) == 3 + 3
    assert server.requests[-1].body.keys() == {"model", "messages", "max_completion_tokens"}
    assert engine.slept == []
    assert [record.levelname for record in caplog.records if "no temperature" in record.message] == ["WARNING"]


def test_a_length_that_is_too_large_is_no_refusal_of_the_parameter():
    """vLLM mentions both spellings in that message."""
    message = "'max_tokens' or 'max_completion_tokens' is too large: 9. This model's maximum context length is 8 tokens"
    with serving(lambda _: Reply({"error": {"message": message}}, 400)) as server, engine_for(server) as engine:
        assert "use a smaller --max-passage-words" in str(ask(engine, text_prompt()))
    assert len(server.requests) == 1


def test_close_breaks_off_what_is_under_way_and_leaves_no_thread():
    """Queued prompts are dropped; no thread waits for the server."""
    before = set(threading.enumerate())
    arrived = threading.Semaphore(0)

    def respond(received):
        arrived.release()
        server.stopped.wait(10)

    with serving(respond) as server:
        with engine_for(server, concurrency=4) as engine:
            for ticket in range(50):
                engine.submit(ticket, text_prompt())
            assert all(arrived.acquire(timeout=5) for _ in range(4))
            start = time.perf_counter()
            engine.close()
            assert time.perf_counter() - start < 2
            mine = [t.name for t in set(threading.enumerate()) - before if "process_request" not in t.name]
            assert not [name for name in mine if name.startswith(("rankllm", "asyncio"))]
            assert engine.collect() == []
            with pytest.raises(RuntimeError, match="closed"):
                engine.submit(0, text_prompt())
        assert len(server.requests) == 4


def test_close_wakes_up_a_collect_that_waits():
    """In any thread."""
    with serving(lambda _: server.stopped.wait(10)) as server, engine_for(server) as engine:
        engine.submit(0, text_prompt())
        answers: list[object] = [None]
        thread = threading.Thread(target=lambda: answers.append(engine.collect()))
        thread.start()
        time.sleep(0.1)
        engine.close()
        thread.join(5)
    assert answers[-1] == []


def test_collect_without_prompts_gives_nothing():
    """It does not wait for prompts that were never submitted."""
    with serving(lambda _: chat_reply("x")) as server, engine_for(server) as engine:
        assert engine.collect() == []


def test_a_score_head_cannot_be_read_from_a_server():
    """Reported immediately, before anything is sent."""
    with engine_for("http://127.0.0.1/v1") as engine, pytest.raises(ConfigError, match="--engine transformers"):
        engine.submit(0, Prompt(text="", read="head"))


MODELS = {"object": "list", "data": [{"id": "m"}, {"id": "n"}]}


def test_a_server_with_the_model_passes_the_check():
    """So does a server without a list of models."""
    with serving(sequence(MODELS, MODELS, Reply(b"nothing here", 404))) as server:
        options = OpenAISettings(base_url=f"{server.base_url}/", model="m", api_key=KEY)
        assert server_models(options) == ("m", "n")
        check_server(options)
        assert server_models(options) is None
        check_server(options)
    assert {(r.path, r.headers["authorization"]) for r in server.requests} == {("/v1/models", f"Bearer {KEY}")}


def test_the_check_names_the_models_that_there_are():
    """A misspelt name is found before anything is ranked."""
    with (
        serving(lambda _: MODELS) as server,
        pytest.raises(EngineError, match=r"does not offer model 'M'; available: m, n$"),
    ):
        check_server(OpenAISettings(base_url=server.base_url, model="M"))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(REFUSED_KEY, 401), "set OPENAI_API_KEY"),
        (Reply(b"<html>hello</html>"), "expected a JSON object, found '<html>hello</html>'"),
        (Reply({}, 502), "502 Bad Gateway"),
    ],
)
def test_the_check_says_what_is_wrong_with_the_server(reply, said):
    """In one line, after a single request."""
    with serving(lambda _: reply) as server, pytest.raises(EngineError) as caught:
        check_server(OpenAISettings(base_url=server.base_url, model="m", api_key=KEY))
    assert said in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


def test_the_check_says_where_no_server_is(nobody):
    """The most common mistake: the server is not running."""
    with pytest.raises(EngineError, match=f"^no server at {nobody}: connection refused$"):
        check_server(OpenAISettings(base_url=nobody, model="m"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_url": "localhost:8000/v1"}, "base_url: expected a URL such as http://localhost:8000/v1"),
        ({"base_url": "http://user:hush@host/v1?key=hush"}, "found 'http://host/v1'"),
        ({"base_url": "http://host:port/v1"}, "base_url: expected"),
        ({"base_url": ""}, "base_url: expected"),
        ({"model": ""}, "model: expected"),
        ({"concurrency": 0}, "concurrency: expected at least 1, found 0"),
        ({"top_logprobs": 0}, "top_logprobs: expected at least 1, found 0"),
        ({"max_retries": -1}, "max_retries: expected at least 0, found -1"),
        ({"timeout_s": math.nan}, "timeout_s: expected more than 0 seconds, found nan"),
    ],
)
def test_options_that_cannot_be_used_are_named(change, said):
    """Before a connection is made, and without secrets from the address."""
    with pytest.raises(ConfigError) as caught:
        OpenAISettings(**{"base_url": "http://localhost/v1", "model": "m"} | change)
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_missing_http_client_is_named_with_the_extra_that_brings_it(monkeypatch):
    """None in sys.modules makes Python report that a module cannot be imported."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingPackageError, match=r"needs httpx2.*uv add 'rankllm-infer\[openai\]'"):
        OpenAIEngine(OpenAISettings(base_url="http://localhost/v1", model="m"))


def test_the_http_client_is_imported_only_where_it_is_used():
    """`--help` stays fast."""
    code = "import sys, rankllm_infer.engines.openai; sys.exit('httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
