"""Answers in rows of two columns: a rank and a passage, or a passage and its rank or score.

`1: 3` above `2: 1` is a numbered list, `| [3] | 1 |` above `| [1] | 2 |` a table sorted by rank. A header or the
numbers tell which column contains ranks; if they do not, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rankllm_core.answers.headers import read_header
from rankllm_core.answers.tokens import NOUN

AMBIGUOUS = "no ranking: a number beside each identifier, and the order of neither is that of a ranking"

_MAX_CHARACTERS = 200_000
"""Maximum number of characters searched for rows."""
_LEAD = r"[ \t>*_|\-•]*+"
_SIGN = r"(?: [ \t]*+ (?: [:|)=] | \.(?!\d) | [\-–—]{1,2}+ >?+ (?!\d) ) ){1,3} [ \t]*+"
"""`1: 3`, `1. | 3`, `1 -> 3`, but not the decimal `1.3`."""
_PAIR = rf"""
    (?P<first>) (?P<rank> (?i:rank(?:ed)?|place|position|number|no\.?|top) [ \t]{{0,3}}+ )?
    (?P<noun> {NOUN} [ \t_\#]{{0,3}}+ )?
    (?P<open> [\[("'*_`\#]{{0,4}}+ ) (?P<left> \d{{1,3}} | [A-Za-z] ) (?P<ordinal> st|nd|rd|th )?
    (?P<close> [\])"'*_`]{{0,4}}+ )
    (?P<sign> SIGN )
    (?P<quote> [*_"'`]{{0,3}}+ [ \t]*+ )
    (?P<right> -?\d{{1,6}} (?:\.\d{{1,9}})? (?: [ \t]?/[ \t]?\d{{1,4}} | % )? | [A-Z] ) (?P<past>) [*_"'`]{{0,3}}+
"""
_TAIL = r"(?: [ \t]*+ (?: \|[^\n]* | \([^()\n]{1,200}\) | [\-–—][ \t]++(?=[^\W\d])[^\n]* ) )? [ \t|.]*+"
"""Further columns of a table, or a comment: `1: 3 (best)`, `1. 3 - explains it`."""
_BETWEEN = (
    rf"(?: ^ | (?<=[\n,;{{]) | (?<=:[ ]) ) {_LEAD}",
    rf"{_SIGN} | (?<=\)) [ \t]++",
    rf"{_TAIL} (?= [\n,;}}] | \Z )",
)
_ON_LINES = (rf"(?: ^ | (?<=\n) ) {_LEAD}", r",[ \t]*+ | [ \t]++", rf"{_TAIL} (?= \n | \Z )")
_IN_LINE = (r"(?<! \S )", rf"{_SIGN} | (?<=\)) [ \t]++", r"(?= \s | \Z )")
"""Text before a pair, between its columns and after it: `1: 3, 2: 1`; `1 3` on a line of its own; `1) 3 2) 1`."""
_BETWEEN_ROWS, _ON_LINES_ROWS, _IN_LINE_ROWS = (
    re.compile(start + _PAIR.replace("SIGN", sign) + end, re.VERBOSE)
    for start, sign, end in (_BETWEEN, _ON_LINES, _IN_LINE)
)
_NUMBERED = re.compile(r"[ \t*\-]*+\d{1,3}[.)][ \t]")
"""Number of a list item, which `tokenize` skips."""
_OBJECT = re.compile(r"""\{[^{}]{0,300}?"[A-Za-z_]{1,30}"\s*:\s*"?\d[^{}]{0,300}?"[A-Za-z_]{1,30}"\s*:\s*"?\d""")


@dataclass(frozen=True, slots=True)
class Rows:
    """Interpretation of the rows of an answer."""

    text: str
    """The answer, with the column that does not rank blanked out, or with the rows in the order of their ranks."""
    doubt: str = ""
    """Why the order is ambiguous, unless identifiers joined by `>` define one; empty if it is not."""
    remark: str = ""
    """Defect of the order that was read, unless identifiers joined by `>` define one."""
    ranks: tuple[str, ...] = ()
    """Identifiers by their stated ranks, best first, if the text lists them in another order."""


def read_rows(text: str) -> Rows:
    """Find the rows of an answer that went through `normalise`; at least two."""
    head = text[:_MAX_CHARACTERS]
    rows = _find_rows(head)
    if len(rows) < 2:
        return Rows(text, doubt=AMBIGUOUS if len(_OBJECT.findall(head)) > 1 else "")
    left, right = [row["left"] for row in rows], [row["right"] for row in rows]
    if any(value.islower() for value in left) and not counts_up(left):
        return Rows(text)
    columns = read_header(head[: rows[0].start()])
    if columns == ("passage", "rank"):
        return _ranked(text, rows, names=left, ranks=right)
    is_score = columns[1] == "score" or any(not value.isalnum() for value in right) or not is_distinct(right)
    # `1: 3` above `2: 3` may be scores, or a list with a repeat.
    is_unsure = counts_up(left) and columns == ("", "") and not _says_passage(rows) and all(map(str.isdigit, right))
    if columns[0] != "score" and columns != ("rank", "score"):
        if columns == ("rank", "passage") or any(row["rank"] or row["ordinal"] for row in rows):
            return _ranked(text, rows, names=right, ranks=left)
        if columns[1] != "score" and all(_is_numbered(row) for row in rows):
            if is_distinct(left) and left != sorted(left, key=int):  # `2. 1` over `1. 3`
                return Rows(text, doubt=AMBIGUOUS)
            return _without(text, rows, column="tail")
        if counts_up(left) and not is_score and columns[0] != "passage" and not _says_passage(rows):
            return _without(text, rows, column="left")
        is_either = is_distinct(left) and set(left) == set(right) and left != right and not _says_passage(rows)
        if counts_up(right) and columns == ("", "") and is_either:  # `2: 1, 1: 2, 3: 3`
            return Rows(text, doubt=AMBIGUOUS)
        if (counts_up(right) and columns[1] != "score") or (is_score and _falls(right) and not is_unsure):
            return _without(text, rows, column="right")
    # The `>` of `Passage 1 -> 3` joins nothing.
    return Rows(_without(text, [row for row in rows if ">" in row["sign"]], column="sign").text, doubt=AMBIGUOUS)


def _find_rows(text: str) -> list[re.Match[str]]:
    for pattern in (_BETWEEN_ROWS, _ON_LINES_ROWS):
        rows = list(pattern.finditer(text))
        if len(rows) > 1:
            return rows
    rows = list(_IN_LINE_ROWS.finditer(text))
    is_in_turn = not any(text[one.end() : two.start()].strip() for one, two in pairwise(rows))
    return rows if is_in_turn else []


def _is_numbered(row: re.Match[str]) -> bool:
    """Whether the left column is only the number of a list item at the start of a line."""
    begins_line = row.start() == 0 or row.string[row.start() - 1] == "\n"
    return begins_line and _NUMBERED.match(row.string, row.start()) is not None


def _says_passage(rows: Sequence[re.Match[str]]) -> bool:
    """Whether the left column is marked as passages, and the right one is not."""
    return any(
        row["noun"] or "[" in row["open"] or (set(row["open"]) & {*"\"'"} and not row["quote"].strip()) for row in rows
    )


def is_distinct(values: Sequence[str]) -> bool:
    """Whether all values are different."""
    return len(set(values)) == len(values)


def counts_up(values: Sequence[str]) -> bool:
    """Whether a column is 1, 2, 3, ... or A, B, C, ... or a, b, c, ..."""
    n = range(len(values))
    letters = ["".join(chr(ord(first) + i) for i in n if i < 26) for first in "Aa"]
    return list(values) in ([str(i + 1) for i in n], *map(list, letters))


def _falls(values: Sequence[str]) -> bool:
    """Whether a column of scores is sorted in descending order."""
    try:
        numbers = [float(value.partition("/")[0].rstrip("% \t")) for value in values]
    except ValueError:
        return False
    return numbers == sorted(numbers, reverse=True) and numbers[0] > numbers[-1]


def _ranked(text: str, rows: Sequence[re.Match[str]], *, names: Sequence[str], ranks: Sequence[str]) -> Rows:
    """Return the rows in the order of their ranks."""
    if not all(name.isalnum() for name in names) or not is_distinct(ranks):
        return Rows(text, doubt=AMBIGUOUS)
    if all(rank.isdigit() for rank in ranks):
        order = sorted(range(len(rows)), key=lambda i: int(ranks[i]))
    elif all(rank.isalpha() for rank in ranks):
        order = sorted(range(len(rows)), key=lambda i: ranks[i])
    else:
        return Rows(text, doubt=AMBIGUOUS)
    if order == list(range(len(rows))):
        return _without(text, rows, column="left" if ranks == [row["left"] for row in rows] else "right")
    listed = "\n".join(f"[{names[i]}]" for i in order)
    return Rows(f"{text[: rows[0].start()]}\n{listed}\n{text[rows[-1].end() :]}")


def _without(text: str, rows: Sequence[re.Match[str]], *, column: str) -> Rows:
    """Return the text with one column blanked out, and what follows the two."""
    pieces, done = [], 0
    for row in rows:
        ranges = {
            "left": (row.start("first"), row.end("quote")),
            "right": (row.start("sign"), row.end("right")),
            "sign": row.span("sign"),
        }
        for start, end in (ranges.get(column, (0, 0)), (row.end("past"), row.end())):
            if start < end:
                pieces += [text[done:start], " " * (end - start)]
                done = end
    return Rows("".join([*pieces, text[done:]]))
