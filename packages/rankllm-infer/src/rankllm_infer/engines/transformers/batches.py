"""Batching for transformers: settings, and which queued prompts run together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rankllm_core.errors import ConfigError
from rankllm_infer.engines.base import Prompt

_WORTH_SHARING = 1 / 20
"""A prefix shorter than this fraction of the longest prompt saves less than its own forward pass costs."""
_WELL_FILLED = 1 / 4
"""A batch of prompts with a common prefix that is less full than this saves too little."""
_LOOK_AHEAD = 3
"""Number of batches to look ahead for prompts of similar length, when clients are waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSettings:
    """Device, precision, batching and attention of a model that runs with transformers."""

    dtype: str = "auto"
    """auto, float32, bfloat16 or float16."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    num_gpus: int = 1
    """Number of GPUs to shard the layers across."""
    batch_size: int | None = None
    """Maximum number of prompts per batch; None: 32. Always one in the cases explained in `TransformersCheckpoint`."""
    batch_tokens: int = 0
    """Maximum number of tokens per batch, padding included; 0: a limit that suits the device."""
    compile: bool = False
    """Compile the model's layers, if scores are read."""
    attn_implementation: str = "auto"
    """See `model.choose_attention`."""
    trust_remote_code: bool = False
    """Run code that comes with a full model or an adapter's base; see `check_remote_code`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """Limits on the size of a batch."""

    max_prompts: int = 32
    max_tokens: int = 0
    """Maximum number of tokens per batch, padding included; 0: a limit that suits the device."""

    def __post_init__(self) -> None:
        if self.max_prompts < 1 or self.max_tokens < 0:
            raise ConfigError(f"batch: expected max_prompts >= 1 and max_tokens >= 0, found {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Prompts that are read in the same way."""

    tickets: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    n_shared: int = 0
    """Number of leading ids shared by all prompts, if worth computing once."""
    copies: tuple[tuple[int, int], ...] = ()
    """Tickets of duplicate prompts, each with the index of the prompt it equals."""


class BatchQueue:
    """Queued prompts, longest first: prompts that do not fit fail early, and short ones fill up the end.

    If prompts run one at a time (`max_prompts` 1), they run in ticket order. Negative tickets go first, in order,
    because clients are waiting for them.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._waiting: list[tuple[int, Prompt]] = []
        self._urgent: dict[int, Prompt] = {}
        self._is_sorted = True

    def __len__(self) -> int:
        return len(self._waiting) + len(self._urgent)

    def add(self, ticket: int, prompt: Prompt) -> None:
        """Queue a prompt."""
        if ticket < 0:
            self._urgent[ticket] = prompt
            return
        self._waiting.append((ticket, prompt))
        self._is_sorted = False

    def remove(self, tickets: Collection[int]) -> None:
        """Remove prompts."""
        dropped = set(tickets)
        for ticket in dropped & self._urgent.keys():
            del self._urgent[ticket]
        self._waiting = [item for item in self._waiting if item[0] not in dropped]

    def clear(self) -> None:
        """Remove all prompts."""
        self._waiting.clear()
        self._urgent.clear()

    def take(self) -> Batch:
        """Take the longest prompt and those closest to it in length, with the same prefix if that saves enough."""
        if self._urgent:
            return self._take_urgent()
        if not self._is_sorted:
            # Among prompts of equal length, the first submitted is last in the list and therefore taken first.
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
        for place in places:  # from the end, so that the remaining indices stay valid
            del self._waiting[place]
        return _batch(taken, shares=shares)

    def _take_urgent(self) -> Batch:
        """Take the next urgent prompt with others of its prefix if that saves enough, else with others of similar
        length."""
        order = sorted(self._urgent)
        first = self._urgent[order[0]]
        alike = [ticket for ticket in order if self._urgent[ticket].read == first.read]
        prefix = first.token_ids[: first.n_shared] if _is_worth_sharing(first) else ()
        same = [ticket for ticket in alike if self._urgent[ticket].token_ids[: len(prefix)] == prefix]
        # Based on the longest prompt, as in `take`: the same requests then share prefixes regardless of who is
        # waiting.
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
        """Return how many prompts of this length fit in a batch."""
        return max(1, min(self._limits.max_prompts, self._limits.max_tokens // max(1, positions(first))))

    def _take_earliest(self) -> Batch:
        """Take the first prompt with its duplicates. If prompts run one at a time, reordering saves nothing, and in
        ticket order a query finishes before the next starts."""
        _, first = min(self._waiting, key=lambda item: item[0])
        taken = [item for item in self._waiting if item[1] == first]
        self._waiting = [item for item in self._waiting if item[1] != first]
        return _batch(sorted(taken, key=lambda item: item[0]), shares=False)

    def _places(self, first: Prompt, room: int, *, shares: bool) -> list[int]:
        """Return list indices, descending, of up to `room` prompts and their duplicates. shares: only those with the
        same prefix."""
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
    """Return the first ticket, then the others among the first n by similarity in length.

    Rows of similar length waste the least padding. No prompt is delayed for long, because each becomes the first in
    time.
    """
    first, *others = tickets[:n]
    length = positions(prompts[first])
    return [first, *sorted(others, key=lambda ticket: abs(positions(prompts[ticket]) - length))]


def _batch(taken: Sequence[tuple[int, Prompt]], *, shares: bool) -> Batch:
    """Build a batch that runs equal prompts once; collections contain duplicate passages."""
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
    """Return the number of shared ids, leaving at least one id per prompt, because the last one is read."""
    return min(prompts[0].n_shared, min(len(prompt.token_ids) for prompt in prompts) - 1)


def positions(prompt: Prompt) -> int:
    """Return the number of positions of a prompt and its answer."""
    return len(prompt.token_ids) + prompt.max_new_tokens


def rotation_limit(config: Any) -> int | None:
    """Return the length beyond which the model rotates all tokens of a pass differently; None if length has no effect.

    LongRoPE (arXiv:2402.13753) has separate factors for short and long texts, and transformers selects them by the
    longest row of a pass. Rows of such a model can therefore share neither a pass nor a cache across the limit.
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if part.get("rope_type", part.get("type")) == "longrope":
            limit = part.get("original_max_position_embeddings")
            return limit or getattr(config, "original_max_position_embeddings", config.max_position_embeddings)
    return None
