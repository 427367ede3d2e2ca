"""Takes out of a server's texts what only we and the server may know: the key, and the address's password."""

from __future__ import annotations

from typing import cast
from urllib.parse import quote

from rankllm_infer.engines.openai.options import OpenAIOptions

_SHORTEST_SECRET = 8
"""A shorter key (EMPTY, none) is a dummy for a local server; taking it out would only garble the text."""


def without_secrets(value: object, options: OpenAIOptions) -> object:
    """The same JSON value, or text, with *** in place of what only we and the server may know.

    A server that repeats the key would put it into answers, and so into traces, results and journals.
    """
    secrets = secrets_of(options)
    return _replaced(value, secrets) if secrets else value


def secrets_of(options: OpenAIOptions) -> tuple[str, ...]:
    """The key and the address's password, as they are and as a URL spells them; the longest first."""
    found = [secret for secret in (options.key, options.password) if secret and len(secret) >= _SHORTEST_SECRET]
    return tuple(sorted({spelling for secret in found for spelling in (secret, quote(secret, safe=""))}, key=len)[::-1])


def _replaced(value: object, secrets: tuple[str, ...]) -> object:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
        return value
    if isinstance(value, list):
        return [_replaced(item, secrets) for item in value]
    if isinstance(value, dict):
        return {cast(str, _replaced(key, secrets)): _replaced(item, secrets) for key, item in value.items()}
    return value
