"""Life cycle of a server: bind, load, warm up, answer, drain on the first signal, stop on the second."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn

from rankllm_core.errors import RankLLMError
from rankllm_infer.api import Reranker
from rankllm_infer.api_keys import read_keys
from rankllm_infer.serving.access import Access
from rankllm_infer.serving.app import make_app
from rankllm_infer.serving.connections import BoundedProtocol
from rankllm_infer.serving.desk import Desk
from rankllm_infer.serving.observing import Observer
from rankllm_infer.serving.settings import ServerOptions


class DrainingServer(uvicorn.Server):
    """Server that, after the first signal, finishes accepted requests and refuses new ones with 503."""

    def __init__(
        self, config: uvicorn.Config, desk: Desk, observer: Observer, *, on_started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._desk = desk
        self._observer = observer
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening and announce it."""
        await super().startup(sockets)
        self._on_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain on the first signal; on the second, end the process as that signal would."""
        # A signal may interrupt a log line being written, so this line bypasses the stream.
        name = "stop" if self._desk.is_draining else "drain"
        with suppress(OSError):  # whoever read the log may be gone
            os.write(2, self._observer.line({"event": name, "unfinished": self._desk.n_unfinished}).encode())
        if self._desk.is_draining:
            os._exit(128 + sig)
        self._desk.is_draining = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop listening: once the last accepted request has been answered."""
        is_done = self._desk.is_draining and self._desk.n_unfinished == 0
        return await super().on_tick(counter) or is_done


class _JsonLines(logging.Handler):
    """Passes uvicorn's messages to the observer; exceptions only by type."""

    def __init__(self, observer: Observer) -> None:
        super().__init__(level=logging.WARNING)
        self._observer = observer

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, without the message of an exception."""
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        text = str(record.msg).partition("\n")[0]
        line: dict[str, object] = {"event": "server", "message": text, **({"error": kind} if kind else {})}
        self._observer.log(line, level=record.levelname.lower())


def bind(options: ServerOptions) -> socket.socket:
    """Bind the socket before spending minutes on loading a model. Raises RankLLMError."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    # Explicit protocol: asyncio only sets TCP_NODELAY on such sockets; without it, a response takes 40 ms longer.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((options.host, options.port))
    except OSError as error:
        taken.close()
        reason = error.strerror or str(error)
        raise RankLLMError(
            f"--host {options.host} --port {options.port}: cannot listen on this address: {reason}"
        ) from None
    return taken


def serve(load: Callable[[], Reranker], options: ServerOptions, *, model: str, say: Callable[[str], None]) -> None:
    """Load a reranker and serve it until a signal arrives; returns once the last accepted request is answered.

    load: returns the reranker. model: default name it is served under. say: receives messages for the user. The
    reranker is closed at the end. Raises RankLLMError if the address is in use, a file cannot be read, or the model
    cannot be loaded or called.
    """
    keys = Access(() if options.api_key_file is None else read_keys(options.api_key_file), protect=options.protect)
    for path in (options.ssl_certfile, options.ssl_keyfile):
        if path is not None and not path.is_file():
            raise RankLLMError(f"{path}: no such file")
    with bind(options) as taken, load() as reranker:
        for warning in reranker.warnings:
            say(f"Warning: {warning}")
        observer = Observer()
        desk = Desk(reranker, options, model=model)
        desk.warm_up()
        scheme = "http" if options.ssl_certfile is None else "https"
        host, port = taken.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        announcement = f"Serving {reranker.description} at {scheme}://{shown}:{port}{options.root_path}"
        config = _config(desk, observer, keys)
        server = DrainingServer(config, desk, observer, on_started=lambda: say(announcement))
        server.run(sockets=[taken])
        observer.log({"event": "stopped"})


def _config(desk: Desk, observer: Observer, keys: Access) -> uvicorn.Config:
    options = desk.options
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_JsonLines(observer)] if "." not in name else [], name == "uvicorn.error"
    try:
        config = uvicorn.Config(
            make_app(desk, observer, keys=keys),
            log_config=None,
            access_log=False,
            lifespan="off",
            http=BoundedProtocol,
            ws="none",
            server_header=False,
            root_path=options.root_path,
            # Accepted requests have their own timeout; a client that does not read its response must not delay the
            # shutdown longer.
            timeout_graceful_shutdown=int(options.request_timeout_s) + 1,
            ssl_certfile=options.ssl_certfile,
            ssl_keyfile=options.ssl_keyfile,
        )
        config.load()
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or str(error)
        raise RankLLMError(
            f"{options.ssl_certfile}, {options.ssl_keyfile}: not a valid certificate with its key: {reason}"
        ) from None
    return config
