"""API keys of the HTTP server: a file of keys, and the check that a request brings one of them.

The file holds one key a line; blank lines and lines that begin with `#` are skipped. Keys are compared in constant time
and appear in no message.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_core.files import read_lines

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application (asgi.readthedocs.io, version 3)."""

_REFUSAL = b'{"error": "expected an API key of this server in the header Authorization: Bearer KEY"}'
_SHORTEST = 16
"""Characters; a key is drawn by chance, not chosen to be remembered."""


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, in its order. Raises RankLLMError that names the line, never the key."""
    keys: list[str] = []
    for line, text in read_lines(path):
        key = text.strip()
        if not key or key.startswith("#"):
            continue
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise RankLLMError(f"{path}:{line}: expected a key of printable ASCII characters without blanks")
        if len(key) < _SHORTEST:
            raise RankLLMError(
                f"{path}:{line}: the key has {len(key)} characters, expected at least {_SHORTEST}; "
                "draw one with: openssl rand -hex 32"
            )
        keys.append(key)
    if not keys:
        raise RankLLMError(f"{path}: holds no key; write one a line")
    return tuple(keys)


def needs_key(app: App, keys: Sequence[str]) -> App:
    """The application for those who bring a key as `Authorization: Bearer KEY`; others get status 401."""
    expected = [f"Bearer {key}".encode() for key in keys]

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_known(_authorization(scope), expected):
            await _refuse(send)
            return
        await app(scope, receive, send)

    return guarded


def _authorization(scope: Scope) -> bytes:
    """The header, its scheme spelled as we spell it; empty where there is none, or more than one."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = found[0].partition(b" ") if len(found) == 1 else (b"", b"", b"")
    return b"Bearer " + key.strip() if scheme.lower() == b"bearer" else b""


def _is_known(given: bytes, expected: Sequence[bytes]) -> bool:
    # Every key is compared, whichever fits: the time tells nothing.
    return any([hmac.compare_digest(given, key) for key in expected])


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSAL})
