"""Listwise records ready to train on: encoded, checked, shortened to the context where that is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rankllm_core.errors import ConfigError, ContractError, DataError
from rankllm_core.prompts.template import ListwiseTemplate
from rankllm_core.prompts.tokens import single_ids
from rankllm_core.types import IdentifierKind, identifiers
from rankllm_train.data.bad_records import BadRecords
from rankllm_train.data.rankings import identifier_kind
from rankllm_train.data.record_checks import check_texts
from rankllm_train.data.records import ListwiseRecord
from rankllm_train.data.shortening import fit
from rankllm_train.encoding.listwise_encoder import OPENING, ListwiseEncoder, ListwiseExample
from rankllm_train.encoding.prompt_checks import WindowWatch, n_alike

N_FIRST = 20
"""How many records a data set keeps for those who look at what is trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseDataset:
    """Records ready to train on. It is a torch data set: it has a length and items."""

    examples: tuple[ListwiseExample, ...]
    identifiers: IdentifierKind
    """What all records call their passages."""
    identifier_ids: tuple[int, ...]
    """The token id of each identifier where it follows `[`. Empty where one has no token of its own there, which only
    the generation objective allows: such data cannot be ranked by its logits."""
    skipped: tuple[str, ...] = ()
    """One line for each record that was left out, saying why."""
    n_truncated: int = 0
    """Records whose passages were cut to fit the context."""
    first_records: tuple[ListwiseRecord, ...] = ()
    """The first few that are trained on, as they were read."""
    n_alike: int = 0
    """Records cut to fit in which different passages are now shown alike."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> ListwiseItem:
        return ListwiseItem(index, self.examples[index])

    def name(self, index: int) -> str:
        """File, line and record."""
        return self.examples[index].name


@dataclass(frozen=True, slots=True)
class ListwiseItem:
    """An example and its place in the data set."""

    index: int
    example: ListwiseExample


def encode_listwise(
    records: Iterable[ListwiseRecord],
    encoder: ListwiseEncoder,
    *,
    objective: str,
    context_tokens: int,
    overlong: str = "error",
    bad_records: BadRecords | str = "error",
    template: ListwiseTemplate | None = None,
) -> ListwiseDataset:
    """All records as ids, checked.

    context_tokens: the most that prompt and answer may take. overlong: `error`, `skip` or `truncate` (its passages).
    bad_records: `error`, `skip`, or where those that were left out before are counted.
    template: what the prompts were written with; its suffix says where the last passage ends.
    Raises DataError naming a record that cannot be learnt from, or whose prompt shows no passage, ConfigError where the
    records name their passages in two ways, RankLLMError where none is left, ContractError where an identifier is more
    than one token.
    """
    bad = bad_records if isinstance(bad_records, BadRecords) else BadRecords(bad_records)
    encoding = _Encoding(encoder=encoder, bad=bad, limit=context_tokens, overlong=overlong, template=template)
    watch = WindowWatch(encoder.encode)
    for record in records:
        try:
            example = encoder.encode(record)
            check_texts(record)
            watch.check(record, example)
        except DataError as problem:
            bad.refuse(problem)
            continue
        if len(example) > context_tokens:
            encoding.add_shortened(record, example)
        else:
            encoding.add(record, record, example)
    return _dataset(encoding, objective)


@dataclass(slots=True, kw_only=True)
class _Encoding:
    """Which records are kept, and as what."""

    encoder: ListwiseEncoder
    bad: BadRecords
    limit: int
    """Tokens of the context."""
    overlong: str
    template: ListwiseTemplate | None
    examples: list[ListwiseExample] = field(default_factory=list)
    kinds: dict[IdentifierKind, str] = field(default_factory=dict)
    first: list[ListwiseRecord] = field(default_factory=list)
    n_truncated: int = 0
    n_alike: int = 0

    def add(self, record: ListwiseRecord, kept: ListwiseRecord, example: ListwiseExample) -> None:
        """Keep an example. kept: the record that it shows, which may be shorter than the one that was read."""
        if not self.examples:
            self.encoder.check_inference(kept, example)
        if len(self.first) < N_FIRST:
            self.first.append(record)
        self.kinds.setdefault(identifier_kind(kept.prompt), example.name)
        self.examples.append(example)

    def add_shortened(self, record: ListwiseRecord, example: ListwiseExample) -> None:
        """Keep an over-long record with shorter passages, or leave it out, as `bad` is told. Raises DataError."""
        message = f"{len(example)} tokens, more than the context of {self.limit}"
        if self.overlong == "error":
            raise record.error(f"{message}; use a larger --context-size, --overlong truncate or --overlong skip")
        if self.overlong == "skip":
            self.bad.leave_out(record.error(message))
            return
        shorter = fit(record, lambda tried: len(self.encoder.encode(tried)), limit=self.limit, template=self.template)
        if shorter is None:
            hint = "use a larger --context-size or --overlong skip"
            self.bad.refuse(record.error(f"{message}, even with one word a passage; {hint}"))
            return
        encoded = self.encoder.encode(shorter)
        self.n_alike += bool(n_alike(record, shorter))
        self.n_truncated += 1
        self.add(record, shorter, encoded)


def _dataset(found: _Encoding, objective: str) -> ListwiseDataset:
    encoder, bad = found.encoder, found.bad
    if not found.examples:
        raise bad.nothing_left()
    if len(found.kinds) > 1:
        (_, numeric), (_, alpha) = sorted(found.kinds.items(), reverse=True)
        raise ConfigError(
            f"numeric identifiers in {numeric}, alpha ones in {alpha}; use --identifiers alpha or numeric"
        )
    (kind,) = found.kinds
    longest = max(len(example.ranks) for example in found.examples)
    return ListwiseDataset(
        examples=tuple(found.examples),
        identifiers=kind,
        identifier_ids=_identifier_ids(found.examples, encoder, labels=identifiers(kind, longest), objective=objective),
        skipped=bad.reasons,
        n_truncated=found.n_truncated,
        first_records=tuple(found.first),
        n_alike=found.n_alike,
    )


def _identifier_ids(
    examples: Sequence[ListwiseExample], encoder: ListwiseEncoder, *, labels: Sequence[str], objective: str
) -> tuple[int, ...]:
    """See `ListwiseDataset.identifier_ids`. Raises ContractError where the objective needs them and there are none."""
    if objective != "generation":
        return tuple(single_ids(encoder.chat.safe, labels, after=OPENING))
    if not all(encoder.opens(example.token_ids, example.n_prompt) for example in examples):
        return ()
    try:
        return tuple(single_ids(encoder.chat.safe, labels, after=OPENING))
    except ContractError:
        return ()
