"""A small OpenAI-compatible server on this machine, whose answers a test writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server sends back. A body that is not bytes is written as JSON."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Received:
    """One request, as the server saw it."""

    path: str
    headers: Mapping[str, str]
    body: Any


class ChatServer:
    """Answers every request by `respond`, in a thread of its own, and keeps what it was asked."""

    def __init__(self, respond: Callable[[Received], Any]) -> None:
        self.respond = respond
        self.requests: list[Received] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.stopped = threading.Event()
        """Set when the test is over; a `respond` that waits must wait for it as well."""
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def answer(self, received: Received) -> Reply:
        """Count the request, and let the test answer it."""
        with self._lock:
            self.requests.append(received)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            reply = self.respond(received)
        finally:
            with self._lock:
                self._at_once -= 1
        return reply if isinstance(reply, Reply) else Reply(reply)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet; in two, the client's kernel would wait 40 ms for the second

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                content = self.rfile.read(length)
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = json.loads(content) if content else None
                reply = server.answer(Received(path=self.path, headers=headers, body=body))
                sent = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                try:
                    self.send_response(reply.status)
                    for name, value in {"Content-Length": str(len(sent)), **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(sent)
                except OSError:
                    self.close_connection = True  # the client has left

            do_GET = do_POST = _serve

            def log_message(self, format: str, *args: object) -> None:
                """Tests read `requests` instead of a log."""

        return Handler


@contextmanager
def serving(respond: Callable[[Received], Any]) -> Iterator[ChatServer]:
    """A running server, stopped at the end."""
    server = ChatServer(respond)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def chat_reply(text: str | None, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> dict[str, Any]:
    """A chat completion that says `text`."""
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }


def logprobs_reply(likeliest: Mapping[str, float] | list[tuple[str, float]]) -> dict[str, Any]:
    """A chat completion of one token with the likeliest tokens in its place, the first of them sampled."""
    pairs = list(likeliest.items()) if isinstance(likeliest, Mapping) else likeliest
    entries = [{"token": token, "logprob": logprob, "bytes": list(token.encode())} for token, logprob in pairs]
    reply = chat_reply(pairs[0][0], prompt_tokens=7, completion_tokens=1)
    reply["choices"][0]["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
    return reply
