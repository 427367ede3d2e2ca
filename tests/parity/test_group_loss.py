"""Our pointwise loss against tevatron's, from the scores it stored (golden/rankllama_scores.jsonl.gz). No model."""

from __future__ import annotations

import gzip
import json

import pytest
from shared_files import golden

torch = pytest.importorskip("torch")

from rankllm_train.training.losses import as_groups, pointwise_cross_entropy  # noqa: E402


@pytest.fixture(scope="module")
def rows():
    """All rows, the head's left out."""
    with gzip.open(golden("rankllama_scores.jsonl.gz"), "rt", encoding="utf-8") as stream:
        return [row for row in map(json.loads, stream) if row["kind"] != "head"]


@pytest.mark.parametrize("layout", ["v1", "v2"])
def test_the_loss_of_a_group_is_tevatron_s(rows, layout):
    """Eight groups of eight, the positive first."""
    groups = [row for row in rows if row["kind"] == "group"]
    assert len(groups) == 8
    for row in groups:
        assert row["positive_index"] == 0
        scores = as_groups(torch.tensor(row[layout]["tevatron_scores_padded"]), group_size=8)
        assert pointwise_cross_entropy(scores).item() == pytest.approx(row[layout]["group_loss"], abs=1e-4)


def test_the_loss_of_two_groups_is_tevatron_s(rows):
    """Two queries in a batch of sixteen pairs: the mean of the groups' losses."""
    doubles = [row for row in rows if row["kind"] == "two groups in one batch"]
    assert len(doubles) == 3
    for row in doubles:
        scores = as_groups(torch.tensor(row["tevatron_scores_padded"]), group_size=8)
        assert scores.shape == (2, 8)
        assert pointwise_cross_entropy(scores).item() == pytest.approx(row["loss"], abs=1e-4)
        assert row["loss"] == pytest.approx(row["mean_of_group_losses"], abs=1e-4)
