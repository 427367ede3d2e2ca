"""Reads a whole training file and says what is in it and which records cannot be learnt from."""

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
    """Records found, good and bad."""
    problems: tuple[str, ...]
    """One line a bad record, in file order: file, line, record and what is wrong with it."""
    stopped: str | None
    """Why the file could not be read to its end, and where; None where it was."""

    @property
    def n_good(self) -> int:
        """Records without a problem."""
        return self.n_records - len(self.problems)

    @property
    def is_clean(self) -> bool:
        """Whether the file was read to its end, holds records, and all of them are good."""
        return self.stopped is None and not self.problems and self.n_records > 0

    def verdict(self) -> str:
        """Say what keeps the file from being trained on as it is; empty: nothing does."""
        if self.stopped or self.is_clean:
            return self.stopped or ""
        if not self.n_records:
            return f"{self.path}: no record in it"
        return (
            f"{self.path}: {len(self.problems)} of {self.n_records} records are bad; correct them, or train with "
            "--bad-records skip"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseReport(_Report):
    """What a listwise training file holds."""

    n_with_system: int
    """Good records with a system turn."""
    n_by_kind: Mapping[IdentifierKind, int]
    """Good records by the identifiers of their prompts."""
    n_by_length: Mapping[int, int]
    """Good records by their number of passages, rising."""

    def verdict(self) -> str:
        """The same; good records may also name their passages in two ways."""
        # super() without arguments does not find the class that slots=True has made anew.
        found = _Report.verdict(self)
        if not found and len(self.n_by_kind) > 1:
            return f"{self.path}: numeric and alpha identifiers in one file; train with --identifiers alpha or numeric"
        return found

    def summary(self) -> list[str]:
        """What the file holds, in lines for a person."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.n_by_kind.items()) or "none"
        lines = [f"{self.n_records} records, {self.n_good} good ({kinds}); with a system turn: {self.n_with_system}"]
        if self.n_by_length:
            lines.append(", ".join(f"{n} of {length} passages" for length, n in self.n_by_length.items()))
        if n_single := self.n_by_length.get(1, 0):
            lines.append(f"{n_single} of one passage have no order: bad records for --objective ranking and combined")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseReport(_Report):
    """What a pointwise training file holds."""

    n_with_teacher: int
    """Good records with teacher scores."""
    n_positives: int
    """Positive passages of the good records."""
    n_by_negatives: Mapping[int, int]
    """Good records by their number of negatives, rising."""

    def summary(self) -> list[str]:
        """What the file holds, in lines for a person."""
        n_without = self.n_good - self.n_with_teacher
        lines = [
            f"{self.n_records} records, {self.n_good} good (pointwise); positives: {self.n_positives}; "
            f"with teacher scores: {self.n_with_teacher}"
        ]
        if self.n_by_negatives:
            lines.append(", ".join(f"{n} with {length} negatives" for length, n in self.n_by_negatives.items()))
        if 0 < self.n_with_teacher < self.n_good:
            lines.append(f"{n_without} have no teacher scores: bad records for --objective kl and margin")
        return lines


def check_data(path: str | Path, *, kind: RecordKind | None = None) -> ListwiseReport | PointwiseReport:
    """Check a file or a data set of either kind.

    kind: of its records; None: that of the first one that is of either. Raises RankLLMError when it cannot be opened,
    and, where the kind is not given, for records of both kinds in one file.
    """
    first = None if kind else _first_of_a_kind(path)
    found = kind or (first[0] if first else "listwise")
    return check_listwise(path, alone=first) if found == "listwise" else check_pointwise(path, alone=first)


_First = tuple[RecordKind, int]
"""A kind, and the line or row of the first record of it."""


def _first_of_a_kind(path: str | Path) -> _First | None:
    try:
        for line, value in source_rows(str(path)):
            kind = None if isinstance(value, DataError) else _kind_of(value)
            if kind is not None:
                return kind, line
    except DataError:
        return None  # The check stops there as well, and says why.
    return None


def _kind_of(record: Mapping[str, object]) -> RecordKind | None:
    if "conversations" in record:
        return "listwise"
    return "pointwise" if "positive_passages" in record or "passages" in record else None


def check_listwise(path: str | Path, *, alone: _First | None = None) -> ListwiseReport:
    """Read every record of a listwise training file and name the bad ones, without stopping at the first.

    Bad is a record without its turns or with an empty one, whose prompt does not name its passages in order, whose
    target is no ranking or repeats, lacks or invents an identifier, whose docids are not as many as its passages, or
    whose passages all have the same text.
    alone: the first record; one of the other kind behind it raises RankLLMError, in place of being a bad record.
    Raises RankLLMError when the file cannot be opened.
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
    """The same for a pointwise training file.

    Bad is a record without a query, a positive or a negative, or where these are blank, with a passage that has no
    text, with teacher scores for some passages only, or with a passage that is both a positive and a negative, by its
    docid or its text.
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
    """Give every record to `add`, which raises DataError for a bad one. Why reading stopped, if it did."""
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
        f"{path}: holds {alone[0]} records (the first in line {alone[1]}) and {kind} ones (the first in line {line}); "
        "put them into two files, or check one kind with --kind"
    )


@dataclass(slots=True)
class _ListwiseTally:
    """Counts while the file goes by."""

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
    """Counts while the file goes by."""

    n_with_teacher: int = 0
    n_positives: int = 0
    n_by_negatives: Counter[int] = field(default_factory=Counter)

    def add(self, value: Mapping[str, object], path: str, line: int) -> None:
        record = parse_pointwise(value, path=path, line=line)
        check_group(record)
        self.n_by_negatives[len(record.negatives)] += 1
        self.n_positives += len(record.positives)
        self.n_with_teacher += record.has_teacher
