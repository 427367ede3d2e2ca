"""Hostile files from a seed: bytes, JSON, YAML, damaged copies of good files. The same seed gives the same bytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import zlib
from collections.abc import Callable

MAGICS = (
    b"\x1f\x8b\x08\x00", b"\xfd7zXZ\x00", b"\x5d\x00\x00\x80\x00", b"BZh91AY&SY", b"\x28\xb5\x2f\xfd", b"PK\x03\x04",
    b"7z\xbc\xaf\x27\x1c", b"\x04\x22\x4d\x18", b"PAR1", b"ARROW1", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\x00\x00",
    b"\x00\x00\xfe\xff", b"\xef\xbb\xbf", b"\x80\x04\x95", b"\x93NUMPY", b"SQLite format 3\x00", b"%PDF-1.7",
    b"\x00" * 8,
)  # fmt: skip
ODD_LETTERS = (
    "\ufeff", "\u200b", "\u2028", "\u0085", "\x00", "\x1b[31m", "\x0b", "\x0c", "\r", "\t", "\u00a0",
    "\U0001f600", "e\u0301",
    "\u202e", "\uffff", "\U0010ffff", "\u3000", "007", "[1]", "&#91;1&#93;", "<|im_end|>", "\u0130", "\u00df",
)  # fmt: skip
KEYS = (
    "query", "candidates", "qid", "docid", "text", "score", "doc", "hits", "content", "query_id", "title", "_id", "pid",
    "status", "defects", "usage", "model_score", "invocations_history", "conversations", "from", "value", "id",
    "scores",
    "positive_passages", "negative_passages", "passages", "teacher_score", "contents", "segment", "calls",
    "order", "docids",
)  # fmt: skip
SETTINGS = (
    "format", "kind", "template", "name", "method", "identifiers", "window", "size", "stride", "bos", "context_tokens",
    "optim", "learning_rate", "lora", "r", "data", "train", "zero_optimization", "stage", "body", "prefix", "suffix",
    "system_message", "identifier_prior", "fuse_weight", "model", "schedule", "num_epochs", "batch", "checkpoint",
)  # fmt: skip
_NUMBERS = (
    "0",
    "-1",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "-Infinity",
    "1" * 5000,
    "0.1",
    "1e-400",
    "-0",
    "9" * 30,
    "1E5",
)


def hostile_bytes(seed: int) -> bytes:
    """Bytes that are no file of any kind: noise, magic bytes, odd encodings, packed noise, long lines."""
    rng = random.Random(f"bytes {seed}")
    makers: tuple[Callable[[random.Random], bytes], ...] = (
        lambda rng: rng.randbytes(rng.randrange(0, 600)),
        lambda rng: rng.choice(MAGICS) + rng.randbytes(rng.randrange(0, 300)),
        lambda rng: rng.choice(MAGICS)[: rng.randrange(1, 6)],
        lambda rng: _recode(_words(rng).encode(), rng),
        lambda rng: pack(rng.randbytes(rng.randrange(0, 200)), rng),
        lambda rng: pack(bytes(rng.randrange(1 << 16, 1 << 22)), rng),
        lambda rng: bytes([rng.choice(b"a[{\"\t \n\r0-")]) * rng.choice((1, 100, 5000, 200_000)),
        lambda rng: b"\n".join(rng.randbytes(rng.randrange(0, 20)) for _ in range(30)),
        lambda rng: b"",
    )  # fmt: skip
    return rng.choice(makers)(rng)


def hostile_json(seed: int) -> str:
    """A JSON text, or nearly one, with the keys of our records in places where they do not belong."""
    rng = random.Random(f"json {seed}")
    kind = rng.randrange(12)
    if kind == 0:
        depth = rng.choice((50, 101, 1_000, 100_000))
        opening = rng.choice(("[", '{"a":', '{"query":[', "[[],"))
        return opening * depth + rng.choice(("", "1", "]" * depth, "}" * depth))
    if kind == 1:
        return "[" + ",".join([rng.choice(("1", "[]", "{}", '""', "null"))] * rng.choice((10, 10_000, 300_000))) + "]"
    if kind == 2:
        return rng.choice(
            ("", "null", "true", "1", '"x"', "[]", "{}", "[[]]", "[null]", '{"":0}', ",", "]", '"\\ud800"')
        )
    lines = [
        _json_value(rng, depth=rng.randrange(1, 6), is_object=rng.random() < 0.9) for _ in range(rng.randrange(1, 5))
    ]
    text = rng.choice(("\n", "\n\n", "\r\n", ",\n", "")).join(lines)
    if kind == 3:
        return "[" + text + "]"
    if kind == 4:
        return text[: rng.randrange(len(text) + 1)]
    return text


def hostile_yaml(seed: int) -> str:
    """A YAML text, or nearly one, with the keys of cards, templates and recipes."""
    rng = random.Random(f"yaml {seed}")
    key = rng.choice(SETTINGS)
    scalars = (
        "2001-99-99", "2001-01-01", "0x_", "0b_", "0o9", "1" * 5000, '!!int "abc"', "!!float x",
        "!!timestamp x", "!!bool x",
        "!!binary '*'", "!!python/object/apply:os.system [ls]", "!!set {a}", "!!omap [a: 1]", "!x y", ".nan",
        "-.inf", "1e999",
        "190:20:30", '"\\ud800"', '"\\UFFFFFFFF"', "'", '"', "|", ">", "&a x", "*a", "<<", "~", "yes", "on",
        "1_000", "[", "{",
        "[" * 3000, "{a: " * 3000, "- " * 3000, "? " * 3000, "%", "@", "`", "\t", "\x00", "\ufeff", "\x85",
        "\u2028", "---", "...",
    )  # fmt: skip
    makers: tuple[Callable[[], str], ...] = (
        lambda: f"{key}: {rng.choice(scalars)}\n",
        lambda: "".join(f"{rng.choice(SETTINGS)}: {rng.choice(scalars)}\n" for _ in range(5)),
        lambda: _alias_bomb(rng),
        lambda: f"{key}: &x [*x]\n",
        lambda: f"a: &a {{b: 1}}\n{key}: {{<<: [{', '.join(['*a'] * rng.choice((1, 1000)))}]}}\n",
        lambda: "".join(" " * level + f"{rng.choice(SETTINGS)}:\n" for level in range(rng.choice((5, 60, 500)))),
        lambda: f"{key}:\n" + "- 1\n" * rng.choice((10, 30_000)),
        lambda: f"{key}: " + "x" * rng.choice((10, 300_000)) + "\n",
        lambda: f"? [{key}]\n: 1\n",
        lambda: f"{key}: 1\n{key}: 2\n",
        lambda: rng.choice(("", "- a\n", "1: 2\n", "null: 1\n", "---\na: 1\n---\nb: 2\n", "%YAML 9.9\n---\na: 1")),
        lambda: f"{key}: {_json_value(rng, depth=4, is_object=False)}\n",
    )  # fmt: skip
    return rng.choice(makers)()


def mutate(data: bytes, seed: int) -> bytes:
    """A damaged copy of a good file: flipped, cut, doubled, marked, recoded, packed or blown up in up to three ways."""
    rng = random.Random(f"mutate {seed}")
    for _ in range(rng.randrange(1, 4)):
        data = rng.choice(_MUTATIONS)(data, rng)
    return data


def pack(data: bytes, rng: random.Random) -> bytes:
    """The data in an archive that may be cut, flipped, doubled or followed by something."""
    packed = rng.choice((_gzip, bz2.compress, lzma.compress, zlib.compress))(data)
    damage = rng.randrange(6)
    if damage == 0:
        return packed[: rng.randrange(len(packed) + 1)]
    if damage == 1:
        return _flip(packed, rng)
    if damage == 2:
        return packed + rng.choice((packed, b"\x00" * 64, b"garbage", rng.choice(MAGICS)))
    return _gzip(packed) if damage == 3 else packed


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # the time would make another file of the same seed


def _words(rng: random.Random) -> str:
    words = ["q1", "Q0", "d1", "1", "0.5", "tag", "text", *ODD_LETTERS]
    lines = (
        rng.choice((" ", "\t")).join(rng.choices(words, k=rng.randrange(1, 8))) for _ in range(rng.randrange(1, 6))
    )
    return "\n".join(lines)


def _json_value(rng: random.Random, *, depth: int, is_object: bool) -> str:
    if is_object:
        fields = (
            f'"{rng.choice(KEYS)}": {_json_value(rng, depth=depth - 1, is_object=depth > 1 and rng.random() < 0.4)}'
            for _ in range(rng.randrange(0, 6))
        )
        return "{" + rng.choice((", ", ",")).join(fields) + "}"
    kind = rng.randrange(5)
    if kind == 0 and depth > 0:
        items = (_json_value(rng, depth=depth - 1, is_object=rng.random() < 0.5) for _ in range(rng.randrange(0, 5)))
        return "[" + ",".join(items) + "]"
    if kind == 1:
        return rng.choice(_NUMBERS)
    if kind == 2:
        return rng.choice(("null", "true", "false", "nul", "'x'", "undefined"))
    letters = (
        "q1",
        "d1",
        "ok",
        "repaired",
        "\\ud800",
        "\\udfff",
        "\\u0000",
        "\\n",
        "\\u200b",
        "[1] > [2]",
        "\\ufeff",
        " ",
        "",
    )
    return '"' + "".join(rng.choices((*letters, "\u00e9", "\U0001f600"), k=rng.randrange(0, 4))) + '"'


def _alias_bomb(rng: random.Random) -> str:
    width, levels = rng.choice(((2, 30), (9, 9), (50, 5), (2, 3)))
    lines = ["a0: &a0 [x, x]"]
    for level in range(1, levels):
        aliases = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} " + rng.choice((f"[{aliases}]", f"{{b: [{aliases}]}}")))
    return "\n".join(lines) + "\n"


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _insert(data: bytes, rng: random.Random) -> bytes:
    position = rng.randrange(len(data) + 1)
    if rng.random() < 0.4:
        position = data.find(b"\n", position) + 1
    return data[:position] + rng.choice(ODD_LETTERS).encode() + data[position:]


def _lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    row = rng.randrange(len(lines))
    changes = (
        lambda: lines.insert(row, lines[row]),
        lambda: lines.pop(row),
        lambda: rng.shuffle(lines),
        lambda: lines.insert(row, b"\n" * rng.choice((1, 1000))),
        lambda: lines.__setitem__(row, lines[row].rstrip(b"\n")),
        lambda: lines.__setitem__(row, lines[row].replace(b"\n", b"\r")),
    )
    rng.choice(changes)()
    return b"".join(lines)


def _field(data: bytes, rng: random.Random) -> bytes:
    """One word replaced: by nothing, something huge, a number that is none, a bracket."""
    words = data.split(b" ")
    huge = rng.choice((b"x", b"1", b"[", b"\xc3\xa9")) * rng.choice((300, 100_000))
    words[rng.randrange(len(words))] = rng.choice(
        (b"", huge, *(number.encode() for number in _NUMBERS), b'"', b"{", b"null", b"\\ud800", b"[]", b"-", b"\t")
    )
    return b" ".join(words)


def _recode(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(
        rng.choice(("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "latin-1", "cp037")), "replace"
    )


_MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _insert,
    _lines,
    _field,
    _recode,
    lambda data, rng: data[: rng.randrange(len(data) + 1)],
    lambda data, rng: data[rng.randrange(len(data) + 1) :],
    lambda data, rng: data + data,
    lambda data, rng: b"\xef\xbb\xbf" + data + b"\xef\xbb\xbf" + data,
    lambda data, rng: data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"", b"\n\n", b"\x00"))),
    lambda data, rng: pack(data, rng),
    lambda data, rng: data.replace(
        rng.choice((b"1", b"d", b'"', b",", b"\t", b" ")), rng.choice((b"", b"\x00", b"  ", b"nan"))
    ),
    lambda data, rng: rng.choice(MAGICS) + data,
)
