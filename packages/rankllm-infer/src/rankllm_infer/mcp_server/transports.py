"""Transports of the server: standard input and output of its own process, or streamable HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rankllm_core.errors import RankLLMError
from rankllm_infer.mcp_server.keys import App, needs_key
from rankllm_infer.mcp_server.settings import LOOPBACK, McpOptions

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from mcp.server.transport_security import TransportSecuritySettings

PATH = "/mcp"
"""URL path, as used by the SDK's own servers and clients."""
_GRACE_S = 5
"""Seconds that open connections get when the server is stopped."""


@contextlib.contextmanager
def quiet_standard_output() -> Iterator[None]:
    """Redirect standard output to standard error, even for C libraries: the client reads standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def serve_stdio(server: Server[Any]) -> None:
    """Serve one client over standard input and output until it closes them. Only protocol messages are written
    there."""
    from mcp.server.stdio import stdio_server

    async def serve() -> None:
        lines: Any = InputLines()  # the SDK only iterates over it
        async with stdio_server(stdin=lines) as (read_stream, write_stream):
            await server.run(read_stream, write_stream, server.create_initialization_options())

    asyncio.run(serve())


class InputLines:
    """Lines of standard input, awaited so that signals interrupt the wait.

    The SDK's own reader waits in a thread that cannot be interrupted: Ctrl-C would only take effect at the client's
    next line. Standard input itself is empty from then on for all other readers.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        source = open(os.dup(0), encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
        threading.Thread(target=self._read, args=[source], name="rankllm-mcp-input", daemon=True).start()

    def __aiter__(self) -> InputLines:
        return self

    async def __anext__(self) -> str:
        line = await self._lines.get()
        if line is None:
            raise StopAsyncIteration
        return line

    def _read(self, source: TextIO) -> None:
        """Main function of the reader thread. If the loop is closed first, nobody waits for the lines."""
        with contextlib.suppress(RuntimeError):
            for line in source:
                self._loop.call_soon_threadsafe(self._lines.put_nowait, line)
            self._loop.call_soon_threadsafe(self._lines.put_nowait, None)


def serve_http(server: Server[Any], settings: McpOptions, *, keys: Sequence[str], tell: Callable[[str], None]) -> None:
    """Serve over streamable HTTP until a signal arrives. tell: receives a line with the URL once it is reachable.

    Raises RankLLMError if the address cannot be listened on.
    """
    import uvicorn

    with _listen(settings) as listener:
        port = listener.getsockname()[1]
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        # Connections wait in the socket's queue until the application has started.
        tell(f"Listening on http://{shown}:{port}{PATH}")
        config = uvicorn.Config(
            http_app(server, settings, keys=keys),
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        uvicorn.Server(config).run(sockets=[listener])


def http_app(server: Server[Any], settings: McpOptions, *, keys: Sequence[str] = ()) -> App:
    """Build the ASGI application: API key, then Host and Origin headers, then the protocol.

    keys: API keys; empty: everyone who reaches the server is answered.
    """
    app: App = server.streamable_http_app(
        streamable_http_path=PATH, transport_security=security(settings), host=settings.host
    )
    return needs_key(app, keys) if keys else app


def security(settings: McpOptions) -> TransportSecuritySettings:
    """Return the accepted values of Host and Origin. Otherwise, a web page could reach a local server through a name of
    its own that resolves to this machine (DNS rebinding)."""
    from mcp.server.transport_security import TransportSecuritySettings

    names = [*(_bracketed(name) for name in (*LOOPBACK, settings.host, *settings.allowed_host))]
    hosts = _with_ports(dict.fromkeys(names))
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=hosts,
        allowed_origins=[f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts],
    )


def _bracketed(name: str) -> str:
    """Format an IPv6 address as in a URL."""
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name


def _with_ports(names: Sequence[str] | dict[str, None]) -> list[str]:
    """Return each name without a port and with any port; a name with a port is only accepted with that port."""
    hosts = []
    for name in names:
        has_port = ":" in name.rpartition("]")[2]
        hosts += [name] if has_port else [name, f"{name}:*"]
    return hosts


def _listen(settings: McpOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise RankLLMError(
            f"{settings.host}:{settings.port}: cannot listen on this address ({error.strerror}); see --host and --port"
        ) from None
