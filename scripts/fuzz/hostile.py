"""Hostile file contents derived from valid ones: output of the tests' generators, and files with one value or column
replaced by another, which get further into a reader than noise does."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from fuzz_inputs import ODD_LETTERS, hostile_bytes, hostile_json, hostile_yaml, mutate

_NUMBERS = (
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
)
_WORDS = (*ODD_LETTERS, *_NUMBERS, "\ud800", "null", "{", "[", '"', "\\", "q1", "d1", "ok", "[3] > [1]")


def hostile(seed: int, *, valid: bytes, kind: str) -> bytes:
    """Return contents that depend only on the seed. kind: `lines`, `json` or `yaml`."""
    draw = random.Random(f"hostile {seed}")
    share = draw.random()
    if share < 0.4:
        return mutate(valid, seed)
    if share < 0.75:
        return _with_another_value(valid, draw)
    if share < 0.8:
        return hostile_bytes(seed)
    texts: dict[str, Callable[[], str]] = {
        "json": lambda: hostile_json(seed),
        "yaml": lambda: hostile_yaml(seed),
        "lines": lambda: _columns(draw),
    }
    return _encoded(texts[kind]())


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _with_another_value(data: bytes, draw: random.Random) -> bytes:
    """Replace one column or JSON value in one to three lines."""
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(draw.choice((1, 1, 3))):
        number = draw.randrange(len(lines))
        try:
            record = json.loads(lines[number])
        except (ValueError, RecursionError):
            gap = next((gap for gap in ("\t", ": ") if gap in lines[number]), " ")
            fields = lines[number].split(gap)
            fields[draw.randrange(len(fields))] = draw.choice(_WORDS)
            lines[number] = gap.join(fields)
        else:
            lines[number] = json.dumps(_another(record, draw))
    return _encoded("\n".join(lines))


def _another(value: object, draw: random.Random) -> object:
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        if draw.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return value | {key: _another(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.85:
        number = draw.randrange(len(value))
        return [*value[:number], _another(value[number], draw), *value[number + 1 :]]
    whole = draw.choice((-1, 0, 1, 10**20, -(10**400)))
    scalars = (None, True, False, whole, 0.5, float("nan"), float("inf"), draw.choice(_WORDS), draw.choice(_WORDS) * 40)
    return draw.choice((*scalars, [], {}, [value], {"text": value}, [[]] * 3))


def _columns(draw: random.Random) -> str:
    width, gap = draw.choice((1, 2, 3, 4, 6, 9)), draw.choice((" ", "\t", "  ", "\v"))
    fields = ("q1", "q2", "d1", "d2", "0", "1", "2.5", *_WORDS)
    return "\n".join(gap.join(draw.choice(fields) for _ in range(width)) for _ in range(draw.randint(1, 6)))
