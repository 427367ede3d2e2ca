"""Bounded reading of user files, optionally compressed, with one-line errors that say where and what."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files.file_kinds import HEAD_BYTES, packing_of, unreadable_kind
from rankllm_core.files.unpacking import UnpackedFile

MAX_LINE_CHARACTERS = 64 << 20
"""Maximum line length: twice that of a request with a thousand long documents."""
MAX_TEXT_CHARACTERS = 64 << 20
"""Maximum size of files that `read_text` and `read_json` hold in memory."""
BYTE_ORDER_MARK = "\ufeff"
_BLOCK_BYTES = 1 << 17
_PACKED_ENDINGS = (".gz", ".gzip", ".xz", ".lzma", ".bz2", ".bzip2")


class _PlainFile(io.RawIOBase):
    """File read as it is, starting with `head`. Raises DataError if the system cannot read it."""

    def __init__(self, source: IO[bytes], head: bytes, *, path: str | Path) -> None:
        self._source = source
        self._head = head
        self._path = path

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer and return the number of bytes, 0 at the end."""
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        data = data or _read_some(self._source, len(buffer), path=self._path)
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_bytes(path: str | Path, *, source: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    """Open a text file as bytes; gzip, xz and bzip2 are decompressed, whatever the file's name.

    source: read instead of the path, which then only names it.
    Raises RankLLMError if the file is missing, a folder or unreadable, DataError if it is recognizably not UTF-8 text
    (UTF-16, ZIP, Parquet, ...), and while reading if an archive is damaged or decompresses excessively.
    """
    with _open(path) if source is None else nullcontext(source) as source:
        head = _read_some(source, HEAD_BYTES, path=path)
        packing = packing_of(head)
        raw: Any = _PlainFile(source, head, path=path)
        if packing is not None:
            raw = UnpackedFile(io.BufferedReader(raw), packing, path=path)
        with io.BufferedReader(raw, _BLOCK_BYTES) as stream:
            if packing is not None:
                head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
                if (inner := packing_of(head)) is not None:
                    raise DataError(f"compressed twice ({packing}, then {inner}); unpack it once", path=path)
            if (kind := unreadable_kind(head)) is not None:
                raise DataError(f"{kind.name}, expected UTF-8 text; {kind.advice}", path=path)
            yield stream


def _open(path: str | Path) -> IO[bytes]:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise RankLLMError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise RankLLMError(f"{path}: is a folder, expected a file") from None
    except PermissionError:
        kind = "is a folder, expected a file" if Path(path).is_dir() else "not readable (permission denied)"
        raise RankLLMError(f"{path}: {kind}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise RankLLMError(f"{path}: cannot be opened ({reason})") from None


def _read_some(source: IO[bytes], size: int, *, path: str | Path) -> bytes:
    """Return what one system read gives, at most `size` bytes; empty at the end."""
    try:
        return source.read1(size)  # type: ignore[attr-defined,no-any-return]
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", path=path) from None


@contextmanager
def open_text(path: str | Path, *, errors: str = "strict") -> Iterator[IO[str]]:
    """Open a UTF-8 text file, decompressed as in `open_bytes`; a byte-order mark at the start is dropped.

    errors: treatment of bytes that are not UTF-8, as in `open`.
    Raises like `open_bytes`, and DataError if the file is not UTF-8.
    """
    with open_bytes(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", errors, newline=None) as stream:
        try:
            yield stream
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 ({error.reason})", path=path) from None


def read_text(path: str | Path, *, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Return the whole text of a file without byte-order mark. Raises like `open_text`, and beyond `limit`
    characters."""
    with open_text(path) as stream:
        text = stream.read(limit + 1)
    if len(text) > limit:
        raise DataError(f"more than {limit:,} characters, which is too long for this kind of file", path=path)
    if "\x00" in text:
        raise DataError(_NUL, path=path, line=text.count("\n", 0, text.index("\x00")) + 1)
    return text


def read_lines(path: str | Path, *, source: IO[bytes] | None = None) -> Iterator[tuple[int, str]]:
    """Yield (1-based number, line without its end) for every non-blank line.

    Only `\\n`, `\\r\\n` and `\\r` end a line. A byte-order mark at the start of any line is dropped, since `cat` puts
    the mark of its second file there. source: see `open_bytes`.
    Raises like `open_bytes`, and DataError with the line if the file is not UTF-8, contains a NUL byte, or has a line
    longer than MAX_LINE_CHARACTERS.
    """
    yield from _numbered_lines(path, source, is_strict=True)


def read_sound_lines(path: str | Path) -> Iterator[tuple[int, str | DataError]]:
    """Yield lines like `read_lines`, with a DataError in place of each line that is not UTF-8 or contains a NUL
    byte."""
    for number, line in _numbered_lines(path, None, is_strict=False):
        yield number, _line_fault(line, path=path, number=number) or line


def _line_fault(line: str, *, path: str | Path, number: int) -> DataError | None:
    """Return what is wrong with a line whose non-UTF-8 bytes were decoded to lone surrogates."""
    if "\x00" in line:
        return DataError(_NUL, path=path, line=number)
    try:
        if not line.isascii():
            line.encode("utf-8")
    except UnicodeEncodeError:
        try:
            line.encode("utf-8", "surrogateescape").decode("utf-8")
        except UnicodeDecodeError as error:
            return DataError(f"not UTF-8 ({error.reason})", path=path, line=number)
    return None


def _numbered_lines(path: str | Path, source: IO[bytes] | None, *, is_strict: bool) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        for text in _whole_lines(path, source, is_strict=is_strict):
            is_marked = BYTE_ORDER_MARK in text
            for line in text.split("\n"):
                number += 1
                if is_marked:
                    line = line.lstrip(BYTE_ORDER_MARK)
                if line and not line.isspace():
                    yield number, line
    except _UnreadableError as error:
        raise DataError(error.problem, path=path, line=number + 1 + error.n_lines) from None


class _UnreadableError(Exception):
    """A file cannot be read further. n_lines: lines between the last one yielded and the problem."""

    def __init__(self, problem: str, *, n_lines: int = 0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.n_lines = n_lines


def _whole_lines(path: str | Path, source: IO[bytes] | None, *, is_strict: bool) -> Iterator[str]:
    """Yield the text of a file in chunks of complete lines, without the line end between two chunks."""
    begun: list[str] = []
    length = 0
    for block in _blocks(path, source, is_strict=is_strict):
        text, end, rest = block.rpartition("\n")
        if end:
            text = "".join((*begun, text))
            yield text
            begun, length = [], 0
        begun.append(rest)
        length += len(rest)
        if length > MAX_LINE_CHARACTERS:
            raise _UnreadableError(f"line longer than {MAX_LINE_CHARACTERS:,} characters")
    yield "".join(begun)


_NUL = "contains a NUL byte, expected text; is this a binary or damaged file?"


def _blocks(path: str | Path, source: IO[bytes] | None, *, is_strict: bool) -> Iterator[str]:
    """Yield the decoded text of a file in chunks as they are read, with line ends as `\\n`.

    is_strict: if False, NUL bytes are kept, and bytes that are not UTF-8 become lone surrogates, which valid UTF-8
    never decodes to.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")("strict" if is_strict else "surrogateescape")
    decoder = io.IncrementalNewlineDecoder(utf8, translate=True)
    with open_bytes(path, source=source) as stream:
        while True:
            try:
                data = stream.read1(_BLOCK_BYTES)  # type: ignore[attr-defined]
                text = decoder.decode(data, final=not data)
            except DataError as error:
                raise _UnreadableError(error.problem) from None
            except UnicodeDecodeError as error:
                n_lines = _line_ends(error.object[: error.start])
                raise _UnreadableError(f"not UTF-8 ({error.reason})", n_lines=n_lines) from None
            if is_strict and "\x00" in text:
                raise _UnreadableError(_NUL, n_lines=text.count("\n", 0, text.index("\x00")))
            yield text
            if not data:
                return


def _line_ends(data: bytes) -> int:
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def unpacked_name(path: str | Path) -> str:
    """Return the last part of a path in lower case, without compression suffix: `A.JSONL.GZ` becomes `a.jsonl`."""
    name = Path(path).name.lower()
    return next((name.removesuffix(end) for end in _PACKED_ENDINGS if name.endswith(end)), name)


def refuse_pipe(path: str | Path) -> None:
    """Raise RankLLMError for a pipe or device, which can be read only once. Called before reading a file twice."""
    path = Path(path)
    try:
        is_once = path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError):
        return  # opening it reports why
    if is_once:
        kind = "pipe" if path.is_fifo() else "device"
        raise RankLLMError(f"{path}: is a {kind}, but must be read twice; give a file")
