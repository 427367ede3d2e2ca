"""Answers to other queries as easy negatives, and the rankings that say which of them are not easy for a query."""

from __future__ import annotations

import random
import sys
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping


class RankedDocids:
    """The docids, at any depth, that a run or a teacher ranks for a question; none of them is an easy negative of it.

    Memory: 4 bytes a candidate, and each docid once.
    """

    def __init__(self, questions: Mapping[str, int]) -> None:
        """questions: qid -> what the qids of one question share."""
        self._questions = questions
        self._numbers: dict[str, int] = {}
        self._ranked: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))

    def add(self, qid: str, docids: Iterable[str]) -> None:
        """Note a ranking; of a query without a text nothing is kept."""
        if qid in self._questions:
            numbers = self._numbers
            self._ranked[self._questions[qid]].extend(
                numbers.setdefault(sys.intern(docid), len(numbers)) for docid in docids
            )

    @property
    def docids(self) -> Collection[str]:
        """All of them."""
        return self._numbers.keys()

    def finder(self) -> Callable[[str], set[str]]:
        """A function from a qid to the docids ranked for its question, under any of its qids."""
        names = list(self._numbers)
        nothing = array("I")
        return lambda qid: {names[number] for number in self._ranked.get(self._questions[qid], nothing)}


class EasyNegatives:
    """Passages relevant to other queries."""

    def __init__(self, docids: Collection[str], *, seed: int) -> None:
        # Sorted: what is drawn must not depend on the order of a set.
        self._docids = sorted(set(docids))
        self._seed = seed

    def draw(self, qid: str, n: int, *, is_usable: Callable[[str], bool]) -> list[str]:
        """n of them in random order, or as many as are usable; a function of the seed and the qid."""
        chosen: list[str] = []
        for docid in self._shuffled(qid):
            if len(chosen) == n:
                break
            if is_usable(docid):
                chosen.append(docid)
        return chosen

    def _shuffled(self, qid: str) -> Iterator[str]:
        """All of them in random order, drawn one by one: a few are wanted of very many."""
        draw = random.Random(f"{self._seed}/{qid}/random-negatives")
        seen: set[int] = set()
        while len(seen) < len(self._docids):
            place = draw.randrange(len(self._docids))
            if place not in seen:
                seen.add(place)
                yield self._docids[place]
