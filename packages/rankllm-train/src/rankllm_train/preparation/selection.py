"""Selection of queries and docids for records: passages with a non-empty text in the corpus, each text once.

Random (easy) negatives are positives of other queries that no run ranks for this one.
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
    """Docids that a run or teacher ranks for a question, at any depth; none of them may be a random negative for it.

    Memory: 4 bytes per candidate, plus each docid once.
    """

    def __init__(self, questions: Mapping[str, int]) -> None:
        """questions: qid -> number shared by the qids of one question."""
        self._questions = questions
        self._numbers: dict[str, int] = {}
        self._ranked: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))

    def add(self, qid: str, docids: Iterable[str]) -> None:
        """Add a ranking; queries without text are ignored."""
        if qid in self._questions:
            numbers = self._numbers
            self._ranked[self._questions[qid]].extend(
                numbers.setdefault(sys.intern(docid), len(numbers)) for docid in docids
            )

    @property
    def docids(self) -> Collection[str]:
        """All docids."""
        return self._numbers.keys()

    def finder(self) -> Callable[[str], set[str]]:
        """Return a function from a qid to the docids ranked for its question, under any of its qids."""
        names = list(self._numbers)
        nothing = array("I")
        return lambda qid: {names[number] for number in self._ranked.get(self._questions[qid], nothing)}


class EasyNegatives:
    """Passages relevant to other queries."""

    def __init__(self, docids: Collection[str], *, seed: int) -> None:
        # Sorted, because the draw must not depend on the order of a set.
        self._docids = sorted(set(docids))
        self._seed = seed

    def draw(self, qid: str, n: int, *, is_usable: Callable[[str], bool]) -> list[str]:
        """Return n docids in random order, or all usable ones if there are fewer; a function of the seed and the
        qid."""
        chosen: list[str] = []
        for docid in self._shuffled(qid):
            if len(chosen) == n:
                break
            if is_usable(docid):
                chosen.append(docid)
        return chosen

    def _shuffled(self, qid: str) -> Iterator[str]:
        """Yield all docids in random order, drawn lazily since few of very many are needed."""
        draw = random.Random(f"{self._seed}/{qid}/random-negatives")
        seen: set[int] = set()
        while len(seen) < len(self._docids):
            place = draw.randrange(len(self._docids))
            if place not in seen:
                seen.add(place)
                yield self._docids[place]


class Selection:
    """Filters out passages that the corpus lacks or contains twice, and counts them."""

    def __init__(self, passages: PassageStore, tally: Tally) -> None:
        self._passages = passages
        self._tally = tally

    def known(self, what: str, docids: Sequence[str]) -> list[str]:
        """Return the docids with a non-empty text in the corpus. what: plural noun for the count."""
        known = []
        for docid in docids:
            if docid not in self._passages:
                self._tally.miss(what, "not in the corpus", docid)
            elif not self._passages.words_digest(docid):
                self._tally.leave_out(what, "empty text", docid)
            else:
                known.append(docid)
        return known

    def words(self, docids: Iterable[str]) -> set[int]:
        """Return digests of the passages' titles and texts; passages missing from the corpus have none."""
        return self._passages.words_digests(docids)

    def distinct(
        self,
        docids: Sequence[str],
        *,
        positive_words: Collection[int] = (),
        refused_words: Collection[int] = (),
        judged: Collection[str] = (),
    ) -> list[str]:
        """Return the docids whose title and text equal neither a positive's nor an earlier candidate's.

        refused_words: digests of passages that may be relevant and must not be negatives. judged: docids known not to
        be relevant, which may share such a digest.
        """
        seen: set[int] = set()
        kept = []
        for docid in docids:
            words = self._passages.words_digest(docid)
            if words in positive_words:
                self._tally.leave_out("candidates", "same title and text as a positive", docid)
            elif words in refused_words and docid not in judged:
                self._tally.leave_out("candidates", "same title and text as a rejected candidate", docid)
            elif words in seen:
                self._tally.leave_out("candidates", "same title and text as another candidate", docid)
            else:
                seen.add(words)
                kept.append(docid)
        return kept


class EasyDraw:
    """Draws random negatives: positives of other queries that nothing marks as relevant to this one."""

    def __init__(
        self,
        positives: Mapping[str, Sequence[str]],
        passages: PassageStore,
        tally: Tally,
        *,
        ranked: RankedDocids,
        seed: int,
    ) -> None:
        """positives: qid -> relevant docids, of all queries. ranked: docids that the runs contain for each question."""
        answers = {docid for docids in positives.values() for docid in docids if docid in passages}
        self._easy = EasyNegatives(answers, seed=seed)
        self._passages = passages
        self._tally = tally
        self._ranked_for = ranked.finder()

    def draw(self, qid: str, n: int, *, maybe_relevant: Iterable[str]) -> list[str]:
        """Return n passages, or as many as there are, each text once.

        Excludes passages that a run or the teacher ranks for the question, at any depth, passages judged relevant to
        it, and copies of these. maybe_relevant: docids judged relevant or above grade 0, under any qid of the question.
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
        """Count the passages drawn for a query, and those missing."""
        self._tally.make("random negatives", len(drawn))
        reason = "requested, but no further eligible passages"
        self._tally.leave_out("random negatives", reason, qid, n=wanted - len(drawn))


def outside(n_before: int, *, skip_queries: int, max_queries: int | None) -> str | None:
    """Return why a usable query is out of range, given the number of usable queries before it; None if it is in
    range."""
    if n_before < skip_queries:
        return "skipped by --skip-queries"
    if max_queries is not None and n_before - skip_queries >= max_queries:
        return "beyond --max-queries"
    return None
