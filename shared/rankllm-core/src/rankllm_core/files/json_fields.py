"""Checked reading of the fields of JSON records. An error says what was found and expected; `located` adds where."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.spellings import INVISIBLE, INVISIBLE_BEYOND

_SHOWN_CHARACTERS = 60
_LONGEST_ID_BITS = 128
_NO_VALUE = object()
_WITHOUT_WIDTH = re.compile(f"[{INVISIBLE}{INVISIBLE_BEYOND}\u2028\u2029\ufffe\uffff]")


@contextmanager
def located(path: str | Path, line: int) -> Iterator[None]:
    """Turn a RankLLMError raised inside into a DataError that names the place. line: 1-based."""
    try:
        yield
    except DataError:
        raise
    except RankLLMError as error:
        raise DataError(str(error), path=path, line=line) from None


def shown(text: str) -> str:
    """A string as an error shows it: quoted, on one line, not too long."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def found(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "an infinite number"
    if isinstance(value, int) and value.bit_length() >= _LONGEST_ID_BITS:
        return "a number of more than 38 digits"  # Python refuses to print one of many thousand
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the string {shown(value)}"
    return "an object" if isinstance(value, Mapping) else "an array"


def required(record: Mapping[str, object], keys: Iterable[str], *, what: str) -> tuple[str, object]:
    """The first of `keys` that the record has, and its value. Raises RankLLMError naming the keys it has instead."""
    for key in keys:
        value = record.get(key, _NO_VALUE)
        if value is not _NO_VALUE:
            return key, value
    expected = " or ".join(repr(key) for key in keys)
    raise RankLLMError(f"{what}: expected the key {expected}, found {', '.join(map(repr, record)) or 'no key at all'}")


def as_id(value: object, *, what: str) -> str:
    """A qid or docid as a string; files also hold integers. Raises RankLLMError on anything else, on an empty id and
    as `check_id`."""
    if isinstance(value, str) and value.strip():
        return value if value.isprintable() else check_id(value, what=what)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < _LONGEST_ID_BITS:
        return str(value)
    raise RankLLMError(f"{what}: expected a string that is not empty, or an integer; found {found(value)}")


def check_id(text: str, *, what: str) -> str:
    """The qid or docid, if every file and every library can carry it.

    Raises RankLLMError for a lone surrogate (which crashes pytrec_eval), for NUL (where C code cuts an id) and other
    control characters, and for a byte-order mark or another zero-width character: two ids would look the same.
    Tabs and line ends are the business of the file that cannot hold them.
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
        raise RankLLMError(f"{what}: {shown(text)} holds {problem} (U+{ord(letter):04X}); remove it from all files")
    return text


def as_string(value: object, *, what: str) -> str:
    """A string. Raises RankLLMError on anything else."""
    if isinstance(value, str):
        return value
    raise RankLLMError(f"{what}: expected a string, found {found(value)}")


def as_object(value: object, *, what: str) -> Mapping[str, object]:
    """A JSON object. Raises RankLLMError on anything else."""
    if isinstance(value, Mapping):
        return value
    raise RankLLMError(f"{what}: expected an object, found {found(value)}")


def as_array(value: object, *, what: str) -> list[object]:
    """A JSON array. Raises RankLLMError on anything else."""
    if isinstance(value, list):
        return value
    raise RankLLMError(f"{what}: expected an array, found {found(value)}")


def as_score(value: object) -> float:
    """A finite score. Raises RankLLMError on null, NaN, infinity and on anything that is no number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            score = float(value)
        except OverflowError:
            score = math.inf
        if math.isfinite(score):
            return score
    raise RankLLMError(f"score: expected a finite number, found {found(value)}")
