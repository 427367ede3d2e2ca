"""Runs: reading every layout in use, writing ones that no tie rule can reorder."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_core.files import read_lines, refuse_pipe, write_text
from rankllm_core.lookalikes import mistaken_for_run
from rankllm_core.scores import ScoreError, decreasing_scores, format_score

DEFAULT_TAG = "rankllm"

Ranking: TypeAlias = Sequence[tuple[str, float]]
"""(docid, score) of one query's candidates."""
Run: TypeAlias = dict[str, list[tuple[str, float]]]
"""qid -> (docid, score) in the order of the file; `scores.trec_order` gives trec_eval's order."""
RunFormat = Literal["auto", "trec", "tsv", "msmarco"]
RunOutput = Literal["trec", "tsv", "msmarco"]

_LAYOUTS = {6: "qid Q0 docid rank score tag", 4: "qid docid _ score", 3: "qid docid score"}
_COLUMNS = {6: (0, 2, 4), 4: (0, 1, 3), 3: (0, 1, 2)}
"""Where qid, docid and score (or an MS MARCO rank) stand, by number of columns."""
_WIDTHS: dict[str, tuple[int, ...]] = {"auto": (6, 4, 3), "trec": (6,), "tsv": (3, 4), "msmarco": (3,)}

# trec_eval separates at C's isspace; str.split() would also split at the no-break spaces that some docids hold.
split_blanks: Callable[[str], list[str]] = re.compile(r"[^ \t\v\f\r\n]+").findall
"""The fields of a line that tabs or runs of blanks separate."""


class RunLine(NamedTuple):
    """One line of a run. A tuple, because a run may have millions of them."""

    line: int
    """1-based line number."""
    qid: str
    docid: str
    score: float


class _Row(NamedTuple):
    line: int
    columns: int
    qid: str
    docid: str
    value: str
    """The score, or the rank of an MS MARCO run, as written."""


def read_run(path: str | Path, *, format: RunFormat = "auto") -> Run:
    """Read a run: qid -> candidates in the order of the file. The rank column of TREC runs is ignored.

    format: `trec` (6 columns), `tsv` (3 columns, qid docid score, or Tevatron's 4, qid docid _ score), `msmarco`
    (3 columns, qid docid rank; the score is -rank) or `auto`: by the number of columns; 3 columns are `msmarco` when
    the last one counts 1, 2, 3, ... in every query, else `tsv`.
    Columns are separated by tabs or by runs of blanks; in 3 columns separated by tabs, an id may hold blanks.
    Raises DataError, with the line, for another number of columns, a score that is not a finite number, or a docid
    that occurs twice in a query.
    """
    run: Run = {}
    lines: dict[str, array[int]] = {}
    ranks = _RankWatch()
    for row in _rows(path, format):
        if row.qid not in run:
            run[row.qid] = []
            lines[row.qid] = array("Q")
        ranks.see(row)
        run[row.qid].append((row.docid, _score(row, path, format)))
        lines[row.qid].append(row.line)
    _check_docids(run, lines, path)
    if format == "auto" and ranks.are_ranks:
        return {qid: [(docid, -rank) for docid, rank in candidates] for qid, candidates in run.items()}
    return run


def iter_run(path: str | Path, *, format: RunFormat = "auto") -> Iterator[RunLine]:
    """Stream the lines of a run, holding none of them; repeated docids are not looked for.

    Formats and errors as `read_run`. With `auto` the beginning is read twice, and an MS MARCO run wholly, so a pipe is
    refused with RankLLMError.
    """
    if format == "auto" and holds_ranks(path):
        format = "msmarco"
    for row in _rows(path, format):
        yield RunLine(row.line, row.qid, row.docid, _score(row, path, format))


def holds_ranks(path: str | Path) -> bool:
    """Whether a run is one that `auto` reads as `msmarco`: it tells an order, and no scores.

    Reads as far as it could be one. Raises as `iter_run`.
    """
    refuse_pipe(path)
    ranks = _RankWatch()
    for row in _rows(path, "auto"):
        ranks.see(row)
        if not ranks.are_ranks:
            return False
    return ranks.are_ranks


class _RankWatch:
    """Tells whether the last of three columns counts 1, 2, 3, ... in every query."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._possible = True

    @property
    def are_ranks(self) -> bool:
        return self._possible and bool(self._seen)

    def see(self, row: _Row) -> None:
        if self._possible:
            rank = self._seen[row.qid] = self._seen.get(row.qid, 0) + 1
            self._possible = row.columns == 3 and row.value == str(rank)


def _rows(path: str | Path, format: RunFormat) -> Iterator[_Row]:
    """Split every line; the first one settles the layout that the others must have."""
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
            problem = f"{_wrong_width((width,), len(fields), line)}; the file began with {width}"
            raise DataError(problem, path=path, line=number)
        row = _Row(number, width, fields[qid_column], fields[docid_column], fields[value_column])
        if not (row.qid and row.docid):
            raise DataError(f"empty {'docid' if row.qid else 'qid'} in {line[:80]!r}", path=path, line=number)
        yield row


def _split_tabs(line: str) -> list[str]:
    return [field.strip() for field in line.split("\t")]


def _is_tab_separated(line: str, format: RunFormat) -> bool:
    """Whether a first line is three columns between tabs, so that blanks belong to the ids."""
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
    hint = mistaken_for_run(line)
    return f"expected {expected} columns, found {found}: {line[:80]!r}{f' ({hint})' if hint else ''}"


def _score(row: _Row, path: str | Path, format: RunFormat) -> float:
    """The row's score; for `msmarco`, -rank."""
    whose = f"query {row.qid!r}, docid {row.docid!r}"
    if format == "msmarco":
        if not (row.value.isdecimal() and int(row.value) > 0):
            problem = f"{whose}: rank {row.value!r} is not a whole number from 1; scores are read with format 'tsv'"
            raise DataError(problem, path=path, line=row.line)
        return -float(int(row.value))
    if not _is_number(row.value):
        raise DataError(f"{whose}: score {row.value!r} is not a number", path=path, line=row.line)
    score = float(row.value)
    if not math.isfinite(score):
        raise DataError(f"{whose}: score is {row.value}, expected a finite number", path=path, line=row.line)
    return score


def _check_docids(run: Run, lines: dict[str, array[int]], path: str | Path) -> None:
    for qid, candidates in run.items():
        first: dict[str, int] = {}
        for line, (docid, _) in zip(lines[qid], candidates, strict=True):
            if first.setdefault(docid, line) != line:
                problem = f"query {qid!r}: docid {docid!r} occurs again (first on line {first[docid]}); remove one"
                raise DataError(problem, path=path, line=line)


def trec_lines(qid: str, ranking: Ranking, *, tag: str = DEFAULT_TAG) -> list[str]:
    """The lines `qid Q0 docid rank score tag` of one query, each with its line end; ranks from 1.

    ranking: (docid, score), best first. Tied scores are lowered until all strictly decrease as float32.
    Raises RankLLMError for a blank in an id or the tag, a repeated docid, scores that are not finite or increase.
    """
    if tag.split() != [tag]:
        raise ConfigError(f"tag {tag!r}: expected a word without blanks")
    _check_ids(qid, ranking, blanks=False)
    scores = _decreasing(qid, ranking)
    return [
        f"{qid} Q0 {docid} {rank} {format_score(score)} {tag}\n"
        for rank, ((docid, _), score) in enumerate(zip(ranking, scores, strict=True), start=1)
    ]


def tsv_lines(qid: str, ranking: Ranking) -> list[str]:
    """The lines `qid TAB docid TAB score` of one query; scores as in `trec_lines`, ids may hold blanks but no tabs."""
    _check_ids(qid, ranking, blanks=True)
    scores = _decreasing(qid, ranking)
    return [f"{qid}\t{docid}\t{format_score(score)}\n" for (docid, _), score in zip(ranking, scores, strict=True)]


def msmarco_lines(qid: str, ranking: Ranking) -> list[str]:
    """The lines `qid TAB docid TAB rank` of one query in the order given; ranks from 1, ids as in `tsv_lines`."""
    _check_ids(qid, ranking, blanks=True)
    return [f"{qid}\t{docid}\t{rank}\n" for rank, (docid, _) in enumerate(ranking, start=1)]


def run_lines(qid: str, ranking: Ranking, *, format: RunOutput = "trec", tag: str = DEFAULT_TAG) -> list[str]:
    """The lines of one query in any of the three layouts; `tag` stands only in `trec`."""
    if format == "trec":
        return trec_lines(qid, ranking, tag=tag)
    if format == "tsv":
        return tsv_lines(qid, ranking)
    if format == "msmarco":
        return msmarco_lines(qid, ranking)
    raise ConfigError(f"run format {format!r}: expected one of {', '.join(get_args(RunOutput))}")


def write_results(
    path: str | Path,
    results: Iterable[tuple[str, Ranking]],
    *,
    format: RunOutput = "trec",
    tag: str = DEFAULT_TAG,
) -> None:
    """Write (qid, ranking) pairs, each ranking best first, as a run; a query without candidates has no line.

    Raises RankLLMError as `trec_lines` does, and for a query that occurs twice.
    """
    written: set[str] = set()
    with write_text(path) as stream:
        for qid, ranking in results:
            if qid in written:
                raise RankLLMError(f"{path}: query {qid!r} occurs twice in the results; expected each query once")
            written.add(qid)
            stream.writelines(run_lines(qid, ranking, format=format, tag=tag))


def write_run(path: str | Path, results: Iterable[tuple[str, Ranking]], *, tag: str = DEFAULT_TAG) -> None:
    """Write a TREC run, `qid Q0 docid rank score tag`; see `write_results`."""
    write_results(path, results, format="trec", tag=tag)


def write_tsv(path: str | Path, results: Iterable[tuple[str, Ranking]]) -> None:
    """Write `qid TAB docid TAB score`; see `write_results`."""
    write_results(path, results, format="tsv")


def write_msmarco(path: str | Path, results: Iterable[tuple[str, Ranking]]) -> None:
    """Write `qid TAB docid TAB rank`; see `write_results`."""
    write_results(path, results, format="msmarco")


def _decreasing(qid: str, ranking: Ranking) -> list[float]:
    try:
        return decreasing_scores([score for _, score in ranking])
    except ScoreError as error:
        docid = ranking[error.position][0]
        where = f"query {qid!r}, docid {docid!r}, rank {error.position + 1}"
        raise RankLLMError(f"{where}: score {error.problem}") from None


def _check_ids(qid: str, ranking: Ranking, *, blanks: bool) -> None:
    """Raise RankLLMError where an id would be read back as something else, or a docid is listed twice."""
    _check_id(f"qid {qid!r}", qid, blanks=blanks)
    seen: set[str] = set()
    for docid, _ in ranking:
        _check_id(f"query {qid!r}: docid {docid!r}", docid, blanks=blanks)
        if docid in seen:
            raise RankLLMError(f"query {qid!r}: docid {docid!r} occurs twice in the ranking; expected each docid once")
        seen.add(docid)


def _check_id(name: str, text: str, *, blanks: bool) -> None:
    if not text:
        raise RankLLMError(f"{name}: is empty, expected an identifier")
    if not blanks and text.split() != [text]:
        raise RankLLMError(f"{name}: holds a blank, which separates the columns of a TREC run; write TSV instead")
    if blanks and (text.strip() != text or any(end in text for end in "\t\r\n")):
        raise RankLLMError(f"{name}: holds a tab, a line end or an outer blank, which a TSV file cannot carry")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RankLLMError(f"{name}: holds half of a surrogate pair, which UTF-8 cannot carry")
