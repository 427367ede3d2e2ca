"""The key and the address's password never appear in answers, messages or files."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest
from chat_server import Reply, chat_reply, logprobs_reply, serving
from openai_asking import ask, first_prompt
from ranking_server import request, write_jsonl

from rankllm_infer.engines.base import EngineError
from rankllm_infer.engines.openai.engine import OpenAISettings, server_models
from rankllm_infer.engines.openai.secrets import without_secrets
from rankllm_infer.options import RerankOptions

KEY = "sk-secret/0123456789+"

pytestmark = pytest.mark.usefixtures("no_proxy")


SPELLINGS = [
    KEY,
    "sk-secret%2F0123456789%2B",
    "sk-secret%2f0123456789%2b",
    "sk-secret/0123456789%2B",
    "".join(f"%{byte:02x}" for byte in KEY.encode()),
    "sk-secret\\/0123456789+",
    "c2stc2VjcmV0LzAxMjM0NTY3ODkr",  # printf %s KEY | base64
]


@pytest.mark.parametrize("spelled", SPELLINGS)
def test_a_key_that_the_server_repeats_is_in_no_answer(spelled):
    """Answers are written to traces, results and journals."""
    said = f"[1] > [2] {spelled}"
    with serving(lambda _: chat_reply(said)) as server:
        assert ask(server.base_url, api_key=KEY).text == "[1] > [2] ***"
    for token in (spelled, f"x{spelled}"):
        with serving(lambda _, token=token: logprobs_reply({token: -0.1})) as server:
            error = str(ask(server.base_url, first_prompt("A"), api_key=KEY))
        assert "none of the identifiers" in error
        assert "sk-sec" not in error


@pytest.mark.parametrize("alphabet", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize("before", ["", ":", "u:", "me:", "user:", "Bearer "])
@pytest.mark.parametrize("after", ["", "\n", ":"])
@pytest.mark.parametrize("key", [KEY, "sk-\u00ff\u00ff\u00ff??>>0", "12345678"])
def test_a_secret_in_base64_is_redacted(alphabet, before, after, key):
    """As in a Basic header, after any user or scheme: less than one byte remains at either end."""
    options = OpenAISettings(base_url=f"http://u:{quote(key, safe='')}@h/v1", model="m")
    spelled = alphabet(f"{before}{key}{after}".encode()).decode()
    left, right = without_secrets(f"got {spelled}.", options).removeprefix("got ").removesuffix(".").split("***")
    assert len(left) <= -(-8 * len(before) // 6)
    assert len(right.rstrip("=")) <= 1 + -(-8 * len(after) // 6)


def test_a_key_in_base64_is_in_no_error_and_percent_encoded_neither():
    """An error that quotes a gateway's Authorization header, and a redirect with the key in its address."""
    basic = b64encode(f":{KEY}".encode()).decode()
    refused = Reply({"error": {"message": f"bad header Basic {basic}"}}, 400, {"Location": f"/?auth={quote(basic)}"})
    with serving(lambda _: refused) as server:
        error = str(ask(server.base_url, api_key=KEY))
    assert basic[2:-2] not in error
    assert error.count("***") == 2


def test_a_key_that_is_split_over_the_parts_of_an_answer_is_in_no_answer():
    """Content as a list of parts, which are joined."""
    parts = [{"type": "text", "text": text} for text in ("[1] > [2] ", KEY[:9], KEY[9:], "!")]
    with serving(lambda _: chat_reply(parts)) as server:
        assert ask(server.base_url, api_key=KEY).text == "[1] > [2] ***!"


def test_the_password_in_an_address_is_in_no_message():
    """It is as secret as a key."""
    with serving(lambda _: Reply({"error": {"message": "no user wizard with password hush-hush-hush"}}, 400)) as server:
        url = server.base_url.replace("//", "//wizard:hush-hush-hush@")
        error = str(ask(url))
    assert "hush" not in error
    assert "hush" not in repr(OpenAISettings(base_url=url, model="m"))
    assert "hush" not in repr(RerankOptions(engine="openai", base_url=url))


def test_a_key_is_in_no_repr_of_the_options():
    """They are printed while debugging."""
    assert KEY not in repr(RerankOptions(engine="openai", base_url="http://h/v1", api_key=KEY))


def test_a_key_is_not_sent_where_a_server_redirects_to():
    """The other server is never contacted."""
    with serving(lambda _: chat_reply("x")) as other:
        moved = Reply(b"", 307, {"Location": f"{other.base_url}/chat/completions?key={KEY}"})
        with serving(lambda _: moved) as server:
            error = str(ask(server.base_url, api_key=KEY, max_retries=3))
            with pytest.raises(EngineError, match="307"):
                server_models(OpenAISettings(base_url=server.base_url, model="m", api_key=KEY))
    assert other.requests == []
    assert "redirected to" in error
    assert KEY not in error


@pytest.mark.parametrize("spelled", [KEY, b64encode(f"user:{KEY}".encode()).decode()])
def test_a_key_that_the_server_repeats_reaches_no_file(rankllm, monkeypatch, tmp_path, spelled):
    """Trace, results, run and terminal, for a run from the command line."""
    requests = write_jsonl(tmp_path / "requests.jsonl", request("q", 0, 1, 2))
    outputs = [tmp_path / name for name in ("out.trec", "out.jsonl", "trace.jsonl")]
    options = ("--output", outputs[0], "--output-jsonl", outputs[1], "--trace", outputs[2])
    with serving(lambda _: chat_reply(f"[1] > [2] {spelled}")) as server:
        command = ("rerank", "--engine", "openai", "--base-url", server.base_url, "--model-path", "m")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        done = rankllm(*command, "--requests", requests, *options)
    assert any(received.headers.get("authorization") for received in server.requests)
    assert done.code == 0
    for text in (done.out, done.err, *(path.read_text(encoding="utf-8") for path in outputs)):
        assert spelled not in text
        assert spelled[8:-8] not in text
