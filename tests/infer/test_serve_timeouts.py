"""An idle connection is closed; a slow but active one is not."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest
import uvicorn

from rankllm_infer.serving.connections import BoundedProtocol

LIMIT_S = 0.5
PATIENCE_S = 30
MANY = 8_000_000
"""Bytes of a response: more than a kernel buffers for a client that does not read."""
HEAD = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Hasty(BoundedProtocol):
    """With short limits."""

    request_s = stalled_s = LIMIT_S


async def app(scope, receive, send):
    """Responds with as many bytes as the path says."""
    content = b"x" * int(scope["path"].strip("/"))
    headers = [(b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture
def server():
    """A running server with short limits."""
    running = uvicorn.Server(uvicorn.Config(app, http=Hasty, lifespan="off", log_config=None, timeout_keep_alive=1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        running.address = taken.getsockname()
        eventually(lambda: running.started)
        yield running
        running.should_exit = True
        thread.join(PATIENCE_S)


def eventually(is_so):
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def connected(server, *, room=None):
    """A client's connection. room: size of its kernel's receive buffer."""
    with socket.socket() as client:
        if room is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        client.settimeout(PATIENCE_S)
        client.connect(server.address)
        yield client


def ask(client):
    """Send a request and read the response."""
    client.sendall(HEAD % 3)
    read = b""
    while not read.endswith(b"xxx"):
        read += some(client, 1000)


def some(client, n):
    """Up to this many bytes from an open connection."""
    read = client.recv(n)
    assert read
    return read


def n_open(server):
    """Number of open connections of the server."""
    return len(server.server_state.connections)


@pytest.mark.parametrize("sent", [b"", b"GET /1 HT", b"GET /1 HTTP/1.1\r\nHost: localhost\r\n"])
def test_half_a_head_is_not_waited_for(server, sent):
    """Nor for one that never begins."""
    with connected(server) as client:
        client.sendall(sent)
        began = time.monotonic()
        assert client.recv(100) == b""
        assert time.monotonic() - began > LIMIT_S / 2
    eventually(lambda: n_open(server) == 0)


def test_a_head_in_drops_is_closed_however_steady(server):
    """Each byte arrives in time but the head does not; also after an answered request."""
    with connected(server) as client:
        ask(client)
        sent = 0
        with suppress(ConnectionError):
            for byte in (HEAD % 3) * 100:
                client.sendall(bytes([byte]))
                sent += 1
                time.sleep(LIMIT_S / 10)
        assert sent < 100


def test_a_second_request_in_time_is_answered(server):
    """The limit applies to a head, not to a connection."""
    with connected(server) as client:
        for _ in range(6):
            ask(client)
            time.sleep(LIMIT_S / 3)


def test_a_response_that_nobody_reads_is_dropped(server):
    """Its bytes are discarded."""
    with connected(server, room=4096) as client:
        client.sendall(HEAD % MANY)
        eventually(lambda: n_open(server) == 1)
        eventually(lambda: n_open(server) == 0)
        read = 0
        with suppress(ConnectionResetError):
            while got := len(client.recv(1 << 20)):
                read += got
        assert read < MANY


def test_a_slow_reader_gets_all(server):
    """It takes longer than the limit, but never pauses that long."""
    with connected(server, room=1 << 18) as client:
        client.sendall(HEAD % MANY)
        began, read = time.monotonic(), 0
        while read < MANY:
            read += len(some(client, 1 << 17))
            time.sleep(LIMIT_S / 50)
        assert time.monotonic() - began > LIMIT_S
