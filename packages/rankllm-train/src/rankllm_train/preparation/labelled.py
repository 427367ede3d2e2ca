"""Labelled lists from judgements; `reranked` makes those from results."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_train.preparation.judgements import Judgements
from rankllm_train.preparation.passages import PassageStore
from rankllm_train.preparation.ranked_queries import RankedQuery, read_ranked_queries
from rankllm_train.preparation.selection import EasyDraw, RankedDocids, Selection
from rankllm_train.preparation.tally import Tally, Track


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledList:
    """Candidates of a query with their target order."""

    qid: str
    query: str
    docids: tuple[str, ...]
    """In first-stage order if known, else in target order."""
    ranks: tuple[int, ...]
    """0-based target rank of each candidate."""
    relevant: frozenset[int]
    """Indices of candidates judged relevant; empty without judgements."""
    doc: Callable[[str], Mapping[str, object]]
    """Returns the stored passage of a docid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRule:
    """Which candidates of a judged query are labelled."""

    depth: int = 100
    """Number of candidates taken from the run, by descending score."""
    add_relevant: bool = True
    """Whether to append relevant passages that the run does not retrieve."""
    random_negatives: int = 0
    """Number of positives of other queries to append as the last ones."""
    require_relevant: bool = True
    """Whether to skip queries without a relevant candidate."""
    seed: int = 42

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError(f"--depth {self.depth}: expected at least 1")


class JudgedLists:
    """Lists ordered by judgements: best grade first, unjudged last; ties by the teacher's score or in first-stage
    order."""

    def __init__(self, judgements: Judgements, rule: JudgedRule, tally: Tally) -> None:
        self._judgements = judgements
        self._rule = rule
        self._tally = tally
        self._relevant = judgements.answered(tally)
        self._candidates: dict[str, list[str]] = {}
        """qid -> docids in first-stage order."""
        self._teacher: dict[str, dict[str, float]] = {}
        self._ranked = RankedDocids(judgements.questions)

    def fill(self, run: str | Path, *, track: Track) -> None:
        """Take the candidates of a run. Raises RankLLMError if it contains none of the queries."""
        for ranked in track(read_ranked_queries(run), "queries of the run"):
            self._note(ranked)
            if ranked.qid not in self._judgements.texts:
                self._tally.miss("queries of the run", "without a text", ranked.qid)
            elif ranked.qid in self._relevant:
                kept = [sys.intern(docid) for docid, _ in ranked.candidates[: self._rule.depth]]
                self._candidates[ranked.qid] = kept
        if self._relevant and not self._candidates:
            raise RankLLMError(
                f"{run}: contains none of the {len(self._relevant):,} queries with a relevant passage, such as "
                f"{next(iter(self._relevant))!r}; use the run of these queries"
            )
        for qid in [qid for qid in self._relevant if qid not in self._candidates]:
            self._drop(qid, "not in the run")
        for qid, candidates in self._candidates.items():
            if self._rule.add_relevant:
                known = set(candidates)
                candidates += [docid for docid in self._relevant[qid] if docid not in known]
            self._tally.see("candidates", len(candidates))

    def order_by_teacher(self, run: str | Path, *, track: Track) -> None:
        """Order candidates of the same grade by a teacher's scores; those it has not scored come last."""
        for ranked in track(read_ranked_queries(run), "queries of the teacher"):
            self._note(ranked)
            if ranked.qid in self._candidates:
                scores = dict(ranked.candidates)
                candidates = self._candidates[ranked.qid]
                self._teacher[ranked.qid] = {docid: scores[docid] for docid in candidates if docid in scores}
        if self._candidates and not self._teacher:
            raise RankLLMError(
                f"{run}: contains scores for none of the {len(self._candidates):,} queries, such as "
                f"{next(iter(self._candidates))!r}; use a run of the same queries"
            )
        for qid in [qid for qid in self._candidates if qid not in self._teacher]:
            self._drop(qid, "not scored by the teacher")

    def _note(self, ranked: RankedQuery) -> None:
        if self._rule.random_negatives:
            self._ranked.add(ranked.qid, (docid for docid, _ in ranked.candidates))

    @property
    def needed(self) -> set[str]:
        """Docids whose texts are needed."""
        return {docid for docids in (*self._candidates.values(), *self._relevant.values()) for docid in docids}

    @property
    def compared(self) -> set[str]:
        """Docids whose copies must not become random negatives."""
        if not self._rule.random_negatives:
            return set()
        judged = map(self._judgements.maybe_relevant, self._relevant)
        return {*self._ranked.docids, *(docid for docids in judged for docid in docids)}

    def lists(self, passages: PassageStore) -> Iterator[LabelledList]:
        """Yield the lists in the order of the query file."""
        select = Selection(passages, self._tally)
        easy = EasyDraw(self._relevant, passages, self._tally, ranked=self._ranked, seed=self._rule.seed)
        for qid in list(self._relevant):
            known = select.known("candidates", self._candidates[qid])
            in_list, relevant = set(known), set(self._relevant[qid])
            # Best grade first: of two copies of a text, the one with the better grade is kept.
            answers = select.distinct([docid for docid in self._relevant[qid] if docid in in_list])
            if self._rule.require_relevant and not answers:
                self._drop(qid, "no relevant passage among the candidates")
                continue
            others = [docid for docid in known if docid not in relevant]
            # A copy of a relevant passage outside the list does not count as unjudged either.
            relevant_known = [docid for docid in self._relevant[qid] if docid in passages]
            kept = {*answers, *select.distinct(others, positive_words=select.words(relevant_known))}
            own = [docid for docid in known if docid in kept]
            n_easy = self._rule.random_negatives
            drawn = easy.draw(qid, n_easy, maybe_relevant=self._judgements.maybe_relevant(qid))
            easy.count(qid, drawn, wanted=n_easy)
            yield self._list(qid, own, drawn, passages)

    def _list(self, qid: str, own: Sequence[str], drawn: Sequence[str], passages: PassageStore) -> LabelledList:
        docids = [*own, *drawn]
        grades, scores = self._judgements.grades[qid], self._teacher.get(qid, {})

        def goodness(place: int) -> tuple[bool, float, float]:
            docid = docids[place]
            # Random negatives may be judged 0, but still rank below unjudged candidates.
            return place < len(own), grades.get(docid, -math.inf), scores.get(docid, -math.inf)

        relevant = set(self._relevant[qid])
        return LabelledList(
            qid=qid,
            query=self._judgements.texts[qid],
            docids=tuple(docids),
            ranks=_ranks(sorted(range(len(docids)), key=goodness, reverse=True)),
            relevant=frozenset(place for place, docid in enumerate(docids) if docid in relevant),
            doc=passages.doc,
        )

    def _drop(self, qid: str, reason: str) -> None:
        self._tally.leave_out("queries", reason, qid)
        self._candidates.pop(qid, None)
        del self._relevant[qid]


def _ranks(best_first: Sequence[int]) -> tuple[int, ...]:
    """Return the 0-based rank of each index in an order of indices."""
    ranks = [0] * len(best_first)
    for rank, place in enumerate(best_first):
        ranks[place] = rank
    return tuple(ranks)
