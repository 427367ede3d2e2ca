"""Answers in rows of two columns: a rank and a passage, or a passage and its rank or score.

`1: 3` over `2: 1` is a numbered list, `| [3] | 1 |` over `| [1] | 2 |` a table that is sorted by rank. Which column
ranks is told by the numbers; where they do not tell, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rankllm_core.answer_tokens import NOUN

AMBIGUOUS = "no ranking: a number beside each identifier, and the order of neither is that of a ranking"

_MAX_CHARACTERS = 200_000
"""How much of an answer is searched for rows."""
_ROW = re.compile(
    rf"""
    (?: ^ | (?<=[\n,;{{]) ) [ \t>*_|\-•]*+
    (?P<first>) (?P<rank> (?i:rank(?:ed)?|place|position|number|no\.?|top) [ \t]{{0,3}}+ )?
    (?P<noun> {NOUN} [ \t_\#]{{0,3}}+ )?
    (?P<open> [\[("'*_`\#]{{0,4}}+ ) (?P<left> \d{{1,3}} | [A-Z] ) (?P<ordinal> st|nd|rd|th )?
    (?P<close> [\])"'*_`]{{0,4}}+ )
    (?P<sign> [ \t]*+ [:|.)\-–—]{{1,3}}+ [ \t]*+ | (?<=\)) [ \t]++ )
    (?P<quote> [*_"'`]{{0,3}}+ ) (?P<right> -?\d{{1,6}} (?:\.\d{{1,9}})? | [A-Z] ) [*_"'`]{{0,3}}+
    [ \t|.]*+ (?= [\n,;}}] | \Z )
    """,
    re.VERBOSE,
)
_OBJECT = re.compile(r"""\{[^{}]{0,300}?"[A-Za-z_]{1,30}"\s*:\s*"?\d[^{}]{0,300}?"[A-Za-z_]{1,30}"\s*:\s*"?\d""")


@dataclass(frozen=True, slots=True)
class Rows:
    """What the rows of an answer come to."""

    text: str
    """The answer, with blanks over the column that does not rank."""
    is_ambiguous: bool = False
    """Whether it has rows, and either column could be the ranking or neither."""


def read_rows(text: str) -> Rows:
    """Find the rows of an answer that went through `normalise`, two at least."""
    head = text[:_MAX_CHARACTERS]
    rows = list(_ROW.finditer(head))
    if len(rows) < 2:
        return Rows(text, is_ambiguous=len(_OBJECT.findall(head)) > 1)
    if all(row["sign"].strip() in (".", ")") and row["left"].isdigit() and not _is_named(row) for row in rows):
        return Rows(text)  # a plain numbered list
    left, right = [row["left"] for row in rows], [row["right"] for row in rows]
    is_score = any(not value.isalnum() for value in right) or not _is_distinct(right)
    if any(row["rank"] or row["ordinal"] for row in rows) or (
        _counts(left) and not is_score and not _says_passage(rows)
    ):
        return Rows(text) if is_score else Rows(_blanked(text, [(row.start("first"), row.end("sign")) for row in rows]))
    if _counts(right) or (is_score and _falls(right)):
        return Rows(_blanked(text, [(row.start("sign"), row.end("right")) for row in rows]))
    return Rows(text, is_ambiguous=True)


def _is_named(row: re.Match[str]) -> bool:
    """Whether the left column is more than the number of a list item at the start of a line."""
    begins_line = row.start() == 0 or row.string[row.start() - 1] == "\n"
    return bool(row["rank"] or row["noun"] or row["ordinal"] or row["open"] or not begins_line)


def _says_passage(rows: Sequence[re.Match[str]]) -> bool:
    """Whether the left column is marked as passages, and the right one is not."""
    return any(row["noun"] or "[" in row["open"] or (set(row["open"]) & {*"\"'"} and not row["quote"]) for row in rows)


def _is_distinct(values: Sequence[str]) -> bool:
    return len(set(values)) == len(values)


def _counts(values: Sequence[str]) -> bool:
    """Whether a column is 1, 2, 3, ... or A, B, C, ..."""
    n = range(len(values))
    return list(values) in ([str(i + 1) for i in n], [chr(ord("A") + i) for i in n if i < 26])


def _falls(values: Sequence[str]) -> bool:
    """Whether a column of scores is sorted, the highest first."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return False
    return numbers == sorted(numbers, reverse=True) and numbers[0] > numbers[-1]


def _blanked(text: str, ranges: Sequence[tuple[int, int]]) -> str:
    pieces, done = [], 0
    for start, end in ranges:
        pieces += [text[done:start], " " * (end - start)]
        done = end
    return "".join([*pieces, text[done:]])
