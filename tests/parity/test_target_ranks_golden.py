"""The ranks we read from targets against the labels of castorini/rank_llm@1b3cabb (golden/train_batches.jsonl.gz)."""

from __future__ import annotations

import gzip
import json

import pytest
from shared_files import golden

from rankllm_train.data.rankings import target_ranks, with_identifiers
from rankllm_train.data.records import parse_listwise


@pytest.fixture(scope="module")
def rows():
    """The six single records; batches only point to them."""
    with gzip.open(golden("train_batches.jsonl.gz"), "rt", encoding="utf-8") as stream:
        return [row for row in map(json.loads, stream) if row["kind"] == "single"]


def test_target_ranks_are_the_reference_s_labels(rows):
    """`GenerationDataset` and `RankingDataset` both count from 0; so do not we. In numbers they are the same."""
    assert len(rows) == 6
    for row in rows:
        record = parse_listwise(row["record"], path="train_batches", line=1)
        expected = tuple(label + 1 for label in row["ranking_label"])
        assert [tuple(label + 1 for label in labels) for labels in row["rank_labels"]] == [expected]
        assert target_ranks(record) == expected
        assert target_ranks(with_identifiers(record, "numeric")) == expected
