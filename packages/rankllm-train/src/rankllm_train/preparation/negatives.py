"""Selection of first-stage candidates that may serve as negatives.

Unjudged candidates may well be relevant. They are rejected if they score too close to the positive, by the first stage
or by a stronger model (positive-aware mining: NV-Retriever, arXiv:2407.15831).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_train.preparation.judgements import Judgements
from rankllm_train.preparation.ranked_queries import RankedQuery, read_ranked_queries
from rankllm_train.preparation.selection import RankedDocids
from rankllm_train.preparation.tally import Tally, Track

Pools = dict[str, list[str]]
"""qid -> docids that may be its negatives, in the order of the run."""

_NEAR_BY_RUN = "first-stage score too close to the best positive"
_NEAR_BY_TEACHER = "teacher score too close to the best positive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """How far below the query's best positive a candidate must score."""

    absolute: float = 0.0
    relative: float = 0.0
    """As a fraction of the positive's score, whatever its sign."""

    def __post_init__(self) -> None:
        if math.isnan(self.absolute):
            raise ConfigError("margin: expected a number, found nan")
        if not math.isfinite(self.relative):
            raise ConfigError(f"relative-margin: expected a finite fraction such as 0.05, found {self.relative}")

    @property
    def needs_scores(self) -> bool:
        """Whether the margin is a distance between scores; otherwise the order alone decides."""
        return self.relative != 0 or (self.absolute != 0 and math.isfinite(self.absolute))

    def ceiling(self, positive: float) -> float:
        """Return the highest score that a candidate may have next to a positive of this score."""
        return positive - self.absolute - self.relative * abs(positive)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRule:
    """Which candidates of a query's ranking may be negatives."""

    min_rank: int = 1
    """1-based rank of the first candidate used."""
    max_rank: int = 100
    """1-based rank of the last candidate used."""
    margin: Margin | None = None
    """Margin on the run's scores; None: no margin."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_rank <= self.max_rank:
            raise ConfigError(
                f"ranks: expected 1 <= --min-rank <= --max-rank, found {self.min_rank} and {self.max_rank}"
            )


class Pool:
    """Candidates of all queries, narrowed down step by step; each step counts what it drops."""

    def __init__(self, judgements: Judgements, tally: Tally, *, ranked: RankedDocids | None = None) -> None:
        """ranked: collects every ranking that is read."""
        self.judgements = judgements
        self.tally = tally
        self._ranked = ranked
        self.positives = judgements.answered(tally)
        """qid -> relevant docids of the queries still in use, in file order."""
        self.negatives: Pools = {qid: [] for qid in self.positives}
        self.near: Pools = {}
        """qid -> docids dropped as too close to a positive; their copies are dropped too."""
        self.teacher_scores: dict[str, dict[str, float]] = {}
        """qid -> docid -> score of candidates accepted by the teacher."""

    def drop_query(self, qid: str, reason: str) -> None:
        """Skip a query and its remaining candidates."""
        self.tally.leave_out("queries", reason, qid)
        self.tally.leave_out("candidates", "query skipped", n=len(self.negatives.pop(qid)))
        del self.positives[qid]

    def fill(self, run: str | Path, rule: PoolRule, *, needs_run: bool, track: Track) -> None:
        """Take the candidates of a run that the rule accepts.

        needs_run: whether to skip queries that are not in the run. Raises RankLLMError if the run contains none of the
        queries.
        """
        seen: set[str] = set()
        n_of_run = 0
        for ranked in track(read_ranked_queries(run), "queries of the run"):
            n_of_run += 1
            self._note(ranked)
            if ranked.qid not in self.judgements.texts:
                self.tally.miss("queries of the run", "without a text", ranked.qid)
            elif ranked.qid in self.positives:
                seen.add(ranked.qid)
                self._take(ranked, rule)
        if n_of_run and self.positives and not seen:
            raise RankLLMError(
                f"{run}: contains none of the {len(self.positives):,} queries with a relevant passage, such as "
                f"{next(iter(self.positives))!r}; use the run of these queries"
            )
        if needs_run:
            for qid in [qid for qid in self.positives if qid not in seen]:
                self.drop_query(qid, "not in the run")

    def _note(self, ranked: RankedQuery) -> None:
        if self._ranked is not None:
            self._ranked.add(ranked.qid, (docid for docid, _ in ranked.candidates))

    def _take(self, ranked: RankedQuery, rule: PoolRule) -> None:
        window = ranked.candidates[rule.min_rank - 1 : rule.max_rank]
        self.tally.see("candidates", len(window))
        self.negatives[ranked.qid] = [docid for docid, _ in window]
        ceiling = None
        if rule.margin is not None:
            ceiling = _ceiling(ranked.qid, self.positives, dict(ranked.candidates), rule.margin)
            if ceiling is None:
                self.drop_query(ranked.qid, "no positive in the run, as a margin requires")
                return
        self._keep(ranked.qid, lambda docid, score: self._problem(ranked.qid, docid, score, ceiling), window)

    def _problem(self, qid: str, docid: str, score: float, ceiling: float | None) -> str | None:
        grade = self.judgements.question_grades[qid].get(docid)
        if grade is not None and grade >= self.judgements.min_relevance:
            own = self.judgements.grades[qid].get(docid)
            is_own = own is not None and own >= self.judgements.min_relevance
            return "judged relevant" if is_own else "judged relevant to the same question under another qid"
        if grade is not None and grade > 0:
            return "judged, with a grade above 0 and below --min-relevance"
        # A judged candidate is known not to be relevant, whatever its score.
        if grade is None and ceiling is not None and score > ceiling:
            return _NEAR_BY_RUN
        return None

    def filter_by_teacher(self, run: str | Path, margin: Margin, *, needs_scores: bool, track: Track) -> None:
        """Drop candidates that the teacher scores too close to the best positive, and those it has not scored.

        needs_scores: whether the scores go into the records. Judged candidates then need one too, and positives without
        one are dropped.
        """
        seen: set[str] = set()
        for ranked in track(read_ranked_queries(run), "queries of the teacher"):
            self._note(ranked)
            if ranked.qid not in self.positives:
                continue
            seen.add(ranked.qid)
            scores = dict(ranked.candidates)
            ceiling = _ceiling(ranked.qid, self.positives, scores, margin)
            if ceiling is None:
                self.drop_query(ranked.qid, "no positive scored by the teacher")
                continue
            self._apply_teacher(ranked.qid, scores, ceiling, needs_scores=needs_scores)
        if self.positives and not seen:
            raise RankLLMError(
                f"{run}: contains scores for none of the {len(self.positives):,} queries, such as "
                f"{next(iter(self.positives))!r}; use a run of the same queries"
            )
        for qid in [qid for qid in self.positives if qid not in seen]:
            self.drop_query(qid, "not scored by the teacher")

    def _apply_teacher(self, qid: str, scores: Mapping[str, float], ceiling: float, *, needs_scores: bool) -> None:
        grades = self.judgements.question_grades[qid]

        def problem(docid: str, score: float) -> str | None:
            is_judged = docid in grades
            if docid not in scores and (needs_scores or not is_judged):
                return "not scored by the teacher"
            if not is_judged and score > ceiling:
                return _NEAR_BY_TEACHER
            return None

        self._keep(qid, problem, [(docid, scores.get(docid, -math.inf)) for docid in self.negatives[qid]])
        if needs_scores:
            scored = [docid for docid in self.positives[qid] if docid in scores]
            self.tally.leave_out(
                "positives", "not scored by the teacher", qid, n=len(self.positives[qid]) - len(scored)
            )
            self.positives[qid] = scored
            self.teacher_scores[qid] = {docid: scores[docid] for docid in (*scored, *self.negatives[qid])}

    def _keep(
        self, qid: str, problem: Callable[[str, float], str | None], candidates: Iterable[tuple[str, float]]
    ) -> None:
        kept = []
        for docid, score in candidates:
            if reason := problem(docid, score):
                self.tally.leave_out("candidates", reason, docid)
                if reason in (_NEAR_BY_RUN, _NEAR_BY_TEACHER):
                    self.near.setdefault(qid, []).append(sys.intern(docid))
            else:
                # A passage is a candidate of many queries: intern its docid.
                kept.append(sys.intern(docid))
        self.negatives[qid] = kept


def _ceiling(
    qid: str, positives: Mapping[str, Sequence[str]], scores: Mapping[str, float], margin: Margin
) -> float | None:
    """Return the highest score that a negative may have; None if no positive has a score."""
    found = [scores[docid] for docid in positives[qid] if docid in scores]
    return margin.ceiling(max(found)) if found else None
