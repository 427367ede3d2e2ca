"""Who may call: API keys, compared in constant time, and the hosts that requests may be addressed to."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence
from pathlib import Path

from rankllm_core.errors import DataError
from rankllm_core.files.reading import read_lines
from rankllm_infer.serving.dialects.errors import ServingError

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_SHORTEST_KEY = 16
_OPEN_PATHS = {"/health": "health", "/ready": "ready", "/metrics": "metrics"}


class ApiKeys:
    """Keys that open the server. They are kept as digests, and shown nowhere."""

    def __init__(self, keys: Collection[str], *, protect: Sequence[str] = ()) -> None:
        self._digests = [_digest(key.encode()) for key in keys]
        self._protect = set(protect)

    def check(self, path: str, header: str | None) -> None:
        """Raise ServingError of status 401 unless the header `Authorization` holds one of the keys.

        Without keys everybody may call; the paths for probes and scrapers are open unless they are protected.
        """
        if not self._digests:
            return
        if path in _OPEN_PATHS and _OPEN_PATHS[path] not in self._protect:
            return
        scheme, _, key = (header or "").partition(" ")
        given = _digest(key.strip().encode("utf-8", "surrogateescape"))
        # All keys are compared, so that the time says nothing of which one was nearly right.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise ServingError(401, 'expected a known API key in the header "Authorization: Bearer KEY"')


def read_keys(path: Path) -> tuple[str, ...]:
    """Keys of a file, one per line. Raises DataError, which shows no key, where one is too short or there is none."""
    keys = []
    for number, line in read_lines(path):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key) < _SHORTEST_KEY or not key.isascii() or len(key.split()) != 1:
            expected = f"expected a key of at least {_SHORTEST_KEY} ASCII characters without blanks"
            raise DataError(f"{expected}; make one with: openssl rand -hex 32", path=path, line=number)
        keys.append(key)
    if not keys:
        raise DataError("holds no API key; make one with: openssl rand -hex 32", path=path)
    return tuple(keys)


def check_host(header: str | None, allowed: Sequence[str]) -> None:
    """Raise ServingError of status 400 where a request is addressed to a host that is not allowed. `*` allows any."""
    if "*" in allowed:
        return
    host = (header or "").strip().lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] if ":" in host else host
    if name not in {allowed_name.lower() for allowed_name in allowed}:
        raise ServingError(400, "this server does not answer to that Host; it is named with --allowed-host")


def allowed_hosts(allowed: Sequence[str], *, listens_on: str) -> tuple[str, ...]:
    """What was asked for; by default the names of this machine where only it can reach the server."""
    if allowed:
        return tuple(allowed)
    is_local = listens_on in ("localhost", "::1") or listens_on.startswith("127.")
    return (*LOOPBACK_HOSTS, listens_on) if is_local else ("*",)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
