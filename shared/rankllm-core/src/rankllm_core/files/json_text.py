"""JSON from untrusted files: bounded parsing, validated fields, and writing of lines.

Errors say what was found and expected; `located` adds the position.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files.reading import read_lines, read_text
from rankllm_core.spellings import INVISIBLE, INVISIBLE_BEYOND

MAX_DEPTH = 100
"""Maximum nesting of arrays and objects. Records in this field need four levels."""
MAX_VALUES = 2_000_000
"""Maximum number of values in one record: 3 bytes of JSON can become 70 bytes of memory."""
ID_KEYS = frozenset({"qid", "docid", "pid", "query_id", "_id", "id"})
"""Keys whose values identify queries and documents."""

_DECODER = json.JSONDecoder()
_READABLE_ENCODER = json.JSONEncoder(ensure_ascii=False)
_CONTAINERS = (dict, list)
_UNCOUNTED_CHARACTERS = 1 << 20
_TOO_DEEP = "JSON is nested too deeply"
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")

_SHOWN_CHARACTERS = 60
_LONGEST_ID_BITS = 128
_NO_VALUE = object()
_WITHOUT_WIDTH = re.compile(f"[{INVISIBLE}{INVISIBLE_BEYOND}\u2028\u2029\ufffe\uffff]")


def read_json(path: str | Path) -> Any:
    """Return the JSON value of a whole file. Raises DataError, with the line if known."""
    return parse_json(read_text(path), path=path)


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based line number, object) for each line of a JSON Lines file. Raises DataError naming the line."""
    for number, line in read_lines(path):
        record = parse_json(line, path=path, line=number)
        if not isinstance(record, dict):
            raise DataError(f"expected a JSON object, found {type(record).__name__}", path=path, line=number)
        yield number, record


def parse_json(text: str, *, path: str | Path, line: int | None = None) -> Any:
    """Parse a JSON text.

    line: 1-based, if the text is one line of the file; otherwise lines are counted in the text.
    Raises DataError if the text is not JSON, is nested deeper than MAX_DEPTH, has more than MAX_VALUES values or a
    number with thousands of digits, or contains a lone surrogate under one of ID_KEYS. Other strings may contain one,
    which tokenization replaces.
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


def json_problem(error: ValueError | RecursionError) -> str:
    """Return what the parser rejected, other than the syntax, in rankllm's words."""
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    # Python's own message recommends calling sys.set_int_max_str_digits.
    return "a number of more than 4300 digits" if "integer string conversion" in str(error) else str(error)


def check_size(text: str) -> None:
    """Raise ValueError if a text would result in too many values."""
    if len(text) > _UNCOUNTED_CHARACTERS and sum(map(text.count, ",[{")) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values in one record")


def check_value(value: Any, text: str) -> None:
    """Raise ValueError if a parsed value is nested too deeply, or an id in it contains a lone surrogate."""
    # Searching for characters is many times faster than walking through the value, and suffices for most records.
    if (_occurs(text, "{", MAX_DEPTH // 2) or _occurs(text, "[", MAX_DEPTH // 2)) and _is_deep(value):
        raise ValueError(_TOO_DEEP)
    if "\\" in text and _ESCAPED_SURROGATE.search(text):
        _check_ids(value, key=None)


def _occurs(text: str, character: str, times: int) -> bool:
    """Whether a character occurs at least this often. Unlike `str.count`, it stops early."""
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
            raise ValueError(f"{key} {value!r} contains a lone surrogate, which is not a character")
    elif isinstance(value, list):
        for item in value:
            _check_ids(item, key=key)
    elif isinstance(value, dict):
        for name, field in value.items():
            _check_ids(field, key=name)


def dumps(record: object) -> str:
    """Return one line of JSON, without ASCII escapes except for lone surrogates, which UTF-8 cannot represent."""
    text = _READABLE_ENCODER.encode(record)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record, ensure_ascii=True)
    return text


@contextmanager
def located(path: str | Path, line: int) -> Iterator[None]:
    """Turn a RankLLMError raised inside into a DataError with file and line. line: 1-based."""
    try:
        yield
    except DataError:
        raise
    except RankLLMError as error:
        raise DataError(str(error), path=path, line=line) from None


def required(record: Mapping[str, object], keys: Iterable[str], *, what: str) -> tuple[str, object]:
    """Return the first of `keys` in the record, with its value. Raises RankLLMError naming the keys found instead."""
    for key in keys:
        value = record.get(key, _NO_VALUE)
        if value is not _NO_VALUE:
            return key, value
    expected = " or ".join(repr(key) for key in keys)
    raise RankLLMError(f"{what}: expected the key {expected}, found {', '.join(map(repr, record)) or 'no keys'}")


def as_id(value: object, *, what: str) -> str:
    """Return a qid or docid as a string; files may also contain integers. Raises RankLLMError for anything else, for an
    empty id, and like `check_id`."""
    if isinstance(value, str) and value.strip():
        return value if value.isprintable() else check_id(value, what=what)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < _LONGEST_ID_BITS:
        return str(value)
    raise RankLLMError(f"{what}: expected a non-empty string or an integer, found {found(value)}")


def check_id(text: str, *, what: str) -> str:
    """Return the qid or docid if every file format and library can represent it.

    Raises RankLLMError for a lone surrogate (which crashes pytrec_eval), for NUL (where C code truncates an id) and
    other control characters, and for zero-width characters such as a byte-order mark, since two ids would look the
    same. Tabs and line ends are checked by the writers of formats that cannot contain them.
    """
    if text.isprintable() and (text.isascii() or not _WITHOUT_WIDTH.search(text)):
        return text
    for letter in text:
        if "\ud800" <= letter <= "\udfff":
            problem = "a lone surrogate, which is not a character"
        elif letter not in "\t\n\r" and unicodedata.category(letter) == "Cc":
            problem = "a control character"
        elif _WITHOUT_WIDTH.match(letter):
            problem = "a byte-order mark" if letter == "\ufeff" else "a zero-width character"
        else:
            continue
        raise RankLLMError(f"{what}: {shown(text)} contains {problem} (U+{ord(letter):04X}); remove it from all files")
    return text


def as_string(value: object, *, what: str) -> str:
    """Return a string. Raises RankLLMError for anything else."""
    if isinstance(value, str):
        return value
    raise RankLLMError(f"{what}: expected a string, found {found(value)}")


def as_object(value: object, *, what: str) -> Mapping[str, object]:
    """Return a JSON object. Raises RankLLMError for anything else."""
    if isinstance(value, Mapping):
        return value
    raise RankLLMError(f"{what}: expected an object, found {found(value)}")


def as_array(value: object, *, what: str) -> list[object]:
    """Return a JSON array. Raises RankLLMError for anything else."""
    if isinstance(value, list):
        return value
    raise RankLLMError(f"{what}: expected an array, found {found(value)}")


def as_score(value: object) -> float:
    """Return a finite score. Raises RankLLMError for null, NaN, infinity and anything that is not a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            score = float(value)
        except OverflowError:
            score = math.inf
        if math.isfinite(score):
            return score
    raise RankLLMError(f"score: expected a finite number, found {found(value)}")


def found(value: object) -> str:
    """Describe a JSON value in JSON's terms."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "an infinite number"
    if isinstance(value, int) and value.bit_length() >= _LONGEST_ID_BITS:
        return "a number of more than 38 digits"  # Python refuses to print integers with thousands of digits
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {shown(value)}"
    return "an object" if isinstance(value, Mapping) else "an array"


def shown(text: str) -> str:
    """Return a string as shown in errors: quoted, on one line, truncated."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")
