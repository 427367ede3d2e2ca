"""Read one JSON array from a file, one record in memory at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from rankllm_core.errors import DataError
from rankllm_core.files.json_text import check_size, check_value, json_problem
from rankllm_core.files.reading import MAX_LINE_CHARACTERS, open_text

CHUNK_CHARACTERS = 1 << 18
"""Minimum number of characters read at once."""
_DECODER = json.JSONDecoder()
_LONGEST_ATOM = 16
"""Where text is cut off, the decoder reports an error at most this many characters before the end: `\\uXXXX`,
`-Infinity`."""
_BLANKS = re.compile(r"\s*")

Describe = Callable[[str, int, str], str]
"""Builds a message from the parser's problem, the 1-based column, and the text there (empty at the end of the file)."""


def holds_array(path: str | Path) -> bool:
    """Whether the first non-blank character of a file opens an array. Raises like `rankllm_core.files.open_text`."""
    with open_text(path, errors="replace") as stream:  # the reader of lines or elements reports invalid UTF-8
        return _Window(path, stream, CHUNK_CHARACTERS).peek() == "["


def read_array(
    path: str | Path, *, describe: Describe, chunk_characters: int = CHUNK_CHARACTERS
) -> Iterator[tuple[int, object]]:
    """Yield (1-based line, value) for each element of a file that is a single array; see `holds_array`.

    chunk_characters: minimum number of characters read at once.
    Raises DataError if it is not JSON (nothing after the error can be recovered), or if an element is too long, too
    deep or has too many values; also raises like `open_text`.
    """
    with open_text(path) as stream:
        window = _Window(path, stream, chunk_characters)
        window.peek()
        window.advance(window.position + 1)
        if window.peek() == "]":
            window.advance(window.position + 1)
        else:
            yield from _read_elements(window, describe)
        if window.peek():
            raise window.error("not JSON: expected nothing after the array")


class _Window:
    """Part of a file that is in memory, from the next unread character on."""

    def __init__(self, path: str | Path, stream: IO[str], chunk_characters: int) -> None:
        self.text = ""
        self.position = 0
        self.line = 1
        self.is_at_end = False
        self._path = path
        self._stream = stream
        self._chunk_characters = chunk_characters
        self._line_start = 0
        """Index in `text` where the line of `position` starts; negative if that part was dropped."""

    def peek(self) -> str:
        """Skip whitespace and return the next character, or `""` at the end of the file."""
        while True:
            blanks = _BLANKS.match(self.text, self.position)
            self.advance(blanks.end() if blanks else self.position)
            if self.position < len(self.text):
                return self.text[self.position]
            if self.is_at_end:
                return ""
            self.grow()

    def grow(self) -> None:
        """Drop what was read and read at least as much as remains, so that a long record is not rescanned
        repeatedly."""
        left = self.text[self.position :]
        if len(left) > MAX_LINE_CHARACTERS:
            raise self.error(f"a record longer than {MAX_LINE_CHARACTERS:,} characters")
        try:
            more = self._stream.read(max(self._chunk_characters, len(left)))
        except UnicodeDecodeError as error:
            raise self.error(f"not UTF-8 ({error.reason} after this line)") from None
        except DataError as error:
            raise self.error(error.problem) from None
        self._line_start -= self.position
        self.text, self.position, self.is_at_end = left + more, 0, not more

    def advance(self, position: int) -> None:
        """Mark everything before `position` as read."""
        if ends := self.text.count("\n", self.position, position):
            self.line += ends
            self._line_start = self.text.rfind("\n", self.position, position) + 1
        self.position = position

    def place(self, position: int) -> tuple[int, int]:
        """Return the 1-based line and column of a position at or after the next character."""
        ends = self.text.count("\n", self.position, position)
        start = self.text.rfind("\n", self.position, position) + 1 if ends else self._line_start
        return self.line + ends, position - start + 1

    def error(self, problem: str, *, line: int | None = None) -> DataError:
        """Return an error that names the file and the given line, by default the current one."""
        return DataError(problem, path=self._path, line=line or self.line)


def _read_elements(window: _Window, describe: Describe) -> Iterator[tuple[int, object]]:
    while True:
        line, column = window.place(window.position)
        if not window.peek():
            raise window.error(f"not JSON: {describe('Expecting value', column, '')}", line=line)
        line = window.line
        yield line, _decode(window, describe)
        separator = window.peek()
        if separator not in (",", "]"):
            problem = "not JSON: expected ',' or ']' after this record"
            raise window.error(problem, line=window.line if separator else line)
        window.advance(window.position + 1)
        if separator == "]":
            return


def _decode(window: _Window, describe: Describe) -> object:
    while True:
        try:
            value, end = _DECODER.raw_decode(window.text, window.position)
        except json.JSONDecodeError as error:
            is_cut = error.msg.startswith("Unterminated string") or len(window.text) - error.pos <= _LONGEST_ATOM
            if is_cut and not window.is_at_end:
                window.grow()
                continue
            line, column = window.place(error.pos)
            message = describe(error.msg, column, window.text[error.pos : error.pos + 80])
            raise window.error(f"not JSON: {message}", line=line) from None
        except (RecursionError, ValueError) as error:
            raise window.error(f"not usable: {json_problem(error)}") from None
        if end == len(window.text) and not window.is_at_end:
            window.grow()  # a number may continue
            continue
        _check(value, window.text[window.position : end], window)
        window.advance(end)
        return value


def _check(value: object, text: str, window: _Window) -> None:
    try:
        check_size(text)
        check_value(value, text)
    except ValueError as error:
        raise window.error(f"not usable: {error}") from None
