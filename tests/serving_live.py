"""The application of `Served` behind a real port of this process, with a record of the bodies that came in."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import uvicorn
from serving_fakes import PATIENCE_S


class Recording:
    """ASGI: passes requests on, as a reverse proxy under `root_path` would, and keeps the bodies of POSTs."""

    def __init__(self, app, root_path=""):
        self.app = app
        self.root_path = root_path
        self.posted = []
        """(path, body) of each."""

    async def __call__(self, scope, receive, send):
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # A proxy that serves the server's root at `/r` often does so with and without the slash behind it.
        path = scope["path"] if scope["path"] != self.root_path else f"{self.root_path}/"
        scope = dict(scope, root_path=self.root_path, path=path)
        parts = []

        async def heard():
            message = await receive()
            if message["type"] == "http.request":
                parts.append(message.get("body", b""))
                if not message.get("more_body") and scope["method"] == "POST":
                    self.posted.append((scope["path"], json.loads(b"".join(parts))))
            return message

        await self.app(scope, heard, send)


def eventually(is_so):
    """Wait until it is."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def listening(served):
    """(URL of the page, Recording): requests are answered by uvicorn in a thread, until the block ends."""
    recording = Recording(served.app, served.desk.options.root_path)
    config = uvicorn.Config(
        recording, log_config=None, access_log=False, lifespan="off", http="h11", ws="none", server_header=False
    )
    server = uvicorn.Server(config)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as taken:
        taken.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{taken.getsockname()[1]}{recording.root_path}/", recording
        finally:
            server.should_exit = server.force_exit = True
            thread.join(PATIENCE_S)
