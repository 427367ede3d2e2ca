"""API keys of our HTTP servers: a file of keys, and whether a request brings one of them.

The file holds one key a line; blank lines and lines that begin with `#` are skipped. Keys are kept as digests, compared
in constant time, and appear in no message.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from pathlib import Path

from rankllm_core.errors import DataError
from rankllm_core.files import read_lines

_SHORTEST = 16
"""Characters; a key is drawn by chance, not chosen to be remembered."""
_HOW = "make one with: openssl rand -hex 32"


def read_keys(path: Path) -> tuple[str, ...]:
    """Return the keys of a file, in its order. Raises DataError, which shows no key, on a bad one and where none is."""
    keys = []
    for number, line in read_lines(path):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key) < _SHORTEST or not (key.isascii() and key.isprintable()) or len(key.split()) != 1:
            expected = f"expected a key of at least {_SHORTEST} ASCII characters without blanks"
            raise DataError(f"{expected}; {_HOW}", path=path, line=number)
        keys.append(key)
    if not keys:
        raise DataError(f"holds no API key; {_HOW}", path=path)
    return tuple(keys)


class ApiKeys:
    """Keys that open a server."""

    def __init__(self, keys: Collection[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        """Whether there are any: without keys, everybody may call."""
        return bool(self._digests)

    def are_in(self, authorization: str | None) -> bool:
        """Whether the header `Authorization` holds one of them, as `Bearer KEY`. None: there is no such header."""
        scheme, _, key = (authorization or "").partition(" ")
        given = _digest(key.strip().encode("utf-8", "surrogateescape"))
        # All keys are compared, so that the time says nothing of which one was nearly right.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
