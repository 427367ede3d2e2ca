"""What a reranking run has done so far, on disk, so that a killed run loses nothing and computes nothing twice.

One JSON object a line, each handed to the operating system whole before the run goes on: first what the run is, then
the answers of each batch, each query as it finishes, and where the outputs are. Outputs are written from the journal
alone, so a run that was broken off gives the bytes of one that was not. Passages are in the input, and not in it again.
Every line carries a checksum (`journal_file`), so that no damaged answer becomes a result.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_core.files.manifest import sha256_file
from rankllm_core.types import Request, Result
from rankllm_infer.engines.base import Answer
from rankllm_infer.jobs.fingerprint import SHOWN_DIFFERENCES, changed_names, difference
from rankllm_infer.jobs.journal_file import (
    FORMAT,
    answer_from_record,
    delete_locked,
    key_of,
    open_locked,
    read_line,
    read_lines,
    result_from_record,
    result_to_record,
    seal,
)

JOURNAL_SUFFIX = ".journal.jsonl"
_LONGEST_NAME_BYTES = 255
"""What common file systems take."""
_SYNC_EVERY_S = 1.0
"""A killed process loses nothing that it has written. The power may fail, too: that costs so much at the most."""


def journal_path(output: Path) -> Path:
    """`OUTPUT.journal.jsonl` beside the output. Raises RankLLMError for a name that no journal can be beside."""
    name = output.name + JOURNAL_SUFFIX
    if not output.name or len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        longest = _LONGEST_NAME_BYTES - len(JOURNAL_SUFFIX)
        raise RankLLMError(
            f"{str(output)[:60]!r}: a name of {len(os.fsencode(output.name))} bytes, expected 1 to {longest}, "
            "as its journal is named after it; use another name"
        )
    return output.with_name(name)


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
        self._sums: Mapping[str, str] = {}
        self._keys: dict[str, int] = {}
        self._failed: set[str] = set()
        self._answers: dict[str, dict[int, Answer]] = {}
        self._end = self._checksum = 0
        self._synced = time.monotonic()
        self._handle = self._open_locked()
        self._is_bare = False
        """Whether it holds nothing that anybody would miss."""
        try:
            if not is_new:
                self._read()
            self._is_bare = not (self._keys or self._answers or (is_new and os.fstat(self._handle).st_size))
        except BaseException:
            os.close(self._handle)
            raise

    def begin(
        self, settings: Mapping[str, object], *, outputs: Sequence[Path] = (), unknown: Collection[str] = ()
    ) -> None:
        """Say what the run is. Where the journal is another run's, raise RankLLMError that names what differs.

        settings: everything that decides results, as JSON values. outputs: files that are there and may be replaced.
        unknown: see `check`.
        """
        self.check(settings, unknown=unknown)
        try:
            os.ftruncate(self._handle, self._end)  # what was torn, or is to be forgotten
        except OSError as error:
            raise self._unwritable(error) from None
        if not self.settings:
            self.settings = settings
            self.outputs = frozenset(_names(outputs))
            head = {"rankllm_journal": FORMAT, "settings": settings, "outputs": _names(outputs)}
            # No two journals share a line: one that was copied from another is noticed by its checksum.
            self._write(head | {"run": secrets.token_hex(8)})
            self._sync()
            self._is_bare = True

    def check(self, settings: Mapping[str, object], *, unknown: Collection[str] = ()) -> None:
        """Raise RankLLMError where these settings are not those that the run was begun with.

        unknown: names of settings that are not known yet, such as what the loaded model tells.
        """
        known = {name: value for name, value in self.settings.items() if name not in unknown}
        if self.settings and (changes := difference(known, settings)):
            more = changed_names(known, settings)[SHOWN_DIFFERENCES:]
            also = f" (also changed: {', '.join(more)})" if more else ""
            raise RankLLMError(
                f"{self.path}: an unfinished run with other settings: {changes}. Resume with the old ones, "
                f"start over with --overwrite, or write to another name{also}"
            )

    @property
    def n_finished(self) -> int:
        """Queries with a result, failed ones included."""
        return len(self._keys)

    @property
    def n_failed(self) -> int:
        """Queries whose result is that they failed."""
        return len(self._failed)

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing in it to go on with."""
        return self._is_bare

    def is_finished(self, qid: str) -> bool:
        """Whether the query has a result."""
        return qid in self._keys

    def recall(self, qid: str, number: int) -> Answer | None:
        """The answer to a prompt of an unfinished query, where it was known when the journal was opened."""
        return self._answers.get(qid, {}).get(number)

    def keep(self, answers: Sequence[tuple[str, int, Answer]]) -> None:
        """Write down the answers of one batch."""
        self._write({"answers": [[qid, number, asdict(answer)] for qid, number, answer in answers]})

    def add(self, result: Result) -> None:
        """Write down a finished query."""
        key = self._write(result_to_record(result))
        self._finish(result.query.qid, key, is_failed=result.status == "failed")

    def forget_failed(self) -> None:
        """Leave failed queries to be asked again."""
        for qid in self._failed:
            del self._keys[qid]
        self._failed.clear()

    def result(self, request: Request) -> Result:
        """The result of a finished query, as it was added. request: what was asked, with the passages."""
        return result_from_record(self._record(self._keys[request.query.qid]), request)

    def note_outputs(self, paths: Sequence[Path], *, are_complete: bool) -> None:
        """Note which files are about to be written from the journal, or, once they are there, that they hold it all."""
        sums = {name: sha256_file(name) for name in _names(paths) if are_complete and os.path.exists(name)}
        self._write({"outputs": _names(paths), "are_complete": are_complete, "sha256": sums})
        # Renamed outputs must never be on the disk before the note that they are this run's.
        self._sync()
        self.outputs, self.is_complete, self._sums = self.outputs | set(_names(paths)), are_complete, sums

    def was_edited(self, path: Path) -> bool:
        """Whether an output is there and has changed since it held all that the journal holds."""
        written = self._sums.get(str(path.absolute()))
        try:
            return self.is_complete and written is not None and path.exists() and sha256_file(path) != written
        except OSError as error:
            raise RankLLMError(f"{path}: cannot be read ({error.strerror})") from None

    def remove(self) -> None:
        """Delete the journal when it is closed: its run is over."""
        self._is_bare = True

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_bare:
            os.close(self._handle)
            return
        try:
            delete_locked(self._handle, self.path)
        except OSError as problem:
            if error is None:
                raise RankLLMError(f"{self.path}: cannot be deleted ({problem.strerror}); delete it") from None

    def _open_locked(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, is_locked = open_locked(self.path)
        except OSError as error:
            raise self._unwritable(error) from None
        if not is_locked:
            self.warnings = (f"{self.path.parent}: files cannot be locked here; start no second run on this output",)
        return handle

    def _read(self) -> None:
        try:
            with open(self._handle, "rb", closefd=False) as stream:
                for line in read_lines(stream, path=self.path):
                    self._take(line.record, line.key)
                    self._end, self._checksum = line.end, line.checksum
                stream.seek(max(self._end, os.fstat(self._handle).st_size - 1))
                is_whole = stream.read(1) == b"\n"
        except OSError as error:
            raise RankLLMError(f"{self.path}: the journal cannot be read ({error.strerror})") from None
        except (KeyError, TypeError, ValueError) as error:
            # Intact, and yet not what this version writes.
            raise RankLLMError(
                f"{self.path}: a line at byte {self._end} was written by another version of rankllm-infer "
                f"({type(error).__name__}: {error}); start over with --overwrite"
            ) from None
        if is_whole:  # A kill leaves no line end.
            message = f"{self.path}: damaged from byte {self._end} to its end; what that held is computed again"
            self.warnings = (*self.warnings, message)

    def _take(self, record: Mapping[str, Any], key: int) -> None:
        if "rankllm_journal" in record:
            self.settings, self.outputs = record["settings"], frozenset(record["outputs"])
            return
        if "outputs" in record:
            self.outputs, self.is_complete = self.outputs | set(record["outputs"]), record["are_complete"]
            self._sums = record["sha256"]
            return
        self.is_complete = False
        if "answers" not in record:
            self._finish(record["qid"], key, is_failed=record["status"] == "failed")
            return
        for qid, number, answer in record["answers"]:
            self._answers.setdefault(qid, {})[number] = answer_from_record(answer)

    def _finish(self, qid: str, key: int, *, is_failed: bool) -> None:
        self._keys[qid] = key
        self._failed.add(qid) if is_failed else self._failed.discard(qid)
        # Where the query failed, its answers may be why: asked again, it is asked from the beginning.
        self._answers.pop(qid, None)

    def _record(self, key: int) -> dict[str, Any]:
        try:
            with open(self._handle, "rb", closefd=False) as stream:
                return read_line(stream, key, path=self.path)
        except OSError as error:
            raise RankLLMError(f"{self.path}: the journal cannot be read ({error.strerror})") from None

    def _write(self, record: Mapping[str, object]) -> int:
        """Append a line; give its key. A line that did not fit is overwritten by the next one, or found torn."""
        key = key_of(self._end, self._checksum)
        line, checksum = seal(record, self._checksum)
        rest = memoryview(line)
        try:
            os.lseek(self._handle, self._end, os.SEEK_SET)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            raise self._unwritable(error) from None
        self._end, self._checksum, self._is_bare = self._end + len(line), checksum, False
        if time.monotonic() - self._synced > _SYNC_EVERY_S:
            self._sync()
        return key

    def _sync(self) -> None:
        """Hand what is written to the disk."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise self._unwritable(error) from None
        self._synced = time.monotonic()

    def _unwritable(self, error: OSError) -> RankLLMError:
        return RankLLMError(f"{self.path}: the journal cannot be written ({error.strerror})")


def _names(paths: Sequence[Path]) -> list[str]:
    return sorted(str(path.absolute()) for path in paths)
