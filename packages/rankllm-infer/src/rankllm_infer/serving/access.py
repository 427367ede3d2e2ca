"""Access control: API keys, allowed hosts, and allowed web origins."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from rankllm_infer.api_keys import ApiKeys
from rankllm_infer.serving.dialects.errors import ServingError

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/\[\]]+)(?::[0-9]*)?")
"""Host with optional port: RFC 9110, section 7.2."""
OPEN_PATHS = {"/": "page", "/health": "health", "/ready": "ready", "/metrics": "metrics"}
"""Path -> value of `--protect` that requires a key for it. Other paths always require a key if the server has keys."""


class Access:
    """Decides which paths need an API key.

    keys: without any, no key is needed. protect: values of `OPEN_PATHS` whose paths need a key as well.
    """

    def __init__(self, keys: Collection[str], *, protect: Sequence[str] = ()) -> None:
        self._keys = ApiKeys(keys)
        self._protect = set(protect)

    def check(self, path: str, header: str | None) -> None:
        """Raise ServingError with status 401 unless the path is open or the Authorization header contains a key."""
        if not self._keys or is_open(path, self._protect):
            return
        if not self._keys.are_in(header):
            raise ServingError(401, 'expected a known API key in the header "Authorization: Bearer KEY"')


def is_open(path: str, protect: Collection[str]) -> bool:
    """Return whether a path needs no key even if the server has keys. protect: values given to `--protect`."""
    return path in OPEN_PATHS and OPEN_PATHS[path] not in protect


def check_host(header: str | None, allowed: Sequence[str]) -> None:
    """Raise ServingError with status 400 if a request is addressed to a host that is not allowed. `*` allows any."""
    if "*" in allowed:
        return
    found = _HOST.fullmatch((header or "").strip().lower())
    if found is None or found[1] not in {allowed_name.lower() for allowed_name in allowed}:
        raise ServingError(400, "requests for this Host are not allowed; it can be allowed with --allowed-host")


def check_origins(origins: Sequence[str], host: str | None, allowed: Sequence[str]) -> None:
    """Raise ServingError with status 403 for a request made by a web page of another origin.

    Browsers send the page's origin with every cross-origin POST, including those sent without a preflight (such as a
    form's): the response is hidden from the page, but the work would be done. Pages of the server itself may call it.
    origins: values of the Origin header. allowed: values of --cors-origin; `*` allows any.
    """
    own = (host or "").strip().lower()
    for origin in origins:
        scheme, _, address = origin.strip().lower().partition("://")
        is_own = scheme in ("http", "https") and address == own != ""
        if not is_own and "*" not in allowed and origin.strip() not in allowed:
            raise ServingError(
                403, "requests from web pages of this Origin are not allowed; it can be allowed with --cors-origin"
            )


def allowed_hosts(allowed: Sequence[str], *, listens_on: str) -> tuple[str, ...]:
    """Return the allowed hosts; by default this machine's own names if only it can reach the server, else any."""
    if allowed:
        return tuple(allowed)
    is_local = listens_on in ("localhost", "::1") or listens_on.startswith("127.")
    return (*LOOPBACK_HOSTS, listens_on) if is_local else ("*",)
