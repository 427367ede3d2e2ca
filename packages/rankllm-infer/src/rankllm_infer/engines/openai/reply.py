"""Reads a server's reply within bounds: bytes on the wire, bytes once unpacked, and no secret of ours in it."""

from __future__ import annotations

import json
import zlib
from collections.abc import AsyncIterator

from rankllm_infer.engines.openai.problems import ServerProblem
from rankllm_infer.engines.openai.secrets import without_secrets
from rankllm_infer.engines.openai.settings import OpenAISettings

MAX_REPLY_BYTES = 8 << 20
"""Of a reply, as sent and once unpacked. The longest answer of today's models (128k tokens) has about 1 MB as JSON."""
MAX_ANSWER_CHARACTERS = 1 << 20
"""Of the text in a reply."""

_MAX_COUNT = 1 << 53


async def read_bounded(chunks: AsyncIterator[bytes], *, encoding: str | None, length: str | None) -> bytes:
    """Return a reply's body, unpacked, without ever holding more than MAX_REPLY_BYTES of it.

    chunks: as they are sent. encoding, length: the headers Content-Encoding and Content-Length, where there are any.
    Raises ServerProblem where the reply is larger, packed in another way than gzip or deflate, or damaged.
    """
    if length is not None and length.strip().isdecimal() and len(length) < 20 and int(length) > MAX_REPLY_BYTES:
        raise _too_large()
    packing = (encoding or "identity").strip().lower()
    if packing in ("", "identity"):
        unpack = None
    elif packing in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # finds out by itself whether it is gzip or zlib
    else:
        raise ServerProblem(f"the reply is packed as {packing[:20]!r}, which was not asked for", is_retryable=False)
    body = bytearray()
    received = 0
    async for chunk in chunks:
        received += len(chunk)
        try:
            body += chunk if unpack is None else unpack.decompress(chunk, MAX_REPLY_BYTES + 1 - len(body))
        except zlib.error:
            raise ServerProblem("the reply is not whole: its packing is damaged", is_retryable=True) from None
        if max(received, len(body)) > MAX_REPLY_BYTES:
            raise _too_large()
    if unpack is not None and not unpack.eof and received:
        raise ServerProblem("the reply is not whole: its packing ends too early", is_retryable=True)
    return bytes(body)


def parse_reply(body: bytes, options: OpenAISettings) -> object:
    """The JSON value in a body, or its text where it is none, without our key and password in any string."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return without_secrets(json.loads(text), options)
    except (ValueError, RecursionError):
        return without_secrets(text, options)


def count_of(value: object) -> int:
    """A count of tokens in a reply; 0 where it is none."""
    return value if type(value) is int and 0 <= value < _MAX_COUNT else 0


def _too_large() -> ServerProblem:
    return ServerProblem(f"the reply is larger than {MAX_REPLY_BYTES >> 20} MB", is_retryable=False)
