"""Runs: reading of all common formats, and writing of scores that no tie-breaking rule can reorder.

Scores are compared as in trec_eval: in single precision, ties by descending docid.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_core.files import write_text
from rankllm_core.trec.run_layout import RankEvidence, RunFormat, detect_run_format, row_score, run_rows

DEFAULT_TAG = "rankllm"

Ranking: TypeAlias = Sequence[tuple[str, float]]
"""(docid, score) for one query's candidates."""
Run: TypeAlias = dict[str, list[tuple[str, float]]]
"""qid -> (docid, score) in file order; `trec_order` gives trec_eval's order."""
RunOutput = Literal["trec", "tsv", "msmarco"]

_DIGITS_OF_FLOAT32 = 9
"""Number of significant decimal digits that distinguish any two float32 values (IEEE 754, binary32)."""
_PLAIN_INTEGERS = 1_000_000
"""Smaller integers have at most six digits, which every float32 value preserves."""


class RunLine(NamedTuple):
    """One line of a run. A tuple, because a run may have millions of them."""

    line: int
    """1-based line number."""
    qid: str
    docid: str
    score: float


def read_run(path: str | Path, *, format: RunFormat = "auto") -> Run:
    """Read a run: qid -> candidates in file order. The rank column of TREC runs is ignored.

    format: `trec` (6 columns), `tsv` (3 columns, qid docid score, or Tevatron's 4, qid docid _ score), `msmarco` (3
    columns, qid docid rank; the score is -rank) or `auto`: by the number of columns, and for 3 columns by the values of
    the last one (see `run_layout.RankEvidence`).
    Columns are separated by tabs or runs of blanks; in 3 tab-separated columns, ids may contain blanks.
    Raises DataError, with the line, for another number of columns, a score that is not a finite number, a docid that
    occurs twice in a query, and with `auto` if scores and ranks cannot be distinguished.
    """
    run: Run = {}
    lines: dict[str, array[int]] = {}
    evidence = RankEvidence()
    for row in run_rows(path, format):
        if row.qid not in run:
            run[row.qid] = []
            lines[row.qid] = array("Q")
        if format == "auto" and row.columns == 3:
            evidence.add(row)
        run[row.qid].append((row.docid, row_score(row, path, format)))
        lines[row.qid].append(row.line)
    _check_docids(run, lines, path)
    if format == "auto" and evidence.conclude(path) == "msmarco":
        return {qid: [(docid, -rank) for docid, rank in candidates] for qid, candidates in run.items()}
    return run


def iter_run(path: str | Path, *, format: RunFormat = "auto") -> Iterator[RunLine]:
    """Stream the lines of a run without storing them; repeated docids are not detected.

    Formats and errors as in `read_run`. With `auto`, the beginning is read twice, or the whole file for three columns
    of integers, so a pipe is rejected with RankLLMError.
    """
    if format == "auto":
        format = detect_run_format(path)
    for row in run_rows(path, format):
        yield RunLine(row.line, row.qid, row.docid, row_score(row, path, format))


def holds_ranks(path: str | Path, *, format: RunFormat = "auto") -> bool:
    """Whether a run is read as `msmarco`, with ranks but no scores. Raises like `iter_run`."""
    return (detect_run_format(path) if format == "auto" else format) == "msmarco"


def _check_docids(run: Run, lines: dict[str, array[int]], path: str | Path) -> None:
    for qid, candidates in run.items():
        first: dict[str, int] = {}
        for line, (docid, _) in zip(lines[qid], candidates, strict=True):
            if first.setdefault(docid, line) != line:
                problem = f"query {qid!r}: docid {docid!r} occurs again (first on line {first[docid]}); remove one"
                raise DataError(problem, path=path, line=line)


def write_results(
    path: str | Path,
    results: Iterable[tuple[str, Ranking]],
    *,
    format: RunOutput = "trec",
    tag: str = DEFAULT_TAG,
) -> None:
    """Write (qid, ranking) pairs, each ranking best first, as a run; a query without candidates has no lines.

    Raises RankLLMError like `trec_lines`, and for a query that occurs twice.
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


def run_lines(qid: str, ranking: Ranking, *, format: RunOutput = "trec", tag: str = DEFAULT_TAG) -> list[str]:
    """Return the lines of one query in one of the three formats; `tag` is used only by `trec`."""
    if format == "trec":
        return trec_lines(qid, ranking, tag=tag)
    if format == "tsv":
        return tsv_lines(qid, ranking)
    if format == "msmarco":
        return msmarco_lines(qid, ranking)
    raise ConfigError(f"run format {format!r}: expected one of {', '.join(get_args(RunOutput))}")


def trec_lines(qid: str, ranking: Ranking, *, tag: str = DEFAULT_TAG) -> list[str]:
    """Return the lines `qid Q0 docid rank score tag` of one query, with line ends; ranks start at 1.

    ranking: (docid, score), best first. Tied scores are lowered until all strictly decrease as float32.
    Raises RankLLMError for whitespace in an id or the tag, a repeated docid, or scores that are not finite or that
    increase.
    """
    if tag.split() != [tag]:
        raise ConfigError(f"tag {tag!r}: expected a word without spaces")
    _check_ids(qid, ranking, blanks=False)
    scores = _decreasing(qid, ranking)
    return [
        f"{qid} Q0 {docid} {rank} {format_score(score)} {tag}\n"
        for rank, ((docid, _), score) in enumerate(zip(ranking, scores, strict=True), start=1)
    ]


def tsv_lines(qid: str, ranking: Ranking) -> list[str]:
    """Return the lines `qid TAB docid TAB score` of one query; scores as in `trec_lines`, ids may contain spaces but no
    tabs."""
    _check_ids(qid, ranking, blanks=True)
    scores = _decreasing(qid, ranking)
    return [f"{qid}\t{docid}\t{format_score(score)}\n" for (docid, _), score in zip(ranking, scores, strict=True)]


def msmarco_lines(qid: str, ranking: Ranking) -> list[str]:
    """Return the lines `qid TAB docid TAB rank` of one query in the given order; ranks start at 1, ids as in
    `tsv_lines`."""
    _check_ids(qid, ranking, blanks=True)
    return [f"{qid}\t{docid}\t{rank}\n" for rank, (docid, _) in enumerate(ranking, start=1)]


def _decreasing(qid: str, ranking: Ranking) -> list[float]:
    try:
        return decreasing_scores([score for _, score in ranking])
    except ScoreError as error:
        docid = ranking[error.position][0]
        where = f"query {qid!r}, docid {docid!r}, rank {error.position + 1}"
        raise RankLLMError(f"{where}: score {error.problem}") from None


def _check_ids(qid: str, ranking: Ranking, *, blanks: bool) -> None:
    """Raise RankLLMError if an id would be read back differently, or a docid is listed twice."""
    _check_id(f"qid {qid!r}", qid, blanks=blanks)
    seen: set[str] = set()
    for docid, _ in ranking:
        _check_id(f"query {qid!r}: docid {docid!r}", docid, blanks=blanks)
        if docid in seen:
            raise RankLLMError(f"query {qid!r}: docid {docid!r} occurs twice in the ranking; expected each docid once")
        seen.add(docid)


def _check_id(name: str, text: str, *, blanks: bool) -> None:
    if not text:
        raise RankLLMError(f"{name}: expected an id, found an empty string")
    if not blanks and text.split() != [text]:
        raise RankLLMError(f"{name}: contains whitespace, which separates the columns of a TREC run; write TSV instead")
    if blanks and (text.strip() != text or any(end in text for end in "\t\r\n")):
        raise RankLLMError(f"{name}: contains a tab, a line end or outer whitespace, which a TSV file cannot represent")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise RankLLMError(f"{name}: contains a lone surrogate, which UTF-8 cannot represent")


def trec_order(candidates: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """Return candidates as ranked by trec_eval: descending score as float32, ties by descending docid.

    candidates: (docid, score) in any order; the scores are returned unchanged.
    """
    listed = list(candidates)
    rounded = to_float32(score for _, score in listed)
    # trec_eval compares docids with strcmp: the order of UTF-8 bytes equals the order of code points.
    keys = [(score, docid) for score, (docid, _) in zip(rounded, listed, strict=True)]
    return [listed[place] for place in sorted(range(len(listed)), key=keys.__getitem__, reverse=True)]


def decreasing_scores(scores: Sequence[float]) -> list[float]:
    """Return scores that strictly decrease as float32, each as close to the original as possible.

    scores: best first, not increasing. Each is rounded to float32; one that is not below its predecessor is set to the
    next float32 below it. A run of n equal scores therefore loses at most n - 1 float32 steps.
    Returns float32 values (as Python floats); zero is never negative.
    Raises ScoreError for NaN, infinity, a score outside the float32 range, one above its predecessor, or one tied at
    the end of the range.
    """
    rounded = to_float32(scores)
    lowered: list[float] = []
    for position, value in enumerate(rounded):
        if not math.isfinite(value):
            raise ScoreError(_not_finite(scores[position]), position=position)
        if position and value > rounded[position - 1]:
            problem = (
                f"{scores[position]!r} is higher than the previous score {scores[position - 1]!r}; expected best first"
            )
            raise ScoreError(problem, position=position)
        if position and value >= lowered[-1]:
            value = next_below(lowered[-1])
            if math.isinf(value):
                raise ScoreError("cannot be lowered: it is tied at the end of the float32 range", position=position)
        lowered.append(value + 0.0)  # -0.0 + 0.0 is 0.0
    return lowered


class ScoreError(RankLLMError):
    """A score cannot be written to a run.

    position: 0-based index in the list of scores. problem: what is wrong with it, without its location.
    """

    def __init__(self, problem: str, *, position: int) -> None:
        """Keep the index for callers that know which query and docid it belongs to."""
        self.position = position
        self.problem = problem
        super().__init__(f"score at rank {position + 1}: {problem}")


def _not_finite(score: float) -> str:
    if math.isfinite(score):
        return f"{score!r} is outside the float32 range, in which trec_eval compares scores"
    return f"is {score!r}; expected a finite number"


def next_below(value: float) -> float:
    """Return the largest float32 below `value`, itself a finite float32; -inf below the smallest."""
    if value == 0.0:
        bits = 0x80000001
    else:
        (bits,) = struct.unpack("<I", struct.pack("<f", value))
        bits += 1 if value < 0 else -1
    (below,) = struct.unpack("<f", struct.pack("<I", bits))
    return float(below)


def to_float32(scores: Iterable[float]) -> list[float]:
    """Round each score to the nearest float32, like a C cast; values outside its range become +-inf."""
    return array("f", scores).tolist()


def format_score(value: float) -> str:
    """Return the shortest decimal text that reads back as the float32 `value`, with a decimal point or an exponent.

    Texts of different float32 values order like the values, in double precision too.
    """
    if -_PLAIN_INTEGERS < value < _PLAIN_INTEGERS and value == int(value):
        return repr(float(value))  # all scores of listwise runs
    (value,) = to_float32([value])
    for digits in range(6, _DIGITS_OF_FLOAT32):
        text = f"{value:.{digits}g}"
        if to_float32([float(text)])[0] == value:
            return repr(float(text))
    return repr(float(f"{value:.{_DIGITS_OF_FLOAT32}g}"))
