"""Who may call: API keys, the hosts that requests may be addressed to, and web pages."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rankllm_infer.api_keys import ApiKeys
from rankllm_infer.serving.dialects.errors import ServingError

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(?::[0-9]*)?")
"""A host and perhaps a port: RFC 9110, section 7.2."""
OPEN_PATHS = {"/": "page", "/health": "health", "/ready": "ready", "/metrics": "metrics"}
"""Path -> the word of `--protect` that closes it; a path that is not here needs a key wherever the server has keys."""


class Access:
    """Which paths are open to whom.

    keys: without any, everybody may call. protect: words of `OPEN_PATHS` whose paths need a key too.
    """

    def __init__(self, keys: Collection[str], *, protect: Sequence[str] = ()) -> None:
        self._keys = ApiKeys(keys)
        self._protect = set(protect)

    def check(self, path: str, header: str | None) -> None:
        """Raise ServingError of status 401 unless a path is open or the header `Authorization` holds a key."""
        if not self._keys or is_open(path, self._protect):
            return
        if not self._keys.are_in(header):
            raise ServingError(401, 'expected a known API key in the header "Authorization: Bearer KEY"')


def is_open(path: str, protect: Collection[str]) -> bool:
    """Whether a path needs no key, even where the server has keys. protect: what `--protect` was given."""
    return path in OPEN_PATHS and OPEN_PATHS[path] not in protect


def check_host(header: str | None, allowed: Sequence[str]) -> None:
    """Raise ServingError of status 400 where a request is addressed to a host that is not allowed. `*` allows any."""
    if "*" in allowed:
        return
    found = _HOST.fullmatch((header or "").strip().lower())
    if found is None or found[1] not in {allowed_name.lower() for allowed_name in allowed}:
        raise ServingError(400, "this server does not answer to that Host; it is named with --allowed-host")


def check_origins(origins: Sequence[str], host: str | None, allowed: Sequence[str]) -> None:
    """Raise ServingError of status 403 for a request that the web page of another origin has made.

    A browser names the page's origin in every POST across origins, also in those that it sends without asking first
    (such as a form's): their answer is hidden from the page, but the work would be done. Pages of the server itself may
    call. origins: values of the header `Origin`. allowed: those named with --cors-origin; `*` allows any.
    """
    own = (host or "").strip().lower()
    for origin in origins:
        scheme, _, address = origin.strip().lower().partition("://")
        is_own = scheme in ("http", "https") and address == own != ""
        if not is_own and "*" not in allowed and origin.strip() not in allowed:
            raise ServingError(
                403, "this server does not answer to web pages of that Origin; name it with --cors-origin"
            )


def allowed_hosts(allowed: Sequence[str], *, listens_on: str) -> tuple[str, ...]:
    """What was asked for; by default the names of this machine where only it can reach the server."""
    if allowed:
        return tuple(allowed)
    is_local = listens_on in ("localhost", "::1") or listens_on.startswith("127.")
    return (*LOOPBACK_HOSTS, listens_on) if is_local else ("*",)
