"""Ambiguous pairs of identifiers in answers: `3 2` above `1 3`, `1 > 3` above `2 > 1`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise

from rankllm_core.answers.rows import counts_up, is_distinct
from rankllm_core.answers.tokens import Token


def goes_in_circles(tokens: Sequence[Token], known: Collection[str]) -> bool:
    """Whether the answer consists of pairs joined by `>` that do not form a ranking: `1 > 3, 2 > 1, 3 > 2`.

    If each identifier occurs once on the left and once on the right, the pairs are circular. If the left side counts 1,
    2, 3, ... without brackets, `1 > 13, 2 > 7` may be ranks and passages; so may `[13] > 1, [7] > 2`.
    """
    pieces: list[list[Token]] = []
    is_open = False
    for token in tokens:
        if token.kind in ("less", "tie", "unknown"):
            return False
        if token.kind == "name":
            if not (is_open and pieces):
                pieces.append([])
            pieces[-1].append(token)
        if token.kind != "line":
            is_open = token.kind == "join"
    if len(pieces) < 2 or any(len(piece) != 2 for piece in pieces):
        return False
    left, right = ([piece[side].name for piece in pieces] for side in (0, 1))
    if not {*left, *right} <= set(known):
        return False
    if sorted(left) == sorted(right) and is_distinct(left):
        return True
    return any(
        counts_up(side) and not any(piece[place].is_marked for piece in pieces) and is_distinct(other)
        for place, side, other in ((0, left, right), (1, right, left))
    )


def is_paired(tokens: Sequence[Token], known: Collection[str]) -> bool:
    """Whether an answer without `>` consists of identifier pairs, on separate lines or in sequence, with repeats.

    One of each pair may be its rank, and it is unclear which.
    """
    if any(token.kind in ("join", "less") for token in tokens):
        return False
    names = [token.name for token in tokens if token.kind == "name"]
    half = len(names) // 2
    if half < 2 or len(names) % 2 or not set(names) <= set(known) or is_distinct(names):
        return False
    if all(count in (0, 2) for count in _names_on_lines(tokens)):
        return True
    in_turn = sorted(names[::2]) == sorted(names[1::2]) == sorted(set(names))
    is_one_list_twice = names[:half] == names[half:] and not counts_up(names[::2])
    return in_turn and not is_one_list_twice and all(count % 2 == 0 for count in _names_on_lines(tokens))


def _names_on_lines(tokens: Sequence[Token]) -> list[int]:
    counts = [0]
    for token in tokens:
        if token.kind == "line":
            counts.append(0)
        counts[-1] += token.kind == "name"
    return counts


def has_unread_numbers(text: str, names: Sequence[Token]) -> bool:
    """Whether each identifier has a number next to it that neither counts up nor decreases like ranks or scores.

    Whatever words accompany it: `[1] got 2 votes, [2] got 3`.
    """
    values = _numbers_beside(text, sorted((token.start, token.end) for token in names))
    if len(values) < 2 or all(1900 <= value < 2100 for value in values):  # (2019), (2021): years of publication
        return False
    counts = all(map(float.is_integer, values)) and all(one < two for one, two in pairwise(values))
    # 3, 2, 1 may be scores, or ranks from worst to best.
    is_countdown = len(values) == len(names) and sorted(values) == list(range(1, len(values) + 1))
    return not counts and (is_countdown or values != sorted(values, reverse=True))


def _numbers_beside(text: str, places: Sequence[tuple[int, int]]) -> list[float]:
    """Return the numbers between identifiers, and one before the first or after the last; [] if some have none."""
    between = [text[one[1] : two[0]] for one, two in pairwise(places)]
    if not between or any(len(gap) > _MAX_GAP for gap in between):
        return []
    found = [_NUMBER.findall(gap) for gap in between]
    if any(len(numbers) != 1 for numbers in found):
        return []
    start, end = places[0][0], places[-1][1]
    before = _NUMBER.findall(text[max(start - _MAX_GAP, 0) : start].rpartition("\n")[2])
    behind = _NUMBER.findall(text[end : end + _MAX_GAP].lstrip().partition("\n")[0])
    if (len(before) == 1) != (len(behind) == 1):
        found = [before if len(before) == 1 else [], *found, behind if len(behind) == 1 else []]
    return [float(number) for numbers in found for number in numbers]


_MAX_GAP = 300
"""Maximum number of characters between two identifiers that are searched for a number."""
_NUMBER = re.compile(r"(?<![\w.])(\d{1,6}(?:\.\d{1,9})?)(?:%|(?:st|nd|rd|th)\b|(?![\w.]\w))")
