"""Listwise records as the ids a model is trained on: the same ids that inference will serve.

The prompt goes through rankllm_core's ChatEncoder, which inference uses too, and the human turn is foreign text: a
control token written in a passage stays text. Batches are padded on the right to their longest record.
Shapes: B records, T tokens, N passages.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rankllm_core.answers.lookalikes import Names, defuse
from rankllm_core.errors import ConfigError, ContractError, DataError
from rankllm_core.identifiers import IdentifierKind, identifiers
from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.template import ListwiseTemplate, Message, Span
from rankllm_core.prompts.tokens import single_ids
from rankllm_train.data.bad_records import BadRecords
from rankllm_train.data.rankings import identifier_kind
from rankllm_train.data.record_checks import check_texts, checked_ranks
from rankllm_train.data.records import ListwiseRecord
from rankllm_train.data.shortening import fit, passage_spans
from rankllm_train.data.window_check import WindowWatch, n_alike
from rankllm_train.training.losses import IGNORED_LABEL

N_FIRST = 20
"""How many records a data set keeps for those who look at what is trained on."""
OPENING = "["
"""What the answer begins with; FIRST reads the logits at its position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseExample:
    """One record as ids."""

    name: str
    """File, line and record: what an error about it names."""
    token_ids: array[int]
    """Prompt and target with EOS; for the ranking objective the prompt and `[`."""
    n_prompt: int
    """Tokens of the prompt. The token after them holds the opening bracket."""
    ranks: tuple[int, ...]
    """1-based target rank of each passage, in prompt order."""

    def __len__(self) -> int:
        return len(self.token_ids)


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


class ListwiseEncoder:
    """Turns records into ids.

    objective: generation, ranking or combined. Raises ContractError where the tokenizer has no chat template or no EOS.
    """

    def __init__(self, tokenizer: Any, *, objective: str, bos: str = "single", layout: str | None = None) -> None:
        self.chat = ChatEncoder(tokenizer, layout=layout, bos=bos)
        self._tokenizer = tokenizer
        self._objective = objective
        if tokenizer.eos_token_id is None and objective != "ranking":
            raise ContractError("the tokenizer has no EOS token, which ends every answer; use a chat model")

    def encode(self, record: ListwiseRecord) -> ListwiseExample:
        """One record.

        Raises DataError naming it where it cannot be learnt from (`checked_ranks`), and where its answer cannot be told
        from its prompt in the ids.
        """
        ranks = checked_ranks(record, objective=self._objective)
        answer = OPENING if self._objective == "ranking" else record.target
        try:
            whole, n_prompt = self.chat.encode_answered(prompt_messages(record), answer=answer)
        except ContractError as error:
            raise record.error(str(error)) from None
        if self._objective != "generation" and not self.opens(whole, n_prompt):
            raise record.error(
                f"expected the token {OPENING!r} behind the prompt, found "
                f"{self._tokenizer.decode(whole[n_prompt : n_prompt + 1])!r}; this tokenizer glues identifiers "
                "to their bracket: use --objective generation or ranking"
            )
        ending = () if self._objective == "ranking" else (self._tokenizer.eos_token_id,)
        return ListwiseExample(
            name=_name(record), token_ids=array("i", (*whole, *ending)), n_prompt=n_prompt, ranks=ranks
        )

    def opens(self, ids: Sequence[int], position: int) -> bool:
        """Whether the token at a position is the opening bracket and no more."""
        return len(ids) > position and self._tokenizer.decode([ids[position]]).strip() == OPENING

    def check_inference(self, record: ListwiseRecord, example: ListwiseExample) -> None:
        """Raise ContractError unless the prompt at inference is, id for id, the beginning of what is trained on."""
        opening = "" if self._objective == "generation" else OPENING
        served = self.chat.encode(prompt_messages(record), opening=opening).token_ids
        if tuple(example.token_ids[: len(served)]) != served or len(served) != example.n_prompt + len(opening):
            hint = "; use --objective generation or ranking with this tokenizer" if opening else ""
            raise ContractError(f"{example.name}: the ids served at inference do not begin the ids trained on{hint}")


def prompt_messages(record: ListwiseRecord) -> tuple[Message, ...]:
    """The chat turns of a record's prompt; the human turn is untrusted text, the system turn is not.

    What could pose as an identifier in a passage or in the query is defused, as inference does.
    """
    names = Names(identifier_kind(record.prompt))
    spans: list[Span] = []
    position = 0
    for start, end in passage_spans(record.prompt):
        spans += _around_passages(record.prompt[position:start], names)
        spans.append(_guarded(record.prompt[start:end], names))
        position = end
    spans += _around_passages(record.prompt[position:], names)
    human = Message("user", tuple(spans))
    return (human,) if record.system is None else (Message("system", (Span(record.system),)), human)


def _around_passages(text: str, names: Names) -> list[Span]:
    """The words of the template, in which the query stands."""
    spans: list[Span] = []
    position = 0
    for match in _QUERY.finditer(text):
        start, end = match.span(match.lastgroup or 0)
        spans += [Span(text[position:start], untrusted=True), _guarded(text[start:end], names)]
        position = end
    return [*spans, Span(text[position:], untrusted=True)]


def _guarded(text: str, names: Names) -> Span:
    return Span(defuse(text, names), untrusted=True, names=names)


_QUERY = re.compile(r"search query: (?P<sentence>.*)\.$|^Query: (?P<line>.*)$", re.IGNORECASE | re.MULTILINE)
"""Where the shipped templates of training records show the query."""


@dataclass(slots=True)
class _Collected:
    examples: list[ListwiseExample] = field(default_factory=list)
    kinds: dict[IdentifierKind, str] = field(default_factory=dict)
    first: list[ListwiseRecord] = field(default_factory=list)
    n_truncated: int = 0
    n_alike: int = 0

    def add(self, record: ListwiseRecord, example: ListwiseExample) -> None:
        self.kinds.setdefault(identifier_kind(record.prompt), example.name)
        self.examples.append(example)


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
    found, watch = _Collected(), WindowWatch(encoder.encode)
    for record in records:
        try:
            example = encoder.encode(record)
            check_texts(record)
            watch.check(record, example)
        except DataError as problem:
            bad.refuse(problem)
            continue
        kept = record
        if len(example) > context_tokens:
            fitting = _fitting(
                record, example, encoder, limit=context_tokens, overlong=overlong, bad=bad, template=template
            )
            if fitting is None:
                continue
            found.n_alike += bool(n_alike(record, fitting[0]))
            kept, example = fitting
            found.n_truncated += 1
        if not found.examples:
            encoder.check_inference(kept, example)
        if len(found.first) < N_FIRST:
            found.first.append(record)
        found.add(kept, example)
    return _dataset(found, encoder, objective, bad=bad)


def _fitting(
    record: ListwiseRecord,
    example: ListwiseExample,
    encoder: ListwiseEncoder,
    *,
    limit: int,
    overlong: str,
    bad: BadRecords,
    template: ListwiseTemplate | None,
) -> tuple[ListwiseRecord, ListwiseExample] | None:
    """An over-long record with shorter passages; None where it is left out, as `bad` is told. Raises DataError."""
    message = f"{len(example)} tokens, more than the context of {limit}"
    if overlong == "error":
        raise record.error(f"{message}; use a larger --context-size, --overlong truncate or --overlong skip")
    if overlong == "skip":
        bad.leave_out(record.error(message))
        return None
    shorter = fit(record, lambda tried: len(encoder.encode(tried)), limit=limit, template=template)
    if shorter is None:
        hint = "use a larger --context-size or --overlong skip"
        bad.refuse(record.error(f"{message}, even with one word a passage; {hint}"))
        return None
    return shorter, encoder.encode(shorter)


def _dataset(found: _Collected, encoder: ListwiseEncoder, objective: str, *, bad: BadRecords) -> ListwiseDataset:
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


def _name(record: ListwiseRecord) -> str:
    return f"{record.path}:{record.line}: record {record.id!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseCollator:
    """Puts examples in a batch, padded on the right to the longest of them.

    What follows a causal model's last real token cannot change it, so no attention mask is made.
    """

    objective: str
    identifier_ids: tuple[int, ...]
    pad_id: int

    def __call__(self, items: Sequence[ListwiseItem]) -> dict[str, Tensor]:
        """The batch of some examples."""
        examples = [item.example for item in items]
        batch = {
            "input_ids": padded([example.token_ids for example in examples], pad=self.pad_id),
            "lengths": torch.tensor([len(example) for example in examples]),
            "indices": torch.tensor([item.index for item in items]),
        }
        if self.objective != "ranking":
            batch["labels"] = self._labels(examples)
        if self.identifier_ids:
            batch |= self._ranking(examples)
        return batch

    @staticmethod
    def _labels(examples: Sequence[ListwiseExample]) -> Tensor:
        """labels_BT: at position t the token at t + 1 where that is the target's, else IGNORED_LABEL."""
        rows = []
        for example in examples:
            ignored = [IGNORED_LABEL] * (example.n_prompt - 1)
            rows.append([*ignored, *example.token_ids[example.n_prompt :], IGNORED_LABEL])
        return padded(rows, pad=IGNORED_LABEL)

    def _ranking(self, examples: Sequence[ListwiseExample]) -> dict[str, Tensor]:
        return {
            "read_positions": torch.tensor([example.n_prompt for example in examples]),
            "read_ids": padded([self.identifier_ids[: len(example.ranks)] for example in examples], pad=0),
            "ranks": padded([example.ranks for example in examples], pad=0),
        }


def padded(rows: Sequence[Sequence[int]], *, pad: int) -> Tensor:
    """Rows of integers as one int64 tensor, padded on the right to the longest."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
