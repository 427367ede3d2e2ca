"""Pointwise records as groups of ids: one positive and its negatives, drawn anew each epoch by a seeded rule.

The ids of a pair come from rankllm_core's PairEncoder, which inference uses too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rankllm_core.errors import ContractError, DataError
from rankllm_core.prompts.pairs import PairEncoder
from rankllm_train.data.bad_records import BadRecords
from rankllm_train.data.record_checks import check_group
from rankllm_train.data.records import PointwiseRecord
from rankllm_train.encoding.prompt_checks import check_pairs, drops_passages
from rankllm_train.encoding.sampling import sample_group


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRule:
    """How a group is drawn from a record (sampling.py)."""

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
    n_first: tuple[int, ...] = ()
    """Leading ids of each row that are of the first token type; empty where the tokenizer has no types."""


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
        pairs = [self.encoder.encode_typed(record.query, title=p.title, text=p.text) for p in passages]
        rows, n_first = tuple(ids for ids, _ in pairs), tuple(n for _, n in pairs)
        scores = tuple(p.teacher_score for p in passages if p.teacher_score is not None)
        return PointwiseItem(index, rows, scores if rule.needs_teacher else None, n_first if any(n_first) else ())

    def name(self, index: int) -> str:
        """File, line and query."""
        record = self.records[index]
        return f"{record.path}:{record.line}: query {record.qid!r}"


def pointwise_dataset(
    records: Iterable[PointwiseRecord],
    encoder: PairEncoder,
    rule: GroupRule,
    *,
    bad_records: BadRecords | str = "error",
) -> PointwiseDataset:
    """All records, checked to make a group (`check_group`).

    bad_records: `error`, `skip`, or where those that were left out before are counted. Raises DataError naming a record
    that makes no group, or whose prompts are all the same; ContractError where the chat template drops the passages;
    RankLLMError where no record is left.
    """
    bad = bad_records if isinstance(bad_records, BadRecords) else BadRecords(bad_records)
    kept: list[PointwiseRecord] = []
    alike: list[str] = []
    for record in records:
        try:
            check_group(record, needs_teacher=rule.needs_teacher)
            found = check_pairs(record, encoder)
            if found.problem:
                raise record.error(found.problem)
        except DataError as problem:
            bad.refuse(problem)
            continue
        if not kept and drops_passages(record, encoder):
            raise ContractError(
                f"{record.path}:{record.line}: query {record.qid!r}: prompts hold nothing of the passages; look at "
                "the tokenizer's chat template, or give the prompt template a chat_layout"
            )
        if found.n_alike:
            alike.append(str(record.error(f"{found.n_alike} passages have the prompt of another, different one")))
        kept.append(record)
    if not kept:
        raise bad.nothing_left()
    n_short = sum(len(record.negatives) < rule.group_size - 1 for record in kept)
    return PointwiseDataset(
        records=tuple(kept), encoder=encoder, rule=rule, skipped=bad.reasons, n_short=n_short, alike=tuple(alike)
    )
