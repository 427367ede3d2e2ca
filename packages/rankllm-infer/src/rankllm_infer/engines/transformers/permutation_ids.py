"""Token ids of answers that are permutations, and which ids may follow at each position of an answer.

An answer names each identifier once in the template's form, `[2] > [1] > [3]`. Its ids are split into one piece per
identifier. A piece ends where every possible next identifier would continue with the same ids: in most tokenizers after
its opening bracket. If a tokenizer merges the bracket with some identifiers into one token, pieces end before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

from rankllm_core.errors import ContractError
from rankllm_core.prompts.tokens import SafeTokenizer
from rankllm_core.types import AnswerForm
from rankllm_infer.engines.base import Prompt

_LEADS = ("", " ", "\n")
"""Text that may stand between prompt and answer: models differ in whether they start with a space."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PermutationIds:
    """Pieces that answers about a set of identifiers consist of."""

    first: tuple[tuple[int, Ids], ...]
    """(position of an identifier, ids up to the next one) for the first identifier of an answer, for each way to
    start."""
    later: tuple[tuple[int, Ids], ...]
    """The same for identifiers after the first."""
    last: tuple[Ids, ...]
    """For each identifier, the ids up to the end of the answer."""
    opening: Ids
    """Common prefix of all answers that start in the most likely way, without a space; may be empty."""
    choices: Ids
    """All ids that are ever one of several allowed ids, ascending."""


def permutation_ids(safe: SafeTokenizer, labels: Sequence[str], form: AnswerForm, *, prompt: str) -> PermutationIds:
    """Split the answers about these identifiers into pieces. Only the end of the prompt matters.

    Raises ContractError if the tokenizer merges prompt and answer, or encodes an identifier differently depending on
    its position, so that there are no such pieces.
    """
    if len(labels) < 2:
        whole = tuple(tuple(safe.encode(form.write([label]))) for label in labels)
        return PermutationIds(first=(), later=(), last=whole, opening=(), choices=())
    later, last = _pieces(safe, labels, form)
    ways = [_first_pieces(safe, labels, form, last[0], before=(prompt, lead)) for lead in _LEADS]
    first = tuple(dict.fromkeys((x, ids) for pieces in ways for x, ids in enumerate(pieces)))
    if not first:
        raise ContractError(
            f"the tokenizer merges the end of the prompt, {prompt[-1:]!r}, with the answer; use --free-decoding"
        )
    for pieces in (first, tuple(enumerate(later))):
        _check_apart(pieces, labels)
    return PermutationIds(
        first=first,
        later=tuple(enumerate(later)),
        last=tuple(last),
        opening=_common(next(pieces for pieces in ways if pieces)),
        choices=tuple(sorted(_branches(first) | _branches(tuple(enumerate(later))))),
    )


def check_permutations(tokenizer: Any, sample: Prompt) -> None:
    """Raise ContractError if the tokenizer does not support decoding that is constrained to permutations for this
    prompt."""
    permutation_ids(SafeTokenizer(tokenizer), sample.identifiers, sample.form, prompt=sample.text)


def _pieces(safe: SafeTokenizer, labels: Sequence[str], form: AnswerForm) -> tuple[list[Ids], list[Ids]]:
    """Return each identifier's piece inside an answer, and at its end."""

    def encode(*named: str) -> Ids:
        return tuple(safe.encode(form.write(named)))

    probe = labels[0]
    start = _common([encode(probe, label) for label in labels])
    last = [encode(probe, label)[len(start) :] for label in labels]
    inside = [encode(probe, label, probe)[len(start) : -len(last[0])] for label in labels]
    # Every identifier after every other, in one text: pieces must not depend on their neighbours.
    order = [0, *(position for pair in product(range(len(labels)), repeat=2) for position in pair), 0]
    written = (*start, *(i for position in order[1:-1] for i in inside[position]), *last[0])
    if encode(*(labels[position] for position in order)) != written:
        raise _refusal(labels)
    return inside, last


def _first_pieces(
    safe: SafeTokenizer, labels: Sequence[str], form: AnswerForm, last: Ids, *, before: tuple[str, str]
) -> list[Ids]:
    """Return each identifier's piece at the start of an answer, after a prompt and a lead; empty if those are merged.

    last: ids of the first identifier at the end of an answer.
    """
    prompt, lead = before
    pieces = []
    for label in labels:
        ids = safe.ids_behind(prompt, lead + form.write([label, labels[0]]))
        if ids is None:
            return []
        if tuple(ids[-len(last) :]) != last:
            raise _refusal(labels)
        pieces.append(tuple(ids[: -len(last)]))
    return pieces


def _common(sequences: Sequence[Ids]) -> Ids:
    """Return the longest common prefix."""
    low, high = min(sequences), max(sequences)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]


def _check_apart(pieces: Sequence[tuple[int, Ids]], labels: Sequence[str]) -> None:
    """Raise ContractError if a piece is a prefix of another, which would make identifiers ambiguous."""
    ordered = sorted(ids for _, ids in pieces)
    if any(b[: len(a)] == a for a, b in pairwise(ordered)):
        raise _refusal(labels)


def _branches(pieces: Sequence[tuple[int, Ids]]) -> set[int]:
    """Return the ids at positions where more than one id may follow."""
    following: dict[Ids, set[int]] = {}
    for _, ids in pieces:
        for depth, token in enumerate(ids):
            following.setdefault(ids[:depth], set()).add(token)
    return {token for tokens in following.values() if len(tokens) > 1 for token in tokens}


def _refusal(labels: Sequence[str]) -> ContractError:
    return ContractError(
        f"the tokenizer encodes the identifiers {labels[0]!r} to {labels[-1]!r} differently at different positions of "
        "an answer, so decoding cannot be constrained to permutations; use --free-decoding"
    )


@dataclass(slots=True)
class AnswerWalk:
    """Partial answer: which identifiers it has named, and what may follow."""

    pieces: PermutationIds
    n_named: int
    """Number of identifiers to choose; the walk ends with the last choice, or when only one identifier is left."""
    order: list[int] = field(default_factory=list)
    """Positions of the identifiers named so far."""
    ids: list[int] = field(default_factory=list)
    """Ids of the answer so far, chosen and forced."""
    _open: list[tuple[int, Ids]] = field(default_factory=list)
    """Pieces still compatible with the ids since the last identifier."""
    _depth: int = 0
    _last_length: int = 0
    """Number of ids in the piece of the last named identifier."""

    def __post_init__(self) -> None:
        self._begin_piece()

    @property
    def is_done(self) -> bool:
        """True if nothing is left to choose."""
        return not self._open

    @property
    def n_tokens(self) -> int:
        """Number of ids of the complete answer: with all identifiers, or with those named if the walk stops early."""
        n_labels = len(self.pieces.last)
        if self.n_named >= n_labels - 1:
            rest = set(range(n_labels)).difference(self.order)
            return len(self.ids) + sum(len(self.pieces.last[position]) for position in rest)
        return len(self.ids) - self._last_length + len(self.pieces.last[self.order[-1]])

    def following(self) -> tuple[int, ...]:
        """Return the ids that may follow, ascending; several, unless the walk is done."""
        return tuple(sorted({ids[self._depth] for _, ids in self._open}))

    def take(self, token: int) -> None:
        """Append one of the allowed ids and all ids that are then forced."""
        self.ids.append(token)
        self._open = [(position, ids) for position, ids in self._open if ids[self._depth] == token]
        self._depth += 1
        self._advance()

    def _advance(self) -> None:
        """Append forced ids, up to the next choice or the end."""
        while self._open:
            position, ids = self._open[0]
            if len(self._open) == 1:
                self.ids += ids[self._depth :]
                self.order.append(position)
                self._last_length = len(ids)
                self._begin_piece()
                return
            if len({ids[self._depth] for _, ids in self._open}) > 1:
                return
            self.ids.append(ids[self._depth])
            self._depth += 1

    def _begin_piece(self) -> None:
        n_labels = len(self.pieces.last)
        self._open, self._depth = [], 0
        if len(self.order) < min(self.n_named, n_labels - 1):
            unused = set(range(n_labels)).difference(self.order)
            pieces = self.pieces.later if self.order else self.pieces.first
            self._open = [piece for piece in pieces if piece[0] in unused]
            self._advance()
