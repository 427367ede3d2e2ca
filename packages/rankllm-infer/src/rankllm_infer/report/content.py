"""What a page says: which queries and passages it shows, in what order, and what is told of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rankllm_core.trec import Qrels, Ranking
from rankllm_core.types import SEVERITY, Usage
from rankllm_infer.evaluation.compare import ComparedRun, Comparison, compare
from rankllm_infer.report.charts import sign
from rankllm_infer.report.passages import Needed, Passage, Texts
from rankllm_infer.report.ranked_files import Outcome, RankedFile
from rankllm_infer.report.traces import Call, usage_of

HEAD = 10
"""First places of a list: their grades are shown side by side, and the baseline's wherever they went."""
MAX_FURTHER = 10
"""Passages shown from below the depth of a page, for each query."""
MAX_COMPARISONS = 100
"""Comparisons of two passages shown for each query: all pairs of a hundred candidates are 9,900."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a page is made of."""

    qrels: Qrels
    files: Mapping[str, RankedFile]
    """Name -> run: the baseline, the run that is explained, then any others, which are in the figures alone."""
    traces: Mapping[str, tuple[Call, ...]] = field(default_factory=dict)
    """qid -> model calls of the run that is explained."""

    @property
    def baseline(self) -> str:
        """Name of the baseline."""
        return next(iter(self.files))

    @property
    def explained(self) -> str:
        """Name of the run that is explained."""
        return list(self.files)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The figures, and what is to be shown below them."""

    comparison: Comparison
    depth: int
    docids: Needed
    """qid -> passages shown; the queries in the order of the page, the greatest gain by the first measure first."""

    @property
    def measure(self) -> str:
        """The first measure, which orders the page."""
        return next(iter(self.comparison.measures))

    def gains(self, name: str) -> Mapping[str, float]:
        """qid -> gain of a run by the first measure, the greatest first; empty for the baseline."""
        difference = self.compared(name, self.measure).difference
        return {} if difference is None else difference.gains

    def compared(self, name: str, measure: str) -> ComparedRun:
        """One run by one measure."""
        return next(run for run in self.comparison.measures[measure] if run.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """What a run is worth, and what it cost for each query."""

    name: str
    mean: float
    """By the first measure."""
    n_told: int
    """Queries whose cost is known; the figures below are means over them."""
    calls: float
    prompt_tokens: float
    completion_tokens: float
    statuses: Mapping[str, int]
    """How answers were read -> queries; empty where it is not told."""

    @property
    def tokens(self) -> float:
        """Read and generated, of one query."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPassage:
    """One passage of a query. Ranks are from 1; None: not in that list."""

    docid: str
    rank: int | None
    was: int | None
    grade: int | None
    """None: not judged."""
    score: float | None
    passage: Passage | None
    """None: no text was given."""

    @property
    def rise(self) -> int | None:
        """Places won; None where it is in one of the lists only."""
        return None if self.rank is None or self.was is None else self.was - self.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownQuery:
    """One query with all that a page says of it."""

    number: int
    """From 1, in the order of the page."""
    qid: str
    text: str | None
    values: Sequence[tuple[str, float, float]]
    """Measure, value of the baseline, value of the run."""
    gain: float
    """By the first measure."""
    heads: tuple[Sequence[int | None], Sequence[int | None]]
    """Grades of the first places: of the baseline and of the run."""
    n_candidates: int
    top: Sequence[ShownPassage]
    further: Sequence[ShownPassage]
    """Below the depth, or in the baseline only."""
    outcome: Outcome
    calls: Sequence[Call]

    @property
    def change(self) -> str:
        """`better`, `worse` or `same`."""
        return sign(self.gain)

    @property
    def is_repaired(self) -> bool:
        """Whether an answer was no complete ranking."""
        return self.outcome.status not in (None, "ok") or any(call.status != "ok" for call in self.calls)

    @property
    def shown_calls(self) -> list[tuple[int, Call]]:
        """Calls with their numbers from 1. Of calls that saw one passage each, the first and those not read as `ok`; of
        those that saw two each, the first `MAX_COMPARISONS` and the same."""
        numbered = list(enumerate(self.calls, start=1))
        n_passages = max((len(call.docids) for call in self.calls), default=0)
        n_shown = {0: 1, 1: 1, 2: MAX_COMPARISONS}.get(n_passages, len(numbered))
        return [(number, call) for number, call in numbered if number <= n_shown or call.status != "ok"]


def outline(
    sources: Sources,
    measures: Sequence[str],
    *,
    depth: int = 20,
    max_queries: int | None = None,
    run_queries_only: bool = False,
    relevance_level: int = 1,
) -> Outline:
    """Compare the runs and choose what to show.

    Of each query the first `depth` passages; behind them, at most MAX_FURTHER that the baseline had among its first
    HEAD or that are judged relevant. max_queries: only the queries that changed most. Others: see `compare`.
    Raises RankLLMError as `compare` does.
    """
    comparison = compare(
        sources.qrels,
        {name: file.run for name, file in sources.files.items()},
        measures,
        baseline=sources.baseline,
        run_queries_only=run_queries_only,
        relevance_level=relevance_level,
    )
    new, old = (sources.files[name].run for name in (sources.explained, sources.baseline))
    return Outline(
        comparison=comparison,
        depth=depth,
        docids={
            qid: _choose_docids(
                _docids(new, qid), _docids(old, qid), sources.qrels[qid], depth=depth, relevance_level=relevance_level
            )
            for qid in _choose_queries(comparison, sources.explained, max_queries)
        },
    )


def _docids(run: Mapping[str, Ranking], qid: str) -> list[str]:
    return [docid for docid, _ in run.get(qid, ())]


def _choose_queries(comparison: Comparison, name: str, most: int | None) -> list[str]:
    """By falling gain; of more than `most`, those that changed most."""
    first = next(iter(comparison.measures.values()))
    gains = {run.name: run.difference.gains for run in first if run.difference is not None}[name]
    kept = set(sorted(gains, key=lambda qid: -abs(gains[qid]))[:most])
    return [qid for qid in gains if qid in kept]


def _choose_docids(
    new: Sequence[str], old: Sequence[str], grades: Mapping[str, int], *, depth: int, relevance_level: int
) -> list[str]:
    """The first `depth`, then those of interest below: by rank in the run, at last those that it lacks."""
    top, head, kept = new[:depth], set(old[:HEAD]), set(new)
    lost = [docid for docid in old if docid not in kept]
    below = [docid for docid in (*new[depth:], *lost) if docid in head or grades.get(docid, 0) >= relevance_level]
    return [*top, *below[:MAX_FURTHER]]


def shown_queries(sources: Sources, plan: Outline, texts: Texts) -> Iterator[ShownQuery]:
    """The queries of a page, made one by one."""
    gains = plan.gains(sources.explained)
    for number, (qid, docids) in enumerate(plan.docids.items(), start=1):
        new, old = (_docids(sources.files[name].run, qid) for name in (sources.explained, sources.baseline))
        grades = sources.qrels[qid]
        outcome = sources.files[sources.explained].outcomes.get(qid, Outcome())
        passages = _shown_passages(docids, new, old, grades, outcome, texts.passages.get(qid, {}))
        yield ShownQuery(
            number=number,
            qid=qid,
            text=texts.queries.get(qid),
            values=[
                (
                    measure,
                    plan.compared(sources.baseline, measure).per_query[qid],
                    plan.compared(sources.explained, measure).per_query[qid],
                )
                for measure in plan.comparison.measures
            ],
            gain=gains[qid],
            heads=([grades.get(docid) for docid in old[:HEAD]], [grades.get(docid) for docid in new[:HEAD]]),
            n_candidates=len(new),
            top=passages[: min(plan.depth, len(new))],
            further=passages[min(plan.depth, len(new)) :],
            outcome=outcome,
            calls=sources.traces.get(qid, ()),
        )


def _shown_passages(
    docids: Sequence[str],
    new: Sequence[str],
    old: Sequence[str],
    grades: Mapping[str, int],
    outcome: Outcome,
    passages: Mapping[str, Passage],
) -> list[ShownPassage]:
    ranks, before = ({docid: rank for rank, docid in enumerate(ranked, start=1)} for ranked in (new, old))
    return [
        ShownPassage(
            docid=docid,
            rank=ranks.get(docid),
            was=before.get(docid),
            grade=grades.get(docid),
            score=outcome.scores.get(docid),
            passage=passages.get(docid),
        )
        for docid in docids
    ]


def run_costs(sources: Sources, plan: Outline) -> list[RunCost]:
    """Quality and cost of each run over the queries of the figures. For a TREC run, its trace tells the cost."""
    costs = []
    for compared in plan.comparison.measures[plan.measure]:
        outcomes = sources.files[compared.name].outcomes
        traces = sources.traces if compared.name == sources.explained else {}
        told = [
            usage
            for qid in compared.per_query
            if (usage := _usage(outcomes.get(qid, Outcome()), traces.get(qid))) is not None
        ]
        total, n = sum(told, Usage()), max(1, len(told))
        statuses = Counter(outcomes[qid].status for qid in compared.per_query if qid in outcomes)
        costs.append(
            RunCost(
                name=compared.name,
                mean=compared.mean,
                n_told=len(told),
                calls=total.calls / n,
                prompt_tokens=total.prompt_tokens / n,
                completion_tokens=total.completion_tokens / n,
                statuses={status: statuses[status] for status in SEVERITY if statuses[status]},
            )
        )
    return costs


def _usage(outcome: Outcome, calls: tuple[Call, ...] | None) -> Usage | None:
    if outcome.usage is not None or not calls:
        return outcome.usage
    return usage_of(calls)
