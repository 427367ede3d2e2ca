"""Read YAML into checked values: an unknown key is an error that names its likely spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from rankllm_core.errors import ConfigError
from rankllm_core.files import open_text


def load_yaml(path: str | Path) -> dict[str, object]:
    """Read a YAML file that holds one mapping. Raises ConfigError naming the file and, where known, the line."""
    try:
        with open_text(path) as stream:
            return mapping(yaml.safe_load(stream), where=str(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None


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
    """The value, or a ConfigError when it is of another type. A boolean is not a number."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise ConfigError(f"{where}: expected {names}, found {type(value).__name__} {value!r}")
    return value


def numbers(value: object, *, where: str) -> tuple[float, ...]:
    """The value as numbers, or a ConfigError when it is no list of them."""
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected a list of numbers, found {type(value).__name__} {value!r}")
    return tuple(float(typed(number, (int, float), where=where)) for number in value)  # type: ignore[arg-type]


def one_of(value: object, choices: Iterable[str], *, where: str) -> str:
    """The value when it is one of the choices, or a ConfigError."""
    choices = list(choices)
    if value not in choices:
        raise ConfigError(f"{where}: expected one of {', '.join(choices)}; found {value!r}")
    return str(value)
