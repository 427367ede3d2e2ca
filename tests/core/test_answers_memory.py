"""Reading an answer needs memory and time linear in its length, with small constants."""

from __future__ import annotations

import tracemalloc

import pytest

from rankllm_core.answers.reader import read_answer
from rankllm_core.types import identifiers

CHARACTERS = 5_000_000


PIECES = (
    *(
        "<answer>",
        "</think>",
        "[1]",
        "[1] > ",
        "1 ",
        "1: 2\n",
        "[1, ",
        '{"a": 1, "b": 2}, ',
        "&gt;",
        "\u2460",
        "\u200b",
    ),
    *"><=[](1a \n,-|",
)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.slow
@pytest.mark.timeout(60)
def test_five_million_characters_cost_less_than_twenty_bytes_each(piece):
    """Long runs of punctuation used to take 510 bytes per character."""
    text = "[2] > [3] " + piece * (CHARACTERS // len(piece))
    tracemalloc.start()
    try:
        answer = read_answer(text, identifiers("numeric", 20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sorted(answer.order) == list(range(20))
    assert peak < 20 * CHARACTERS


@pytest.mark.parametrize("piece", [">", ",", "<", "=>"])
def test_a_run_of_signs_keeps_no_record_of_each(piece):
    """Half a million punctuation characters are read quickly."""
    tracemalloc.start()
    try:
        read_answer("[2] > [3] " + piece * 500_000, identifiers("numeric", 20))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
