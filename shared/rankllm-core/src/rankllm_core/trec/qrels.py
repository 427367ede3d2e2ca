"""Relevance judgements in TREC qrels format, BEIR format and rank_llm's JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import read_json, read_lines
from rankllm_core.files.json_text import as_object, check_id, found, located, shown
from rankllm_core.trec.run_layout import split_blanks

Qrels: TypeAlias = dict[str, dict[str, int]]
"""qid -> docid -> grade; a negative grade means judged not relevant."""

MAX_GRADE = 10_000
"""Larger values are certainly not grades. (trec_eval allocates memory in proportion to the largest grade.)"""

_HEADERS = ({"query-id", "corpus-id", "score"}, {"query-id", "doc-id", "score"})


def read_qrels(path: str | Path) -> Qrels:
    """Read judgements: 4 columns (qid iteration docid grade) or BEIR's 3 (query-id corpus-id score, header optional).

    A file name ending in .json selects rank_llm's JSON: an object of qid -> docid -> grade.
    Columns are separated by tabs or runs of blanks; the iteration column is ignored.
    A judgement repeated with the same grade is read once. Raises DataError, with the line, for one repeated with
    another grade (trec_eval rejects every repetition), another number of columns (TREC prels have 5), a grade that is
    not an integer, and an id that `json_text.check_id` rejects.
    """
    if str(path).endswith(".json"):
        return _read_json(path)
    qrels: Qrels = {}
    lines, width = dict[tuple[str, str], int](), 0
    for number, line in read_lines(path):
        fields = split_blanks(line)
        if not width:
            width = len(fields)
            if width not in (3, 4):
                raise DataError(_wrong_width(width, line), path=path, line=number)
            if {field.lower().replace("_", "-") for field in fields} in _HEADERS:
                continue
        if len(fields) != width:
            problem = f"expected {width} columns like the lines before, found {len(fields)}: {line[:80]!r}"
            raise DataError(problem, path=path, line=number)
        qid, docid = fields[0], fields[-2]
        if not (line.isascii() and qid.isprintable() and docid.isprintable()):
            with located(path, number):
                check_id(qid, what="qid")
                check_id(docid, what="docid")
        grade = _grade(fields[-1], path, number)
        first = lines.setdefault((qid, docid), number)
        if first != number and qrels[qid][docid] != grade:
            problem = (
                f"query {shown(qid)}, docid {shown(docid)}: grade {grade}, but {qrels[qid][docid]} on line {first}; "
                "expected one judgement per document (in diversity qrels, the second column is a subtopic: select or "
                "merge subtopics first)"
            )
            raise DataError(problem, path=path, line=number)
        qrels.setdefault(qid, {})[docid] = grade
    return qrels


def _wrong_width(found: int, line: str) -> str:
    expected = "expected 4 columns (qid iteration docid grade) or BEIR's 3 (query-id corpus-id score)"
    if found == 5:
        return f"{expected}, found 5; prels (sampled judgements with probabilities) are not supported: {line[:80]!r}"
    return f"{expected}, found {found}: {line[:80]!r}"


def _grade(text: str, path: str | Path, line: int) -> int:
    try:
        value = float(text) if "_" not in text else None
    except ValueError:
        value = None
    if value is None or not value.is_integer():
        raise DataError(f"grade {shown(text)} is not an integer", path=path, line=line)
    if abs(value) > MAX_GRADE:
        problem = f"grade {text[:40]} is beyond {MAX_GRADE}; are the columns in order (qid iteration docid grade)?"
        raise DataError(problem, path=path, line=line)
    return int(value)


def _read_json(path: str | Path) -> Qrels:
    """Read judgements as rank_llm writes them. Raises DataError where the file is not qid -> docid -> grade."""
    try:
        return {
            check_id(qid, what="query"): {
                check_id(docid, what="docid"): _json_grade(grade, what=f"query {qid!r}, docid {docid!r}")
                for docid, grade in as_object(grades, what=f"query {qid!r}").items()
            }
            for qid, grades in as_object(read_json(path), what="judgements").items()
        }
    except RankLLMError as error:
        problem = error.problem if isinstance(error, DataError) else str(error)
        raise DataError(f"expected an object of query -> docid -> grade ({problem})", path=path) from None


def _json_grade(value: object, *, what: str) -> int:
    """A whole number, also written as a string or as 1.0."""
    try:
        grade = int(value)  # type: ignore[call-overload]
    except (ValueError, TypeError, OverflowError):
        grade = MAX_GRADE + 1
    if abs(grade) > MAX_GRADE:
        raise RankLLMError(f"{what}: expected a whole number of at most {MAX_GRADE:,}, found {found(value)}")
    return int(grade)
