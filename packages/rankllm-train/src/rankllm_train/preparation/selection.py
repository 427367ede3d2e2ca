"""Which queries are asked for, and which docids can be used in a record: with words in the corpus, each text once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rankllm_train.preparation.negatives import EasyNegatives
from rankllm_train.preparation.passages import PassageStore
from rankllm_train.preparation.tally import Tally


class Selection:
    """Sorts out what the corpus lacks or holds twice, and counts it."""

    def __init__(self, passages: PassageStore, tally: Tally, *, easy: EasyNegatives) -> None:
        self._passages = passages
        self._tally = tally
        self._easy = easy

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

    def words(self, docids: Collection[str]) -> set[int]:
        """What the passages say, title and text, as digests."""
        return {self._passages.words_digest(docid) for docid in docids}

    def distinct(self, docids: Sequence[str], *, positive_words: Collection[int] = ()) -> list[str]:
        """Those that say neither what a positive says, nor what one before them says, title and text."""
        seen: set[int] = set()
        kept = []
        for docid in docids:
            words = self._passages.words_digest(docid)
            if words in positive_words:
                self._tally.leave_out("candidates", "with the title and text of a positive", docid)
            elif words in seen:
                self._tally.leave_out("candidates", "with the title and text of another candidate", docid)
            else:
                seen.add(words)
                kept.append(docid)
        return kept

    def draw_easy(self, qid: str, n: int, *, own: Collection[str], grades: Mapping[str, int]) -> list[str]:
        """n answers to other queries. own: the query's own passages, which are not repeated."""
        if not n:
            return []
        seen = self.words(own)

        def is_usable(docid: str) -> bool:
            words = self._passages.words_digest(docid)
            if grades.get(docid, 0) > 0 or not words or words in seen:
                return False
            seen.add(words)
            return True

        return self._easy.draw(qid, n, is_usable=is_usable)


def easy_negatives(positives: Mapping[str, Sequence[str]], passages: PassageStore, *, seed: int) -> EasyNegatives:
    """The passages relevant to any query that the corpus holds, to be drawn for the others."""
    answers = {docid for docids in positives.values() for docid in docids if docid in passages}
    return EasyNegatives(answers, seed=seed)


def outside(n_before: int, *, skip_queries: int, max_queries: int | None) -> str | None:
    """Why a usable query is not asked for, by how many usable ones stand before it; None where it is."""
    if n_before < skip_queries:
        return "skipped by --skip-queries"
    if max_queries is not None and n_before - skip_queries >= max_queries:
        return "beyond --max-queries"
    return None
