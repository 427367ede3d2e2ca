"""A server for the tests of published clients: small limits, a key, and ways to make it busy or drain.

Needs the standard library and pytest only, since each client has an environment of its own, without rankllm.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from serving_process import BODY, PATIENCE_S, Log, server

KEY = "k" * 32
MODEL = "rerank-v4"
QUERY, DOCUMENTS = BODY["query"], BODY["documents"]
BEST = [1, 2, 0]
"""The order of DOCUMENTS: they say themselves that they are worth 1, 3 and 2."""
RANKS = [pytest.approx(1.0), pytest.approx(2 / 3), pytest.approx(1 / 3)]
"""(n - rank) / n, since the model generates permutations."""
MAX_DOCUMENTS = 5
TOO_MANY = ["a worth 1"] * (MAX_DOCUMENTS + 1)
_MAX_QUEUE = 4
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ClientServer:
    """A running server and what a test does to it beside its client."""

    def __init__(self, process, url, held):
        self.process, self.url, self._held = process, url, held
        self.log = Log(process)

    def count(self, status):
        """How many requests have been answered with a status."""
        with _OPENER.open(f"{self.url}/metrics", timeout=PATIENCE_S) as response:
            lines = response.read().decode()
        found = re.findall(rf'^rankllm_requests_total\{{.*status="{status}"\}} (\S+)$', lines, re.MULTILINE)
        return sum(map(float, found))

    @contextmanager
    def busy(self):
        """The queue is full while inside, or until one request has been refused: then the model answers again."""
        refused = self.count(429)
        with self._occupied(_MAX_QUEUE):

            def free_the_queue():
                wait_until(lambda: self.count(429) > refused)
                self._held.is_open.set()

            freeing = threading.Thread(target=free_the_queue)
            freeing.start()
            yield
            freeing.join(PATIENCE_S)
        assert self.count(429) > refused

    @contextmanager
    def stalling(self, n):
        """The model answers nothing until so many requests have got 504."""
        before = self.count(504)
        self._held.hold()

        def let_go():
            wait_until(lambda: self.count(504) >= before + n)
            self._held.is_open.set()

        letting_go = threading.Thread(target=let_go)
        letting_go.start()
        try:
            yield
        finally:
            self._held.is_open.set()
            letting_go.join(PATIENCE_S)

    @contextmanager
    def draining(self):
        """The first signal has come, and one accepted request keeps the server alive."""
        with self._occupied(1):
            self.process.send_signal(signal.SIGTERM)
            wait_until(lambda: self._ask("/ready") == 503)
            yield

    @contextmanager
    def _occupied(self, n):
        self._held.hold()
        waiting = [threading.Thread(target=self._ask, args=("/rerank", BODY)) for _ in range(n)]
        for thread in waiting:
            thread.start()
        try:
            wait_until(lambda: self._unfinished() == n)
            yield
        finally:
            self._held.is_open.set()
            for thread in waiting:
                thread.join(PATIENCE_S)

    def _unfinished(self):
        with _OPENER.open(f"{self.url}/metrics", timeout=PATIENCE_S) as response:
            found = re.search(r"^rankllm_requests_unfinished (\S+)$", response.read().decode(), re.MULTILINE)
        return float(found[1])

    def _ask(self, path, body=None):
        """The status of a request."""
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.url + path, data=data, headers=headers)
            with _OPENER.open(request, timeout=PATIENCE_S) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code


def wait_until(is_so):
    """Look again and again until it is."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def client_server(folder, *more):
    """The server, with more options; `folder` is for its file of keys."""
    keys = folder / "keys"
    keys.write_text(KEY)
    limits = ("--max-documents", MAX_DOCUMENTS, "--max-queue", _MAX_QUEUE)
    with server("--api-key-file", keys, "--served-model-name", MODEL, *limits, *more) as (process, url, held):
        yield ClientServer(process, url, held)
