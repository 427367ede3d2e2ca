"""Pointwise records become groups of pairs, resampled in each epoch."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training_fakes import pointwise_record  # noqa: E402

from rankllm_core.errors import DataError, RankLLMError  # noqa: E402
from rankllm_core.prompts.pairs import PairEncoder, PairLimits  # noqa: E402
from rankllm_core.prompts.template import load_template  # noqa: E402
from rankllm_train.data.records import parse_pointwise  # noqa: E402
from rankllm_train.encoding.batches import PointwiseCollator  # noqa: E402
from rankllm_train.encoding.pointwise import GroupRule, pointwise_dataset  # noqa: E402


def records(n, **options):
    return [parse_pointwise(pointwise_record(i, **options), path="p.jsonl", line=i + 1) for i in range(n)]


@pytest.fixture(scope="module")
def encoder(smollm2_tokenizer):
    template = load_template("rankllama")
    return PairEncoder(smollm2_tokenizer, template, limits=PairLimits(query_tokens=32, passage_tokens=64))


def test_a_group_is_a_positive_and_negatives_of_its_own_record(encoder):
    """The positive is first; all rows contain the same query."""
    data = pointwise_dataset(records(3), encoder, GroupRule(group_size=4))
    for index in range(3):
        rows, record = data[index].rows, data.records[index]
        assert rows[0] == encoder.encode(record.query, title="", text=record.positives[0].text)
        known = {encoder.encode(record.query, title="", text=p.text) for p in record.negatives}
        assert len(rows) == 4
        assert set(rows[1:]) <= known


def test_groups_change_with_the_epoch_and_not_with_the_run(encoder):
    """Two runs sample alike; two epochs share no negative while there are enough."""
    first, second = (pointwise_dataset(records(1), encoder, GroupRule(group_size=4)) for _ in range(2))
    epoch_0 = first[0].rows
    assert second[0].rows == epoch_0
    first.set_epoch(1)
    assert not set(first[0].rows[1:]) & set(epoch_0[1:])


def test_a_batch_is_as_wide_as_its_longest_pair(encoder):
    """Rows are read at their last token; padding is on the right."""
    data = pointwise_dataset(records(2), encoder, GroupRule(group_size=3))
    batch = PointwiseCollator(pad_id=9)([data[0], data[1]])
    rows = [*data[0].rows, *data[1].rows]
    assert batch["input_ids"].shape == (6, max(map(len, rows)))
    assert batch["read_positions"].tolist() == [len(row) - 1 for row in rows]
    for ids, row in zip(batch["input_ids"].tolist(), rows, strict=True):
        assert ids == [*row, *[9] * (len(ids) - len(row))]


def test_a_record_without_negatives_is_named_or_left_out(encoder):
    """A group needs a negative."""
    mixed = [*records(1), *records(1, n_negatives=0)]
    with pytest.raises(DataError, match=r"p\.jsonl:1: query 'q0': no negative passage"):
        pointwise_dataset(mixed, encoder, GroupRule(group_size=4))
    data = pointwise_dataset(mixed, encoder, GroupRule(group_size=4), bad_records="skip")
    assert (len(data), len(data.skipped)) == (1, 1)


def test_too_few_negatives_are_counted(encoder):
    """They are sampled with replacement, and the number of such records is reported."""
    data = pointwise_dataset(records(2, n_negatives=2), encoder, GroupRule(group_size=6))
    assert data.n_short == 2
    assert len(data[0].rows) == 6


def test_teacher_scores_go_with_their_passages(encoder):
    """The positive's 3.0 first, then those of the sampled negatives."""
    data = pointwise_dataset(records(1, teacher=True), encoder, GroupRule(group_size=4, needs_teacher=True))
    item = data[0]
    assert item.teacher_scores[0] == 3.0
    texts = {p.teacher_score: p.text for p in data.records[0].negatives}
    for row, score in zip(item.rows[1:], item.teacher_scores[1:], strict=True):
        assert row == encoder.encode(data.records[0].query, title="", text=texts[score])
    assert PointwiseCollator(pad_id=0)([item])["teacher_scores"].shape == (1, 4)


def test_distillation_without_a_teacher_is_an_error(encoder):
    """The error names the record."""
    with pytest.raises(DataError, match=r"query 'q0': no teacher scores"):
        pointwise_dataset(records(1), encoder, GroupRule(group_size=4, needs_teacher=True))


def test_no_record_is_an_error(encoder):
    """An empty file."""
    with pytest.raises(RankLLMError, match="no records to train on"):
        pointwise_dataset([], encoder, GroupRule())
