"""Column headers above the rows of an answer: `| Passage | Rank |`, `Scores (out of 3):`."""

from __future__ import annotations

import re
from typing import Literal

Column = Literal["passage", "rank", "score", ""]
"""Content of a column; empty if a header does not tell."""

_MAX_CHARACTERS = 300
"""Number of characters read before the first row."""
RULE = re.compile(r"[\s|:+=\-–—_`*]*|```\w*")
"""Line of a table, or a fence, between a header and its rows."""
_WORDS = re.compile(r"[^\W\d_]+")
_COLUMNS: dict[str, Column] = {
    **dict.fromkeys(("passage", "document", "doc", "docid", "id", "identifier", "item", "paragraph"), "passage"),
    **dict.fromkeys(("candidate", "text", "pid"), "passage"),
    **dict.fromkeys(("rank", "position", "place"), "rank"),
    **dict.fromkeys(("score", "relevance", "relevancy", "rating", "grade", "points"), "score"),
}
_FILLERS = frozenset(("number", "no", "nr", "new", "final", "the", "and", "with", "assigned"))
_ORDERS = re.compile(r"(?i)\b(?:rank|order|sort|list|top|most|best|first|high)")


def read_header(before: str) -> tuple[Column, Column]:
    """Return the first two columns according to the header, the last line of text before the first row."""
    for line in reversed(before[-_MAX_CHARACTERS:].splitlines()):
        if RULE.fullmatch(line):
            continue
        cells = line.strip(" \t>*").strip("|").split("|")
        if len(cells) > 1:
            return column_of(cells[0]), column_of(cells[1])
        return _of_line(line)
    return "", ""


def _of_line(line: str) -> tuple[Column, Column]:
    """Interpret a line such as `Passage: Rank`; a sentence only tells whether scores follow."""
    words = [word.lower() for word in _WORDS.findall(line)]
    found = [_of_word(word) for word in words if word not in _FILLERS]
    if all(found):
        columns = [column for place, column in enumerate(found) if place == 0 or column != found[place - 1]]
        if len(columns) > 1:
            return columns[0], columns[1]
        return "", "score" if columns == ["score"] else ""
    says_scores = any(_of_word(word) == "score" and not word.startswith("relevan") for word in words)
    return "", "score" if says_scores and not _ORDERS.search(line) else ""


def column_of(cell: str) -> Column:
    """Interpret the last meaningful word of a cell or key: `Passage rank` is a rank."""
    for word in reversed(_WORDS.findall(cell.lower())):
        if column := _of_word(word):
            return column
    return ""


def _of_word(word: str) -> Column:
    return _COLUMNS.get(word) or _COLUMNS.get(word.removesuffix("s"), "")
