"""The key and the password in the address reach no answer, message or file."""

from __future__ import annotations

import pytest
from chat_server import Reply, chat_reply, logprobs_reply, serving
from openai_asking import ask, first_prompt
from ranking_server import request, write_jsonl

from rankllm_infer.engines import EngineError
from rankllm_infer.engines.openai import OpenAIOptions, server_models
from rankllm_infer.settings import RerankOptions

KEY = "sk-secret/0123456789+"

pytestmark = pytest.mark.usefixtures("no_proxy")


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
    assert "hush" not in repr(OpenAIOptions(base_url=url, model="m"))
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
                server_models(OpenAIOptions(base_url=server.base_url, model="m", api_key=KEY))
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
