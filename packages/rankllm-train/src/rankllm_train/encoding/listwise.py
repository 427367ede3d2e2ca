"""Listwise data set: records encoded, checked and, if requested, truncated to the context."""

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
"""Number of records that a data set keeps in full, for checks of the prompt format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseDataset:
    """Encoded records as a torch data set, with a length and items."""

    examples: tuple[ListwiseExample, ...]
    identifiers: IdentifierKind
    """Kind of identifiers, the same in all records."""
    identifier_ids: tuple[int, ...]
    """Token id of each identifier after `[`. Empty if one of them is not a single token there, which only the
    generation objective allows; such data cannot be ranked by logits."""
    skipped: tuple[str, ...] = ()
    """One line per skipped record, with the reason."""
    n_truncated: int = 0
    """Number of records whose passages were truncated to fit the context."""
    first_records: tuple[ListwiseRecord, ...] = ()
    """First few training records, as they were read."""
    n_alike: int = 0
    """Number of truncated records in which different passages now look the same."""

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> ListwiseItem:
        return ListwiseItem(index, self.examples[index])

    def name(self, index: int) -> str:
        """Return file, line and record."""
        return self.examples[index].name


@dataclass(frozen=True, slots=True)
class ListwiseItem:
    """Example with its index in the data set."""

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
    """Encode and check all records.

    context_tokens: maximum tokens of prompt and answer. overlong: `error`, `skip` or `truncate` (the passages).
    bad_records: `error`, `skip`, or the collector of records that were skipped earlier.
    template: template of the prompts; its suffix tells where the last passage ends.
    Raises DataError naming a record that cannot be trained on or whose prompt does not show its passages, ConfigError
    if records use different kinds of identifiers, RankLLMError if no record is left, ContractError if an identifier is
    more than one token.
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
    """Records kept so far, and their encoded examples."""

    encoder: ListwiseEncoder
    bad: BadRecords
    limit: int
    """Context size in tokens."""
    overlong: str
    template: ListwiseTemplate | None
    examples: list[ListwiseExample] = field(default_factory=list)
    kinds: dict[IdentifierKind, str] = field(default_factory=dict)
    first: list[ListwiseRecord] = field(default_factory=list)
    n_truncated: int = 0
    n_alike: int = 0

    def add(self, record: ListwiseRecord, kept: ListwiseRecord, example: ListwiseExample) -> None:
        """Keep an example. kept: the record as encoded, possibly shorter than the one read."""
        if not self.examples:
            self.encoder.check_inference(kept, example)
        if len(self.first) < N_FIRST:
            self.first.append(record)
        self.kinds.setdefault(identifier_kind(kept.prompt), example.name)
        self.examples.append(example)

    def add_shortened(self, record: ListwiseRecord, example: ListwiseExample) -> None:
        """Keep an overlong record with truncated passages, or skip it via `bad`. Raises DataError."""
        message = f"{len(example)} tokens exceed the context of {self.limit}"
        if self.overlong == "error":
            raise record.error(f"{message}; use a larger --context-size, --overlong truncate or --overlong skip")
        if self.overlong == "skip":
            self.bad.leave_out(record.error(message))
            return
        shorter = fit(record, lambda tried: len(self.encoder.encode(tried)), limit=self.limit, template=self.template)
        if shorter is None:
            hint = "use a larger --context-size or --overlong skip"
            self.bad.refuse(record.error(f"{message}, even with one word per passage; {hint}"))
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
            f"numeric identifiers in {numeric}, but alpha identifiers in {alpha}; use --identifiers alpha or numeric"
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
    """See `ListwiseDataset.identifier_ids`. Raises ContractError if the objective needs them and an identifier has
    none."""
    if objective != "generation":
        return tuple(single_ids(encoder.chat.safe, labels, after=OPENING))
    if not all(encoder.opens(example.token_ids, example.n_prompt) for example in examples):
        return ()
    try:
        return tuple(single_ids(encoder.chat.safe, labels, after=OPENING))
    except ContractError:
        return ()
