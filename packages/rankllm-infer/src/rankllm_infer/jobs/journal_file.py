"""Journal file format: sealed lines, results and answers as records, and a file locked while a run is in progress.

A line is a JSON object with a checksum that also covers all previous lines. Chained checksums detect flipped bits and
lines that were removed, repeated, reordered or copied from another journal. An incomplete end after a kill or power
failure is distinguished from damage because nothing intact follows it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import dumps
from rankllm_core.types import Candidate, Request, Result, Usage, WindowTrace
from rankllm_infer.engines.base import Answer

FORMAT = 2

_OPENING = b'{"rankllm_journal": '
_HEAD = b"%s%d, " % (_OPENING, FORMAT)
"""First bytes of a journal of this format."""
_OTHER_FORMAT = re.compile(re.escape(_OPENING) + rb"(\d{1,9}), ")
_SEAL = b', "crc32": "%08x"}\n'
_SEAL_BYTES = len(_SEAL % 0)
_SEALED = re.compile(rb', "crc32": "[0-9a-f]{8}"\}\n\Z')
_CRC_BITS = 32

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalLine:
    """Intact line of a journal."""

    record: dict[str, Any]
    key: int
    """Key for `read_line`."""
    end: int
    """Offset of the next line, in bytes from the start of the file."""
    checksum: int
    """Checksum over this line and all before it."""


def seal(record: Mapping[str, object], checksum: int) -> tuple[bytes, int]:
    """Serialize a record as the line after the one with this checksum (0: the first); return it with its own
    checksum."""
    body = dumps(record).encode("utf-8")[:-1]
    checksum = zlib.crc32(body, checksum)
    return body + _SEAL % checksum, checksum


def key_of(place: int, checksum: int) -> int:
    """Combine what `read_line` needs into one number: the offset of the line and the checksum of the line before it."""
    return place << _CRC_BITS | checksum


def read_line(stream: IO[bytes], key: int, *, path: Path) -> dict[str, Any]:
    """Read one line again. Raises RankLLMError if it has changed since it was read or written."""
    place, checksum = key >> _CRC_BITS, key & (1 << _CRC_BITS) - 1
    stream.seek(place)
    line = stream.readline()
    if _checksum_of(line, checksum) is None:
        raise RankLLMError(f"{path}: changed at byte {place} while it was open; repeat the command")
    return _parsed_record(line, path=path, number=None)


def read_lines(stream: IO[bytes], *, path: Path) -> Iterator[JournalLine]:
    """Yield the intact lines of a journal from the start, without an incomplete end.

    path: for messages. Raises RankLLMError if the file is not a journal of this format, and DataError naming the line
    if a damaged line is followed by an intact one.
    """
    _check_head(stream, path)
    place = checksum = 0
    for number, line in enumerate(stream, start=1):
        found = _checksum_of(line, checksum)
        if found is None:
            if any(_SEALED.search(later) for later in stream):
                raise DataError(
                    "damaged (checksum mismatch), but followed by intact lines; restore the file from a backup, "
                    "or start over with --overwrite",
                    path=path,
                    line=number,
                )
            return
        end = place + len(line)
        record = _parsed_record(line, path=path, number=number)
        yield JournalLine(record=record, key=key_of(place, checksum), end=end, checksum=found)
        place, checksum = end, found


def _check_head(stream: IO[bytes], path: Path) -> None:
    """Raise RankLLMError unless the file is empty or starts like a journal of this format, possibly truncated."""
    head = stream.read(len(_HEAD) + 8)
    stream.seek(0)
    # After a power failure, a file system may leave zeros in place of the data.
    if head.startswith(_HEAD[: len(head)]) or (head and not head.strip(b"\0") and _is_blank(stream)):
        return
    if match := _OTHER_FORMAT.match(head):
        raise RankLLMError(
            f"{path}: a journal of format {int(match[1])}, but this version only resumes format {FORMAT}; finish the "
            "run with the version of rankllm-infer that started it, or start over with --overwrite"
        )
    raise RankLLMError(f"{path}: not a journal of this version; start over with --overwrite")


def _is_blank(stream: IO[bytes]) -> bool:
    is_blank = not any(block.strip(b"\0") for block in iter(lambda: stream.read(1 << 20), b""))
    stream.seek(0)
    return is_blank


def _checksum_of(line: bytes, before: int) -> int | None:
    """Return the checksum of an intact line that follows one with the checksum `before`; None if it is damaged."""
    body, sealed = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    checksum = zlib.crc32(body, before)
    return checksum if body.startswith(b"{") and sealed == _SEAL % checksum else None


def _parsed_record(line: bytes, *, path: Path, number: int | None) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise DataError(f"expected a JSON object, found {type(record).__name__}", path=path, line=number)
    return record


def result_to_record(result: Result) -> dict[str, object]:
    """Convert a finished query to its journal record: candidates by docid, without texts."""
    is_failed = result.status == "failed"
    return {
        "qid": result.query.qid,
        "status": result.status,
        "ranking": [] if is_failed else [_ranked(candidate) for candidate in result.candidates],
        "defects": result.defects,
        "usage": asdict(result.usage),
        "n_ranked": result.n_ranked,
        "trace": [asdict(call) for call in result.trace],
        "error": result.error,
    }


def _ranked(candidate: Candidate) -> list[object]:
    told: list[object] = [candidate.docid, candidate.score, candidate.model_score]
    return told if candidate.probability is None else [*told, candidate.probability]


def result_from_record(record: Mapping[str, Any], request: Request) -> Result:
    """Rebuild a finished query's result from its record. request: the query with its passages."""
    given = {candidate.docid: candidate for candidate in request.candidates}
    ranking = (
        replace(given[docid], score=score, model_score=told, probability=likely[0] if likely else None)
        for docid, score, told, *likely in record["ranking"]
    )
    return Result(
        query=request.query,
        candidates=request.candidates if record["status"] == "failed" else tuple(ranking),
        status=record["status"],
        defects=tuple(record["defects"]),
        usage=Usage(**record["usage"]),
        trace=tuple(_call_from_record(call) for call in record["trace"]),
        error=record["error"],
        n_ranked=record.get("n_ranked"),
    )


def _call_from_record(record: Mapping[str, Any]) -> WindowTrace:
    tuples = {name: tuple(record[name]) for name in ("docids", "order", "defects")}
    scores = None if record["scores"] is None else tuple(record["scores"])
    return WindowTrace(**(record | tuples | {"scores": scores, "usage": Usage(**record["usage"])}))


def answer_from_record(record: Mapping[str, Any]) -> Answer:
    """Rebuild an answer from its record."""
    return Answer(**(record | {"scores": tuple(record["scores"]), "usage": Usage(**record["usage"])}))


def open_locked(path: Path) -> tuple[int, bool]:
    """Open a file for reading and writing, creating it if missing, and lock it until the descriptor is closed.

    Returns the descriptor and whether it is locked; some file systems have no locks. Never follows a symbolic link,
    which could lead to another user's file. Raises RankLLMError for a link, for anything but a regular file, and if
    another process holds the lock; OSError if the file cannot be opened.
    """
    while True:
        # O_NOFOLLOW does not exist on all platforms; where it does, it also stops a link created at this moment.
        if path.is_symlink():
            raise RankLLMError(f"{path}: is a symbolic link; remove it")
        handle = os.open(path, _OPEN_FLAGS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise RankLLMError(f"{path}: is not a regular file; remove it")
            is_locked = _lock(handle, path)
            # The process that held the lock until now may have deleted the file.
            if _is_at(handle, path):
                return handle, is_locked
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, path: Path) -> bool:
    from filelock import lock_descriptor

    try:
        if lock_descriptor(handle, blocking=False):
            return True
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    raise RankLLMError(f"{path}: another process is writing this output; wait for it, or write to another name")


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def delete_locked(handle: int, path: Path) -> None:
    """Delete a file opened by `open_locked`, and close it in any case. Raises OSError if it cannot be deleted."""
    if os.name == "nt":
        # Windows cannot delete an open file; if another process has opened it meanwhile, it is left to that process.
        os.close(handle)
        path.unlink(missing_ok=True)
        return
    try:
        # The lock guarantees that no other process is using a file of this name.
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)
