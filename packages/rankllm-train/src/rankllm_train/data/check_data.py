"""Validation of a whole training file: a summary of its contents and the records that cannot be trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.types import IdentifierKind
from rankllm_train.data.bad_records import BadRecords
from rankllm_train.data.rankings import identifier_kind
from rankllm_train.data.record_checks import check_group, check_texts, checked_ranks
from rankllm_train.data.records import parse_listwise, parse_pointwise
from rankllm_train.data.sources import source_rows

RecordKind = Literal["listwise", "pointwise"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    path: str
    n_records: int
    """Number of records, good and bad."""
    problems: tuple[str, ...]
    """One line per bad record, in file order: file, line, record and what is wrong with it."""
    stopped: str | None
    """Why and where reading stopped before the end of the file; None if it did not."""

    @property
    def n_good(self) -> int:
        """Number of records without a problem."""
        return self.n_records - len(self.problems)

    @property
    def is_clean(self) -> bool:
        """Whether the file was read to its end and has records, all of them good."""
        return self.stopped is None and not self.problems and self.n_records > 0

    def verdict(self) -> str:
        """Return what prevents training on the file as it is; empty if nothing does."""
        if self.stopped or self.is_clean:
            return self.stopped or ""
        if not self.n_records:
            return f"{self.path}: contains no records"
        return (
            f"{self.path}: {len(self.problems)} of {self.n_records} records are invalid; correct them, or train with "
            "--bad-records skip"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseReport(_Report):
    """Contents of a listwise training file."""

    n_with_system: int
    """Number of good records with a system turn."""
    n_by_kind: Mapping[IdentifierKind, int]
    """Number of good records per kind of identifier in the prompt."""
    n_by_length: Mapping[int, int]
    """Number of good records per number of passages, ascending."""

    def verdict(self) -> str:
        """Return what prevents training on the file, including two kinds of identifiers in otherwise good records."""
        # super() without arguments does not find the class, since slots=True creates a new one.
        found = _Report.verdict(self)
        if not found and len(self.n_by_kind) > 1:
            return (
                f"{self.path}: contains both numeric and alpha identifiers; train with --identifiers alpha or numeric"
            )
        return found

    def summary(self) -> list[str]:
        """Return the summary lines for the user."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.n_by_kind.items()) or "none"
        lines = [f"{self.n_records} records, {self.n_good} valid ({kinds}); with a system turn: {self.n_with_system}"]
        if self.n_by_length:
            lines.append(", ".join(f"{n} with {length} passages" for length, n in self.n_by_length.items()))
        if n_single := self.n_by_length.get(1, 0):
            lines.append(
                f"{n_single} with a single passage have no order, which --objective ranking and combined require"
            )
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseReport(_Report):
    """Contents of a pointwise training file."""

    n_with_teacher: int
    """Number of good records with teacher scores."""
    n_positives: int
    """Number of positive passages in good records."""
    n_by_negatives: Mapping[int, int]
    """Number of good records per number of negatives, ascending."""

    def summary(self) -> list[str]:
        """Return the summary lines for the user."""
        n_without = self.n_good - self.n_with_teacher
        lines = [
            f"{self.n_records} records, {self.n_good} valid (pointwise); positives: {self.n_positives}; "
            f"with teacher scores: {self.n_with_teacher}"
        ]
        if self.n_by_negatives:
            lines.append(", ".join(f"{n} with {length} negatives" for length, n in self.n_by_negatives.items()))
        if 0 < self.n_with_teacher < self.n_good:
            lines.append(f"{n_without} have no teacher scores, which --objective kl and margin require")
        return lines


def check_data(path: str | Path, *, kind: RecordKind | None = None) -> ListwiseReport | PointwiseReport:
    """Validate a file or data set of either kind.

    kind: kind of its records; None: that of the first record whose kind is recognizable. Raises RankLLMError if the
    file cannot be opened or, unless the kind is given, if it contains records of both kinds.
    """
    first = None if kind else _first_of_a_kind(path)
    found = kind or (first[0] if first else "listwise")
    return check_listwise(path, alone=first) if found == "listwise" else check_pointwise(path, alone=first)


_First = tuple[RecordKind, int]
"""A kind, and the line or row of the first record of that kind."""


def _first_of_a_kind(path: str | Path) -> _First | None:
    try:
        for line, value in source_rows(str(path)):
            kind = None if isinstance(value, DataError) else _kind_of(value)
            if kind is not None:
                return kind, line
    except DataError:
        return None  # The check stops there too, and reports why.
    return None


def _kind_of(record: Mapping[str, object]) -> RecordKind | None:
    if "conversations" in record:
        return "listwise"
    return "pointwise" if "positive_passages" in record or "passages" in record else None


def check_listwise(path: str | Path, *, alone: _First | None = None) -> ListwiseReport:
    """Validate every record of a listwise training file, without stopping at the first bad one.

    A record is bad if a turn is missing or empty, its prompt does not number its passages in order, its target is not a
    ranking or repeats, omits or invents an identifier, the number of docids differs from the number of passages, or all
    passages have the same text.

    alone: the first record of the expected kind; a record of the other kind then raises RankLLMError instead of
    counting as bad. Raises RankLLMError if the file cannot be opened.
    """
    tally = _ListwiseTally()
    bad, stopped = _read(path, tally.add, alone=alone)
    return ListwiseReport(
        path=str(path),
        n_records=bad.n_read,
        n_with_system=tally.n_with_system,
        n_by_kind=dict(tally.n_by_kind),
        n_by_length=dict(sorted(tally.n_by_length.items())),
        problems=bad.reasons,
        stopped=stopped,
    )


def check_pointwise(path: str | Path, *, alone: _First | None = None) -> PointwiseReport:
    """Validate every record of a pointwise training file, without stopping at the first bad one.

    A record is bad if its query, positives or negatives are missing or blank, a passage has no text, only some passages
    have teacher scores, or the same passage, by docid or text, is both a positive and a negative.
    """
    tally = _PointwiseTally()
    bad, stopped = _read(path, tally.add, alone=alone)
    return PointwiseReport(
        path=str(path),
        n_records=bad.n_read,
        n_with_teacher=tally.n_with_teacher,
        n_positives=tally.n_positives,
        n_by_negatives=dict(sorted(tally.n_by_negatives.items())),
        problems=bad.reasons,
        stopped=stopped,
    )


def _read(
    path: str | Path, add: Callable[[Mapping[str, object], str, int], None], *, alone: _First | None
) -> tuple[BadRecords, str | None]:
    """Pass every record to `add`, which raises DataError for a bad one. Returns the bad ones and why reading
    stopped."""
    bad = BadRecords("skip", source=str(path))
    try:
        for line, value in source_rows(str(path)):
            bad.n_read += 1
            try:
                if isinstance(value, DataError):
                    raise value
                _refuse_other_kind(value, path, line, alone=alone)
                add(value, str(path), line)
            except DataError as problem:
                bad.refuse(problem)
    except DataError as error:
        return bad, str(error)
    return bad, None


def _refuse_other_kind(record: Mapping[str, object], path: str | Path, line: int, *, alone: _First | None) -> None:
    kind = _kind_of(record)
    if alone is None or kind in (None, alone[0]):
        return
    raise RankLLMError(
        f"{path}: contains both {alone[0]} records (first in line {alone[1]}) and {kind} records (first in line "
        f"{line}); "
        "put them into separate files, or check one kind with --kind"
    )


@dataclass(slots=True)
class _ListwiseTally:
    """Counts collected while the file is read."""

    n_with_system: int = 0
    n_by_kind: Counter[IdentifierKind] = field(default_factory=Counter)
    n_by_length: Counter[int] = field(default_factory=Counter)

    def add(self, value: Mapping[str, object], path: str, line: int) -> None:
        record = parse_listwise(value, path=path, line=line)
        ranks = checked_ranks(record)
        check_texts(record)
        self.n_by_length[len(ranks)] += 1
        self.n_by_kind[identifier_kind(record.prompt)] += 1
        self.n_with_system += record.system is not None


@dataclass(slots=True)
class _PointwiseTally:
    """Counts collected while the file is read."""

    n_with_teacher: int = 0
    n_positives: int = 0
    n_by_negatives: Counter[int] = field(default_factory=Counter)

    def add(self, value: Mapping[str, object], path: str, line: int) -> None:
        record = parse_pointwise(value, path=path, line=line)
        check_group(record)
        self.n_by_negatives[len(record.negatives)] += 1
        self.n_positives += len(record.positives)
        self.n_with_teacher += record.has_teacher
