"""A run as one query after the other: no more than one query's candidates are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from rankllm_core.errors import DataError
from rankllm_core.runs import RunLine, iter_run


class RankedQuery(NamedTuple):
    """One query of a run."""

    qid: str
    candidates: tuple[tuple[str, float], ...]
    """(docid, score) by falling score; of equal scores the first in the file comes first, as `prepare` has them."""


def read_ranked_queries(path: str | Path) -> Iterator[RankedQuery]:
    """Yield the queries of a run, whose lines must stand together.

    Formats and errors as `rankllm_core.runs.read_run`; DataError also where a query comes back after another one.
    """
    first_line: dict[str, int] = {}
    for qid, group in groupby(iter_run(path), key=lambda row: row.qid):
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
