"""Formats of run files: splitting lines into columns, and whether a third column contains scores or ranks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from rankllm_core.errors import ConfigError, DataError
from rankllm_core.files import read_lines, refuse_pipe
from rankllm_core.files.json_text import check_id, located, shown

RunFormat = Literal["auto", "trec", "tsv", "msmarco"]

_LAYOUTS = {6: "qid Q0 docid rank score tag", 4: "qid docid _ score", 3: "qid docid score"}
_COLUMNS = {6: (0, 2, 4), 4: (0, 1, 3), 3: (0, 1, 2)}
"""Columns of qid, docid and score (or MS MARCO rank), by number of columns."""
_WIDTHS: dict[str, tuple[int, ...]] = {"auto": (6, 4, 3), "trec": (6,), "tsv": (3, 4), "msmarco": (3,)}

# trec_eval splits at C's isspace; str.split() would also split at no-break spaces, which some docids contain.
split_blanks: Callable[[str], list[str]] = re.compile(r"[^ \t\v\f\r\n]+").findall
"""Returns the fields of a line, separated by tabs or runs of blanks."""

_RANK = re.compile(r"[0-9]+(\.0*)?")
"""Written form of a rank: an integer, which some tools write as a float."""


class RunRow(NamedTuple):
    """One line of a run. A tuple, because a run may have millions of them."""

    line: int
    columns: int
    qid: str
    docid: str
    value: str
    """Score, or rank of an MS MARCO run, as written."""


def run_rows(path: str | Path, format: RunFormat) -> Iterator[RunRow]:
    """Yield every line of a run as a row; the first line determines the format of the others.

    Raises DataError, with the line, for a wrong number of columns, an empty id, or one that `check_id` rejects.
    """
    if format not in get_args(RunFormat):
        raise ConfigError(f"run format {format!r}: expected one of {', '.join(get_args(RunFormat))}")
    split = split_blanks
    width = 0
    for number, line in read_lines(path):
        if not width:
            if 3 in _WIDTHS[format] and _is_tab_separated(line, format):
                split = _split_tabs
            width = len(split(line))
            if width not in _WIDTHS[format]:
                raise DataError(_wrong_width(_WIDTHS[format], width, line), path=path, line=number)
            qid_column, docid_column, value_column = _COLUMNS[width]
        fields = split(line)
        if len(fields) != width:
            problem = f"{_wrong_width((width,), len(fields), line)}; the first line has {width}"
            raise DataError(problem, path=path, line=number)
        row = RunRow(number, width, fields[qid_column], fields[docid_column], fields[value_column])
        if not (row.qid and row.docid):
            raise DataError(f"empty {'docid' if row.qid else 'qid'} in {shown(line)}", path=path, line=number)
        if not (line.isascii() and row.qid.isprintable() and row.docid.isprintable()):
            with located(path, number):
                check_id(row.qid, what="qid")
                check_id(row.docid, what="docid")
        yield row


def row_score(row: RunRow, path: str | Path, format: RunFormat) -> float:
    """Return the row's score; for `msmarco`, -rank. Raises DataError if it is neither."""
    if format == "msmarco" and not _RANK.fullmatch(row.value):
        raise _value_error(row, path, f"rank {shown(row.value)} is not an integer; use the format tsv for scores")
    if not _is_number(row.value):
        raise _value_error(row, path, f"score {shown(row.value)} is not a number")
    score = float(row.value)
    if not math.isfinite(score):
        raise _value_error(row, path, f"score is {row.value[:40]}, expected a finite number")
    return -score if format == "msmarco" else score


def _value_error(row: RunRow, path: str | Path, problem: str) -> DataError:
    return DataError(f"query {shown(row.qid)}, docid {shown(row.docid)}: {problem}", path=path, line=row.line)


def detect_run_format(path: str | Path) -> RunFormat:
    """Detect the format of a run: `trec`, `tsv` or `msmarco`; `auto` for an empty file.

    Reads as far as necessary to be certain, which for a third column of integers is the whole file. Raises RankLLMError
    for a pipe, and DataError if scores and ranks cannot be distinguished.
    """
    refuse_pipe(path)
    evidence = RankEvidence()
    for row in run_rows(path, "auto"):
        if row.columns != 3:
            return "trec" if row.columns == 6 else "tsv"
        evidence.add(row)
        if evidence.are_certainly_scores:
            return "tsv"
    return evidence.conclude(path)


def format_beside_others(path: str | Path, asked: RunFormat) -> RunFormat:
    """Return the format of one of several runs, for all of which `asked` was given.

    `tsv` and `msmarco` describe the third column; a run with six columns among them is TREC nevertheless.
    """
    if asked not in ("tsv", "msmarco"):
        return asked
    row = next(run_rows(path, "auto"), None)
    return "trec" if row is not None and row.columns == 6 else asked


class RankEvidence:
    """Evidence whether the last column of a three-column run contains scores (highest first) or ranks (lowest first).

    Reading one as the other would reverse every list, so nothing is guessed. They are ranks if every query counts 1, 2,
    3, ... They are scores if a value cannot be a rank (negative, or with a fraction other than a half), or if no list
    ever rises and values tie or are written as floats, as in listwise results: ranks from worst to best would be
    integers.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._last: dict[str, float] = {}
        self._counting = True
        self._rises = False
        self._has_tie = False
        self._has_float = False
        self._example: RunRow | None = None
        self.are_certainly_scores = False
        """Whether no further row can change the conclusion that these are scores."""

    def add(self, row: RunRow) -> None:
        """Add the next row, with three columns."""
        if self.are_certainly_scores:
            return
        if (value := _possible_rank(row.value)) is None:
            # Values that are not numbers are reported when the score is read.
            self.are_certainly_scores = True
            return
        rank = self._counts[row.qid] = self._counts.get(row.qid, 0) + 1
        self._counting = self._counting and row.value == str(rank)
        self._has_float = self._has_float or not row.value.isdecimal()
        before = self._last.get(row.qid)
        if before is not None:
            self._rises = self._rises or value > before
            self._has_tie = self._has_tie or value == before
            self._example = self._example or row
        self._last[row.qid] = value

    def conclude(self, path: str | Path) -> RunFormat:
        """Return `tsv` or `msmarco`; `auto` without rows. Raises DataError if it is uncertain."""
        if self.are_certainly_scores:
            return "tsv"
        if not self._counts:
            return "auto"
        if self._counting:
            return "msmarco"
        if self._example is None:
            return "tsv"  # With one candidate per query, both readings give the same order.
        if not self._rises and (self._has_tie or self._has_float):
            return "tsv"
        row = self._example
        raise _value_error(
            row,
            path,
            f"the third column ({row.value[:40]}) may be a score or a rank; specify --run-format tsv for scores "
            "(highest first) or --run-format msmarco for ranks (lowest first); with convert, --from tsv or --from "
            "msmarco",
        )


def _possible_rank(text: str) -> float | None:
    """Return the value if it may be a rank: an integer, or a half from averaging a tie."""
    value = float(text) if _is_number(text) else math.nan
    return value if value >= 0 and math.isfinite(value) and (2 * value).is_integer() else None


def _split_tabs(line: str) -> list[str]:
    return [field.strip() for field in line.split("\t")]


def _is_tab_separated(line: str, format: RunFormat) -> bool:
    """Whether a first line has three tab-separated columns, so that blanks belong to the ids."""
    fields = _split_tabs(line)
    return len(fields) == 3 and (format != "auto" or _is_number(fields[2]) or len(split_blanks(line)) == 3)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # float() reads 12_3 as 123, but here it is a docid in the wrong column


def _wrong_width(widths: Sequence[int], found: int, line: str) -> str:
    expected = " or ".join(f"{width} ({_LAYOUTS[width]})" for width in widths)
    hint = _mistaken_for(line)
    return f"expected {expected} columns, found {found}: {shown(line)}{f' ({hint})' if hint else ''}"


def _mistaken_for(line: str) -> str | None:
    """Return what kind of file a line seems to come from, and what to give instead; None if unknown."""
    fields = line.split("\t")
    if line.lstrip().startswith(("{", "[")):
        return "looks like JSON; requests and results are not runs"
    if line.lstrip().startswith("<"):
        return "looks like TREC or XML markup, not a run"
    if len(fields) == 4 and all(fields) and not _is_number(fields[3]) and " " in f"{fields[2]} {fields[3]}".strip():
        return (
            "looks like a top1000 file of MS MARCO (qid, pid, query, passage), which contains texts but no ranking; "
            "use the run it was made from"
        )
    return None
