"""Which slices of a ranking a listwise reranker reads."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rankllm_core.errors import ConfigError
from rankllm_infer.ranking.strategies import WindowSchedule


# Recorded by running castorini/rank_llm@1b3cabb src/rank_llm/rerank/listwise/listwise_rankllm.py (window 20).
@pytest.mark.parametrize(
    ("n", "stride", "expected"),
    [
        (100, 10, [(80, 100), (70, 90), (60, 80), (50, 70), (40, 60), (30, 50), (20, 40), (10, 30), (0, 20)]),
        (25, 10, [(5, 25), (0, 15)]),
        (35, 10, [(15, 35), (5, 25), (0, 15)]),
        (100, 15, [(80, 100), (65, 85), (50, 70), (35, 55), (20, 40), (5, 25), (0, 10)]),
        (10, 10, [(0, 10)]),
        (20, 10, [(0, 20)]),
        (1, 10, [(0, 1)]),
        (0, 10, []),
    ],
)
def test_windows_are_those_of_the_original(n, stride, expected):
    """From the bottom up, each one stride above the previous, the last truncated at rank 0."""
    assert list(WindowSchedule(size=20, stride=stride).windows(n)) == expected


@pytest.mark.parametrize(("size", "stride"), [(20, 10), (20, 20), (2, 1), (1, 1), (7, 3)])
def test_windows_cover_every_rank_and_never_leave_a_gap(size, stride):
    """Each window overlaps or touches the next, so that a passage can rise from the last rank to the first."""
    for n in range(1, 60):
        windows = list(WindowSchedule(size=size, stride=stride).windows(n))
        assert windows[0][1] == n
        assert windows[-1][0] == 0
        assert all(0 < end - start <= size for start, end in windows)
        assert all(start <= end_above for (start, _), (_, end_above) in pairwise(windows))


@pytest.mark.parametrize(("size", "stride"), [(0, 0), (20, 0), (20, -1), (10, 11)])
def test_a_schedule_that_would_not_move_or_leave_gaps_is_refused(size, stride):
    """A stride of 0 would never end; one larger than the size would skip passages."""
    with pytest.raises(ConfigError, match=f"expected 0 < stride <= size, found stride={stride}, size={size}"):
        WindowSchedule(size=size, stride=stride)
