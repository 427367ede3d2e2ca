"""JSON out of untrusted text: bounded in depth and size, errors in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rankllm_core.errors import DataError

MAX_DEPTH = 100
"""How deep arrays and objects may be nested. Records of this field need four levels."""
MAX_VALUES = 2_000_000
"""How many values one record may hold: 3 bytes of JSON can become 70 bytes of memory."""
ID_KEYS = frozenset({"qid", "docid", "pid", "query_id", "_id", "id"})
"""Keys whose values name queries and documents."""
_DECODER = json.JSONDecoder()
_CONTAINERS = (dict, list)
_FEW_CHARACTERS = 1 << 20
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_json(text: str, *, path: str | Path, line: int | None = None) -> Any:
    """The value of a JSON text.

    line: 1-based, where the text is one line of the file; else lines are counted in the text.
    Raises DataError where the text is not JSON, nested deeper than MAX_DEPTH, holds more than MAX_VALUES, a number of
    thousands of digits, or a lone surrogate under one of ID_KEYS. Other strings may hold one: tokenizing replaces it.
    """
    try:
        check_size(text)
        value = _DECODER.decode(text)
        check_value(value, text)
        return value
    except json.JSONDecodeError as error:
        where = line if line is not None else error.lineno
        raise DataError(f"not JSON: {error.msg} at column {error.colno}", path=path, line=where) from None
    except RecursionError:
        raise DataError(f"not usable: {_TOO_DEEP}", path=path, line=line) from None
    except ValueError as error:
        raise DataError(f"not usable: {json_problem(error)}", path=path, line=line) from None


_TOO_DEEP = "JSON is nested too deeply"


def json_problem(error: ValueError | RecursionError) -> str:
    """What the parser refused, other than the syntax, in our words."""
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    # Python's own message advises a call of sys.set_int_max_str_digits.
    return "a number of more than 4300 digits" if "integer string conversion" in str(error) else str(error)


def check_size(text: str) -> None:
    """Raise ValueError where a text would become too many values."""
    if len(text) > _FEW_CHARACTERS and sum(map(text.count, ",[{")) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values in one record")


def check_value(value: Any, text: str) -> None:
    """Raise ValueError where the value that `text` gave is nested too deeply, or an id in it holds a lone surrogate."""
    # Looking for characters is many times as quick as walking through the value, and settles it for most records.
    if (_occurs(text, "{", MAX_DEPTH // 2) or _occurs(text, "[", MAX_DEPTH // 2)) and _is_deep(value):
        raise ValueError(_TOO_DEEP)
    if "\\" in text and _ESCAPED_SURROGATE.search(text):
        _check_ids(value, key=None)


def _occurs(text: str, character: str, times: int) -> bool:
    """Whether a character occurs so often. Unlike `str.count`, it leaps from one to the next."""
    at = -1
    for _ in range(times):
        at = text.find(character, at + 1)
        if at < 0:
            return False
    return True


def _is_deep(value: Any) -> bool:
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) in _CONTAINERS
        ]
    return bool(level)


def _check_ids(value: Any, *, key: str | None) -> None:
    if isinstance(value, str):
        if key in ID_KEYS and _SURROGATE.search(value) is not None:
            raise ValueError(f"{key} {value!r} holds a lone surrogate, which is not a character")
    elif isinstance(value, list):
        for item in value:
            _check_ids(item, key=key)
    elif isinstance(value, dict):
        for name, field in value.items():
            _check_ids(field, key=name)
