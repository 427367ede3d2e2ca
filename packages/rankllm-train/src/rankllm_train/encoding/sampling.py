"""Sampling of the positive and the negatives that form a record's group in an epoch.

Source: texttron/tevatron@dd06310 src/tevatron/reranker/dataset.py, `RerankerTrainDataset`, reproduced draw for draw;
sampling with replacement is unseeded there and seeded here.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from rankllm_core.errors import ConfigError, RankLLMError

_HASH_MODULUS = 2**61 - 1


class Group(NamedTuple):
    """Indices into a record's positive and negative passages."""

    positive: int
    negatives: tuple[int, ...]


def sample_group(
    item: int,
    epoch: float,
    *,
    seed: int,
    n_positives: int,
    n_negatives: int,
    group_size: int,
    positive_no_shuffle: bool = False,
    negative_no_shuffle: bool = False,
) -> Group:
    """Return the group of a record in an epoch: one positive and group_size - 1 negatives.

    item: 0-based index of the record. epoch: truncated to an integer. The positive advances by one each epoch. The
    negatives are consecutive windows of one shuffled order, so epochs share none until the order is used up. If there
    are fewer negatives than needed, they are sampled with replacement.
    positive_no_shuffle: always the first positive. negative_no_shuffle: always the first negatives.
    Raises ConfigError for a group_size below 1, RankLLMError if the record lacks a positive or a needed negative.
    """
    wanted = group_size - 1
    if wanted < 0:
        raise ConfigError(f"group size: expected 1 or more passages, found {group_size}; use 2 or more to train")
    if n_positives < 1:
        raise RankLLMError("no positive passage, expected at least one; remove the record")
    if wanted and n_negatives < 1:
        raise RankLLMError(f"no negative passage, expected at least one for groups of {group_size}; remove the record")
    key, whole_epoch = _int_hash(item + seed), int(epoch)
    positive = 0 if positive_no_shuffle else (key + whole_epoch) % n_positives
    if n_negatives < wanted:
        # The original draws from the unseeded global generator. A string seed gives the same draws in every process.
        drawn = random.Random(f"{seed} {item} {whole_epoch}").choices(range(n_negatives), k=wanted)
        return Group(positive, tuple(drawn))
    if negative_no_shuffle:
        return Group(positive, tuple(range(wanted)))
    return Group(positive, _window(key, whole_epoch, wanted=wanted, n_negatives=n_negatives))


def _window(key: int, epoch: int, *, wanted: int, n_negatives: int) -> tuple[int, ...]:
    if not wanted:
        return ()
    order = list(range(n_negatives))
    random.Random(key).shuffle(order)
    start = epoch * wanted % n_negatives
    return tuple((order * 2)[start : start + wanted])


def _int_hash(number: int) -> int:
    """CPython's integer hash on 64-bit machines, which the original's choices depend on, reproduced on any machine."""
    magnitude = abs(number) % _HASH_MODULUS
    value = -magnitude if number < 0 else magnitude
    return -2 if value == -1 else value
