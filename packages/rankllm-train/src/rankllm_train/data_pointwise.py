"""Pointwise records as groups of ids: one positive and its negatives, drawn anew each epoch by a seeded rule.

The ids of a pair come from rankllm_core's PairEncoder, which inference uses too.
Shapes: B groups, G passages per group, M = B G rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rankllm_core.errors import ContractError, DataError, RankLLMError
from rankllm_core.pairs import PairEncoder
from rankllm_train.data_listwise import padded
from rankllm_train.pair_check import check_pairs, drops_passages
from rankllm_train.records import PointwiseRecord
from rankllm_train.sampling import sample_group


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRule:
    """How a group is drawn from a record (tevatron dd06310; sampling.py)."""

    group_size: int = 16
    seed: int = 42
    positive_no_shuffle: bool = False
    negative_no_shuffle: bool = False
    needs_teacher: bool = False
    """Whether every passage must have a teacher score."""


@dataclass(frozen=True, slots=True)
class PointwiseItem:
    """A group as ids and its record's place in the data set."""

    index: int
    rows: tuple[tuple[int, ...], ...]
    """The positive first."""
    teacher_scores: tuple[float, ...] | None


@dataclass(slots=True, kw_only=True)
class PointwiseDataset:
    """Groups ready to train on: a torch data set whose items depend on the epoch."""

    records: tuple[PointwiseRecord, ...]
    encoder: PairEncoder
    rule: GroupRule
    skipped: tuple[str, ...] = ()
    """One line for each record that was left out, saying why."""
    n_short: int = 0
    """Records with fewer negatives than a group wants; theirs are drawn with replacement."""
    alike: tuple[str, ...] = ()
    """One line for each record in which some, but not all, of the different passages have the same prompt."""
    epoch: int = field(default=0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the groups of this epoch from now on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> PointwiseItem:
        record, rule = self.records[index], self.rule
        group = sample_group(
            index,
            self.epoch,
            seed=rule.seed,
            n_positives=len(record.positives),
            n_negatives=len(record.negatives),
            group_size=rule.group_size,
            positive_no_shuffle=rule.positive_no_shuffle,
            negative_no_shuffle=rule.negative_no_shuffle,
        )
        passages = [record.positives[group.positive], *(record.negatives[i] for i in group.negatives)]
        rows = tuple(self.encoder.encode(record.query, title=p.title, text=p.text) for p in passages)
        scores = tuple(p.teacher_score for p in passages if p.teacher_score is not None)
        return PointwiseItem(index, rows, scores if rule.needs_teacher else None)

    def name(self, index: int) -> str:
        """File, line and query."""
        record = self.records[index]
        return f"{record.path}:{record.line}: query {record.qid!r}"


def pointwise_dataset(
    records: Iterable[PointwiseRecord], encoder: PairEncoder, rule: GroupRule, *, bad_records: str = "error"
) -> PointwiseDataset:
    """All records, checked to make a group.

    bad_records: `error`, or `skip` and count. Raises DataError naming a record without negatives, without teacher
    scores where they are needed, or whose prompts are all the same; ContractError where the chat template drops the
    passages; RankLLMError where no record is left.
    """
    kept: list[PointwiseRecord] = []
    skipped: list[str] = []
    alike: list[str] = []
    for record in records:
        problem = _problem(record, rule)
        if problem is None:
            found = check_pairs(record, encoder)
            if not kept and not found.problem and drops_passages(record, encoder):
                raise ContractError(
                    f"{record.path}:{record.line}: query {record.qid!r}: prompts hold nothing of the passages; look at "
                    "the tokenizer's chat template, or give the prompt template a chat_layout"
                )
            problem = record.error(found.problem) if found.problem else None
            if problem is None and found.n_alike:
                alike.append(str(record.error(f"{found.n_alike} passages have the prompt of another, different one")))
        if problem is None:
            kept.append(record)
        elif bad_records == "error":
            raise problem
        else:
            skipped.append(str(problem))
    if not kept:
        raise RankLLMError("no record to train on" + (f"; the first left out: {skipped[0]}" if skipped else ""))
    n_short = sum(len(record.negatives) < rule.group_size - 1 for record in kept)
    return PointwiseDataset(
        records=tuple(kept), encoder=encoder, rule=rule, skipped=tuple(skipped), n_short=n_short, alike=tuple(alike)
    )


def _problem(record: PointwiseRecord, rule: GroupRule) -> DataError | None:
    if not record.positives:
        return record.error("no positive passage, expected at least one")
    if not record.negatives:
        return record.error(f"no negative passage, expected some for groups of {rule.group_size}")
    if rule.needs_teacher and not record.has_teacher:
        return record.error("no teacher scores, which the objectives kl and margin need; use cross-entropy")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseCollator:
    """Puts whole groups in a batch, one row a pair, padded on the right to the longest pair.

    answer_ids: the ids of the yes and the no, for a yes/no head; empty for a score layer.
    """

    pad_id: int
    answer_ids: tuple[int, ...] = ()

    def __call__(self, items: Sequence[PointwiseItem]) -> dict[str, Tensor]:
        """The batch of some groups."""
        rows = [row for item in items for row in item.rows]
        lengths = torch.tensor([len(row) for row in rows])
        batch = {
            "input_ids": padded(rows, pad=self.pad_id),
            "lengths": lengths,
            "read_positions": lengths - 1,
            "indices": torch.tensor([item.index for item in items]),
        }
        if self.answer_ids:
            batch["read_ids"] = torch.tensor([self.answer_ids] * len(rows))
        if items[0].teacher_scores is not None:
            batch["teacher_scores"] = torch.tensor([item.teacher_scores for item in items])
        return batch
