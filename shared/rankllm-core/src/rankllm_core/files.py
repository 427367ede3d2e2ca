"""Reading text by line, plain or compressed, and writing files that appear whole or not at all."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rankllm_core.errors import DataError, RankLLMError


@contextmanager
def open_text(path: str | Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file for reading; `.gz` and `.xz` are unpacked, a byte-order mark is skipped.

    Raises RankLLMError when the file is missing or a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise RankLLMError(f"{path}: is a folder, expected a file")
    try:
        raw: IO[bytes]
        if path.suffix == ".gz":
            raw = gzip.open(path, "rb")  # type: ignore[assignment]  # noqa: SIM115
        elif path.suffix == ".xz":
            raw = lzma.open(path, "rb")  # noqa: SIM115
        else:
            raw = path.open("rb")
    except FileNotFoundError:
        raise RankLLMError(f"{path}: no such file") from None
    except PermissionError:
        raise RankLLMError(f"{path}: not readable (permission denied)") from None
    with raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline=None) as stream:
        yield stream


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (1-based number, line without its end) of every line that is not blank.

    Only `\\n`, `\\r\\n` and `\\r` end a line. Raises DataError when the file is not UTF-8 or not a whole archive.
    """
    number = 0
    with open_text(path) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                line = line.rstrip("\n")
                if line.strip():
                    yield number, line
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 ({error.reason} near here)", path=path, line=number + 1) from None
        except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
            raise DataError(f"damaged archive: {error}", path=path, line=number + 1) from None


def refuse_pipe(path: str | Path) -> None:
    """Raise RankLLMError for what gives its bytes only once. Called before a file that is to be read twice."""
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        kind = "pipe" if path.is_fifo() else "device"
        raise RankLLMError(f"{path}: is a {kind}, and is read twice; give a file")


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (1-based line number, object) of a JSON Lines file. Raises DataError naming the line."""
    for number, line in read_lines(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON: {error.msg} at column {error.colno}", path=path, line=number) from None
        except RecursionError:
            raise DataError("not usable: JSON is nested too deeply", path=path, line=number) from None
        except ValueError as error:
            raise DataError(f"not usable: {error}", path=path, line=number) from None
        if not isinstance(record, dict):
            raise DataError(f"expected a JSON object, found {type(record).__name__}", path=path, line=number)
        yield number, record


def dumps(record: object) -> str:
    """One line of JSON, readable (no ASCII escapes) unless the text holds lone surrogates, which UTF-8 cannot carry."""
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record, ensure_ascii=True)
    return text


@contextmanager
def write_text(path: str | Path) -> Iterator[IO[str]]:
    """Write a UTF-8 text file that appears under its name only when the block ends without an error.

    `.gz` names are compressed. Raises RankLLMError when the folder cannot be written, and for `.xz` names.
    """
    path = Path(path)
    if path.suffix == ".xz":
        raise RankLLMError(f"{path}: writing .xz is not supported; give it a .gz name, or none of a packed file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise RankLLMError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        raw: IO[bytes] = os.fdopen(handle, "wb")
        with raw:
            if path.suffix == ".gz":
                with (
                    gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as packed,
                    _text_writer(packed) as stream,
                ):
                    yield stream
            else:
                with _text_writer(raw) as stream:
                    yield stream
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _text_writer(raw: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(raw, encoding="utf-8", newline="\n")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def check_output(path: str | Path, *, overwrite: bool) -> None:
    """Raise RankLLMError where writing `path` cannot succeed, or would replace a file without leave.

    Called before the work begins, so that nothing is computed that cannot be kept.
    """
    path = Path(path)
    if path.is_dir():
        raise RankLLMError(f"{path}: is a folder, expected the name of a file to write")
    if path.exists() and not path.is_file():
        raise RankLLMError(f"{path}: is a device or a pipe, expected the name of a file to write")
    if path.exists() and not overwrite:
        raise RankLLMError(f"{path}: exists; use --overwrite to replace it, or another name")
    if path.suffix == ".xz":
        raise RankLLMError(f"{path}: writing .xz is not supported; give it a .gz name, or none of a packed file")
    # Folders that are missing are made when the file is written, in the nearest one that is there.
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise RankLLMError(f"{path}: cannot be written ({folder} is not a folder)")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RankLLMError(f"{path}: cannot be written (no permission to write in {folder})")


def refuse_same_file(source: str | Path, target: str | Path) -> None:
    """Raise RankLLMError where the output is the input, which writing would destroy."""
    source, target = Path(source), Path(target)
    if source.exists() and target.exists() and source.samefile(target):
        raise RankLLMError(f"{target}: is the input as well as the output; write to another name")
