"""Answers given by real listwise models."""

from __future__ import annotations

import gzip
import json
import re

import pytest
from shared_files import data

from rankllm_core.answers.reader import read_answer
from rankllm_core.types import identifiers


@pytest.fixture(scope="module")
def transcripts():
    """Answers of RankVicuna and Vicuna with a category assigned by hand."""
    with gzip.open(data("transcripts/responses.jsonl.gz"), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read(transcript):
    return read_answer(transcript["response"], identifiers("numeric", transcript["num_passages"]))


def in_order_of_mention(text, n):
    """All numbers in range by first mention, then the rest: what a reader without a grammar does."""
    numbers = [int(number) for number in re.findall("[0-9]+", text)]
    return tuple(number - 1 for number in dict.fromkeys([*numbers, *range(1, n + 1)]) if 1 <= number <= n)


def test_every_clean_answer_is_read_exactly(transcripts):
    """An answer that is a complete permutation in the form `[a] > [b]` is read as is, with status `ok`."""
    clean = [transcript for transcript in transcripts if transcript["category"] == "ok"]
    assert len(clean) == 4331
    for transcript in clean:
        order = tuple(int(number) - 1 for number in re.findall(r"\[([0-9]+)\]", transcript["response"]))
        answer = read(transcript)
        assert (answer.order, answer.status) == (order, "ok")


def test_every_answer_with_repeats_or_gaps_is_repaired(transcripts):
    """The first mention counts, gaps are filled in prompt order, and the defects say so."""
    flawed = [transcript for transcript in transcripts if transcript["category"] == "dup_or_missing"]
    assert len(flawed) == 545
    for transcript in flawed:
        answer = read(transcript)
        assert (answer.order, answer.status) == (
            in_order_of_mention(transcript["response"], transcript["num_passages"]),
            "repaired",
        )
        assert any(defect.startswith(("repeated", "missing")) for defect in answer.defects)


def test_odd_answers_are_read_by_their_rankings_not_by_their_prose(transcripts):
    """Reading differs from taking every number only for counts (`20 passages`), list numbers and pairwise lists."""
    odd = [transcript for transcript in transcripts if transcript["category"] == "nonstandard"]
    assert len(odd) == 419
    different = []
    for transcript in odd:
        answer = read(transcript)
        assert sorted(answer.order) == list(range(transcript["num_passages"]))
        if answer.order != in_order_of_mention(transcript["response"], transcript["num_passages"]):
            different.append(transcript["response"])
    assert len(different) == 12
    assert all(re.match("20 passages|1[.] ", response) for response in different)
