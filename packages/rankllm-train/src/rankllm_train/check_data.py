"""Reads a whole listwise training file and says what is in it and which records cannot be learnt from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import DataError
from rankllm_core.identifiers import IdentifierKind
from rankllm_train.json_records import JsonRecord, read_json_records
from rankllm_train.rankings import identifier_kind, target_ranks
from rankllm_train.records import parse_listwise


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseReport:
    """What a listwise training file holds."""

    path: str
    n_records: int
    """Records found, good and bad."""
    n_with_system: int
    """Good records with a system turn."""
    n_by_kind: Mapping[IdentifierKind, int]
    """Good records by the identifiers of their prompts."""
    n_by_length: Mapping[int, int]
    """Good records by their number of passages, rising."""
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


def check_listwise(path: str | Path) -> ListwiseReport:
    """Read every record of a listwise training file and name the bad ones, without stopping at the first.

    Bad is a record without its turns or with an empty one, whose prompt does not name its passages in order, whose
    target is no ranking or repeats, lacks or invents an identifier, or whose docids are not as many as its passages.
    Raises RankLLMError when the file cannot be opened.
    """
    tally = _Tally()
    stopped: str | None = None
    try:
        for found in read_json_records(path):
            tally.add(found, path)
    except DataError as error:
        stopped = str(error)
    return ListwiseReport(
        path=str(path),
        n_records=tally.n_records,
        n_with_system=tally.n_with_system,
        n_by_kind=dict(tally.n_by_kind),
        n_by_length=dict(sorted(tally.n_by_length.items())),
        problems=tuple(tally.problems),
        stopped=stopped,
    )


class _Tally:
    """Counts while the file goes by."""

    def __init__(self) -> None:
        self.n_records = 0
        self.n_with_system = 0
        self.n_by_kind: Counter[IdentifierKind] = Counter()
        self.n_by_length: Counter[int] = Counter()
        self.problems: list[str] = []

    def add(self, found: JsonRecord, path: str | Path) -> None:
        self.n_records += 1
        try:
            if isinstance(found.value, DataError):
                raise found.value
            record = parse_listwise(found.value, path=path, line=found.line)
            n_passages = len(target_ranks(record))
            if record.docids and len(record.docids) != n_passages:
                raise record.error(f"docids: {len(record.docids)} for {n_passages} passages")
        except DataError as error:
            self.problems.append(str(error))
            return
        self.n_by_length[n_passages] += 1
        self.n_by_kind[identifier_kind(record.prompt)] += 1
        self.n_with_system += record.system is not None
