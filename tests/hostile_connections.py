"""Hostile bytes on a connection to our server, which no client library would send. The same seed gives the same bytes.

Each generator takes a random.Random and returns a Sent. Requests carry the right key unless the key is the subject.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from hostile_requests import content

KEY = "k" * 32
SECRET = "pomegranate"
"""In every document: no log may hold it."""
MAX_BODY = 20_000
ALLOWED_ORIGIN = "https://app.example"
BODY = json.dumps({"query": SECRET, "documents": [f"{SECRET} worth 1", f"{SECRET} worth 2"]}).encode()
_PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
_ORIGINS = (
    "null", "https://evil.example", "http://localhost.evil.example", "https://app.example.evil.example", "file://",
    "http://127.0.0.1:1", "app.example", "https://app.example/", "chrome-extension://abc", "\xe9",
    "https://app.example, null",
)  # fmt: skip
_HOSTS = (
    "evil.example", "localhost.evil.example", "evil.example:80", "user@localhost", "localhost@evil.example", "127.1",
    "localhost:80:80", "localhost:x", "[::1", "::1", "0x7f.0.0.1", "2130706433", "127.0.0.1.nip.io", "localhost/", "",
    "localhost evil.example", "localhost,evil.example", "\xe9", "localhost\\@evil.example", "[::1]evil", "*",
)  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """What goes over one connection, and what must not come back."""

    data: bytes
    is_whole: bool = True
    """Whether the server has what it needs to answer; else the client leaves."""
    may_be_ranked: bool = False
    """Whether 200 is a proper answer."""


def head(*lines, method="POST", path="/rerank", version="HTTP/1.1", host="localhost", key=KEY):
    """The head of a request, as it is: nothing is checked or added beside the arguments."""
    names = [] if host is None else [f"Host: {host}"]
    names += [] if key is None else [f"Authorization: Bearer {key}"]
    return "\r\n".join((f"{method} {path} {version}", *names, *lines, "", "")).encode("latin-1")


def _length(body=BODY):
    return f"Content-Length: {len(body)}"


def odd_body(draw):
    """Malformed JSON, wrong types, deep nesting, control characters."""
    body = content(draw).replace(b"worth", SECRET.encode() + b" worth")
    return Sent(head(_length(body), path=draw.choice((*_PATHS, "/score"))) + body, may_be_ranked=True)


def smuggled(draw):
    """A second request where two servers may see the end of the first in two places. It must not be answered."""
    inner = head(f"X-Request-Id: smuggled-{draw.randrange(1000)}", method="GET", path="/v1/models")
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    te = draw.choice(("Transfer-Encoding: chunked", "transfer-encoding:\tchunked", "Transfer-Encoding: CHUNKED"))
    odd_te = draw.choice((
        "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding : chunked",
        "Transfer-Encoding: identity", "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "X: y\nTransfer-Encoding: chunked",
        "Transfer-Encoding: \x0bchunked", "Transfer-Encoding:\r\n chunked",
    ))  # fmt: skip
    both = draw.choice((chunked, b"0\r\n\r\n"))
    shorter = draw.choice(
        (_length(), "Content-Length: 0", f"Content-Length: {len(both)}", f"Content-Length: {len(both + inner)}")
    )
    return draw.choice(
        (
            Sent(head(shorter, te) + both + inner),
            Sent(head(te, shorter) + both + inner),
            Sent(head(te, version="HTTP/1.0") + both + inner),
            Sent(head(_length(), "Content-Length: 3") + BODY + inner),
            Sent(head(f"Content-Length: {len(BODY)}, 3") + BODY + inner),
            Sent(head(_length(), odd_te) + BODY + inner, is_whole=False, may_be_ranked=True),
            Sent(head(_length(BODY + inner)) + BODY + inner),
        )
    )


def bad_framing(draw):
    """Lengths and chunks that are none."""
    length = draw.choice(
        ("-1", "+5", "0x10", "1e3", " ", "9" * 30, "5 5", "\u0665".encode().decode("latin-1"), "1_0", "05")
    )
    size = draw.choice((b"-1", b"0x5", b"g", b"", b" 5", b"5 ", b"f" * 17, b"5;" + b"x" * 70_000, b"\xd9\xa5", b"5\n"))
    te = "Transfer-Encoding: chunked"
    ending = draw.choice((b"0\r\n\r\n", b"0\r\n", b"", b"0\r\nX: y\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n"))
    return draw.choice(
        (
            Sent(head(f"Content-Length: {length}") + BODY[:5], is_whole=False),
            Sent(head(te) + size + b"\r\n" + BODY + b"\r\n0\r\n\r\n", is_whole=False),
            Sent(head(te) + b"%x\r\n%b" % (len(BODY) - 3, BODY) + ending, is_whole=False),
            Sent(head(te) + b"%x\r\n%b\r\n" % (len(BODY), BODY) + ending, is_whole=False, may_be_ranked=True),
            Sent(head(te) + b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n", may_be_ranked=True),
            Sent(head(_length()) + BODY[:-1], is_whole=False),
            Sent(head(_length(), "Expect: 100-continue"), is_whole=False),
            Sent(head(_length(), "Expect: the unexpected") + BODY, may_be_ranked=True),
        )
    )


def header_flood(draw):
    """Too many headers, too long ones, and those that are none."""
    n = draw.choice((100, 1_000, 20_000))
    odd = draw.choice((
        "X: a\r\n b", "X y: z", "no colon", ": empty", "X: \x00", "X: a\nY: b", "X: a\rY: b", "X\x00: y", "\xe9: y",
        "X: \xe9", " X: y", "X:" + "\t" * 500, "Content-Type: application/json\x00", "Cookie: " + "a=b; " * 500,
    ))  # fmt: skip
    return draw.choice(
        (
            Sent(head(*(f"X-{number}: {number}" for number in range(n)), _length()) + BODY, may_be_ranked=True),
            Sent(head(*["X: y"] * n, _length()) + BODY, may_be_ranked=True),
            Sent(head("X: " + "y" * draw.choice((60_000, 70_000, 2_000_000)), _length()) + BODY, may_be_ranked=True),
            Sent(head("X" * 100_000 + ": y", _length()) + BODY, may_be_ranked=True),
            Sent(head(odd, _length()) + BODY, may_be_ranked=True),
            Sent(head(odd, _length()) + BODY, may_be_ranked=True),
        )
    )


def path_trick(draw):
    """Targets that another server may read otherwise, and request lines that are none."""
    paths = (
        "//rerank", "/../rerank", "/./rerank", "/x/../rerank", "/rerank/", "/rerank/..", "/%72erank%00", "/rerank%2f",
        "/%2e%2e/rerank", "/rerank;a=b", "\\rerank", "/rerank%0d%0aX:y", "/rerank#a", "http://evil.example/rerank",
        "http://localhost@evil/rerank", "*", "rerank", "/" + "a" * draw.choice((1_000, 60_000, 100_000)), "/%ff%fe",
        "/\xe9", "/rerank\x00", "/ rerank", "/%", "/rerank%", "/v2/rerank/../../metrics", "/.env", "/metrics%20",
        "/openapi.json/", "//evil.example/rerank", "/v1//rerank",
    )  # fmt: skip
    lines = (
        b"GET /health\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), b"\r\n" * 50_000, b"\x00" * 100,
        b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", b"GET  /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"A" * 100_000, b"\x05\x01\x00", b"GET /health HTTP/1.1\nHost: localhost\n\n", b"\xff" * 70_000,
    )  # fmt: skip
    methods = (
        "GET", "PUT", "DELETE", "TRACE", "CONNECT", "OPTIONS", "post", "P\xd6ST", "X" * 5_000, "HEAD", "PATCH",
        "GET\t", "",
    )  # fmt: skip
    return draw.choice(
        (
            Sent(head(_length(), path=draw.choice(paths)) + BODY),
            Sent(head(_length(), path=draw.choice(paths)) + BODY),
            Sent(draw.choice(lines), is_whole=False, may_be_ranked=True),
            Sent(head(_length(), method=draw.choice(methods)) + BODY),
            Sent(
                head("Connection: Upgrade", f"Upgrade: {draw.choice(('websocket', 'h2c'))}", _length()) + BODY,
                may_be_ranked=True,
            ),
        )
    )


def rebinding(draw):
    """Hosts that are not this machine's, more than one of them, and none."""
    host = draw.choice(_HOSTS)
    return draw.choice(
        (
            Sent(head(_length(), host=host) + BODY),
            Sent(head(f"Host: {host}", _length()) + BODY),
            Sent(head("X-Forwarded-Host: localhost", "Forwarded: host=localhost", _length(), host=host) + BODY),
            Sent(head(_length(), host=None) + BODY),
            Sent(head(_length(), host=None, version="HTTP/1.0") + BODY),
            Sent(head(_length(), host=host, path="http://localhost/rerank") + BODY),
        )
    )


def cross_origin(draw):
    """What the browser of a visitor to another page sends: simple requests, preflights, other media types."""
    origin = draw.choice(_ORIGINS)
    media_type = draw.choice(
        ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", "a/b")
    )
    asks = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
    return draw.choice(
        (
            Sent(head(f"Origin: {origin}", f"Content-Type: {media_type}", _length()) + BODY),
            Sent(head(f"Origin: {origin}", "Content-Type: application/json", _length()) + BODY),
            Sent(head(f"Origin: {ALLOWED_ORIGIN}", f"Content-Type: {media_type}", _length()) + BODY),
            Sent(head(f"Origin: {ALLOWED_ORIGIN}", f"Origin: {origin}", _length()) + BODY),
            Sent(head(f"Origin: {origin}", *asks, method="OPTIONS", key=None)),
            Sent(head("Origin: http://evil.example", _length(), host="evil.example") + BODY),
        )
    )


def wrong_key(draw):
    """The key where it does not belong, and others where it does."""
    other = draw.choice(
        (
            KEY[:-1],
            KEY + "k",
            KEY.upper(),
            "",
            " ",
            KEY + "\t,",
            "\xe9" * 32,
            "x" * 10_000,
            f'"{KEY}"',
            KEY[:16] + "\x01",
        )
    )
    place = draw.choice((
        f"X-Api-Key: {KEY}", f"Api-Key: {KEY}", f"Cookie: key={KEY}", f"Authorization: Basic {KEY}",
        f"Authorization: {KEY}", f"Proxy-Authorization: Bearer {KEY}", f"Authorization: Bearer{KEY}",
        f"Referer: http://localhost/?key={KEY}",
    ))  # fmt: skip
    name = draw.choice(("api_key", "key", "access_token", "token", "authorization"))
    path = draw.choice(
        (f"/rerank?{name}={KEY}", f"/rerank?{name}=Bearer%20{KEY}", f"/{KEY}/rerank", f"http://{KEY}@localhost/rerank")
    )
    inside = json.dumps({"query": "q", "documents": ["a"], name: KEY}).encode()
    return draw.choice(
        (
            Sent(head(_length(), key=other) + BODY),
            Sent(head(place, _length(), key=None) + BODY),
            Sent(head(_length(), key=None, path=path) + BODY),
            Sent(head(_length(inside), key=None) + inside),
            Sent(head(f"Authorization: Bearer {KEY}", _length(), key=other) + BODY),
        )
    )


def oversize(draw):
    """Bodies beyond the limit, announced or not."""
    large = b" " * draw.choice((MAX_BODY + 1, 10 * MAX_BODY, 100 * MAX_BODY))
    te = "Transfer-Encoding: chunked"
    pieces = b"".join(b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(draw.choice((6, 60))))
    return draw.choice(
        (
            Sent(head(_length(large)) + large),
            Sent(head(f"Content-Length: {10 ** draw.choice((6, 12, 18))}") + BODY),
            Sent(head(te) + pieces),
            Sent(head(te) + b"%x\r\n" % 10**12 + large),
            Sent(head(_length(large), "Content-Encoding: gzip") + large),
        )
    )


KINDS = (odd_body, smuggled, bad_framing, header_flood, path_trick, rebinding, cross_origin, wrong_key, oversize)
