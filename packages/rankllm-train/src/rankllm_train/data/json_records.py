"""Read JSON objects from a file one at a time: JSON Lines, or one array of any length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import read_sound_lines, refuse_pipe
from rankllm_core.files.json_array import holds_array, read_array
from rankllm_core.files.json_text import as_object, parse_json, shown

_CHUNK_CHARACTERS = 1 << 20


class JsonRecord(NamedTuple):
    """JSON value of a file, with its line."""

    line: int
    """1-based."""
    value: Mapping[str, object] | DataError
    """The object, or what is wrong with this line; later lines can still be read."""


def read_json_records(path: str | Path) -> Iterator[JsonRecord]:
    """Yield the objects of a JSON Lines file or of an array of objects, compressed or not.

    The format is detected from the first character, not from the name: files named .json that contain JSON Lines, and
    .jsonl files that contain an array, are common. An array is read incrementally, so that one record is in memory at a
    time. A line that is not an object, not JSON or not UTF-8 yields a DataError.

    Raises RankLLMError if the file cannot be read or is a pipe, since it is opened twice. Raises DataError if it is
    damaged or if an array is not valid JSON or UTF-8: unlike in JSON Lines, the next record cannot be found then.
    """
    refuse_pipe(path)
    if holds_array(path):
        yield from _elements(path)
        return
    for line, text in read_sound_lines(path):
        yield JsonRecord(line, text if isinstance(text, DataError) else _object_of_line(path, line, text))


def _elements(path: str | Path) -> Iterator[JsonRecord]:
    for line, value in read_array(path, describe=_describe, chunk_characters=_CHUNK_CHARACTERS):
        try:
            yield JsonRecord(line, as_object(value, what="array element"))
        except RankLLMError as error:
            yield JsonRecord(line, DataError(str(error), path=path, line=line))


def _describe(problem: str, column: int, text: str) -> str:
    return f"{problem}, found {shown(text) if text else 'the end of the file'}"


def _object_of_line(path: str | Path, line: int, text: str) -> Mapping[str, object] | DataError:
    try:
        return as_object(parse_json(text, path=path, line=line), what="line")
    except DataError as error:
        return error
    except RankLLMError as error:
        return DataError(str(error), path=path, line=line)
