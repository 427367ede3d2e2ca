"""Replies that are huge, endless, compressed or slow are read within bounds on memory and time."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import socket
import threading
import time
import zlib

import pytest
from chat_server import Reply, chat_reply, serving
from openai_asking import ask

from rankllm_infer.engines.base import EngineError
from rankllm_infer.engines.openai.engine import OpenAISettings, server_models
from rankllm_infer.engines.openai.reply import MAX_REPLY_BYTES

pytestmark = pytest.mark.usefixtures("no_proxy")


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_a_packed_reply_is_bounded_before_it_is_unpacked(packing):
    """200 MB of `>` in 0.2 MB; memory use is bounded as well."""
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
    """Some gateways compress every reply."""
    packed = gzip.compress(json.dumps(chat_reply("[2] > [1]")).encode())
    with serving(lambda _: Reply(packed, headers={"Content-Encoding": "gzip"})) as server:
        assert ask(server.base_url).text == "[2] > [1]"
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("body", "encoding", "said"),
    [
        (gzip.compress(b"{}" * 99, mtime=0)[:-9], "gzip", "compressed data ends early"),
        (b"no gzip", "gzip", "cannot be decompressed"),
        (b"x", "br", "compressed with 'br', which was not requested"),
        (b"x", "zstd", "compressed with 'zstd'"),
    ],
)
def test_a_reply_that_cannot_be_unpacked_is_named(body, encoding, said):
    """In one line."""
    with serving(lambda _: Reply(body, headers={"Content-Encoding": encoding})) as server:
        assert said in str(ask(server.base_url))


def endless(start: bytes, chunk: bytes, *, pause_s: float = 0.0):
    """A server that sends `start`, then `chunk` forever."""
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
    """Body or headers, whatever length they announce: within seconds, in little memory."""
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
        with pytest.raises(EngineError, match=r"within 0.3 s; is the server running\?"):
            server_models(OpenAISettings(base_url=url, model="m", timeout_s=0.3))
        assert time.monotonic() - began < 5


def test_a_list_of_models_is_bounded_as_well():
    """It is read before the first prompt."""
    body = b'{"data": [' + b'{"id": "m"},' * (MAX_REPLY_BYTES // 10) + b"{}]}"
    with serving(lambda _: Reply(body)) as server, pytest.raises(EngineError, match="larger than 8 MB"):
        server_models(OpenAISettings(base_url=server.base_url, model="m"))


def test_an_answer_of_millions_of_characters_is_refused():
    """Within the size limit of a reply, but longer than the requested answer."""
    with serving(lambda _: chat_reply(">" * 5_000_000)) as server:
        assert "5000000 characters, expected at most 1048576" in str(ask(server.base_url))
