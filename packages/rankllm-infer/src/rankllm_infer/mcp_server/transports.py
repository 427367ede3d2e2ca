"""Where the server is reached: standard input and output of its own process, or streamable HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankllm_core.errors import RankLLMError
from rankllm_infer.mcp_server.keys import App, needs_key

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server
    from mcp.server.transport_security import TransportSecuritySettings

PATH = "/mcp"
"""Of the URL; what the SDK's own servers and clients use."""
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_GRACE_S = 5
"""How long open connections may take when the server is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Where the HTTP server listens, and whom it answers."""

    host: str = "127.0.0.1"
    port: int = 8000
    """0: a free one, which is told."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the header Host that are answered besides the loopback's and `host`."""
    keys: tuple[str, ...] = ()
    """API keys; none: everyone who reaches the server is answered."""

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone reaches the server."""
        return self.host in ("127.0.0.1", "localhost", "::1")


@contextlib.contextmanager
def quiet_standard_output() -> Iterator[None]:
    """Send standard output to standard error, even what a library in C writes: the client reads standard output."""
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
    """Serve one client over standard input and output, until it closes them. Nothing but protocol is written there."""
    from mcp.server.stdio import stdio_server

    async def serve() -> None:
        async with stdio_server() as (read_stream, write_stream):
            await server.run(read_stream, write_stream, server.create_initialization_options())

    asyncio.run(serve())


def serve_http(server: Server[Any], settings: HttpSettings, *, tell: Callable[[str], None]) -> None:
    """Serve over streamable HTTP until a signal comes. tell: is given a line with the URL once it is reachable.

    Raises RankLLMError where the address cannot be listened on.
    """
    import uvicorn

    with _listen(settings) as listener:
        port = listener.getsockname()[1]
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        # Connections wait in the socket's queue until the application has started.
        tell(f"Listening on http://{shown}:{port}{PATH}")
        config = uvicorn.Config(
            http_app(server, settings),
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        uvicorn.Server(config).run(sockets=[listener])


def http_app(server: Server[Any], settings: HttpSettings) -> App:
    """The ASGI application: the key, then the headers Host and Origin, then the protocol."""
    app: App = server.streamable_http_app(
        streamable_http_path=PATH, transport_security=security(settings), host=settings.host
    )
    return needs_key(app, settings.keys) if settings.keys else app


def security(settings: HttpSettings) -> TransportSecuritySettings:
    """The values of Host and Origin that are answered: with others, a web page could reach a local server by a name
    of its own that it points here (DNS rebinding)."""
    from mcp.server.transport_security import TransportSecuritySettings

    names = [*_LOOPBACK, *(_bracketed(name) for name in (settings.host, *settings.allowed_hosts))]
    hosts = _with_ports(dict.fromkeys(names))
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=hosts,
        allowed_origins=[f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts],
    )


def _bracketed(name: str) -> str:
    """An IPv6 address as a URL has it."""
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name


def _with_ports(names: Sequence[str] | dict[str, None]) -> list[str]:
    """Each name without a port and with any; one that names its port with that one alone."""
    hosts = []
    for name in names:
        has_port = ":" in name.rpartition("]")[2]
        hosts += [name] if has_port else [name, f"{name}:*"]
    return hosts


def _listen(settings: HttpSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise RankLLMError(
            f"{settings.host}:{settings.port}: cannot be listened on ({error.strerror}); see --host and --port"
        ) from None
