"""The answers that are permutations, as ids: what may follow at each place of an answer.

An answer names each identifier once in the template's form, `[2] > [1] > [3]`. Its ids are cut into one piece an
identifier, and a piece ends where every next identifier would still go on with the same ids: in most tokenizers behind
the bracket that opens it. Where a tokenizer writes the bracket and some identifiers as one token, pieces end before it.
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
"""What may stand between the prompt and the answer: models differ in whether they begin with a blank."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PermutationIds:
    """The pieces that answers about some identifiers are made of."""

    first: tuple[tuple[int, Ids], ...]
    """(position of an identifier, ids up to the next one) where it opens the answer; one for each way to begin."""
    later: tuple[tuple[int, Ids], ...]
    """The same where another identifier stands before it."""
    last: tuple[Ids, ...]
    """Of each identifier, the ids up to the end of the answer."""
    opening: Ids
    """What all answers begin with that begin in the most likely way, without a blank; it may be empty."""
    choices: Ids
    """Every id that is ever one of several that may follow, ascending."""


def permutation_ids(safe: SafeTokenizer, labels: Sequence[str], form: AnswerForm, *, prompt: str) -> PermutationIds:
    """Cut the answers about these identifiers into pieces. Of the prompt its end is read.

    Raises ContractError where the tokenizer joins prompt and answer, or writes an identifier differently from place to
    place, so that there are no such pieces.
    """
    if len(labels) < 2:
        whole = tuple(tuple(safe.encode(form.write([label]))) for label in labels)
        return PermutationIds(first=(), later=(), last=whole, opening=(), choices=())
    later, last = _pieces(safe, labels, form)
    ways = [_first_pieces(safe, labels, form, last[0], before=(prompt, lead)) for lead in _LEADS]
    first = tuple(dict.fromkeys((x, ids) for pieces in ways for x, ids in enumerate(pieces)))
    if not first:
        raise ContractError(
            f"the tokenizer joins the end of the prompt, {prompt[-1:]!r}, with the answer; use --free-decoding"
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
    """Raise ContractError where a tokenizer writes no answers to such a prompt that can be held to permutations."""
    permutation_ids(SafeTokenizer(tokenizer), sample.identifiers, sample.form, prompt=sample.text)


def _pieces(safe: SafeTokenizer, labels: Sequence[str], form: AnswerForm) -> tuple[list[Ids], list[Ids]]:
    """Each identifier's piece inside an answer, and at its end."""

    def encode(*named: str) -> Ids:
        return tuple(safe.encode(form.write(named)))

    probe = labels[0]
    start = _common([encode(probe, label) for label in labels])
    last = [encode(probe, label)[len(start) :] for label in labels]
    inside = [encode(probe, label, probe)[len(start) : -len(last[0])] for label in labels]
    # Every identifier behind every other, in one text: pieces must not depend on what stands beside them.
    order = [0, *(position for pair in product(range(len(labels)), repeat=2) for position in pair), 0]
    written = (*start, *(i for position in order[1:-1] for i in inside[position]), *last[0])
    if encode(*(labels[position] for position in order)) != written:
        raise _refusal(labels)
    return inside, last


def _first_pieces(
    safe: SafeTokenizer, labels: Sequence[str], form: AnswerForm, last: Ids, *, before: tuple[str, str]
) -> list[Ids]:
    """Each identifier's piece where it opens the answer behind a prompt and a lead; none where those are joined.

    last: the ids of the first identifier at the end of an answer.
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
    """The longest beginning that they share."""
    low, high = min(sequences), max(sequences)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]


def _check_apart(pieces: Sequence[tuple[int, Ids]], labels: Sequence[str]) -> None:
    """No piece may begin another: it would be open which identifier is meant."""
    ordered = sorted(ids for _, ids in pieces)
    if any(b[: len(a)] == a for a, b in pairwise(ordered)):
        raise _refusal(labels)


def _branches(pieces: Sequence[tuple[int, Ids]]) -> set[int]:
    """The ids that follow where more than one may."""
    following: dict[Ids, set[int]] = {}
    for _, ids in pieces:
        for depth, token in enumerate(ids):
            following.setdefault(ids[:depth], set()).add(token)
    return {token for tokens in following.values() if len(tokens) > 1 for token in tokens}


def _refusal(labels: Sequence[str]) -> ContractError:
    return ContractError(
        f"the tokenizer does not write the identifiers {labels[0]!r} to {labels[-1]!r} alike at every place of an "
        "answer, so answers cannot be held to permutations; use --free-decoding"
    )


@dataclass(slots=True)
class AnswerWalk:
    """An answer as it grows: which identifiers it has named, and what may follow."""

    pieces: PermutationIds
    n_named: int
    """How many identifiers to choose; the walk ends with the last choice, or when only one identifier is left."""
    order: list[int] = field(default_factory=list)
    """Positions of the identifiers named so far."""
    ids: list[int] = field(default_factory=list)
    """The answer so far: chosen and forced ids."""
    _open: list[tuple[int, Ids]] = field(default_factory=list)
    """The pieces that the ids since the last identifier may still become."""
    _depth: int = 0
    _last_length: int = 0
    """Ids of the piece of the last identifier named."""

    def __post_init__(self) -> None:
        self._begin_piece()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to choose."""
        return not self._open

    @property
    def n_tokens(self) -> int:
        """Ids of the answer with its end: of all identifiers, or of those named where the walk stops before."""
        n_labels = len(self.pieces.last)
        if self.n_named >= n_labels - 1:
            rest = set(range(n_labels)).difference(self.order)
            return len(self.ids) + sum(len(self.pieces.last[position]) for position in rest)
        return len(self.ids) - self._last_length + len(self.pieces.last[self.order[-1]])

    def following(self) -> tuple[int, ...]:
        """The ids that may follow, ascending; several, unless the walk is done."""
        return tuple(sorted({ids[self._depth] for _, ids in self._open}))

    def take(self, token: int) -> None:
        """Go on with one of them, and with all that is then forced."""
        self.ids.append(token)
        self._open = [(position, ids) for position, ids in self._open if ids[self._depth] == token]
        self._depth += 1
        self._advance()

    def _advance(self) -> None:
        """Append what is forced, up to the next choice or the end."""
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
