"""Greedy decoding constrained to permutations, for several prompts at once.

At each choice, the allowed token with the highest logit is taken; forced tokens are fed along with the next choice, so
there is one forward pass per identifier if identifiers are single tokens. The head only computes the rows of tokens
that can be choices, at the positions where a choice is read. If unconstrained greedy decoding would produce an answer
in the template's form, each of its tokens has the highest logit of all, and therefore of the allowed ones: both answers
are equal.

Prompts are padded on the right and run without a mask; later passes mask padding and rejected tokens. Shapes: B
prompts, T new tokens, K tokens in the cache, R tokens that can be choices.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rankllm_infer.engines.transformers.model import NarrowHead, cache_argument, narrow_head
from rankllm_infer.engines.transformers.permutation_ids import AnswerWalk


@dataclass(slots=True)
class _Row:
    """One prompt with its partial answer."""

    prompt: Sequence[int]
    walk: AnswerWalk
    n_read: int = 0
    """Number of tokens of prompt and answer in the cache."""
    guess: tuple[int, ...] = ()
    """Speculative tokens fed after the certain ones, kept if they turn out to be right."""
    feed: list[int] = field(default_factory=list)
    """Tokens of the current pass: certain ones, then the guess."""
    kept: int = 0
    """Number of tokens of the feed confirmed as part of the row."""
    is_broken: bool = False
    """True if a logit was NaN."""

    @property
    def is_over(self) -> bool:
        """True if nothing more needs to be read for this row."""
        return self.is_broken or self.walk.is_done

    @property
    def is_at_choice(self) -> bool:
        """True if the last confirmed token of the feed is the last certain one, so that its logits decide the next."""
        return not self.is_over and self.n_read + self.kept == len(self.prompt) + len(self.walk.ids)

    def fill(self) -> None:
        """Set the tokens of the next pass; empty if there is nothing left to choose."""
        self.feed, self.kept = [], 0
        if not self.is_over:
            certain = [*self.prompt, *self.walk.ids][self.n_read :]
            self.feed, self.kept = [*certain, *self.guess], len(certain)
        self.guess = ()

    def read_places(self) -> range:
        """Return the positions of the feed where a choice may be read: from the last certain token on."""
        return range(self.kept - 1, len(self.feed)) if self.feed else range(0)


def decode_permutations(
    model: Any, prompts: Sequence[Sequence[int]], walks: Sequence[AnswerWalk], *, pad: int
) -> list[bool]:
    """Complete each walk, and return for each whether it was completed: a NaN logit stops it.

    model: a causal language model of transformers. pad: id for padding rows; nothing attends to it.
    """
    everything = [_Row(ids, walk) for ids, walk in zip(prompts, walks, strict=True)]
    if rows := [row for row in everything if not row.is_over]:
        _decode(model, rows, pad)
    return [row.walk.is_done for row in everything]


def _decode(model: Any, rows: Sequence[_Row], pad: int) -> None:
    choices = tuple(sorted({token for row in rows for token in row.walk.pieces.choices}))
    # A cache that discards or summarizes tokens supports no padding and cannot take back a guess.
    groups = [rows] if _remembers_all(model, rows) else [[row] for row in rows]
    with narrow_head(model, choices) as head:
        for group in groups:
            if _remembers_all(model, group):
                for row in group:
                    row.guess = row.walk.pieces.opening if not row.walk.ids else ()
            _Lockstep(head, group, pad).run()


class _Lockstep:
    """Rows that share forward passes and a cache."""

    def __init__(self, head: NarrowHead, rows: Sequence[_Row], pad: int) -> None:
        from transformers import DynamicCache

        self._head = head
        self._rows = rows
        self._pad = pad
        self._cache = DynamicCache(config=head.model.config)
        self._cache_name = cache_argument(head.model)
        self._steps = not attends_alone(head.model.config)
        self._is_token_BK: list[list[bool]] = [[] for _ in rows]
        """For each row, whether each column of the cache is a token of that row."""

    def run(self) -> None:
        """Run passes until every answer is complete."""
        while not all(row.is_over for row in self._rows):
            for row in self._rows:
                row.fill()
            self._pass()

    def _pass(self) -> None:
        places = sorted({place for row in self._rows for place in row.read_places()})
        logits_BUR = self._forward(places)
        for row, logits_UR in zip(self._rows, logits_BUR, strict=True):
            for place in row.read_places():
                if place != row.kept - 1 or not row.is_at_choice:
                    continue
                logits_R = logits_UR[places.index(place)]
                following = row.walk.following()
                columns = self._head.columns(following)
                self._choose(row, {token: logits_R[at] for token, at in zip(following, columns, strict=True)})
            row.n_read += row.kept
        self._settle()

    def _choose(self, row: _Row, logit_of: dict[int, float]) -> None:
        """Take the best token and keep the part of the guess that it confirms. Ties take the lowest id, like argmax."""
        if any(map(math.isnan, logit_of.values())):
            row.is_broken = True
            return
        before = len(row.walk.ids)
        row.walk.take(max(logit_of, key=lambda token: (logit_of[token], -token)))
        for token in row.walk.ids[before:]:
            if row.kept == len(row.feed) or row.feed[row.kept] != token:
                break
            row.kept += 1

    def _forward(self, places: Sequence[int]) -> list[list[list[float]]]:
        """Return the logits of the choices at some positions of the feeds, as lists BUR."""
        width = max(len(row.feed) for row in self._rows)
        ids_BT = torch.tensor([row.feed + [self._pad] * (width - len(row.feed)) for row in self._rows])
        mask_BK = position_BT = None
        for columns, row in zip(self._is_token_BK, self._rows, strict=True):
            columns += [place < len(row.feed) for place in range(width)]
        if not all(map(all, self._is_token_BK)) and self._cache.get_seq_length():
            mask_BK = torch.tensor(self._is_token_BK, dtype=torch.long)
            starts_B1 = torch.tensor([[row.n_read] for row in self._rows])
            lengths_B1 = torch.tensor([[max(1, len(row.feed))] for row in self._rows])
            # Padding repeats the last position, because there may be none beyond it.
            position_BT = starts_B1 + torch.minimum(torch.arange(width), lengths_B1 - 1)
        device = self._head.model.device
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BK, "position_ids": position_BT}
        on_device = {name: value.to(device) for name, value in inputs.items() if value is not None}
        cached = {self._cache_name: self._cache, "use_cache": True}
        if self._steps and len(self._is_token_BK[0]) > width:
            # One row without guess or padding (see `_decode`), read only at its last position.
            for place in range(width - 1):
                self._head.logits(torch.zeros(1, dtype=torch.long, device=device), _token(on_device, place) | cached)
            on_device, places = _token(on_device, width - 1), [0]
        logits_BUR = self._head.logits(torch.tensor(places, device=device), on_device | cached)
        read: list[list[list[float]]] = logits_BUR.float().tolist()
        return read

    def _settle(self) -> None:
        """Remove wrong guesses from the cache, or mask them if another row has kept its own."""
        width = max(len(row.feed) for row in self._rows)
        start = len(self._is_token_BK[0]) - width
        for columns, row in zip(self._is_token_BK, self._rows, strict=True):
            columns[start + row.kept :] = [False] * (width - row.kept)
        if unused := width - max(row.kept for row in self._rows):
            self._cache.crop(-unused)
            for columns in self._is_token_BK:
                del columns[-unused:]


def attends_alone(config: Any) -> bool:
    """Return whether all layers keep keys and values, and no recurrent state.

    Many state-space layers only continue their state for a single new token, and start from scratch for more.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

    plain = (DynamicLayer, DummyLayer, DynamicSlidingWindowLayer)
    return all(type(layer) in plain for layer in DynamicCache(config=config).layers)


def _token(inputs: dict[str, Any], place: int) -> dict[str, Any]:
    """Return the inputs of one token of a row."""
    return {"input_ids": inputs["input_ids"][:, place : place + 1]}


def _remembers_all(model: Any, rows: Sequence[_Row]) -> bool:
    """Return whether every layer attends to all tokens of these rows, so that masked tokens do not affect the
    others."""
    from transformers import DynamicCache
    from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

    n_columns = _columns_of(rows)
    return (len(rows) == 1 or "position_ids" in inspect.signature(model.forward).parameters) and all(
        type(layer) in (DynamicLayer, DummyLayer)
        or (type(layer) is DynamicSlidingWindowLayer and n_columns < layer.sliding_window)
        for layer in DynamicCache(config=model.config).layers
    )


def _columns_of(rows: Sequence[_Row]) -> int:
    """Return the maximum number of cache columns for these rows: tokens, padding and wrong guesses."""
    longest = max(len(row.prompt) for row in rows)
    longest_piece = max(len(ids) for row in rows for _, ids in (*row.walk.pieces.first, *row.walk.pieces.later))
    answer = longest_piece * max(len(row.walk.pieces.last) for row in rows)
    # Rows out of step pad each other: at worst, there is one pass per answer token, as wide as a whole piece.
    return longest + answer * (longest_piece if len(rows) > 1 else 1)
