"""Pointwise records as groups of token ids: one positive and its negatives, resampled each epoch from a seed.

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
    """How a group is sampled from a record (`sampling`)."""

    group_size: int = 16
    seed: int = 42
    positive_no_shuffle: bool = False
    negative_no_shuffle: bool = False
    needs_teacher: bool = False
    """Whether every passage must have a teacher score."""


@dataclass(frozen=True, slots=True)
class PointwiseItem:
    """Group of token ids with its record's index in the data set."""

    index: int
    rows: tuple[tuple[int, ...], ...]
    """One row per passage, the positive first."""
    teacher_scores: tuple[float, ...] | None
    n_first: tuple[int, ...] = ()
    """Number of leading ids of the first token type in each row; empty if the tokenizer has no token types."""


@dataclass(slots=True, kw_only=True)
class PointwiseDataset:
    """Groups as a torch data set whose items depend on the epoch."""

    records: tuple[PointwiseRecord, ...]
    encoder: PairEncoder
    rule: GroupRule
    skipped: tuple[str, ...] = ()
    """One line per skipped record, with the reason."""
    n_short: int = 0
    """Number of records with fewer negatives than a group needs; theirs are sampled with replacement."""
    alike: tuple[str, ...] = ()
    """One line per record in which some, but not all, of the different passages have the same prompt."""
    epoch: int = field(default=0)

    def set_epoch(self, epoch: int) -> None:
        """Sample the groups of this epoch from now on."""
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
        """Return file, line and query."""
        record = self.records[index]
        return f"{record.path}:{record.line}: query {record.qid!r}"


def pointwise_dataset(
    records: Iterable[PointwiseRecord],
    encoder: PairEncoder,
    rule: GroupRule,
    *,
    bad_records: BadRecords | str = "error",
) -> PointwiseDataset:
    """Check that every record can form a group (`check_group`) and return them as a data set.

    bad_records: `error`, `skip`, or the collector of records that were skipped earlier. Raises DataError naming a
    record that cannot form a group or whose prompts are all the same, ContractError if the chat template drops the
    passages, RankLLMError if no record is left.
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
                f"{record.path}:{record.line}: query {record.qid!r}: the prompts do not contain the passages; check "
                "the tokenizer's chat template, or set chat_layout in the prompt template"
            )
        if found.n_alike:
            alike.append(str(record.error(f"{found.n_alike} passages have the same prompt as a different passage")))
        kept.append(record)
    if not kept:
        raise bad.nothing_left()
    n_short = sum(len(record.negatives) < rule.group_size - 1 for record in kept)
    return PointwiseDataset(
        records=tuple(kept), encoder=encoder, rule=rule, skipped=bad.reasons, n_short=n_short, alike=tuple(alike)
    )
