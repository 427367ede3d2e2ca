"""`rankllm-infer serve` in a process of its own, before a model on a server that this test writes."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager, suppress

import pytest
from chat_server import serving
from program import started
from ranking_server import respond

PATIENCE_S = 60
BODY = {"query": "q", "documents": ["a worth 1", "b worth 3", "c worth 2"]}


class Held:
    """A model on a server that answers, by `respond`, when it is let."""

    def __init__(self, respond):
        self._respond = respond
        self.is_open = threading.Event()
        self.is_open.set()
        self.has_begun = threading.Event()

    def __call__(self, received):
        if not received.path.endswith("/models"):
            self.has_begun.set()
            assert self.is_open.wait(PATIENCE_S)
        return self._respond(received)

    def hold(self):
        """From now on, wait."""
        self.is_open.clear()
        self.has_begun.clear()


class Log:
    """What a process writes from now on, read as it comes: else it would wait for a reader once the pipe is full."""

    def __init__(self, process):
        self.text = ""
        self._process = process
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self):
        with suppress(ValueError):  # it is closed when the process has been killed
            for line in self._process.stderr:
                self.text += line

    @property
    def lines(self):
        """A record a line."""
        return [json.loads(line) for line in self.text.splitlines()]


@contextmanager
def server(*more, respond=respond):
    """The process, its address, and the model behind it. It is warm."""
    held = Held(respond)
    with serving(held) as model:
        words = ["serve", "--model-path", "oracle", "--engine", "openai", "--base-url", model.base_url, "--port", 0]
        with started([*words, *more]) as process:
            for line in process.stderr:
                if found := re.search(r"at (https?://\S+)$", line):
                    yield process, found[1], held
                    return
            pytest.fail("the server did not start")
