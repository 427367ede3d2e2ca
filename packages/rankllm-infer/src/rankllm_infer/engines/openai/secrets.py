"""Redact the API key and the password of the address from a server's texts."""

from __future__ import annotations

import functools
import json
import re
from base64 import b64encode
from typing import cast
from urllib.parse import quote

from rankllm_infer.engines.openai.settings import OpenAISettings

_SHORTEST_SECRET = 8
"""Minimum length of a secret: shorter keys (EMPTY, none) are dummies for local servers, and redacting them would garble
text."""
_URL_SAFE = str.maketrans("+/", "-_")
_PERCENT = re.compile("%[0-9A-F]{2}")


def without_secrets(value: object, settings: OpenAISettings) -> object:
    """Return the same JSON value or text, with the key and the address's password replaced by ***.

    Otherwise a server that echoes the key would put it into answers, and thereby into traces, results and journals.
    """
    secrets = secrets_of(settings)
    return _replaced(value, secrets) if secrets else value


def secrets_of(settings: OpenAISettings) -> tuple[str, ...]:
    """Return all spellings of the key and of the address's password, longest first.

    Covers the plain text, JSON escapes, percent-encoding, and base64, alone or after `user:` as in a Basic header.
    """
    found = [secret for secret in (settings.key, settings.password) if secret and len(secret) >= _SHORTEST_SECRET]
    return tuple(sorted({spelling for secret in found for spelling in _spellings(secret)}, key=len, reverse=True))


@functools.lru_cache(maxsize=8)
def _spellings(secret: str) -> frozenset[str]:
    raw = secret.encode("utf-8", "surrogateescape")
    base64 = {b64encode(raw).decode(), *(_base64_after(shift, raw) for shift in range(3))}
    base64 |= {text.translate(_URL_SAFE) for text in base64}
    texts = {secret, json.dumps(secret)[1:-1], secret.replace("/", "\\/"), *base64}
    # Encoders differ in which characters they keep and in the case of hexadecimal digits.
    encoded = {quote(text, safe=safe, errors="surrogateescape") for text in texts for safe in ("", "/", "/+=:@")}
    encoded.add("".join(f"%{byte:02X}" for byte in raw))
    return frozenset(texts | encoded | {_PERCENT.sub(lambda found: found[0].lower(), text) for text in encoded})


def _base64_after(shift: int, raw: bytes) -> str:
    """Return the part common to the base64 encodings of all texts that contain `raw` after `shift` bytes (mod 3).

    The characters at both ends also encode bits of neighbouring bytes and are omitted.
    """
    encoded = b64encode(bytes(shift) + raw).decode()
    return encoded[-(-8 * shift // 6) : 8 * (shift + len(raw)) // 6]


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
