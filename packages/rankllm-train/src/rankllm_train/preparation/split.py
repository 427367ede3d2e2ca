"""Split into training and dev sets without leakage: records that share a query or a positive passage stay together.

Records are nodes, and what they share are edges; each connected component goes to one side, decided by a hash of its
queries. A record's side therefore does not depend on the order of the file, and when a file grows, only records whose
component changes can move.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_core.files import dumps, write_text
from rankllm_train.data.json_records import read_json_records
from rankllm_train.preparation.positive_texts import RecordKeys, record_keys
from rankllm_train.preparation.tally import Tally, Track, untracked

BadRecords = Literal["error", "skip"]

_HASH_RANGE = 2**64
_SKIPPED = _HASH_RANGE - 1
"""Replaces the query of an unreadable record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """Which records go to the dev set."""

    dev_fraction: float = 0.1
    """Expected fraction of the components."""
    link_positives: bool = True
    """Whether records that share a positive passage stay together, and not only those that share a query."""
    bad_records: BadRecords = "error"
    """Unreadable records: `error`, or `skip` and count."""
    seed: int = 42

    def __post_init__(self) -> None:
        if not 0 < self.dev_fraction < 1:
            raise ConfigError(f"--dev-fraction {self.dev_fraction}: expected more than 0 and less than 1")


def split_records(
    path: str | Path, rule: SplitRule, *, train: str | Path, dev: str | Path, track: Track = untracked
) -> Tally:
    """Write the records of a file (pointwise, listwise or both) to two files, preserving the order.

    Reads the file twice, and a third time if it contains listwise records, whose prompts may show passages truncated.
    Holds digests of queries and positives in memory. The same seed gives identical bytes.
    Raises RankLLMError (DataError with the line) for an unusable file, and if one side would be empty.
    """
    tally = Tally()
    components = _Components()
    queries = array("Q")
    cut_lengths: set[int] = set()
    for keys in track(_keys(path, rule, tally), "records linked"):
        queries.append(_SKIPPED if keys is None else keys.query)
        if keys is not None:
            components.add(keys, link_positives=rule.link_positives)
            cut_lengths.update(keys.cut_lengths())
    if rule.link_positives and cut_lengths:
        for query, record in track(zip(queries, read_json_records(path), strict=True), "beginnings compared"):
            if query != _SKIPPED and not isinstance(record.value, DataError):
                components.link(record_keys(record.value, path=path, line=record.line), lengths=cut_lengths)
    sides = _Sides(components, rule)
    _report(components, sides, rule, tally)
    _check_sides(path, components, sides, rule)
    with write_text(train) as train_stream, write_text(dev) as dev_stream:
        for query, record in track(zip(queries, read_json_records(path), strict=True), "records written"):
            if query != _SKIPPED:
                stream = dev_stream if sides.is_dev(query) else train_stream
                stream.write(dumps(record.value) + "\n")
    return tally


def _keys(path: str | Path, rule: SplitRule, tally: Tally) -> Iterator[RecordKeys | None]:
    """Yield each record's keys; None for a skipped record."""
    for line, value in read_json_records(path):
        tally.see("records")
        try:
            if isinstance(value, DataError):
                raise value
            yield record_keys(value, path=path, line=line)
        except DataError as error:
            if rule.bad_records == "error":
                raise
            tally.leave_out("records", "unreadable", str(error))
            yield None


class _Components:
    """Records joined by what they share: a union-find forest over digests."""

    def __init__(self) -> None:
        self._nodes: dict[int, int] = {}
        self._parents = array("Q")
        self._least_query = array("Q")
        """At a root: the smallest query digest of its component, which identifies it regardless of the order of
        records."""
        self.n_records = Counter[int]()
        """Query digest -> number of records."""

    def add(self, keys: RecordKeys, *, link_positives: bool) -> None:
        """Join a record's query with its positives, and thereby with every record that shares one of them."""
        self.n_records[keys.query] += 1
        query = self._node(keys.query, least=keys.query)
        for positive in keys.positives if link_positives else ():
            self._join(query, self._node(positive, least=_HASH_RANGE - 1))

    def link(self, keys: RecordKeys, *, lengths: Collection[int]) -> None:
        """Join a record added before with texts of these word counts that are prefixes of its positives."""
        for beginning in keys.beginnings(lengths):
            if beginning in self._nodes:
                self._join(self._nodes[keys.query], self._nodes[beginning])

    def name(self, query: int) -> int:
        """Return the smallest query digest of the component that contains this query."""
        return self._least_query[self._root(self._nodes[query])]

    def _node(self, key: int, *, least: int) -> int:
        if key not in self._nodes:
            self._nodes[key] = len(self._parents)
            self._parents.append(len(self._parents))
            self._least_query.append(least)
        return self._nodes[key]

    def _join(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        self._parents[other] = one
        self._least_query[one] = min(self._least_query[one], self._least_query[other])

    def _root(self, node: int) -> int:
        while self._parents[node] != node:
            # Path halving keeps later look-ups short.
            self._parents[node] = self._parents[self._parents[node]]
            node = self._parents[node]
        return node


class _Sides:
    """Side of each component."""

    def __init__(self, components: _Components, rule: SplitRule) -> None:
        self._components = components
        self._rule = rule

    def is_dev(self, query: int) -> bool:
        """Whether the component of this query is on the dev side."""
        text = f"{self._rule.seed}/{self._components.name(query)}"
        drawn = int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=8).digest(), "big")
        return drawn < self._rule.dev_fraction * _HASH_RANGE


def _report(components: _Components, sides: _Sides, rule: SplitRule, tally: Tally) -> None:
    sizes = _component_sizes(components)
    n_queries = Counter(components.name(query) for query in components.n_records)
    n_dev = sum(n for query, n in components.n_records.items() if sides.is_dev(query))
    largest, n_records = max(sizes.values(), default=0), components.n_records.total()
    tally.make("dev records", n_dev)
    tally.make("train records", n_records - n_dev)
    tally.see("queries", len(components.n_records))
    tally.see("components", len(sizes))
    tally.see("records in the largest", largest)
    tally.see("records held together by a positive", sum(n for name, n in sizes.items() if n_queries[name] > 1))
    if n_records and not 0.5 < n_dev / n_records / rule.dev_fraction < 2 and largest > 0.5 * n_dev:
        tally.notes.append(
            f"Warning: dev has {n_dev / n_records:.1%} of the records instead of the requested "
            f"{rule.dev_fraction:.1%}: the "
            f"largest component contains {largest / n_records:.1%}{_hint(rule)}"
        )


def _hint(rule: SplitRule) -> str:
    """Return what to do about large components."""
    more = " or --no-link-positives (both sides may then share passages)" if rule.link_positives else ""
    return f"; use another --dev-fraction or --seed{more}"


def _component_sizes(components: _Components) -> Counter[int]:
    """Return the number of records of each component by its name."""
    sizes: Counter[int] = Counter()
    for query, n in components.n_records.items():
        sizes[components.name(query)] += n
    return sizes


def _check_sides(path: str | Path, components: _Components, sides: _Sides, rule: SplitRule) -> None:
    """Raise RankLLMError if a side is empty."""
    n_records = components.n_records.total()
    if not n_records:
        raise RankLLMError(f"{path}: contains no records")
    on_dev = {sides.is_dev(query) for query in components.n_records}
    if len(on_dev) == 2:
        return
    sizes = _component_sizes(components)
    raise RankLLMError(
        f"{path}: {'train' if on_dev == {True} else 'dev'} would be empty: {n_records:,} records form "
        f"{len(sizes):,} components, the largest with {max(sizes.values()):,}{_hint(rule)}"
    )
