"""API keys of the HTTP servers: read them from a file and check the Authorization header of requests.

The file contains one key per line; blank lines and lines starting with `#` are skipped. Keys are kept as digests,
compared in constant time, and never appear in messages.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from pathlib import Path

from rankllm_core.errors import DataError
from rankllm_core.files import read_lines

_SHORTEST = 16
"""Minimum length in characters; keys are meant to be random, not memorable."""
_HOW = "generate one: openssl rand -hex 32"


def read_keys(path: Path) -> tuple[str, ...]:
    """Read the keys of a file, in order. Raises DataError, without showing the key, for an invalid key or an empty
    file."""
    keys = []
    for number, line in read_lines(path):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key) < _SHORTEST or not (key.isascii() and key.isprintable()) or len(key.split()) != 1:
            expected = f"expected a key of at least {_SHORTEST} ASCII characters without spaces"
            raise DataError(f"{expected}; {_HOW}", path=path, line=number)
        keys.append(key)
    if not keys:
        raise DataError(f"contains no API key; {_HOW}", path=path)
    return tuple(keys)


class ApiKeys:
    """Set of API keys accepted by a server."""

    def __init__(self, keys: Collection[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        """True if there are keys; without keys, requests need no authorization."""
        return bool(self._digests)

    def are_in(self, authorization: str | None) -> bool:
        """Return whether the Authorization header carries an accepted key, as `Bearer KEY`. None: the header is
        missing."""
        scheme, _, key = (authorization or "").partition(" ")
        given = _digest(key.strip().encode("utf-8", "surrogateescape"))
        # Compare against all keys, so that timing does not reveal which key nearly matched.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
