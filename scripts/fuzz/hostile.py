"""Hostile contents of files, each from a seed: valid files that were damaged, and texts that were never valid."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import random
import zlib
from collections.abc import Callable

_CONTROLS = ["\x00", "\x01", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff", "\u200b", "\u202e", "\u00a0", "\r", "\t"]
_NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-0",
    "1_000",
    "9" * 5000,
    "0x10",
    "1e-400",
    "١٢",
    "01",
    "1.",
    ".5",
    "",
    "--1",
]
_WORDS = [
    *_CONTROLS,
    *_NUMBERS,
    "\ud800",
    "\ud83d",
    "é",
    "e\u0301",
    "[3]",
    "&#91;3&#93;",
    "null",
    "{",
    "}",
    "[",
    '"',
    "\\",
]
_SCALARS = [
    "null",
    "~",
    "true",
    "yes",
    "2001-99-99",
    "0x_",
    "0b",
    "1:2:3",
    ".inf",
    ".nan",
    "9" * 5000,
    '!!int "abc"',
    "!!python/object:os.system {}",
    "!!binary x",
    "!!set {a}",
    "*a",
    "&a [*a]",
    "<<",
    "? x",
    "|",
    ">-",
    "'",
    '"',
    "[" * 3000,
    "{" * 500,
    "%YAML 9.9",
    "---",
    "...",
    "\t",
    "=",
    "!!timestamp 1",
    "1e3",
    "0o8",
    "12345678901234567890",
]


def hostile(seed: int, *, valid: bytes, kind: str) -> bytes:
    """Contents for a file whose valid ones are known, the same for the same seed. kind: `lines`, `json` or `yaml`."""
    draw = random.Random(seed)
    if draw.random() < 0.7:
        return _damaged(valid, draw)
    grammar = {"json": _json_lines, "yaml": _yaml, "lines": _columns}[kind]
    make: Callable[[random.Random], bytes] = draw.choice([_noise, grammar, grammar])
    return make(draw)


def _damaged(data: bytes, draw: random.Random) -> bytes:
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        data = draw.choice(_DAMAGES)(data, draw)
    return data


def _flip_bits(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4) if changed else 0):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randint(0, len(data))]


def _insert(data: bytes, draw: random.Random) -> bytes:
    piece = draw.choice(_WORDS).encode("utf-8", "surrogatepass") * draw.choice([1, 1, 1, 50])
    place = draw.randint(0, len(data))
    return data[:place] + piece + data[place:]


def _change_lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    place = draw.randrange(len(lines))
    change = draw.randrange(5)
    if change == 0:
        lines.insert(place, lines[place])
    elif change == 1:
        del lines[place]
    elif change == 2:
        lines[place] = draw.choice([codecs.BOM_UTF8, b" ", b"#"]) + lines[place]
    elif change == 3:
        draw.shuffle(lines)
    else:
        lines[place] = lines[place].rstrip(b"\n")
    return b"".join(lines)


def _change_field(data: bytes, draw: random.Random) -> bytes:
    """One column, or one JSON value, becomes another."""
    lines = data.decode("utf-8", "replace").split("\n")
    place = draw.randrange(len(lines))
    try:
        record = json.loads(lines[place])
    except (ValueError, RecursionError):
        fields = lines[place].split("\t" if "\t" in lines[place] else " ")
        fields[draw.randrange(len(fields))] = draw.choice(_WORDS)
        lines[place] = ("\t" if "\t" in lines[place] else " ").join(fields)
    else:
        lines[place] = json.dumps(_changed_value(record, draw))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _changed_value(value: object, draw: random.Random) -> object:
    if isinstance(value, dict) and value and draw.random() < 0.8:
        key = draw.choice(list(value))
        if draw.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: _changed_value(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        return [*value[:place], _changed_value(value[place], draw), *value[place + 1 :]]
    return _json_value(draw, depth=2)


def _encode(data: bytes, draw: random.Random) -> bytes:
    text = data.decode("utf-8", "replace")
    return text.encode(draw.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "cp1252"]), "replace")


def _pack(data: bytes, draw: random.Random) -> bytes:
    packed = draw.choice([gzip.compress, bz2.compress, lzma.compress, zlib.compress, _as_zstd, _as_zip])(data)
    return _cut(packed, draw) if draw.random() < 0.3 else _flip_bits(packed, draw) if draw.random() < 0.3 else packed


def _as_zstd(data: bytes) -> bytes:
    return b"\x28\xb5\x2f\xfd" + data


def _as_zip(data: bytes) -> bytes:
    return b"PK\x03\x04" + data


def _enlarge(data: bytes, draw: random.Random) -> bytes:
    return data + draw.choice([b"\n", b" ", b"a", b"[", b"(", data or b"x"]) * draw.choice([10, 1000, 20_000])


_DAMAGES = (
    _flip_bits,
    _cut,
    _insert,
    _insert,
    _change_lines,
    _change_field,
    _change_field,
    _change_field,
    _encode,
    _pack,
    _enlarge,
)


def _noise(draw: random.Random) -> bytes:
    return draw.choice([b"", b"\n", b"\x00" * 64, draw.randbytes(draw.randint(1, 400)), b"\x1f\x8b", b"\xff\xfe"])


def _json_lines(draw: random.Random) -> bytes:
    shape = draw.randrange(4)
    if shape == 0:
        depth = draw.choice([10, 1_000, 100_000])
        return (draw.choice(["[", '{"a":', '{"query":[']) * depth).encode()
    lines = [json.dumps(_json_value(draw, depth=4)) for _ in range(draw.randint(1, 4))]
    return ("[" + ",".join(lines) + "]" if shape == 1 else "\n".join(lines)).encode()


_KEYS = [
    "query",
    "qid",
    "text",
    "candidates",
    "docid",
    "doc",
    "score",
    "hits",
    "content",
    "title",
    "contents",
    "query_id",
    "positive_passages",
    "negative_passages",
    "conversations",
    "from",
    "value",
    "status",
    "usage",
    "id",
]


def _json_value(draw: random.Random, *, depth: int) -> object:
    kinds = 10 if depth else 7
    kind = draw.randrange(kinds)
    if kind >= 8:
        return {draw.choice(_KEYS): _json_value(draw, depth=depth - 1) for _ in range(draw.randint(0, 4))}
    if kind == 7:
        return [_json_value(draw, depth=depth - 1) for _ in range(draw.randint(0, 4))]
    scalars = (
        None,
        draw.random() < 0.5,
        draw.randint(-(10 ** draw.choice([1, 20, 400])), 10),
        float("nan"),
        float("inf"),
    )
    return draw.choice([*scalars, draw.choice(_WORDS), draw.choice(_WORDS) * 40])


def _yaml(draw: random.Random) -> bytes:
    if draw.random() < 0.2:
        return _alias_bomb(draw.randint(2, 12)).encode()
    keys = [
        "format",
        "kind",
        "template",
        "method",
        "body",
        "data",
        "model",
        "optim",
        "learning_rate",
        "window",
        "a",
        "1",
    ]
    lines = [f"{draw.choice(keys)}: {draw.choice(_SCALARS)}" for _ in range(draw.randint(1, 5))]
    return "\n".join(lines).encode()


def _alias_bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def _columns(draw: random.Random) -> bytes:
    width, gap = draw.choice([1, 2, 3, 4, 6, 9]), draw.choice([" ", "\t", "  ", "\v"])
    fields = ["q1", "q2", "d1", "d2", "0", "1", "2.5", *_WORDS]
    lines = [gap.join(draw.choice(fields) for _ in range(width)) for _ in range(draw.randint(1, 6))]
    return "\n".join(lines).encode("utf-8", "surrogatepass")
