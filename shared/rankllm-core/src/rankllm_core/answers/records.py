"""Answers whose records have named fields: a list of JSON objects, or a table with a header."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rankllm_core.answers.claims import ORDINAL_WORDS, read_rank, read_score
from rankllm_core.answers.headers import RULE, Column, column_of
from rankllm_core.answers.tokens import NOUN
from rankllm_core.types import IdentifierKind

_MAX_CHARACTERS = 200_000
"""Maximum number of characters searched for records."""
_OBJECTS = re.compile(r"\[\s*+\{|\{")
_TABLE = re.compile(r"(?:(?:(?<=\n)|(?<![\s\S]))[ \t]*+\|[^\n]*+(?:\n|\Z)){2,}")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NAME = {"numeric": r"(\d{1,3})(?:\.0{1,3})?", "alpha": r"([A-Z])"}
_BARE, _MARKED = (
    {kind: re.compile(form.replace("NAME", name)) for kind, name in _NAME.items()}
    for form in (
        rf"""[\s"'*_`]*+(?:{NOUN}[\s_#]{{0,3}}+)?[\["'*_`(]{{0,4}}+NAME[\]"'*_`).]{{0,4}}+\s*+""",
        rf"""[\s"'*_`]*+(?:{NOUN}[\s_#]{{0,3}}+[\["'*_`(]{{0,4}}+NAME|\["?NAME"?\])["'*_`)\]]{{0,4}}+\s*+""",
    )
)
"""Whole cell or field that identifies a passage; the latter with brackets or a noun."""
_NUMBER = re.compile(
    r"""(?ix) [\s*_\#]*+ (?:rank|place|position|no\.?|top)? [\s:*_\#]*+
        ( -?\d{1,6} (?:\.\d{1,9})? ) (?: st|nd|rd|th|%|/\d{1,4} )? [\s*_.)]*+"""
)
"""Whole cell that contains a number."""


@dataclass(slots=True, kw_only=True)
class Records:
    """Relevant fields of an answer's records, in reading order."""

    start: int
    """Offset of their first character."""
    end: int
    names: list[str]
    ranks: list[float | None] = field(default_factory=list)
    """Empty if they have none."""
    scores: list[float | None] = field(default_factory=list)
    is_ambiguous: bool = False
    """Whether each identifier has a number next to it whose meaning is unclear."""


def find_records(text: str, kind: IdentifierKind) -> Records | None:
    """Return the records of an answer that went through `normalise`; at least two."""
    head = text[:_MAX_CHARACTERS]
    return _find_objects(head, kind) or _find_table(head, kind)


def _find_objects(text: str, kind: IdentifierKind) -> Records | None:
    begin = _OBJECTS.search(text)
    if begin is None:
        return None
    values, end = _decode(text, begin.start())
    objects = _objects(values)
    if len(objects) < 2:
        return None
    keys = [key for key in dict.fromkeys(key for one in objects for key in one) if key]
    columns = [column_of(_CAMEL.sub(" ", key[:100])) for key in keys]
    cells = [[_written(one.get(key)) for key in keys] for one in objects]
    return _by_columns(columns, cells, kind, span=(begin.start(), end))


def _decode(text: str, start: int) -> tuple[list[object], int]:
    """Return the consecutive JSON values from an offset on, and where they end."""
    values: list[object] = []
    decoder = json.JSONDecoder()
    end = start
    try:
        while text[start : start + 1] in ("{", "["):
            value, end = decoder.raw_decode(text, start)
            values.append(value)
            space = _SPACE.match(text, end)
            start = space.end() if space else end
    except (ValueError, RecursionError):
        return ([], end) if not values else (values, end)
    return values, end


_RANK = re.compile(rf"(?i:rank)[ _]?\d{{1,3}}|\d{{1,3}}(?:st|nd|rd|th)|{ORDINAL_WORDS}")
_IN_BRACKETS = re.compile(r"\[\w{1,3}\]")
_SPACE = re.compile(r"[\s,]*+")


def _objects(values: Sequence[object]) -> list[dict[str, object]]:
    """Return the objects that are records: a list, consecutive ones, a list under one key, or one under each key."""
    value: object = values[0] if len(values) == 1 else values
    if isinstance(value, dict):
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        if value and all(isinstance(inner, dict) for inner in value.values()):
            value = [_with_key(key, inner) for key, inner in value.items()]
        elif value and not lists:
            value = _pairs({key: _written(inner) for key, inner in value.items()})
        elif len(lists) == 1:
            value = lists[0]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return []
    return value


def _with_key(key: str, inner: dict[str, object]) -> dict[str, object]:
    """Add the key of a record to it, as its passage, or as its rank if the record contains the passage."""
    has_passage = any(column_of(_CAMEL.sub(" ", name[:100])) == "passage" for name in inner)
    return {"rank" if has_passage else "passage": key, **inner}


def _pairs(written: dict[str, str]) -> list[dict[str, object]]:
    """Return records from an object of ranks and passages, if its keys or values are recognizably ranks."""
    if all(_RANK.fullmatch(key) for key in written):
        return [{"rank": key, "passage": value} for key, value in written.items()]
    if all(_RANK.fullmatch(value) for value in written.values()):
        return [{"rank": value, "passage": key} for key, value in written.items()]
    if all(key.isdecimal() for key in written) and all(_IN_BRACKETS.fullmatch(value) for value in written.values()):
        return [{"rank": key, "passage": value} for key, value in written.items()]
    return []


def _written(value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return str(value)[:200] if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _find_table(text: str, kind: IdentifierKind) -> Records | None:
    found = _TABLE.search(text)
    if found is None:
        return None
    rows = [line.strip(" \t|").split("|") for line in found[0].splitlines() if not RULE.fullmatch(line)]
    columns = [column_of(cell) for cell in rows[0]] if rows else []
    if any(columns) and not any(_MARKED[kind].fullmatch(cell) or _NUMBER.fullmatch(cell) for cell in rows[0]):
        rows = rows[1:]
    else:
        columns = [""] * len(columns)
    rows = [(row + [""] * len(columns))[: len(columns)] for row in rows]
    return _by_columns(columns, rows, kind, span=found.span()) if len(rows) > 1 else None


def _by_columns(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], kind: IdentifierKind, *, span: tuple[int, int]
) -> Records | None:
    """Return the records, if exactly one column can contain passages."""
    cells = {place: [row[place] for row in rows] for place in range(len(columns))}
    named = [place for place, column in enumerate(columns) if column == "passage"]
    whole, form = (named, _BARE[kind]) if named else (list(cells), _MARKED[kind])
    passages = [place for place in whole if all(form.fullmatch(cell) for cell in cells[place])]
    if len(passages) != 1:
        return None
    passage = passages[0]
    found = [form.fullmatch(cell) for cell in cells[passage]]
    names = [next(group for group in match.groups() if group) for match in found if match]
    records = Records(start=span[0], end=span[1], names=names)
    for place, column in enumerate(columns):
        written = [cell.strip(" \t*_#`") for cell in cells[place]]
        if not records.ranks and (column == "rank" or all(map(_RANK.fullmatch, written))):
            records.ranks = [read_rank(cell) for cell in written]
        elif column == "score" and not records.scores:
            records.scores = [read_score(cell) for cell in written]
    if not records.ranks and not records.scores:
        return _by_numbers(records, list(_numbers(cells, but=passage)), passage)
    return records


def _numbers(cells: dict[int, list[str]], *, but: int) -> Iterator[tuple[int, list[float]]]:
    """Yield the other columns that contain only numbers."""
    for place, column in cells.items():
        found = [_NUMBER.fullmatch(cell) for cell in column]
        if place != but and all(found):
            yield place, [float(match[1]) for match in found if match]


def _by_numbers(records: Records, numbers: Sequence[tuple[int, list[float]]], passage: int) -> Records | None:
    """Interpret numbers without a header: `| 1 | [3] |` above `| 2 | [1] |` is a ranking in order."""
    ranks = [place for place, column in numbers if column == list(range(1, len(column) + 1))]
    scores = [
        place
        for place, column in numbers
        if column == sorted(column, reverse=True) and (ranks or not all(map(float.is_integer, column)))
    ]
    if len(ranks) + len(scores) == len(numbers):
        return records
    if all(place > passage for place, _ in numbers):
        return None  # read as rows, which may be sorted by a score
    records.is_ambiguous = True
    return records
