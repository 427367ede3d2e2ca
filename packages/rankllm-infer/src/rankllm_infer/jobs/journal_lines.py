"""The lines of a journal: one JSON object each, sealed with a checksum that also covers every line before it.

A checksum that continues the one of the line before notices flipped bits, and lines that were removed, repeated,
reordered or copied from another journal. What a kill or a power failure leaves at the end is told from damage: nothing
intact follows it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import dumps

FORMAT = 2
_OPENING = b'{"rankllm_journal": '
_HEAD = b"%s%d, " % (_OPENING, FORMAT)
"""How a journal of this format begins."""
_OTHER_FORMAT = re.compile(re.escape(_OPENING) + rb"(\d{1,9}), ")
_SEAL = b', "crc32": "%08x"}\n'
_SEAL_BYTES = len(_SEAL % 0)
_SEALED = re.compile(rb', "crc32": "[0-9a-f]{8}"\}\n\Z')
_CRC_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLine:
    """An intact line."""

    record: dict[str, Any]
    key: int
    """What `read_line` finds it by."""
    end: int
    """Where the next line begins, in bytes from the beginning of the file."""
    checksum: int
    """Of this line and all before it."""


def seal(record: Mapping[str, object], checksum: int) -> tuple[bytes, int]:
    """A record as a line behind the one with this checksum (0: the first), and the line's own checksum."""
    body = dumps(record).encode("utf-8")[:-1]
    checksum = zlib.crc32(body, checksum)
    return body + _SEAL % checksum, checksum


def key_of(place: int, checksum: int) -> int:
    """What `read_line` needs, as one number: where the line begins and the checksum of the line before it."""
    return place << _CRC_BITS | checksum


def read_line(stream: IO[bytes], key: int, *, path: Path) -> dict[str, Any]:
    """One line again. Raises RankLLMError where it has changed since it was read or written."""
    place, checksum = key >> _CRC_BITS, key & (1 << _CRC_BITS) - 1
    stream.seek(place)
    line = stream.readline()
    if _checksum_of(line, checksum) is None:
        raise RankLLMError(f"{path}: damaged at byte {place} since it was opened; repeat the command")
    return _record(line, path=path, number=None)


def read_lines(stream: IO[bytes], *, path: Path) -> Iterator[JournalLine]:
    """The intact lines of a journal from its beginning, without what was torn at its end.

    path: for messages. Raises RankLLMError for a file that is no journal of this format, and DataError, which names the
    line, where a damaged line has an intact one behind it.
    """
    _check_head(stream, path)
    place = checksum = 0
    for number, line in enumerate(stream, start=1):
        found = _checksum_of(line, checksum)
        if found is None:
            if any(_SEALED.search(later) for later in stream):
                raise DataError(
                    "damaged (the checksum does not match), with intact lines behind it; restore the file from a copy, "
                    "or start over with --overwrite",
                    path=path,
                    line=number,
                )
            return
        end = place + len(line)
        record = _record(line, path=path, number=number)
        yield JournalLine(record=record, key=key_of(place, checksum), end=end, checksum=found)
        place, checksum = end, found


def _check_head(stream: IO[bytes], path: Path) -> None:
    """Raise RankLLMError unless the file is empty, or begins like a journal of this format as far as it goes."""
    head = stream.read(len(_HEAD) + 8)
    stream.seek(0)
    # A file system may leave zeros where a power failure came before the data.
    if head.startswith(_HEAD[: len(head)]) or (head and not head.strip(b"\0") and _is_blank(stream)):
        return
    if match := _OTHER_FORMAT.match(head):
        raise RankLLMError(
            f"{path}: a journal of format {int(match[1])}, but this version resumes format {FORMAT} alone; finish the "
            "run with the version of rankllm-infer that began it, or start over with --overwrite"
        )
    raise RankLLMError(f"{path}: no journal of this version; start over with --overwrite")


def _is_blank(stream: IO[bytes]) -> bool:
    is_blank = not any(block.strip(b"\0") for block in iter(lambda: stream.read(1 << 20), b""))
    stream.seek(0)
    return is_blank


def _checksum_of(line: bytes, before: int) -> int | None:
    """The checksum of an intact line behind one with the checksum `before`; None of any other line."""
    body, sealed = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    checksum = zlib.crc32(body, before)
    return checksum if body.startswith(b"{") and sealed == _SEAL % checksum else None


def _record(line: bytes, *, path: Path, number: int | None) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise DataError(f"expected a JSON object, found {type(record).__name__}", path=path, line=number)
    return record
