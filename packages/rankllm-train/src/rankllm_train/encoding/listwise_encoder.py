"""Encode a listwise record into the token ids to train on, identical to those at inference.

The prompt goes through rankllm_core's ChatEncoder, which inference uses too. The human turn is untrusted text: a
control token written in a passage remains text.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankllm_core.errors import ContractError
from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.template import Message, Span
from rankllm_core.text import defuse
from rankllm_core.types import Names
from rankllm_train.data.rankings import identifier_kind
from rankllm_train.data.record_checks import checked_ranks
from rankllm_train.data.records import ListwiseRecord
from rankllm_train.data.shortening import passage_spans

OPENING = "["
"""Start of the answer; FIRST reads the logits at its position."""
_QUERY = re.compile(r"search query: (?P<sentence>.*)\.$|^Query: (?P<line>.*)$", re.IGNORECASE | re.MULTILINE)
"""Where the bundled templates of training records put the query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseExample:
    """Encoded record."""

    name: str
    """File, line and record, for error messages."""
    token_ids: array[int]
    """Prompt and target with EOS; for the ranking objective, prompt and `[`."""
    n_prompt: int
    """Number of prompt tokens. The next token holds the opening bracket."""
    ranks: tuple[int, ...]
    """1-based target rank of each passage, in prompt order."""

    def __len__(self) -> int:
        return len(self.token_ids)


class ListwiseEncoder:
    """Encodes records into token ids.

    objective: generation, ranking or combined. Raises ContractError if the tokenizer has no chat template or no EOS
    token.
    """

    def __init__(self, tokenizer: Any, *, objective: str, bos: str = "single", layout: str | None = None) -> None:
        self.chat = ChatEncoder(tokenizer, layout=layout, bos=bos)
        self._tokenizer = tokenizer
        self._objective = objective
        if tokenizer.eos_token_id is None and objective != "ranking":
            raise ContractError("the tokenizer has no EOS token, which ends every answer; use a chat model")

    def encode(self, record: ListwiseRecord) -> ListwiseExample:
        """Encode one record.

        Raises DataError naming it if it cannot be trained on (`checked_ranks`), or if its answer cannot be separated
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
                f"expected the token {OPENING!r} after the prompt, found "
                f"{self._tokenizer.decode(whole[n_prompt : n_prompt + 1])!r}; this tokenizer merges identifiers "
                "with their bracket: use --objective generation or ranking"
            )
        ending = () if self._objective == "ranking" else (self._tokenizer.eos_token_id,)
        return ListwiseExample(
            name=_name(record), token_ids=array("i", (*whole, *ending)), n_prompt=n_prompt, ranks=ranks
        )

    def opens(self, ids: Sequence[int], position: int) -> bool:
        """Whether the token at a position is exactly the opening bracket."""
        return len(ids) > position and self._tokenizer.decode([ids[position]]).strip() == OPENING

    def check_inference(self, record: ListwiseRecord, example: ListwiseExample) -> None:
        """Raise ContractError unless the prompt at inference is, id for id, a prefix of what is trained on."""
        opening = "" if self._objective == "generation" else OPENING
        served = self.chat.encode(prompt_messages(record), opening=opening).token_ids
        if tuple(example.token_ids[: len(served)]) != served or len(served) != example.n_prompt + len(opening):
            hint = "; use --objective generation or ranking with this tokenizer" if opening else ""
            raise ContractError(
                f"{example.name}: the token ids of the prompt at inference are not a prefix of those in training{hint}"
            )


def prompt_messages(record: ListwiseRecord) -> tuple[Message, ...]:
    """Return the chat turns of a record's prompt; the human turn is untrusted text, the system turn is not.

    Anything in a passage or the query that looks like an identifier is defused, as at inference.
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
    """Split the template's text around the passages, which contains the query."""
    spans: list[Span] = []
    position = 0
    for match in _QUERY.finditer(text):
        start, end = match.span(match.lastgroup or 0)
        spans += [Span(text[position:start], untrusted=True), _guarded(text[start:end], names)]
        position = end
    return [*spans, Span(text[position:], untrusted=True)]


def _guarded(text: str, names: Names) -> Span:
    return Span(defuse(text, names), untrusted=True, names=names)


def _name(record: ListwiseRecord) -> str:
    return f"{record.path}:{record.line}: record {record.id!r}"
