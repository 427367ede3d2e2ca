"""Which queries are asked for, and which docids can be used in a record: with words in the corpus, each text once.

Easy negatives are answers to other queries that no ranking has for this one.
"""

from __future__ import annotations

import random
import sys
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from rankllm_train.preparation.passages import PassageStore
from rankllm_train.preparation.tally import Tally


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


class Selection:
    """Sorts out what the corpus lacks or holds twice, and counts it."""

    def __init__(self, passages: PassageStore, tally: Tally) -> None:
        self._passages = passages
        self._tally = tally

    def known(self, what: str, docids: Sequence[str]) -> list[str]:
        """Those with a text in the corpus. what: their kind, in the plural."""
        known = []
        for docid in docids:
            if docid not in self._passages:
                self._tally.miss(what, "not in the corpus", docid)
            elif not self._passages.words_digest(docid):
                self._tally.leave_out(what, "without a word in it", docid)
            else:
                known.append(docid)
        return known

    def words(self, docids: Iterable[str]) -> set[int]:
        """What the passages say, title and text, as digests; those that the corpus lacks say nothing."""
        return self._passages.words_digests(docids)

    def distinct(
        self,
        docids: Sequence[str],
        *,
        positive_words: Collection[int] = (),
        refused_words: Collection[int] = (),
        judged: Collection[str] = (),
    ) -> list[str]:
        """Those that say neither what a positive says, nor what one before them says, title and text.

        refused_words: what passages say that are no negatives, although they are not known to be relevant. judged:
        docids that are known not to be relevant, so they may say the same.
        """
        seen: set[int] = set()
        kept = []
        for docid in docids:
            words = self._passages.words_digest(docid)
            if words in positive_words:
                self._tally.leave_out("candidates", "with the title and text of a positive", docid)
            elif words in refused_words and docid not in judged:
                self._tally.leave_out("candidates", "with the title and text of a passage that is no negative", docid)
            elif words in seen:
                self._tally.leave_out("candidates", "with the title and text of another candidate", docid)
            else:
                seen.add(words)
                kept.append(docid)
        return kept


class EasyDraw:
    """Draws answers to other queries that nothing takes for an answer to this one."""

    def __init__(
        self,
        positives: Mapping[str, Sequence[str]],
        passages: PassageStore,
        tally: Tally,
        *,
        ranked: RankedDocids,
        seed: int,
    ) -> None:
        """positives: qid -> relevant docids, of all queries. ranked: what the runs hold for each question."""
        answers = {docid for docids in positives.values() for docid in docids if docid in passages}
        self._easy = EasyNegatives(answers, seed=seed)
        self._passages = passages
        self._tally = tally
        self._ranked_for = ranked.finder()

    def draw(self, qid: str, n: int, *, maybe_relevant: Iterable[str]) -> list[str]:
        """n passages, or as many as there are, each text once.

        None that a run or the teacher ranks for the question, at any depth, none that is judged relevant to it, and no
        copy of such a one.

        maybe_relevant: docids judged relevant or above grade 0, under any qid of the question.
        """
        if not n:
            return []
        docids = {*self._ranked_for(qid), *maybe_relevant}
        seen = self._passages.words_digests(docids)

        def is_usable(docid: str) -> bool:
            words = self._passages.words_digest(docid)
            if docid in docids or not words or words in seen:
                return False
            seen.add(words)
            return True

        return self._easy.draw(qid, n, is_usable=is_usable)

    def count(self, qid: str, drawn: Sequence[str], *, wanted: int) -> None:
        """Count what was drawn for a query, and what could not be."""
        self._tally.make("random negatives", len(drawn))
        reason = "wanted, but no more answers to other queries are easy"
        self._tally.leave_out("random negatives", reason, qid, n=wanted - len(drawn))


def outside(n_before: int, *, skip_queries: int, max_queries: int | None) -> str | None:
    """Why a usable query is not asked for, by how many usable ones stand before it; None where it is."""
    if n_before < skip_queries:
        return "skipped by --skip-queries"
    if max_queries is not None and n_before - skip_queries >= max_queries:
        return "beyond --max-queries"
    return None
