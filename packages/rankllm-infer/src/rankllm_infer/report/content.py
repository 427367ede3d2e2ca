"""Contents of a page: which queries and passages it shows, in which order, and what it shows of each."""

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
"""Number of top ranks whose grades are shown side by side, and whose baseline passages are always shown."""
MAX_FURTHER = 10
"""Maximum number of passages per query shown from below the depth of the page."""
MAX_COMPARISONS = 100
"""Maximum number of comparisons shown per query: all pairs of a hundred candidates are 9,900."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Data that a page is built from."""

    qrels: Qrels
    files: Mapping[str, RankedFile]
    """Name -> run: the baseline, the explained run, then others, which only appear in the measures."""
    traces: Mapping[str, tuple[Call, ...]] = field(default_factory=dict)
    """qid -> model calls of the explained run."""

    @property
    def baseline(self) -> str:
        """Name of the baseline."""
        return next(iter(self.files))

    @property
    def explained(self) -> str:
        """Name of the explained run."""
        return list(self.files)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """Measures, and what is shown below them."""

    comparison: Comparison
    depth: int
    docids: Needed
    """qid -> passages shown; queries in page order, largest gain by the first measure first."""

    @property
    def measure(self) -> str:
        """First measure, which determines the order of queries."""
        return next(iter(self.comparison.measures))

    def gains(self, name: str) -> Mapping[str, float]:
        """Return qid -> gain of a run by the first measure, largest first; empty for the baseline."""
        difference = self.compared(name, self.measure).difference
        return {} if difference is None else difference.gains

    def compared(self, name: str, measure: str) -> ComparedRun:
        """Return one run evaluated by one measure."""
        return next(run for run in self.comparison.measures[measure] if run.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """Quality of a run and its cost per query."""

    name: str
    mean: float
    """Mean of the first measure."""
    n_recorded: int
    """Number of queries whose cost is known; the fields below are means over them."""
    calls: float
    prompt_tokens: float
    completion_tokens: float
    statuses: Mapping[str, int]
    """Status of the answers -> number of queries; empty if unknown."""

    @property
    def tokens(self) -> float:
        """Prompt and generated tokens per query."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPassage:
    """One passage of a query. Ranks are 1-based; None: not in that list."""

    docid: str
    rank: int | None
    was: int | None
    grade: int | None
    """None: not judged."""
    score: float | None
    passage: Passage | None
    """None: no text available."""

    @property
    def rise(self) -> int | None:
        """Number of ranks gained; None if it is in only one of the lists."""
        return None if self.rank is None or self.was is None else self.was - self.rank


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownQuery:
    """One query with everything a page shows about it."""

    number: int
    """1-based position on the page."""
    qid: str
    text: str | None
    values: Sequence[tuple[str, float, float]]
    """Measure, value of the baseline, value of the run."""
    gain: float
    """Gain by the first measure."""
    heads: tuple[Sequence[int | None], Sequence[int | None]]
    """Grades of the top ranks: of the baseline and of the run."""
    n_candidates: int
    top: Sequence[ShownPassage]
    further: Sequence[ShownPassage]
    """Passages below the depth, or only in the baseline."""
    outcome: Outcome
    calls: Sequence[Call]

    @property
    def change(self) -> str:
        """`better`, `worse` or `same`."""
        return sign(self.gain)

    @property
    def is_repaired(self) -> bool:
        """True if an answer was not a complete ranking."""
        return self.outcome.status not in (None, "ok") or any(call.status != "ok" for call in self.calls)

    @property
    def shown_calls(self) -> list[tuple[int, Call]]:
        """Calls to show, numbered from 1. For calls with one passage each, the first call and those not read as `ok`;
        for calls with two passages each, the first `MAX_COMPARISONS` and those not read as `ok`."""
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

    For each query, the first `depth` passages, followed by at most MAX_FURTHER passages that were among the baseline's
    first HEAD or are judged relevant. max_queries: show only the queries with the largest changes. Other arguments: see
    `compare`. Raises RankLLMError like `compare`.
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
    """Order queries by decreasing gain, keeping at most `most` with the largest changes."""
    first = next(iter(comparison.measures.values()))
    gains = {run.name: run.difference.gains for run in first if run.difference is not None}[name]
    kept = set(sorted(gains, key=lambda qid: -abs(gains[qid]))[:most])
    return [qid for qid in gains if qid in kept]


def _choose_docids(
    new: Sequence[str], old: Sequence[str], grades: Mapping[str, int], *, depth: int, relevance_level: int
) -> list[str]:
    """Return the first `depth` docids, then those of interest below: by rank in the run, finally those missing from
    it."""
    top, head, kept = new[:depth], set(old[:HEAD]), set(new)
    lost = [docid for docid in old if docid not in kept]
    below = [docid for docid in (*new[depth:], *lost) if docid in head or grades.get(docid, 0) >= relevance_level]
    return [*top, *below[:MAX_FURTHER]]


def shown_queries(sources: Sources, plan: Outline, texts: Texts) -> Iterator[ShownQuery]:
    """Yield the queries of a page, built one at a time."""
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
    """Return quality and cost of each run over the evaluated queries. The cost of a TREC run comes from its trace."""
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
                n_recorded=len(told),
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
