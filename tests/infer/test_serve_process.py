"""`rankllm-infer serve` in a separate process: a port, an engine behind HTTP, disconnects and signals."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress

import httpx2
import pytest
from chat_server import serving
from ranking_server import respond
from serving_process import BODY, PATIENCE_S, server

from rankllm_infer.serving.server import bind
from rankllm_infer.serving.settings import ServerOptions


def eventually(is_so):
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def events(process):
    """Events logged by the process, after it has ended."""
    return [json.loads(line)["event"] for line in process.communicate(timeout=PATIENCE_S)[1].splitlines()]


def test_the_first_signal_drains():
    """A disconnecting client frees its slot; then SIGTERM: accepted requests are answered, new ones get 503."""
    with server() as (process, url, held):
        client = httpx2.Client(base_url=url, trust_env=False, timeout=PATIENCE_S)
        results = client.post("/v2/rerank", json=BODY).json()["results"]
        assert [item["index"] for item in results] == [1, 2, 0]
        assert client.get("/").text.startswith("<!DOCTYPE html>")

        def unfinished():
            return re.search(r"^rankllm_requests_unfinished (\S+)$", client.get("/metrics").text, re.MULTILINE)[1]

        held.hold()
        content = json.dumps(BODY).encode()
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as leaving:
            head = f"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
            leaving.sendall(head.encode() + content)
            assert held.has_begun.wait(PATIENCE_S)
            assert unfinished() == "1.0"
        eventually(lambda: unfinished() == "0.0")

        accepted = []
        asking = threading.Thread(
            target=lambda: accepted.append(
                httpx2.post(f"{url}/v2/rerank", json=BODY, timeout=PATIENCE_S, trust_env=False)
            )
        )
        asking.start()
        eventually(lambda: unfinished() == "1.0")
        process.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/ready").status_code == 503)
        assert client.post("/v2/rerank", json=BODY).status_code == 503
        assert process.poll() is None
        held.is_open.set()
        asking.join(PATIENCE_S)
        assert [done.status_code for done in accepted] == [200]
        assert process.wait(PATIENCE_S) == 0
        assert events(process)[-1] == "stopped"


def test_the_second_signal_stops():
    """Regardless of what is in flight."""
    with server() as (process, url, held):
        held.hold()

        def ask():
            with suppress(httpx2.HTTPError):  # the connection breaks
                httpx2.post(f"{url}/rerank", json=BODY, timeout=PATIENCE_S, trust_env=False)

        asking = threading.Thread(target=ask)
        asking.start()
        assert held.has_begun.wait(PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx2.get(f"{url}/ready", trust_env=False).status_code == 503)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        held.is_open.set()
        asking.join(PATIENCE_S)
        assert events(process)[-1] == "stop"


def test_responses_leave_at_once():
    """Without Nagle's algorithm, which asyncio disables only for sockets that are declared as TCP."""
    with bind(ServerOptions(port=0)) as taken:
        assert taken.proto == socket.IPPROTO_TCP


def test_an_address_that_is_taken_is_one_line(rankllm):
    """Before the model is loaded, which would fail for this name."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = rankllm("serve", "--model-path", "/no/such/model", "--port", port)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(
        f"Error: --host 127.0.0.1 --port {port}: cannot listen on this address: "
    )


def test_a_model_that_is_missing_is_one_line(rankllm):
    """And the port is released."""
    done = rankllm("serve", "--model-path", "/no/such/model", "--port", 0)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("Error: ")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_tls(tmp_path):
    """With a user's certificate; half of a pair is a usage error."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with server("--ssl-certfile", certificate, "--ssl-keyfile", key) as (_, url, _):
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=certificate)
        assert httpx2.post(f"{url}/rerank", json=BODY, verify=trusted, trust_env=False).status_code == 200


def test_a_broken_certificate_is_one_line(rankllm, tmp_path):
    """So is a missing one."""
    broken = tmp_path / "cert.pem"
    broken.write_text("no certificate")
    with serving(respond) as model:
        words = ["serve", "--model-path", "oracle", "--engine", "openai", "--base-url", model.base_url, "--port", 0]
        done = rankllm(*words, "--ssl-certfile", broken, "--ssl-keyfile", broken)
        assert (done.code, "not a valid certificate with its key" in done.err.splitlines()[-1]) == (1, True)
        done = rankllm(*words, "--ssl-certfile", tmp_path / "none", "--ssl-keyfile", broken)
        assert (done.code, done.err.splitlines()[-1].endswith("none: no such file")) == (1, True)
    assert rankllm(*words, "--ssl-certfile", broken).code == 2


def test_without_the_extra_it_says_what_to_install(rankllm, monkeypatch):
    """In one line."""
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    monkeypatch.delitem(__import__("sys").modules, "rankllm_infer.serving.server", raising=False)
    done = rankllm("serve", "--model-path", "m")
    assert done.code == 1
    assert done.err.splitlines()[-1].endswith("which is not installed. Install it with: uv add 'rankllm-infer[serve]'")
