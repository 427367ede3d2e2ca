"""A journal on the disk: its sealed lines, results and answers as records, and the file, locked while a run is at work.

A line is one JSON object with a checksum that also covers every line before it. A checksum that continues the one of
the line before notices flipped bits, and lines that were removed, repeated, reordered or copied from another journal.
What a kill or a power failure leaves at the end is told from damage: nothing intact follows it.
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
"""How a journal of this format begins."""
_OTHER_FORMAT = re.compile(re.escape(_OPENING) + rb"(\d{1,9}), ")
_SEAL = b', "crc32": "%08x"}\n'
_SEAL_BYTES = len(_SEAL % 0)
_SEALED = re.compile(rb', "crc32": "[0-9a-f]{8}"\}\n\Z')
_CRC_BITS = 32

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


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
    return _parsed_record(line, path=path, number=None)


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
        record = _parsed_record(line, path=path, number=number)
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


def _parsed_record(line: bytes, *, path: Path, number: int | None) -> dict[str, Any]:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise DataError(f"expected a JSON object, found {type(record).__name__}", path=path, line=number)
    return record


def result_to_record(result: Result) -> dict[str, object]:
    """Return what a journal keeps of a finished query: its candidates by docid, without their texts."""
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
    """Return a finished query's result as it was kept. request: what was asked, with the passages."""
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
    """Return an answer as it was kept."""
    return Answer(**(record | {"scores": tuple(record["scores"]), "usage": Usage(**record["usage"])}))


def open_locked(path: Path) -> tuple[int, bool]:
    """Open a file to read and write, created where it is missing, and lock it until the descriptor is closed.

    Returns the descriptor and whether it is locked: some file systems have no locks. A symbolic link is never followed,
    since it could lead to somebody else's file. Raises RankLLMError for a link or anything but a file, and where
    another process has the lock; OSError where the file cannot be opened.
    """
    while True:
        # O_NOFOLLOW is not on every platform; where it is, it also stops a link that is made right now.
        if path.is_symlink():
            raise RankLLMError(f"{path}: is a symbolic link, which is not written through; remove it")
        handle = os.open(path, _OPEN_FLAGS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise RankLLMError(f"{path}: is not a file; remove it")
            is_locked = _lock(handle, path)
            # A process that had it locked until now may have deleted it in the meantime.
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
    raise RankLLMError(f"{path}: another process is at work on this output; wait for it, or write to another name")


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def delete_locked(handle: int, path: Path) -> None:
    """Delete a file that `open_locked` opened. Raises OSError where it cannot be deleted; closes it either way."""
    if os.name == "nt":
        # An open file cannot be deleted there; one that another process has opened meanwhile is left to that one.
        os.close(handle)
        path.unlink(missing_ok=True)
        return
    try:
        # Under the lock: no other process can be at work on a file of this name.
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)
