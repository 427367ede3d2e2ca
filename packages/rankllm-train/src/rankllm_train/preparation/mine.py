"""Hard negatives from a first-stage run: one Tevatron record for each query with a relevant passage."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

from rankllm_core.errors import ConfigError
from rankllm_core.files import dumps, write_text
from rankllm_train.preparation.judgements import JudgedSources, read_judgements
from rankllm_train.preparation.negatives import Margin, Pool, PoolRule
from rankllm_train.preparation.passages import PassageStore, collect_passages
from rankllm_train.preparation.ranked_queries import RunFile
from rankllm_train.preparation.selection import EasyDraw, RankedDocids, Selection, outside
from rankllm_train.preparation.tally import Tally, Track, nothing_made, untracked

Sample = Literal["top", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MineRule:
    """Which passages become positives and negatives."""

    pool: PoolRule = field(default_factory=PoolRule)
    min_relevance: int = 1
    """Lowest grade that counts as positive."""
    teacher_margin: Margin = field(default_factory=Margin)
    """Margin on the teacher's scores; used only with a teacher."""
    with_teacher_scores: bool = False
    """Whether to store each passage's `teacher_score`, for distillation."""
    negatives_per_query: int = 15
    """Number of hard negatives from the run. RankLLaMA's groups have one positive and 15 negatives."""
    random_negatives: int = 0
    """Number of positives of other queries to append to the hard negatives."""
    min_negatives: int = 1
    """Queries with fewer negatives of both kinds are skipped."""
    sample: Sample = "top"
    """`top`: the highest-ranked usable candidates of the run. `random`: a uniform sample of the usable ones."""
    skip_queries: int = 0
    """Number of usable queries to skip from the start."""
    max_queries: int | None = None
    """Maximum number of records after that; None: all."""
    seed: int = 42

    def __post_init__(self) -> None:
        wanted = self.negatives_per_query + self.random_negatives
        if not 1 <= self.min_negatives <= wanted:
            raise ConfigError(
                f"--min-negatives {self.min_negatives}: expected 1 to {wanted}, the number of negatives requested"
            )
        if self.with_teacher_scores and self.random_negatives:
            raise ConfigError(
                "--random-negatives: cannot be combined with --with-teacher-scores, since the teacher has not scored "
                "them"
            )


def mine(
    sources: JudgedSources,
    rule: MineRule,
    *,
    output: str | Path,
    strict: bool = False,
    track: Track = untracked,
) -> Tally:
    """Write a Tevatron record for each query, in the order of the query file, and count what was skipped and why.

    Reads the runs one query at a time and the corpus once; holds queries and ids in memory. The same seed gives
    identical bytes. strict: a query of the run without text, or a passage missing from the corpus, is an error. Raises
    RankLLMError (DataError with the line) for unusable files, and if there is nothing to write.
    """
    if rule.with_teacher_scores and sources.teacher_run is None:
        raise ConfigError("--with-teacher-scores: needs --teacher-run, which contains the scores")
    _refuse_ranks(sources, rule)
    tally = Tally(is_strict=strict)
    judgements = read_judgements(sources.queries, sources.qrels, min_relevance=rule.min_relevance)
    ranked = RankedDocids(judgements.questions)
    pool = Pool(judgements, tally, ranked=ranked if rule.random_negatives else None)
    pool.fill(sources.run, rule.pool, needs_run=not rule.random_negatives, track=track)
    if sources.teacher_run is not None:
        pool.filter_by_teacher(
            sources.teacher_run, rule.teacher_margin, needs_scores=rule.with_teacher_scores, track=track
        )
    # Read completely before the output is opened, so that nothing is written if they are unusable.
    relevant = map(judgements.relevant_to_question, pool.positives)
    needed = {docid for docids in chain(relevant, pool.negatives.values()) for docid in docids}
    maybe_relevant = map(judgements.maybe_relevant, pool.positives)
    compared = {*ranked.docids, *chain.from_iterable((*maybe_relevant, *pool.near.values()))}
    with PassageStore(beside=output) as passages:
        collect_passages(sources.corpus, passages, needed=needed, compared=compared, track=track)
        miner = _Miner(pool, passages, rule, ranked=ranked)
        with write_text(output) as stream:
            for record in track(miner.records(), "records"):
                stream.write(dumps(record) + "\n")
            if not tally.made.get("records"):
                raise nothing_made(tally, "records")
    return tally


def _refuse_ranks(sources: JudgedSources, rule: MineRule) -> None:
    """Raise ConfigError if a margin is to be applied to a run that contains only ranks."""
    if rule.pool.margin is not None and rule.pool.margin.needs_scores and _holds_ranks(sources.run):
        raise ConfigError(f"{sources.run}: contains ranks but no scores; leave out --margin and --relative-margin")
    if sources.teacher_run is None or not (rule.with_teacher_scores or rule.teacher_margin.needs_scores):
        return
    if _holds_ranks(sources.teacher_run):
        options = "--with-teacher-scores, --teacher-margin and --teacher-relative-margin"
        raise ConfigError(f"{sources.teacher_run}: contains ranks but no scores; leave out {options}")


def _holds_ranks(run: str | Path | RunFile) -> bool:
    return (run if isinstance(run, RunFile) else RunFile(run)).holds_ranks


class _Chosen(NamedTuple):
    """Docids of one record."""

    positives: list[str]
    hard: list[str]
    """Negatives from the run, in its order."""
    easy: list[str]
    """Positives of other queries."""


class _Miner:
    """Writes the records once it is known which passages have a text."""

    def __init__(self, pool: Pool, passages: PassageStore, rule: MineRule, *, ranked: RankedDocids) -> None:
        self._pool = pool
        self._tally = pool.tally
        self._passages = passages
        self._rule = rule
        self._select = Selection(passages, pool.tally)
        self._easy = EasyDraw(pool.positives, passages, pool.tally, ranked=ranked, seed=rule.seed)
        self._n_usable = 0

    def records(self) -> Iterator[dict[str, object]]:
        """Yield one record for each query that is not skipped."""
        for qid in list(self._pool.positives):
            chosen = self._choose_passages(qid)
            if chosen is not None and self._is_wanted(qid):
                yield self._record(qid, chosen)

    def _choose_passages(self, qid: str) -> _Chosen | None:
        """Return the passages of a query's record; None if the query is skipped."""
        positives = self._select.known("positives", self._pool.positives[qid])
        if not positives:
            self._pool.drop_query(qid, "no positive with a text in the corpus")
            return None
        candidates = self._select.known("candidates", self._pool.negatives[qid])
        judgements = self._pool.judgements
        relevant = [docid for docid in judgements.relevant_to_question(qid) if docid in self._passages]
        maybe_relevant = judgements.maybe_relevant(qid)
        grades = judgements.question_grades[qid]
        usable = self._select.distinct(
            candidates,
            positive_words=self._select.words(relevant),
            refused_words=self._select.words([*maybe_relevant, *self._pool.near.get(qid, ())]),
            judged=[docid for docid in candidates if docid in grades],
        )
        self._pool.negatives[qid] = usable
        hard = self._choose(qid, usable)
        easy = self._easy.draw(qid, self._rule.random_negatives, maybe_relevant=maybe_relevant)
        if len(hard) + len(easy) < self._rule.min_negatives:
            self._pool.drop_query(qid, f"fewer negatives than --min-negatives {self._rule.min_negatives}")
            return None
        return _Chosen(positives, hard, easy)

    def _choose(self, qid: str, usable: Sequence[str]) -> list[str]:
        n = min(self._rule.negatives_per_query, len(usable))
        if self._rule.sample == "top":
            return list(usable[:n])
        draw = random.Random(f"{self._rule.seed}/{qid}/negatives")
        return [usable[place] for place in sorted(draw.sample(range(len(usable)), n))]

    def _is_wanted(self, qid: str) -> bool:
        """Whether a usable query is within --skip-queries and --max-queries."""
        reason = outside(self._n_usable, skip_queries=self._rule.skip_queries, max_queries=self._rule.max_queries)
        self._n_usable += 1
        if reason:
            self._pool.drop_query(qid, reason)
        return reason is None

    def _record(self, qid: str, chosen: _Chosen) -> dict[str, object]:
        tally = self._tally
        tally.leave_out("candidates", "usable, but not selected", n=len(self._pool.negatives[qid]) - len(chosen.hard))
        tally.make("records")
        tally.make("positives", len(chosen.positives))
        tally.make("negatives of the run", len(chosen.hard))
        self._easy.count(qid, chosen.easy, wanted=self._rule.random_negatives)
        return {
            "query_id": qid,
            "query": self._pool.judgements.texts[qid],
            "positive_passages": [self._passage(qid, docid) for docid in chosen.positives],
            "negative_passages": [self._passage(qid, docid) for docid in (*chosen.hard, *chosen.easy)],
        }

    def _passage(self, qid: str, docid: str) -> dict[str, object]:
        passage: dict[str, object] = {"docid": docid, **self._passages.doc(docid)}
        if self._rule.with_teacher_scores:
            passage["teacher_score"] = self._pool.teacher_scores[qid][docid]
        return passage
