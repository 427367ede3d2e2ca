"""One JSON array of records out of a file, a record at a time: memory holds a record, not the file."""

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
"""How much is read at once at the least."""
_DECODER = json.JSONDecoder()
_LONGEST_ATOM = 16
"""Where text is cut, the decoder complains at most so many characters before the end: a `\\uXXXX`, `-Infinity`."""
_BLANKS = re.compile(r"\s*")

Describe = Callable[[str, int, str], str]
"""From what the parser says, the 1-based column, and the text there (empty at the end of the file), a message."""


def holds_array(path: str | Path) -> bool:
    """Whether the first character of a file, blanks aside, opens an array. Raises as `rankllm_core.files.open_text`."""
    with open_text(path, errors="replace") as stream:  # what is not UTF-8 is for the reader of lines or elements to say
        return _Window(path, stream, CHUNK_CHARACTERS).peek() == "["


def read_array(
    path: str | Path, *, describe: Describe, chunk_characters: int = CHUNK_CHARACTERS
) -> Iterator[tuple[int, object]]:
    """Yield (1-based line where it begins, value) of each element of a file that is one array; see `holds_array`.

    chunk_characters: read at once at the least.
    Raises DataError where it is not JSON (nothing behind that can be found again), or an element is too long, too deep
    or holds too many values; and as `open_text`.
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
    """The part of a file that is in memory, from the next character to be read on."""

    def __init__(self, path: str | Path, stream: IO[str], chunk_characters: int) -> None:
        self.text = ""
        self.position = 0
        self.line = 1
        self.is_at_end = False
        self._path = path
        self._stream = stream
        self._chunk_characters = chunk_characters
        self._line_start = 0
        """Where in `text` the line of `position` begins; below zero where that is no longer in it."""

    def peek(self) -> str:
        """Skip blanks; the character after them, or `""` at the end of the file."""
        while True:
            blanks = _BLANKS.match(self.text, self.position)
            self.advance(blanks.end() if blanks else self.position)
            if self.position < len(self.text):
                return self.text[self.position]
            if self.is_at_end:
                return ""
            self.grow()

    def grow(self) -> None:
        """Drop what was read and read on, twice as much as is left: a long record is not scanned again and again."""
        left = self.text[self.position :]
        if len(left) > MAX_LINE_CHARACTERS:
            raise self.error(f"one record of more than {MAX_LINE_CHARACTERS:,} characters")
        try:
            more = self._stream.read(max(self._chunk_characters, len(left)))
        except UnicodeDecodeError as error:
            raise self.error(f"not UTF-8 ({error.reason} after this line)") from None
        except DataError as error:
            raise self.error(error.problem) from None
        self._line_start -= self.position
        self.text, self.position, self.is_at_end = left + more, 0, not more

    def advance(self, position: int) -> None:
        """Take what stands before `position` as read."""
        if ends := self.text.count("\n", self.position, position):
            self.line += ends
            self._line_start = self.text.rfind("\n", self.position, position) + 1
        self.position = position

    def place(self, position: int) -> tuple[int, int]:
        """1-based line and column of a position from the next character on."""
        ends = self.text.count("\n", self.position, position)
        start = self.text.rfind("\n", self.position, position) + 1 if ends else self._line_start
        return self.line + ends, position - start + 1

    def error(self, problem: str, *, line: int | None = None) -> DataError:
        """The error that names the file and, unless another line is given, this one."""
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
            window.grow()  # a number may go on
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
