"""How a model with transformers is run: its settings, and which of the waiting prompts go through it together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankllm_core.errors import ConfigError
from rankllm_infer.engines.base import Prompt

_WORTH_SHARING = 1 / 20
"""A prefix of less than this share of the longest prompt saves less than what its own forward pass costs."""
_WELL_FILLED = 1 / 4
"""A batch of one prefix that is less full than this is too small for what it saves."""
_LOOK_AHEAD = 3
"""Batches of prompts among which those of like length are looked for, where somebody waits for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSettings:
    """Device, precision, batches and attention of a model that runs with transformers."""

    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    num_gpus: int = 1
    """Number of GPUs to spread the layers over."""
    batch_size: int | None = None
    """Most prompts in a batch; None: 32. Always one where `TransformersCheckpoint` says why."""
    batch_tokens: int = 0
    """Most tokens in a batch, padding included; 0: what suits the device."""
    compile: bool = False
    """Compile the model's layers, where scores are read."""
    attn_implementation: str = "auto"
    """See `model.choose_attention`."""
    trust_remote_code: bool = False
    """Run code that comes with a full model, or with an adapter's base; see `check_remote_code`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much goes through the model at once."""

    max_prompts: int = 32
    max_tokens: int = 0
    """Padded tokens of a batch; 0 for what suits the device."""

    def __post_init__(self) -> None:
        if self.max_prompts < 1 or self.max_tokens < 0:
            raise ConfigError(f"batch: need max_prompts >= 1 and max_tokens >= 0, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Prompts that are read in the same way."""

    tickets: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    n_shared: int = 0
    """Leading ids that are the same in all of them, worth computing once."""
    copies: tuple[tuple[int, int], ...] = ()
    """Tickets of further prompts, each with the place of the one that it is equal to."""


class BatchQueue:
    """Prompts that wait, the longest first: what does not fit is known at once, and short ones fill up the end.

    Where each runs alone (`max_prompts` 1), they go in the order of their tickets. Negative tickets go before others,
    and in their order: somebody waits for each of them.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: list[tuple[int, Prompt]] = []
        self._urgent: dict[int, Prompt] = {}
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._waiting) + len(self._urgent)

    def add(self, ticket: int, prompt: Prompt) -> None:
        """One more."""
        if ticket < 0:
            self._urgent[ticket] = prompt
            return
        self._waiting.append((ticket, prompt))
        self._is_sorted = False

    def remove(self, tickets: Collection[int]) -> None:
        """Forget some."""
        dropped = set(tickets)
        for ticket in dropped & self._urgent.keys():
            del self._urgent[ticket]
        self._waiting = [item for item in self._waiting if item[0] not in dropped]

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()
        self._urgent.clear()

    def take(self) -> Batch:
        """The longest prompt and those nearest to it in length, of its own prefix where that pays."""
        if self._urgent:
            return self._take_urgent()
        if not self._is_sorted:
            # Of equal length, the first come is the last in the list, and so the first to go.
            self._waiting.sort(key=lambda item: (positions(item[1]), -item[0]))
            self._is_sorted = True
        if self._limits.max_prompts == 1:
            return self._take_earliest()
        first = self._waiting[-1][1]
        room = self._room(first)
        shares = _is_worth_sharing(first)
        places = self._places(first, room, shares=shares)
        if shares and len(places) < _WELL_FILLED * min(room, len(self._waiting)):
            shares, places = False, self._places(first, room, shares=False)
        taken = [self._waiting[place] for place in places]
        for place in places:  # from the end: what is left keeps its place
            del self._waiting[place]
        return _batch(taken, shares=shares)

    def _take_urgent(self) -> Batch:
        """The prompt whose turn it is, with those of its prefix where that pays, else with others of like length."""
        order = sorted(self._urgent)
        first = self._urgent[order[0]]
        alike = [ticket for ticket in order if self._urgent[ticket].read == first.read]
        prefix = first.token_ids[: first.n_shared] if _is_worth_sharing(first) else ()
        same = [ticket for ticket in alike if self._urgent[ticket].token_ids[: len(prefix)] == prefix]
        # By the longest prompt, as in `take`: the same requests then share prefixes whoever waits for them.
        room = self._room(max((self._urgent[ticket] for ticket in alike), key=positions))
        shares = bool(prefix) and len(same) >= _WELL_FILLED * min(room, len(alike))
        taken: list[tuple[int, Prompt]] = []
        longest = 0
        for ticket in _nearest(same if shares else alike, self._urgent, n=_LOOK_AHEAD * self._limits.max_prompts):
            prompt = self._urgent[ticket]
            longest = max(longest, positions(prompt))
            n_prompts = len(taken) + 1
            if taken and (n_prompts > self._limits.max_prompts or n_prompts * longest > self._limits.max_tokens):
                break
            taken.append((ticket, prompt))
        for ticket, _ in taken:
            del self._urgent[ticket]
        taken.sort(key=lambda item: (-positions(item[1]), item[0]))
        return _batch(taken, shares=shares)

    def _room(self, first: Prompt) -> int:
        """Prompts of a batch that are as long as this one."""
        return max(1, min(self._limits.max_prompts, self._limits.max_tokens // max(1, positions(first))))

    def _take_earliest(self) -> Batch:
        """The prompt that came first, with its copies: where each runs alone, no order saves anything, and with this
        one a query is finished before the next is begun."""
        _, first = min(self._waiting, key=lambda item: item[0])
        taken = [item for item in self._waiting if item[1] == first]
        self._waiting = [item for item in self._waiting if item[1] != first]
        return _batch(sorted(taken, key=lambda item: item[0]), shares=False)

    def _places(self, first: Prompt, room: int, *, shares: bool) -> list[int]:
        """Places in the list, falling, of so many prompts and their copies. shares: only those of one prefix."""
        places: list[int] = []
        chosen: set[Prompt] = set()
        shortest = 0
        prefix = first.token_ids[: first.n_shared] if shares else None
        for place in range(len(self._waiting) - 1, -1, -1):
            prompt = self._waiting[place][1]
            is_full = len(chosen) == room
            if is_full and positions(prompt) < shortest:
                break
            if prompt in chosen:
                places.append(place)
            elif (
                not is_full
                and prompt.read == first.read
                and (prefix is None or prompt.token_ids[: len(prefix)] == prefix)
            ):
                places.append(place)
                chosen.add(prompt)
                shortest = positions(prompt)
        return places


def _nearest(tickets: Sequence[int], prompts: Mapping[int, Prompt], *, n: int) -> list[int]:
    """The first of the tickets and, of the n next ones, those nearest to it in length first.

    Rows of like length fill a batch with the fewest of its positions left empty. Nobody is passed over for long: each
    is the first one in time.
    """
    first, *others = tickets[:n]
    length = positions(prompts[first])
    return [first, *sorted(others, key=lambda ticket: abs(positions(prompts[ticket]) - length))]


def _batch(taken: Sequence[tuple[int, Prompt]], *, shares: bool) -> Batch:
    """What was taken, prompts that are equal once: collections hold passages twice."""
    place_of: dict[Prompt, int] = {}
    tickets, copies = [], []
    for ticket, prompt in taken:
        if prompt in place_of:
            copies.append((ticket, place_of[prompt]))
        else:
            place_of[prompt] = len(place_of)
            tickets.append(ticket)
    prompts = tuple(place_of)
    n_shared = _n_shared(prompts) if shares and len(prompts) > 1 else 0
    return Batch(tickets=tuple(tickets), prompts=prompts, n_shared=n_shared, copies=tuple(copies))


def _is_worth_sharing(prompt: Prompt) -> bool:
    return prompt.n_shared > 0 and prompt.n_shared >= _WORTH_SHARING * len(prompt.token_ids)


def _n_shared(prompts: Sequence[Prompt]) -> int:
    """At least one id of each prompt is left: the last one is read."""
    return min(prompts[0].n_shared, min(len(prompt.token_ids) for prompt in prompts) - 1)


def positions(prompt: Prompt) -> int:
    """Positions that a prompt and its answer take."""
    return len(prompt.token_ids) + prompt.max_new_tokens


def rotation_limit(config: Any) -> int | None:
    """The length beyond which the model turns every token of a pass differently; None where length changes nothing.

    LongRoPE (arXiv:2402.13753) has factors for short and for long texts, and transformers chooses by the longest row of
    a pass: such a model's rows cannot share one with others, nor a cache across the limit.
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if part.get("rope_type", part.get("type")) == "longrope":
            limit = part.get("original_max_position_embeddings")
            return limit or getattr(config, "original_max_position_embeddings", config.max_position_embeddings)
    return None
