"""Read YAML into checked values: an unknown key is an error that names its likely spelling."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rankllm_core.errors import ConfigError, DataError
from rankllm_core.files.reading import read_text
from rankllm_core.files.yaml_text import YamlError, plain_yaml

_SHOWN_CHARACTERS = 200


def load_yaml(path: str | Path) -> dict[str, object]:
    """Read a YAML file that holds one mapping. Raises ConfigError naming the file and, where known, the line."""
    try:
        text = read_text(path)
    except DataError as error:
        raise ConfigError(str(error)) from None
    return mapping(parse_yaml(text, where=str(path)), where=str(path))


def parse_yaml(text: str, *, where: str, is_one_line: bool = False) -> Any:
    """The value of a YAML text: plain data, no tags that make objects, no dates, keys that are strings and occur once.

    where: the file, or the option of a text `is_one_line`, whose line is not named. Limits: see `files.yaml_text`.
    Raises ConfigError in one line.
    """
    try:
        return plain_yaml(text)
    except YamlError as error:
        place = where if is_one_line or error.line is None else f"{where}:{error.line}"
        raise ConfigError(f"{place}: {error}") from None


def mapping(value: object, *, where: str) -> dict[str, object]:
    """The value as a mapping with string keys, or a ConfigError."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{where}: expected a mapping of names to values, found {type(value).__name__}")
    return dict(value)


def check_keys(found: Iterable[str], allowed: Iterable[str], *, where: str) -> None:
    """Raise ConfigError on the first key that is not allowed, with the nearest allowed name."""
    allowed = sorted(allowed)
    for key in found:
        if key not in allowed:
            raise ConfigError(f"{where}: {key}: unknown key{did_you_mean(key, allowed)}")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or a list of the choices when none is near."""
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(choices)}"


def typed(value: object, kind: type | tuple[type, ...], *, where: str) -> object:
    """The value, or a ConfigError when it is of another type or no finite number. A boolean is not a number."""
    _of_type(value, kind if isinstance(kind, tuple) else (kind,), where=where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: expected a finite number, found {value}")
    return value


def _of_type(value: object, kinds: tuple[type, ...], *, where: str) -> object:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise ConfigError(f"{where}: expected {names}, found {type(value).__name__} {_brief(value)}")
    return value


def numbers(value: object, *, where: str) -> tuple[float, ...]:
    """The value as numbers, which may be infinite or NaN; a ConfigError when it is no list of them."""
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list of numbers, found {type(value).__name__} {_brief(value)}")
    return tuple(float(_of_type(number, (int, float), where=where)) for number in value)  # type: ignore[arg-type]


def at_least(least: float, *, data: object, names: tuple[str, ...], section: str) -> None:
    """Raise ConfigError where one of these values of a section is below the least, infinite or not a number."""
    for name in names:
        if not least <= getattr(data, name) < math.inf:
            raise ConfigError(f"{section}.{name}: expected {least} or more, found {getattr(data, name)}")


def one_of(value: object, choices: Iterable[str], *, where: str) -> str:
    """The value when it is one of the choices, or a ConfigError."""
    choices = list(choices)
    if value not in choices:
        raise ConfigError(f"{where}: expected one of {', '.join(choices)}; found {_brief(value)}")
    return str(value)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
