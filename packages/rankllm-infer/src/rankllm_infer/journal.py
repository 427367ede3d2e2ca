"""What a reranking run has done so far, on disk, so that a killed run loses nothing and computes nothing twice.

One JSON object a line, each handed to the operating system whole before the run goes on: first what the run is, then
the answers of each batch, each query as it finishes, and where the outputs are. Outputs are written from the journal
alone, so a run that was broken off gives the bytes of one that was not. Passages are in the input, and not in it again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_core.files import dumps
from rankllm_core.types import Request, Result, Usage, WindowTrace
from rankllm_infer.engines import Answer
from rankllm_infer.run_settings import difference

FORMAT = 1
_HEAD = f'{{"rankllm_journal": {FORMAT}, '.encode()
"""How a journal begins."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_SYNC_EVERY_S = 1.0
"""A killed process loses nothing that it has written. The power may fail, too: that costs so much at the most."""


def journal_path(output: Path) -> Path:
    """`OUTPUT.journal.jsonl` beside the output."""
    return output.with_name(output.name + ".journal.jsonl")


class Journal:
    """The journal of one run: an `AnswerLog` for the pool, and the results in whatever order they come.

    Opening it locks it until it is closed, also by a kill, so that no two runs write the same outputs. Nothing is
    written before `begin`, and a journal without an answer or a result leaves no file. is_new: forget what is there.
    Memory: a number for each finished query, the answers to prompts of queries that are not. Raises RankLLMError.
    """

    def __init__(self, path: Path, *, is_new: bool = False) -> None:
        self.path = path
        self.warnings: tuple[str, ...] = ()
        self.settings: Mapping[str, object] = {}
        """What the run is; empty before `begin`."""
        self.outputs: frozenset[str] = frozenset()
        """Absolute names of the files that this run may replace."""
        self.is_complete = False
        """Whether the outputs hold all that the journal holds."""
        self._places: dict[str, int] = {}
        self._failed: set[str] = set()
        self._answers: dict[str, dict[int, Answer]] = {}
        self._end = 0
        self._synced = time.monotonic()
        self._handle = self._open_locked()
        self._is_bare = False
        """Whether it holds nothing that anybody would miss."""
        try:
            if not is_new:
                self._read()
            self._is_bare = not (self._places or self._answers or (is_new and os.fstat(self._handle).st_size))
        except BaseException:
            os.close(self._handle)
            raise

    def begin(self, settings: Mapping[str, object], *, outputs: Sequence[Path] = ()) -> None:
        """Say what the run is. Where the journal is another run's, raise RankLLMError that names what differs.

        settings: everything that decides results, as JSON values. outputs: files that are there and may be replaced.
        """
        self.check(settings)
        try:
            os.ftruncate(self._handle, self._end)  # what was torn, or is to be forgotten
        except OSError as error:
            raise self._unwritable(error) from None
        if not self.settings:
            self.settings = settings
            self.outputs = frozenset(_names(outputs))
            self._write({"rankllm_journal": FORMAT, "settings": settings, "outputs": _names(outputs)})
            self._is_bare = True

    def check(self, settings: Mapping[str, object]) -> None:
        """Raise RankLLMError where one of these settings is not what the run was begun with."""
        known = {name: self.settings.get(name) for name in settings}
        if self.settings and (changes := difference(known, settings)):
            raise RankLLMError(
                f"{self.path}: an unfinished run with other settings: {changes}. Go on with the old ones, "
                "begin anew with --overwrite, or write to another name"
            )

    @property
    def n_finished(self) -> int:
        """Queries with a result, failed ones included."""
        return len(self._places)

    @property
    def n_failed(self) -> int:
        """Queries whose result is that they failed."""
        return len(self._failed)

    @property
    def n_answers(self) -> int:
        """Answers known to prompts of queries without a result, when the journal was opened."""
        return sum(map(len, self._answers.values()))

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing in it to go on with."""
        return self._is_bare

    def is_finished(self, qid: str) -> bool:
        """Whether the query has a result."""
        return qid in self._places

    def recall(self, qid: str, number: int) -> Answer | None:
        """The answer to a prompt of an unfinished query, where it was known when the journal was opened."""
        return self._answers.get(qid, {}).get(number)

    def keep(self, answers: Sequence[tuple[str, int, Answer]]) -> None:
        """Write down the answers of one batch."""
        self._write({"answers": [[qid, number, asdict(answer)] for qid, number, answer in answers]})

    def add(self, result: Result) -> None:
        """Write down a finished query."""
        is_failed = result.status == "failed"
        record = {
            "qid": result.query.qid,
            "status": result.status,
            "ranking": [] if is_failed else [[c.docid, c.score, c.model_score] for c in result.candidates],
            "defects": result.defects,
            "usage": asdict(result.usage),
            "n_ranked": result.n_ranked,
            "trace": [asdict(call) for call in result.trace],
            "error": result.error,
        }
        self._finish(result.query.qid, self._write(record), is_failed=is_failed)

    def forget_failed(self) -> None:
        """Leave failed queries to be asked again."""
        for qid in self._failed:
            del self._places[qid]
        self._failed.clear()

    def result(self, request: Request) -> Result:
        """The result of a finished query, as it was added. request: what was asked, with the passages."""
        record = self._record_at(self._places[request.query.qid])
        given = {candidate.docid: candidate for candidate in request.candidates}
        ranking = (replace(given[docid], score=score, model_score=told) for docid, score, told in record["ranking"])
        return Result(
            query=request.query,
            candidates=request.candidates if record["status"] == "failed" else tuple(ranking),
            status=record["status"],
            defects=tuple(record["defects"]),
            usage=Usage(**record["usage"]),
            trace=tuple(_call(call) for call in record["trace"]),
            error=record["error"],
            n_ranked=record.get("n_ranked"),
        )

    def note_outputs(self, paths: Sequence[Path], *, are_complete: bool) -> None:
        """Note which files are about to be written from the journal, or, once they are there, that they hold it all."""
        self._write({"outputs": _names(paths), "are_complete": are_complete})
        self.outputs, self.is_complete = self.outputs | set(_names(paths)), are_complete

    def remove(self) -> None:
        """Delete the journal when it is closed: its run is over."""
        self._is_bare = True

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Deleted under the lock: by then no other process has a journal of this name.
        if self._is_bare:
            self.path.unlink(missing_ok=True)
        os.close(self._handle)

    def _open_locked(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                self._lock(handle)
                # A process that had it locked until now may have deleted it meanwhile.
                if self.path.exists() and os.path.samestat(os.fstat(handle), self.path.stat()):
                    return handle
                os.close(handle)
        except OSError as error:
            raise self._unwritable(error) from None

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise RankLLMError(
                f"{self.path}: another process is at work on this output; wait for it, or write to another name"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(handle)
                raise
            self.warnings = (f"{self.path.parent}: files cannot be locked here; start no second run on this output",)

    def _read(self) -> None:
        with open(self._handle, "rb", closefd=False) as stream:
            first = stream.readline()
            if not _HEAD.startswith(first[: len(_HEAD)]):
                raise RankLLMError(f"{self.path}: no journal of this version; --overwrite begins a new one")
            if (header := _object(first)) is None:
                if stream.read(1):
                    raise RankLLMError(f"{self.path}: damaged in its first line; begin anew with --overwrite")
                return  # Empty, or killed while it was begun.
            self.settings, self.outputs = header["settings"], frozenset(header["outputs"])
            self._end = stream.tell()
            for line in stream:
                if (record := _object(line)) is None:
                    if stream.read(1):
                        raise RankLLMError(f"{self.path}: damaged at byte {self._end}; begin anew with --overwrite")
                    return  # Killed while it was written: what it held is computed again.
                self._take(record, self._end)
                self._end += len(line)

    def _take(self, record: Mapping[str, Any], place: int) -> None:
        if "outputs" in record:
            self.outputs, self.is_complete = self.outputs | set(record["outputs"]), record["are_complete"]
            return
        self.is_complete = False
        if "answers" not in record:
            self._finish(record["qid"], place, is_failed=record["status"] == "failed")
            return
        for qid, number, answer in record["answers"]:
            self._answers.setdefault(qid, {})[number] = _answer(answer)

    def _finish(self, qid: str, place: int, *, is_failed: bool) -> None:
        self._places[qid] = place
        self._failed.add(qid) if is_failed else self._failed.discard(qid)
        # Where the query failed, its answers may be why: asked again, it is asked from the beginning.
        self._answers.pop(qid, None)

    def _record_at(self, place: int) -> dict[str, Any]:
        os.lseek(self._handle, place, os.SEEK_SET)
        with open(self._handle, "rb", closefd=False) as stream:
            return json.loads(stream.readline())  # type: ignore[no-any-return]

    def _write(self, record: Mapping[str, object]) -> int:
        """Append a line; give its place. A line that did not fit is overwritten by the next one, or found torn."""
        place = end = self._end
        line = memoryview(dumps(record).encode("utf-8") + b"\n")
        try:
            while line:
                n_written = os.pwrite(self._handle, line, end)
                line, end = line[n_written:], end + n_written
            if time.monotonic() - self._synced > _SYNC_EVERY_S:
                os.fsync(self._handle)
                self._synced = time.monotonic()
        except OSError as error:
            raise self._unwritable(error) from None
        self._end, self._is_bare = end, False
        return place

    def _unwritable(self, error: OSError) -> RankLLMError:
        return RankLLMError(f"{self.path}: the journal cannot be written ({error.strerror})")


def _names(paths: Sequence[Path]) -> list[str]:
    return sorted(str(path.absolute()) for path in paths)


def _object(line: bytes) -> dict[str, Any] | None:
    """The record of a whole line; None of a torn one."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _answer(record: Mapping[str, Any]) -> Answer:
    return Answer(**(record | {"scores": tuple(record["scores"]), "usage": Usage(**record["usage"])}))


def _call(record: Mapping[str, Any]) -> WindowTrace:
    tuples = {name: tuple(record[name]) for name in ("docids", "order", "defects")}
    scores = None if record["scores"] is None else tuple(record["scores"])
    return WindowTrace(**(record | tuples | {"scores": scores, "usage": Usage(**record["usage"])}))
