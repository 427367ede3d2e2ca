"""A run as one query after the other: no more than one query's candidates are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rankllm_core.errors import DataError
from rankllm_core.trec.run_layout import RunFormat, format_beside_others
from rankllm_core.trec.runs import RunLine, holds_ranks, iter_run


@dataclass(frozen=True, slots=True)
class RunFile:
    """A run file, and how it is read where three columns may hold scores or ranks."""

    path: str | Path
    asked: RunFormat = "auto"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def format(self) -> RunFormat:
        """What is asked for, unless the file has six columns, which are TREC whatever is said of other runs."""
        return format_beside_others(self.path, self.asked)

    @property
    def holds_ranks(self) -> bool:
        """Whether it tells an order, and no scores."""
        return holds_ranks(self.path, format=self.format)


class RankedQuery(NamedTuple):
    """One query of a run."""

    qid: str
    candidates: tuple[tuple[str, float], ...]
    """(docid, score) by falling score; of equal scores the first in the file comes first, as `prepare` has them."""


def read_ranked_queries(run: str | Path | RunFile) -> Iterator[RankedQuery]:
    """Yield the queries of a run, whose lines must stand together.

    Formats and errors as `rankllm_core.trec.runs.read_run`; DataError also where a query comes back after another one.
    """
    file = run if isinstance(run, RunFile) else RunFile(run)
    path = file.path
    first_line: dict[str, int] = {}
    for qid, group in groupby(iter_run(path, format=file.format), key=lambda row: row.qid):
        lines = list(group)
        if qid in first_line:
            problem = f"query {qid!r} comes back (first on line {first_line[qid]}); sort the lines by query"
            raise DataError(problem, path=path, line=lines[0].line)
        first_line[qid] = lines[0].line
        _check_docids(lines, path)
        ordered = sorted(lines, key=lambda row: -row.score)
        yield RankedQuery(qid, tuple((row.docid, row.score) for row in ordered))


def _check_docids(lines: list[RunLine], path: str | Path) -> None:
    first: dict[str, int] = {}
    for row in lines:
        if first.setdefault(row.docid, row.line) != row.line:
            before = f"(first on line {first[row.docid]}); remove one"
            problem = f"query {row.qid!r}: docid {row.docid!r} occurs again {before}"
            raise DataError(problem, path=path, line=row.line)
