"""Hostile connections to a running server: each is answered or closed without affecting others."""

from __future__ import annotations

import os
import random
import re
import socket
import threading
import time

import httpx2
import pytest
import uvicorn
from client_server import wait_until
from hostile_connections import ALLOWED_ORIGIN, BODY, KEY, KINDS, MAX_BODY, SECRET, head
from serving_process import BODY as QUESTION
from serving_process import PATIENCE_S, Log, server

from rankllm_infer.serving.connections import BoundedProtocol

N = int(os.environ.get("HOSTILE_REQUESTS", "700"))
BOUND_S = 15
"""Time limit for answering or closing a connection: the server allows 10 s for a request head."""
_HEAD = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n(.*?)\r\n\r\n", re.DOTALL)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with a key, small limits and an allowed origin."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    limits = ("--max-body", MAX_BODY, "--max-documents", 50, "--request-timeout", 5)
    with server("--api-key-file", keys, "--cors-origin", ALLOWED_ORIGIN, *limits) as (process, url, _):
        yield Running(process, url)


class Running:
    """The server, its log and an honest client."""

    def __init__(self, process, url):
        self.process, self.log = process, Log(process)
        host, _, port = url.removeprefix("http://").partition(":")
        self.address = host, int(port)
        headers = {"Authorization": f"Bearer {KEY}"}
        self.client = httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=PATIENCE_S)

    def check_honest(self):
        """A valid request is answered correctly."""
        done = self.client.post("/v2/rerank", json=QUESTION)
        assert [item["index"] for item in done.json()["results"]] == [1, 2, 0]

    def unfinished(self):
        """Accepted requests that have not been answered yet."""
        return re.search(r"^rankllm_requests_unfinished (\S+)$", self.client.get("/metrics").text, re.MULTILINE)[1]

    def resident_bytes(self):
        """Memory of the process."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1]) << 10


def statuses(address, sent):
    """(statuses of the responses on a connection, whether the server finished with it in time)."""
    with socket.create_connection(address, timeout=BOUND_S) as connection:
        connection.settimeout(BOUND_S)
        try:
            connection.sendall(sent.data)
        except ConnectionError:
            return [], b"", True  # it was closed while we were sending
        if not sent.is_whole:
            connection.settimeout(0.02)
        received = b""
        try:
            while not _is_answered(received):
                piece = connection.recv(65536)
                if not piece:
                    break
                received += piece
        except ConnectionError:
            pass
        except TimeoutError:
            return _statuses(received), received, not sent.is_whole
    return _statuses(received), received, True


def _statuses(received):
    return [int(found[1]) for found in _HEAD.finditer(received) if found[1] != b"100"]


def _is_answered(received):
    found = [found for found in _HEAD.finditer(received) if found[1] != b"100"]
    if not found:
        return False
    length = re.search(rb"(?i)content-length: (\d+)", found[0][2])
    has_more = length is not None and len(received) - found[0].end() < int(length[1])
    return not has_more and b"connection: close" not in found[0][2].lower()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
def test_hostile_connections_are_answered_or_closed(served):
    """No bug, no hang, no leak; after each of them, an honest request is answered."""
    served.check_honest()
    before = served.resident_bytes()
    seen = set()
    for seed in range(N):
        draw = random.Random(seed)
        kind = KINDS[seed % len(KINDS)]
        sent = kind(draw)
        found, received, is_in_time = statuses(served.address, sent)
        where = (kind.__name__, seed, found, sent.data[:300], received[:300])
        assert is_in_time, where
        assert all(status < 500 for status in found), where
        assert sent.may_be_ranked or 200 not in found or b'"results"' not in received, where
        assert KEY.encode() not in received, where
        assert kind.__name__ != "smuggled" or len(found) < 2, where
        seen |= {(kind.__name__, status) for status in found}
        served.check_honest()
    assert served.unfinished() == "0.0"
    assert served.resident_bytes() - before < 64 << 20
    assert {(kind.__name__, status) for kind, status in EXPECTED} <= seen
    check_log(served.log)


KIND_OF = {kind.__name__: kind for kind in KINDS}
EXPECTED = [
    *((KIND_OF["odd_body"], status) for status in (200, 400)),
    *((KIND_OF[name], 400) for name in ("smuggled", "bad_framing", "header_flood", "path_trick", "rebinding")),
    *((KIND_OF["path_trick"], status) for status in (404, 405)),
    *((KIND_OF["cross_origin"], status) for status in (400, 403, 415)),
    (KIND_OF["wrong_key"], 401),
    (KIND_OF["oversize"], 413),
]
"""Each kind gets as far as it should."""


def check_log(log):
    """It contains no bug, no document text, no key and no smuggled request."""
    assert [line for line in log.lines if line["level"] == "error" and line.get("status") != 504] == []
    for text in (SECRET, KEY, "smuggled", "Traceback", "evil"):
        assert text not in log.text


class Slow:
    """A connection that sends something every half second until the server closes it."""

    def __init__(self, address, first, again=b""):
        self.took = None
        self.received = b""
        self._address, self._first, self._again = address, first, again
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        began = time.monotonic()
        with socket.create_connection(self._address) as connection:
            connection.settimeout(0.5)
            try:
                connection.sendall(self._first)
                while True:
                    try:
                        piece = connection.recv(65536)
                        if not piece:
                            break
                        self.received += piece
                    except TimeoutError:
                        connection.sendall(self._again)
            except ConnectionError:
                pass
        self.took = time.monotonic() - began


def test_slow_clients_are_not_waited_for(served):
    """Heads and bodies that arrive byte by byte or not at all; honest requests are answered meanwhile."""
    length = f"Content-Length: {len(BODY)}"
    slow = [
        Slow(served.address, b""),
        Slow(served.address, b"POST /rerank HT"),
        Slow(served.address, b"POST /rerank HTTP/1.1\r\n", b"X: y\r\n"),
        Slow(served.address, head("Content-Length: 1000000", key="wrong") + b" ", b" "),
        Slow(served.address, head("Transfer-Encoding: chunked", key="wrong"), b"1\r\n \r\n"),
        Slow(served.address, head(length) + BODY[:10]),
        Slow(served.address, head(length) + BODY[:1], b" "),
    ]
    time.sleep(0.2)
    served.check_honest()
    for connection in slow:
        connection.thread.join(2 * BOUND_S)
        assert connection.took is not None
        assert connection.took < BOUND_S + 5
    assert [_statuses(connection.received)[:1] for connection in slow[3:]] == [[401], [401], [504], [504]]
    assert served.unfinished() == "0.0"
    check_log(served.log)


class Hasty(BoundedProtocol):
    """Short time limits for clients."""

    request_s = 0.3
    stalled_s = 0.3


async def endless(scope, receive, send):
    """An application whose response exceeds all buffers on the way to its client."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(500):
        await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})


def test_a_client_that_does_not_read_is_disconnected():
    """And its response is abandoned."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(endless, http=Hasty, lifespan="off", ws="none", log_config=None)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_until(lambda: running.started)
        with socket.create_connection(listening.getsockname()) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: running.server_state.tasks)
            wait_until(lambda: not running.server_state.tasks and not running.server_state.connections)
        running.should_exit = True
        thread.join(PATIENCE_S)
