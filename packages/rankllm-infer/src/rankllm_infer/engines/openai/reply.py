"""Read a server's reply within limits on its size, compressed and decompressed, and redact secrets."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator

from rankllm_infer.engines.openai.problems import ServerProblem
from rankllm_infer.engines.openai.secrets import without_secrets
from rankllm_infer.engines.openai.settings import OpenAISettings

MAX_REPLY_BYTES = 8 << 20
"""Maximum size of a reply, compressed and decompressed. The longest answers of current models (128k tokens) are about 1
MB as JSON."""
MAX_ANSWER_CHARACTERS = 1 << 20
"""Maximum length of the text in a reply."""

_MAX_COUNT = 1 << 53


async def read_bounded(chunks: AsyncIterator[bytes], *, encoding: str | None, length: str | None) -> bytes:
    """Return the decompressed body of a reply without ever holding more than MAX_REPLY_BYTES of it.

    chunks: body as sent. encoding, length: headers Content-Encoding and Content-Length, if present. Raises
    ServerProblem if the reply is too large, damaged, or compressed with anything but gzip or deflate.
    """
    if length is not None and length.strip().isdecimal() and len(length) < 20 and int(length) > MAX_REPLY_BYTES:
        raise _too_large()
    packing = (encoding or "identity").strip().lower()
    if packing in ("", "identity"):
        unpack = None
    elif packing in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # detects gzip or zlib
    else:
        raise ServerProblem(
            f"the reply is compressed with {packing[:20]!r}, which was not requested", is_retryable=False
        )
    body = bytearray()
    received = 0
    async for chunk in chunks:
        received += len(chunk)
        try:
            body += chunk if unpack is None else unpack.decompress(chunk, MAX_REPLY_BYTES + 1 - len(body))
        except zlib.error:
            raise ServerProblem("the reply is damaged: it cannot be decompressed", is_retryable=True) from None
        if max(received, len(body)) > MAX_REPLY_BYTES:
            raise _too_large()
    if unpack is not None and not unpack.eof and received:
        raise ServerProblem("the reply is incomplete: its compressed data ends early", is_retryable=True)
    return bytes(body)


def parse_reply(body: bytes, options: OpenAISettings) -> object:
    """Return the JSON value of a body, or its text if it is not JSON, with key and password redacted in all strings."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return without_secrets(json.loads(text), options)
    except (ValueError, RecursionError):
        return without_secrets(text, options)


def count_of(value: object) -> int:
    """Return a token count from a reply; 0 if it is not a valid count."""
    return value if type(value) is int and 0 <= value < _MAX_COUNT else 0


def _too_large() -> ServerProblem:
    return ServerProblem(f"the reply is larger than {MAX_REPLY_BYTES >> 20} MB", is_retryable=False)
