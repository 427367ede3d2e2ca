"""Large requests, many documents, and a server that is killed while clients retry."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from chat_server import serving
from program import started
from ranking_server import respond
from serving_fakes import Served, listwise, pointwise
from serving_process import PATIENCE_S, server

N_TINY = 10_000
MEGABYTE = 1_000_000


def test_ten_thousand_tiny_documents():
    """Ranked normally, if that many are allowed."""
    served = Served(pointwise(), max_documents=N_TINY)
    documents = [f"d {number * 7919 % N_TINY}" for number in range(N_TINY)]
    results = served.post("/v2/rerank", {"query": "q", "documents": documents}).json()["results"]
    assert [int(documents[result["index"]].split()[1]) for result in results] == list(range(N_TINY))[::-1]


def test_windows_over_many_documents_hold_up_nobody():
    """2,000 documents are 999 windows of four, one after the other."""
    served = Served(listwise(), max_documents=2_000)
    documents = ["x" * (number * 7 % 2_000 + 1) for number in range(2_000)]
    done = []

    async def ask(name, documents):
        async with served.client() as client:
            response = await client.post("/v2/rerank", json={"query": "q", "documents": documents}, timeout=PATIENCE_S)
        done.append(name)
        return response.json()

    async def both():
        large = asyncio.create_task(ask("large", documents))
        while served.desk.n_unfinished == 0:
            await asyncio.sleep(0)
        small = await ask("small", ["xx", "x"])
        return small, await large

    small, large = asyncio.run(both())
    assert [result["index"] for result in small["results"]] == [1, 0]
    assert len(documents[large["results"][0]["index"]]) == 1
    assert large["meta"]["calls"] == 999
    assert done == ["small", "large"]


def test_a_body_of_ten_megabytes():
    """Rejected by its announced size, and ranked if allowed: documents are truncated."""
    documents = [f"worth {value} " + "word " * (MEGABYTE // 5) for value in (3, 1, 9, 2, 8, 4, 7, 5, 6, 0)]
    content = json.dumps({"query": "q", "documents": documents})
    assert len(content) > 10 * MEGABYTE
    with server("--max-body", 16 * MEGABYTE) as (_, url, _), httpx2.Client(base_url=url, trust_env=False) as client:
        response = client.post("/v2/rerank", content=content, timeout=PATIENCE_S)
        assert [result["index"] for result in response.json()["results"]] == [2, 4, 6, 8, 7, 5, 0, 3, 1, 9]
    with server() as (_, url, _):
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as client:
            head = f"POST /v2/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
            client.sendall(head.encode())  # and not a byte of the body
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.slow
def test_killed_and_started_again_under_retrying_clients():
    """Each request is answered by the server running at that time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    n_requests = 60
    n_retries = n_answered = 0

    def ask(number):
        nonlocal n_retries, n_answered
        worth = [(number * factor) % 11 for factor in (1, 3, 7)]
        body = {"query": f"q{number}", "documents": [f"p{place} worth {value}" for place, value in enumerate(worth)]}
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                response = httpx2.post(f"{url}/v2/rerank", json=body, timeout=PATIENCE_S, trust_env=False)
            except httpx2.TransportError:
                n_retries += 1
                time.sleep(0.1)
                continue
            assert response.status_code == 200
            n_answered += 1
            return worth, [result["index"] for result in response.json()["results"]]
        raise AssertionError("not answered")

    def slow(received):
        if not received.path.endswith("/models"):
            time.sleep(0.05)
        return respond(received)

    with serving(slow) as model, ThreadPoolExecutor(8) as clients:
        words = ["serve", "--model-path", "oracle", "--engine", "openai", "--base-url", model.base_url, "--port", port]
        with started(words) as process:
            wait_until_ready(process)
            answers = [clients.submit(ask, number) for number in range(n_requests)]
            while n_answered < n_requests // 4:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)
        with started(words) as process:
            wait_until_ready(process)
            for answer in answers:
                worth, order = answer.result(PATIENCE_S)
                assert order == sorted(range(3), key=lambda place: -worth[place])
    assert n_retries > 0


def wait_until_ready(process):
    """Until it reports its address."""
    for line in process.stderr:
        if re.search(r" at http://\S+$", line):
            return
    pytest.fail("the server did not start")
