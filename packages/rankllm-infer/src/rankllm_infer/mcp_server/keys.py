"""Gate in front of the HTTP transport: requests without a valid API key are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from rankllm_infer.api_keys import ApiKeys

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application (asgi.readthedocs.io, version 3)."""

_REFUSAL = b'{"error": "expected an API key of this server in the header Authorization: Bearer KEY"}'


def needs_key(app: App, keys: Sequence[str]) -> App:
    """Wrap an application so that requests need `Authorization: Bearer KEY`; others get status 401."""
    known = ApiKeys(keys)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not known.are_in(_authorization(scope)):
            await _refuse(send)
            return
        await app(scope, receive, send)

    return guarded


def _authorization(scope: Scope) -> str | None:
    """Return the header; None if it is missing or occurs more than once."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    return found[0].decode("latin-1") if len(found) == 1 else None


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSAL})
