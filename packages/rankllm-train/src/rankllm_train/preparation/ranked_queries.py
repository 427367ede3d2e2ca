"""Run files read one query at a time, so that only one query's candidates are in memory."""

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
    """Run file with the format for runs whose three columns may be scores or ranks."""

    path: str | Path
    asked: RunFormat = "auto"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def format(self) -> RunFormat:
        """The requested format, except that a file with six columns is always TREC."""
        return format_beside_others(self.path, self.asked)

    @property
    def holds_ranks(self) -> bool:
        """Whether it contains ranks but no scores."""
        return holds_ranks(self.path, format=self.format)


class RankedQuery(NamedTuple):
    """Query of a run with its candidates."""

    qid: str
    candidates: tuple[tuple[str, float], ...]
    """(docid, score) by descending score; ties in file order, as in `prepare`."""


def read_ranked_queries(run: str | Path | RunFile) -> Iterator[RankedQuery]:
    """Yield the queries of a run, whose lines must be grouped by query.

    Formats and errors as in `rankllm_core.trec.runs.read_run`; also raises DataError if a query's lines are not
    contiguous.
    """
    file = run if isinstance(run, RunFile) else RunFile(run)
    path = file.path
    first_line: dict[str, int] = {}
    for qid, group in groupby(iter_run(path, format=file.format), key=lambda row: row.qid):
        lines = list(group)
        if qid in first_line:
            problem = f"query {qid!r} occurs again (first on line {first_line[qid]}); group the lines by query"
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
