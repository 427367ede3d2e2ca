"""What a reranking run has done so far, on disk, so that a killed run loses nothing and computes nothing twice.

One JSON object a line: first what the run is, then each query as it finishes, flushed to the disk at once. The outputs
are written from the journal, so a run that was resumed gives the bytes of one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from rankllm_core.errors import RankLLMError
from rankllm_core.files import dumps
from rankllm_core.records import result_to_dict
from rankllm_core.types import Result, Status, Usage

FORMAT = 1
_SHOWN_DIFFERENCES = 3
_HEAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One finished query."""

    qid: str
    status: Status
    ranking: tuple[tuple[str, float], ...]
    """(docid, score), best first; empty for a failed query."""
    usage: Usage
    result: str
    """The line of the results file, without its end."""
    trace: str | None
    """The line of the trace file, without its end."""
    error: str | None


class Journal:
    """An append-only file of finished queries. Use it as a context manager."""

    def __init__(self, path: Path, stream: BinaryIO, places: dict[str, tuple[int, Status]]) -> None:
        self.path = path
        self._stream = stream
        self._places = places

    def __contains__(self, qid: str) -> bool:
        return qid in self._places

    def __len__(self) -> int:
        return len(self._places)

    def forget_failed(self) -> int:
        """Leave failed queries to be asked again; gives their number."""
        failed = [qid for qid, (_, status) in self._places.items() if status == "failed"]
        for qid in failed:
            del self._places[qid]
        return len(failed)

    def add(self, result: Result, *, trace: str | None) -> None:
        """Keep one result. It is on the disk when this returns."""
        place = self._stream.seek(0, os.SEEK_END)
        failed = result.status == "failed"
        record = {
            "qid": result.query.qid,
            "status": result.status,
            "ranking": [] if failed else [[c.docid, c.score] for c in result.candidates],
            "usage": [result.usage.calls, result.usage.prompt_tokens, result.usage.completion_tokens],
            "result": dumps(result_to_dict(result)),
            "trace": trace,
            "error": result.error,
        }
        _write_line(self._stream, record)
        self._places[result.query.qid] = (place, result.status)

    def entries(self, qids: Sequence[str]) -> Iterator[Entry]:
        """The finished queries in the given order."""
        for qid in qids:
            self._stream.seek(self._places[qid][0])
            record = json.loads(self._stream.readline())
            calls, prompt_tokens, completion_tokens = record["usage"]
            yield Entry(
                qid=record["qid"],
                status=record["status"],
                ranking=tuple((docid, score) for docid, score in record["ranking"]),
                usage=Usage(calls=calls, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens),
                result=record["result"],
                trace=record["trace"],
                error=record["error"],
            )

    def remove(self) -> None:
        """Close and delete the journal: its run is done."""
        self._stream.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def journal_path(output: Path) -> Path:
    """`OUTPUT.journal.jsonl` beside the output."""
    return output.with_name(output.name + ".journal.jsonl")


def open_journal(path: Path, settings: Mapping[str, object]) -> Journal:
    """Go on with the journal of the same run, or begin one.

    settings: everything that decides the outputs, as JSON values. Raises RankLLMError when the journal there is another
    run's, naming what differs. A last line that was cut off is dropped: its query is computed again.
    """
    header = {"rankllm_journal": FORMAT, "settings": json.loads(json.dumps(settings))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("r+b") if path.exists() else path.open("w+b")
    except OSError as error:
        raise RankLLMError(f"{path}: the journal cannot be written ({error.strerror})") from None
    try:
        places = _read(path, stream, header)
    except BaseException:
        stream.close()
        raise
    return Journal(path, stream, places)


def file_fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_fingerprint(folder: Path) -> str:
    """SHA-256 over a checkpoint's files: small ones whole, of weights the name, the size and the first megabyte."""
    digest = hashlib.sha256()
    for path in sorted(item for item in folder.iterdir() if item.is_file()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            digest.update(stream.read(_HEAD_BYTES))
    return digest.hexdigest()


def _read(path: Path, stream: BinaryIO, header: Mapping[str, object]) -> dict[str, tuple[int, Status]]:
    """Places of the finished queries; an empty file gets the header."""
    places: dict[str, tuple[int, Status]] = {}
    first = stream.readline()
    if not first.endswith(b"\n"):
        # Nothing, or a header that was cut off while it was written: no query had finished yet.
        stream.seek(0)
        stream.truncate()
        _write_line(stream, header)
        return places
    _check_same(path, _object(first), header)
    while True:
        place = stream.tell()
        line = stream.readline()
        if not line:
            return places
        record = _object(line) if line.endswith(b"\n") else None
        if record is None or "qid" not in record:
            if stream.read(1):
                raise RankLLMError(f"{path}: damaged at byte {place}; begin anew with --overwrite")
            stream.seek(place)
            stream.truncate()
            return places
        places[record["qid"]] = (place, record["status"])


def _object(line: bytes) -> dict[str, object] | None:  # type: ignore[type-arg]
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _check_same(path: Path, found: Mapping[str, object] | None, wanted: Mapping[str, object]) -> None:
    if found is None or found.get("rankllm_journal") != FORMAT or not isinstance(found.get("settings"), dict):
        raise RankLLMError(f"{path}: not a journal of this version; begin anew with --overwrite")
    old, new = found["settings"], wanted["settings"]
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))  # type: ignore[union-attr,misc]
    if names:
        shown = "; ".join(f"{n} was {old.get(n)!r}, is {new.get(n)!r}" for n in names[:_SHOWN_DIFFERENCES])  # type: ignore[union-attr,attr-defined]
        more = f"; and {len(names) - _SHOWN_DIFFERENCES} more" if len(names) > _SHOWN_DIFFERENCES else ""
        raise RankLLMError(
            f"{path}: an unfinished run with other settings: {shown}{more}. Repeat its command to finish it, "
            "write to another file, or begin anew with --overwrite"
        )


def _write_line(stream: BinaryIO, record: Mapping[str, object]) -> None:
    stream.write(dumps(record).encode("utf-8") + b"\n")
    stream.flush()
    os.fsync(stream.fileno())
