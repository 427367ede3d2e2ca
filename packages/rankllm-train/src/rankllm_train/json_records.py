"""JSON objects out of a file one at a time: JSON Lines, or one array however long it is."""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import open_text, read_lines, refuse_pipe
from rankllm_core.json_fields import as_object, shown

_CHUNK_CHARACTERS = 1 << 20
_DECODER = json.JSONDecoder()
_LONGEST_ATOM = 16
"""Where text is cut, the decoder complains at most so many characters before the end: a `\\uXXXX`, `-Infinity`."""


class JsonRecord(NamedTuple):
    """One JSON value of a file and where it begins."""

    line: int
    """1-based."""
    value: Mapping[str, object] | DataError
    """The object, or what is wrong with this line; the lines after it can still be read."""


def read_json_records(path: str | Path) -> Iterator[JsonRecord]:
    """Yield the objects of a JSON Lines file, or of one array of objects; `.gz` and `.xz` are unpacked.

    What the file holds is seen from its first character, not from its name: files named .json that hold JSON Lines,
    and .jsonl that hold an array, are common. An array is read piece by piece: a record is in memory, not the file.
    Raises RankLLMError when the file cannot be read, or is a pipe, since lines are read from a second opening;
    DataError when it is damaged, and where an array is not JSON: unlike a line, what follows cannot be found again.
    """
    refuse_pipe(path)
    with open_text(path) as stream:
        window = _Window(path, stream)
        if window.peek() == "[":
            yield from _read_array(path, window)
            return
    for line, text in read_lines(path):
        yield JsonRecord(line, _object_of_line(path, line, text))


def _object_of_line(path: str | Path, line: int, text: str) -> Mapping[str, object] | DataError:
    try:
        return as_object(json.loads(text), what="line")
    except json.JSONDecodeError as error:
        return DataError(f"not JSON: {error.msg} at column {error.colno}", path=path, line=line)
    except (RecursionError, ValueError) as error:  # ValueError: a number of too many digits
        return DataError(f"not usable: {error}", path=path, line=line)
    except RankLLMError as error:
        return DataError(str(error), path=path, line=line)


class _Window:
    """The part of a file that is in memory, from the next character to be read on."""

    def __init__(self, path: str | Path, stream: IO[str]) -> None:
        self.path = path
        self.text = ""
        self.position = 0
        self.line = 1
        self.is_at_end = False
        self._stream = stream

    def peek(self) -> str:
        """Skip blanks; the character after them, or `""` at the end of the file."""
        while True:
            start = self.position
            while self.position < len(self.text) and self.text[self.position].isspace():
                self.position += 1
            self.line += self.text.count("\n", start, self.position)
            if self.position < len(self.text):
                return self.text[self.position]
            if self.is_at_end:
                return ""
            self.grow()

    def grow(self) -> None:
        """Drop what was read and read on, twice as much as is left: a long record is not scanned again and again."""
        left = self.text[self.position :]
        try:
            more = self._stream.read(max(_CHUNK_CHARACTERS, len(left)))
        except UnicodeDecodeError as error:
            message = f"not UTF-8 ({error.reason} after this line)"
            raise DataError(message, path=self.path, line=self.line) from None
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
            raise DataError(f"damaged archive: {error}", path=self.path, line=self.line) from None
        self.text, self.position, self.is_at_end = left + more, 0, not more

    def advance(self, position: int) -> None:
        """Take what stands before `position` as read."""
        self.line += self.text.count("\n", self.position, position)
        self.position = position


def _read_array(path: str | Path, window: _Window) -> Iterator[JsonRecord]:
    window.advance(window.position + 1)
    if window.peek() == "]":
        window.advance(window.position + 1)
    else:
        yield from _read_elements(path, window)
    if window.peek():
        raise DataError("not JSON: expected nothing after the array", path=path, line=window.line)


def _read_elements(path: str | Path, window: _Window) -> Iterator[JsonRecord]:
    while True:
        window.peek()
        line = window.line
        value = _decode(path, window)
        try:
            yield JsonRecord(line, as_object(value, what="array element"))
        except RankLLMError as error:
            yield JsonRecord(line, DataError(str(error), path=path, line=line))
        separator = window.peek()
        if separator not in (",", "]"):
            raise DataError("not JSON: expected ',' or ']' after this record", path=path, line=line)
        window.advance(window.position + 1)
        if separator == "]":
            return


def _decode(path: str | Path, window: _Window) -> object:
    while True:
        try:
            value, end = _DECODER.raw_decode(window.text, window.position)
        except json.JSONDecodeError as error:
            is_cut = error.msg.startswith("Unterminated string") or len(window.text) - error.pos <= _LONGEST_ATOM
            if is_cut and not window.is_at_end:
                window.grow()
                continue
            line = window.line + window.text.count("\n", window.position, error.pos)
            place = shown(window.text[error.pos : error.pos + 80]) if error.pos < len(window.text) else "the end"
            raise DataError(f"not JSON: {error.msg}, found {place}", path=path, line=line) from None
        except (RecursionError, ValueError) as error:
            raise DataError(f"not usable: {error}", path=path, line=window.line) from None
        if end == len(window.text) and not window.is_at_end:
            window.grow()  # a number may go on
            continue
        window.advance(end)
        return value
