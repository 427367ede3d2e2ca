"""Scores as trec_eval compares them: in single precision, ties by docid descending."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Sequence

from rankllm_core.errors import RankLLMError

_DIGITS_OF_FLOAT32 = 9
"""Significant decimal digits that tell any two float32 values apart (IEEE 754, binary32)."""


_PLAIN_INTEGERS = 1_000_000
"""Integers below it have six digits, which every float32 value keeps."""


class ScoreError(RankLLMError):
    """A score cannot stand in a run.

    position: 0-based place in the list of scores. problem: what is wrong with it, without saying where.
    """

    def __init__(self, problem: str, *, position: int) -> None:
        """Keep the place for callers that know which query and docid stand there."""
        self.position = position
        self.problem = problem
        super().__init__(f"score at rank {position + 1}: {problem}")


def to_float32(scores: Iterable[float]) -> list[float]:
    """Each score rounded to the nearest float32, as C's cast does; beyond the float32 range it becomes +-inf."""
    return array("f", scores).tolist()


def trec_order(candidates: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """Candidates as trec_eval ranks them: score descending as float32, ties by docid descending.

    candidates: (docid, score) in any order; the scores come back as they were.
    """
    listed = list(candidates)
    rounded = to_float32(score for _, score in listed)
    # trec_eval compares docids with strcmp: the order of UTF-8 bytes is the order of code points.
    keys = [(score, docid) for score, (docid, _) in zip(rounded, listed, strict=True)]
    return [listed[place] for place in sorted(range(len(listed)), key=keys.__getitem__, reverse=True)]


def decreasing_scores(scores: Sequence[float]) -> list[float]:
    """Scores that strictly decrease when read as float32, each as near to its original as that allows.

    scores: best first, not increasing. Each is rounded to float32; one that is not below the one before it is set to
    the next float32 below that one. So a run of n equal scores loses at most n - 1 float32 steps.
    Returns float32 values (as Python floats); zero is never negative.
    Raises ScoreError for NaN, an infinity, a score beyond the float32 range, or one that is above the one before it.
    """
    rounded = to_float32(scores)
    lowered: list[float] = []
    for position, value in enumerate(rounded):
        if not math.isfinite(value):
            raise ScoreError(_not_finite(scores[position]), position=position)
        if position and value > rounded[position - 1]:
            problem = f"{scores[position]!r} is above the one before it, {scores[position - 1]!r}; expected best first"
            raise ScoreError(problem, position=position)
        if position and value >= lowered[-1]:
            value = next_below(lowered[-1])
            if math.isinf(value):
                raise ScoreError("cannot be lowered: it is tied at the end of the float32 range", position=position)
        lowered.append(value + 0.0)  # -0.0 + 0.0 is 0.0
    return lowered


def _not_finite(score: float) -> str:
    if math.isfinite(score):
        return f"{score!r} is beyond the float32 range, in which trec_eval compares scores"
    return f"is {score!r}; expected a finite number"


def next_below(value: float) -> float:
    """The greatest float32 below `value`, itself a finite float32; -inf below the least of them."""
    if value == 0.0:
        bits = 0x80000001
    else:
        (bits,) = struct.unpack("<I", struct.pack("<f", value))
        bits += 1 if value < 0 else -1
    (below,) = struct.unpack("<f", struct.pack("<I", bits))
    return float(below)


def format_score(value: float) -> str:
    """The shortest decimal text that reads back as the float32 `value`, with a decimal point or an exponent.

    Texts of different float32 values order as the values do, in double precision too.
    """
    if -_PLAIN_INTEGERS < value < _PLAIN_INTEGERS and value == int(value):
        return repr(float(value))  # every score that a listwise run writes
    (value,) = to_float32([value])
    for digits in range(6, _DIGITS_OF_FLOAT32):
        text = f"{value:.{digits}g}"
        if to_float32([float(text)])[0] == value:
            return repr(float(text))
    return repr(float(f"{value:.{_DIGITS_OF_FLOAT32}g}"))
