"""Journal of a reranking run on disk, so that an interrupted run loses nothing and computes nothing twice.

One JSON object per line, each passed to the operating system in full before the run continues: first the run's
settings, then the answers of each batch, each query as it finishes, and the paths of the outputs. Outputs are written
from the journal alone, so an interrupted and resumed run produces the same bytes as an uninterrupted one. Passage texts
are not repeated in the journal; they come from the input. Every line carries a checksum (`journal_file`), so that no
damaged answer becomes a result.
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
"""Limit of common file systems."""
_SYNC_EVERY_S = 1.0
"""Maximum seconds between fsyncs. A killed process loses nothing it has written; a power failure loses at most this
much."""


def journal_path(output: Path) -> Path:
    """Return `OUTPUT.journal.jsonl` next to the output. Raises RankLLMError if the output's name is too long for it."""
    name = output.name + JOURNAL_SUFFIX
    if not output.name or len(os.fsencode(name)) > _LONGEST_NAME_BYTES:
        longest = _LONGEST_NAME_BYTES - len(JOURNAL_SUFFIX)
        raise RankLLMError(
            f"{str(output)[:60]!r}: file name of {len(os.fsencode(output.name))} bytes, expected 1 to {longest}, "
            "because the journal's name is longer; use another name"
        )
    return output.with_name(name)


class Journal:
    """Journal of one run: an `AnswerLog` for the pool, and results in the order in which they finish.

    Opening locks it until it is closed or the process dies, so that no two runs write the same outputs. Nothing is
    written before `begin`, and a journal without answers or results leaves no file. is_new: discard existing contents.
    Memory: a number per finished query, and the answers of unfinished queries. Raises RankLLMError.
    """

    def __init__(self, path: Path, *, is_new: bool = False) -> None:
        self.path = path
        self.warnings: tuple[str, ...] = ()
        self.settings: Mapping[str, object] = {}
        """Settings of the run; empty before `begin`."""
        self.outputs: frozenset[str] = frozenset()
        """Absolute paths of the files that this run may replace."""
        self.is_complete = False
        """True if the outputs contain everything in the journal."""
        self._sums: Mapping[str, str] = {}
        self._keys: dict[str, int] = {}
        self._failed: set[str] = set()
        self._answers: dict[str, dict[int, Answer]] = {}
        self._end = self._checksum = 0
        self._synced = time.monotonic()
        self._handle = self._open_locked()
        self._is_bare = False
        """True if it contains nothing worth keeping."""
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
        """Record the run's settings. Raises RankLLMError naming the differences if the journal belongs to another run.

        settings: everything that determines results, as JSON values. outputs: existing files that may be replaced.
        unknown: see `check`.
        """
        self.check(settings, unknown=unknown)
        try:
            os.ftruncate(self._handle, self._end)  # drop a partial last line, or discarded contents
        except OSError as error:
            raise self._unwritable(error) from None
        if not self.settings:
            self.settings = settings
            self.outputs = frozenset(_names(outputs))
            head = {"rankllm_journal": FORMAT, "settings": settings, "outputs": _names(outputs)}
            # A random id makes all lines unique to this journal: its checksums detect a line copied from another one.
            self._write(head | {"run": secrets.token_hex(8)})
            self._sync()
            self._is_bare = True

    def check(self, settings: Mapping[str, object], *, unknown: Collection[str] = ()) -> None:
        """Raise RankLLMError if the settings differ from those the run was started with.

        unknown: names of settings that are not known yet, such as those of the loaded model.
        """
        known = {name: value for name, value in self.settings.items() if name not in unknown}
        if self.settings and (changes := difference(known, settings)):
            more = changed_names(known, settings)[SHOWN_DIFFERENCES:]
            also = f" (also changed: {', '.join(more)})" if more else ""
            raise RankLLMError(
                f"{self.path}: an unfinished run with other settings: {changes}. Resume with the old settings, "
                f"start over with --overwrite, or write to another name{also}"
            )

    @property
    def n_finished(self) -> int:
        """Number of queries with a result, including failed ones."""
        return len(self._keys)

    @property
    def n_failed(self) -> int:
        """Number of queries that failed."""
        return len(self._failed)

    @property
    def is_bare(self) -> bool:
        """True if there is nothing to resume from."""
        return self._is_bare

    def is_finished(self, qid: str) -> bool:
        """Return whether the query has a result."""
        return qid in self._keys

    def recall(self, qid: str, number: int) -> Answer | None:
        """Return the answer to a prompt of an unfinished query if it was in the journal when opened."""
        return self._answers.get(qid, {}).get(number)

    def keep(self, answers: Sequence[tuple[str, int, Answer]]) -> None:
        """Append the answers of one batch."""
        self._write({"answers": [[qid, number, asdict(answer)] for qid, number, answer in answers]})

    def add(self, result: Result) -> None:
        """Append a finished query."""
        key = self._write(result_to_record(result))
        self._finish(result.query.qid, key, is_failed=result.status == "failed")

    def forget_failed(self) -> None:
        """Forget failed queries, so that they are retried."""
        for qid in self._failed:
            del self._keys[qid]
        self._failed.clear()

    def result(self, request: Request) -> Result:
        """Return the result of a finished query as it was added. request: the query with its passages."""
        return result_from_record(self._record(self._keys[request.query.qid]), request)

    def note_outputs(self, paths: Sequence[Path], *, are_complete: bool) -> None:
        """Record which files are about to be written from the journal or, once written, that they are complete."""
        sums = {name: sha256_file(name) for name in _names(paths) if are_complete and os.path.exists(name)}
        self._write({"outputs": _names(paths), "are_complete": are_complete, "sha256": sums})
        # Outputs must not be renamed into place before the note that they belong to this run is on disk.
        self._sync()
        self.outputs, self.is_complete, self._sums = self.outputs | set(_names(paths)), are_complete, sums

    def was_edited(self, path: Path) -> bool:
        """Return whether an output exists and was modified after this run completed it."""
        written = self._sums.get(str(path.absolute()))
        try:
            return self.is_complete and written is not None and path.exists() and sha256_file(path) != written
        except OSError as error:
            raise RankLLMError(f"{path}: cannot be read ({error.strerror})") from None

    def remove(self) -> None:
        """Delete the journal on closing: its run is complete."""
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
            self.warnings = (
                f"{self.path.parent}: this file system has no locks; do not start a second run on this output",
            )
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
            # Intact, but not written by this version.
            raise RankLLMError(
                f"{self.path}: a line at byte {self._end} was written by another version of rankllm-infer "
                f"({type(error).__name__}: {error}); start over with --overwrite"
            ) from None
        if is_whole:  # A killed process leaves no final newline.
            message = f"{self.path}: damaged from byte {self._end} to the end; the lost part is recomputed"
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
        # A failed query's answers may have caused the failure: a retry starts from scratch.
        self._answers.pop(qid, None)

    def _record(self, key: int) -> dict[str, Any]:
        try:
            with open(self._handle, "rb", closefd=False) as stream:
                return read_line(stream, key, path=self.path)
        except OSError as error:
            raise RankLLMError(f"{self.path}: the journal cannot be read ({error.strerror})") from None

    def _write(self, record: Mapping[str, object]) -> int:
        """Append a line and return its key. A partially written line is overwritten by the next, or detected as
        incomplete."""
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
        """Flush written data to disk."""
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise self._unwritable(error) from None
        self._synced = time.monotonic()

    def _unwritable(self, error: OSError) -> RankLLMError:
        return RankLLMError(f"{self.path}: the journal cannot be written ({error.strerror})")


def _names(paths: Sequence[Path]) -> list[str]:
    return sorted(str(path.absolute()) for path in paths)
